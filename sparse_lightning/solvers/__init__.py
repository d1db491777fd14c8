"""Proximal-gradient inference: find the codes that minimise an objective.

A solver knows an objective and no model: ``FISTA(...)(objective, initial_codes) -> Solution``.
"""

from sparse_lightning.solvers.adaptive import Adaptive
from sparse_lightning.solvers.constant import FISTA, ISTA
from sparse_lightning.solvers.solution import Solution

__all__ = ["FISTA", "ISTA", "Adaptive", "Solution"]
