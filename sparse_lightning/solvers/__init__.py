"""Proximal-gradient inference: find the codes that minimise an objective.

A solver knows an objective and no model: ``FISTA(...)(objective, initial_codes) -> Solution``.
"""

from sparse_lightning.solvers.adaptive import Adaptive
from sparse_lightning.solvers.base import Solution, Solver
from sparse_lightning.solvers.fista import FISTA, ISTA

__all__ = ["FISTA", "ISTA", "Adaptive", "Solution", "Solver"]
