"""Which atom of one dictionary is which of another: the best one-to-one matching by cosine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment


@dataclass(frozen=True)
class Matching:
    """Pairs of rows of two sets, with the largest possible sum of similarities.

    Attributes:
        first, second: (k,) row in either set, where k is the size of the smaller set.
        similarity: (k,) of each pair.
    """

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray

    @property
    def mean(self) -> float:
        """Mean similarity of the pairs; NaN without any."""
        return float(self.similarity.mean()) if len(self.similarity) else float("nan")

    def share_above(self, threshold: float, of: int) -> float:
        """How many pairs are more similar than a threshold, as a share of so many."""
        return float((self.similarity > threshold).sum() / of) if of else float("nan")


def matched(first: np.ndarray, second: np.ndarray, signed: bool) -> Matching:
    """The best matching of two sets of vectors (Hungarian algorithm).

    Args:
        first: (a, d).
        second: (b, d).
        signed: whether a vector and its negative are one atom, as they are where codes have signs:
            similarity is then the magnitude of the cosine. A vector of zeros has a cosine of 0.

    Example:
        >>> matching = matched(np.eye(3), 2 * np.eye(3)[[2, 0, 1]], signed=False)
        >>> matching.second.tolist(), matching.mean
        ([1, 2, 0], 1.0)
    """
    cosines = unit_rows(first) @ unit_rows(second).T
    cosines = np.abs(cosines) if signed else cosines
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    return Matching(rows, columns, cosines[rows, columns])


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Vectors (a, d) divided by their norms, in float64; zeros stay."""
    vectors = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)


def correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each column of (n, k) with that of (n, k), (k,).

    A column that is constant has a correlation of 0.
    """
    deviations = [unit_rows((values - values.mean(0)).T) for values in (first, second)]
    return (deviations[0] * deviations[1]).sum(1)
