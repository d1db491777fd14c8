"""Sparse coding with multi-layer decoders: train, sweep, compare and understand.

The names below are what a notebook needs; see the README.
"""

from sparse_lightning.decoders import LinearDecoder, MultiLayerDecoder, UnitColumns
from sparse_lightning.encoders import LISTA
from sparse_lightning.energy import Energy, Objective
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.optimizers import AdamSettings
from sparse_lightning.solvers import FISTA, ISTA, Adaptive, Solution

__version__ = "0.1.0"

__all__ = [
    "FISTA",
    "ISTA",
    "LISTA",
    "AdamSettings",
    "Adaptive",
    "Energy",
    "LinearDecoder",
    "MultiLayerDecoder",
    "Objective",
    "Solution",
    "SparseAutoencoder",
    "UnitColumns",
]
