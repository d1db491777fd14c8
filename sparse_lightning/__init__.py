"""Sparse coding with multi-layer decoders: train, sweep, compare and understand.

The names below are what a notebook needs; see the pages. Each is imported when it is first asked
for, so that a command can refuse a wrong setting before torch is loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparse_lightning.decoders import (
        ConvolutionalDecoder,
        Decoder,
        LinearDecoder,
        LinearNetworkDecoder,
        MultiLayerDecoder,
        UnitColumns,
    )
    from sparse_lightning.encoders import LISTA, Encoder, GatedLISTA, SignedLISTA
    from sparse_lightning.energy import Energy, Objective
    from sparse_lightning.estimator import SparseCoding
    from sparse_lightning.model import SparseAutoencoder
    from sparse_lightning.optimizers import AdamSettings
    from sparse_lightning.penalties import (
        L1,
        GroupLasso,
        NonNegativeGroupLasso,
        NonNegativeL0,
        NonNegativeL1,
        NonNegativeLogSum,
        Penalty,
    )
    from sparse_lightning.registry import register
    from sparse_lightning.solvers import FISTA, ISTA, Adaptive, Solution
    from sparse_lightning.sparse_encoders import (
        BatchTopKEncoder,
        JumpReLUEncoder,
        ReLUEncoder,
        SparseEncoder,
        TopKEncoder,
    )
    from sparse_lightning.training_rules import (
        AuxK,
        EndToEnd,
        InferThenRegress,
        TrainingRule,
        TrainingStep,
    )

__version__ = "0.1.0"

__all__ = [
    "FISTA",
    "ISTA",
    "L1",
    "LISTA",
    "AdamSettings",
    "Adaptive",
    "AuxK",
    "BatchTopKEncoder",
    "ConvolutionalDecoder",
    "Decoder",
    "Encoder",
    "EndToEnd",
    "Energy",
    "GatedLISTA",
    "GroupLasso",
    "InferThenRegress",
    "JumpReLUEncoder",
    "LinearDecoder",
    "LinearNetworkDecoder",
    "MultiLayerDecoder",
    "NonNegativeGroupLasso",
    "NonNegativeL0",
    "NonNegativeL1",
    "NonNegativeLogSum",
    "Objective",
    "Penalty",
    "ReLUEncoder",
    "SignedLISTA",
    "Solution",
    "SparseAutoencoder",
    "SparseCoding",
    "SparseEncoder",
    "TopKEncoder",
    "TrainingRule",
    "TrainingStep",
    "UnitColumns",
    "register",
]

_MODULES = {
    "decoders": (
        "ConvolutionalDecoder",
        "Decoder",
        "LinearDecoder",
        "LinearNetworkDecoder",
        "MultiLayerDecoder",
        "UnitColumns",
    ),
    "encoders": ("LISTA", "Encoder", "GatedLISTA", "SignedLISTA"),
    "energy": ("Energy", "Objective"),
    "estimator": ("SparseCoding",),
    "model": ("SparseAutoencoder",),
    "optimizers": ("AdamSettings",),
    "penalties": (
        "L1",
        "GroupLasso",
        "NonNegativeGroupLasso",
        "NonNegativeL0",
        "NonNegativeL1",
        "NonNegativeLogSum",
        "Penalty",
    ),
    "registry": ("register",),
    "solvers": ("FISTA", "ISTA", "Adaptive", "Solution"),
    "sparse_encoders": (
        "BatchTopKEncoder",
        "JumpReLUEncoder",
        "ReLUEncoder",
        "SparseEncoder",
        "TopKEncoder",
    ),
    "training_rules": (
        "AuxK",
        "EndToEnd",
        "InferThenRegress",
        "TrainingRule",
        "TrainingStep",
    ),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
