"""Sparse coding with multi-layer decoders: train, sweep, compare and understand.

The names below are what a notebook needs; see the pages. Each is imported when it is first asked
for, so that a command can refuse a wrong setting before torch is loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparse_lightning.decoders import Decoder, LinearDecoder, MultiLayerDecoder, UnitColumns
    from sparse_lightning.encoders import LISTA, Encoder
    from sparse_lightning.energy import Energy, Objective
    from sparse_lightning.model import SparseAutoencoder
    from sparse_lightning.optimizers import AdamSettings
    from sparse_lightning.penalties import NonNegativeL1, Penalty
    from sparse_lightning.registry import register
    from sparse_lightning.solvers import FISTA, ISTA, Adaptive, Solution

__version__ = "0.1.0"

__all__ = [
    "FISTA",
    "ISTA",
    "LISTA",
    "AdamSettings",
    "Adaptive",
    "Decoder",
    "Encoder",
    "Energy",
    "LinearDecoder",
    "MultiLayerDecoder",
    "NonNegativeL1",
    "Objective",
    "Penalty",
    "Solution",
    "SparseAutoencoder",
    "UnitColumns",
    "register",
]

_MODULES = {
    "decoders": ("Decoder", "LinearDecoder", "MultiLayerDecoder", "UnitColumns"),
    "encoders": ("LISTA", "Encoder"),
    "energy": ("Energy", "Objective"),
    "model": ("SparseAutoencoder",),
    "optimizers": ("AdamSettings",),
    "penalties": ("NonNegativeL1", "Penalty"),
    "registry": ("register",),
    "solvers": ("FISTA", "ISTA", "Adaptive", "Solution"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
