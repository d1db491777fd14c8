r"""Dictionaries that are fitted by classical methods, and codes by pursuit, from other packages.

- *PCA*: `sparse_lightning.studies.references`.
- *online dictionary learning* with an l1 penalty (Mairal, Bach, Ponce & Sapiro, "Online dictionary
  learning for sparse coding", 2009): scikit-learn's ``MiniBatchDictionaryLearning``.
- *K-SVD* (Aharon, Elad & Bruckstein 2006), in its approximate form (Rubinstein, Zibulevsky & Elad
  2008): the package ``dictlearn`` of Irofti and Dumitrescu, the extra ``classics``.
- *orthogonal matching pursuit* (Pati, Rezaiifar & Krishnaprasad 1993): scikit-learn's. It codes an
  input with k atoms of a dictionary, whichever method it comes from. Its codes have signs.

Dictionaries begin as training samples drawn at random. Inputs are taken as the families take them:
standardised, without their mean being removed.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import MiniBatchDictionaryLearning, sparse_encode
from sklearn.exceptions import ConvergenceWarning

from sparse_lightning.errors import SettingError
from sparse_lightning.studies.matching import unit_rows

ONLINE, KSVD = "online dictionary learning", "K-SVD"
METHODS = (ONLINE, KSVD)


@dataclass(frozen=True)
class ClassicSettings:
    r"""How dictionaries are fitted.

    Args:
        methods: names from `METHODS`.
        num_active: numbers of atoms that a code may use. K-SVD is fitted for each of them.
        num_images: the first so many training samples are fitted.
        iterations: passes over them.
        sparsity_weight: :math:`\lambda` of online dictionary learning, as the energy has it: the
            package's own weight is :math:`\lambda d / 2`.
        seed: of the samples that a dictionary begins as.

    Raises:
        SettingError: another method.
    """

    methods: Sequence[str] = METHODS
    num_active: Sequence[int] = (4, 8, 16)
    num_images: int = 2_000
    iterations: int = 10
    sparsity_weight: float = 0.005
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.methods) - set(METHODS))
        if unknown:
            raise SettingError(
                f"classics.methods={list(self.methods)} has unknown names ({', '.join(unknown)}): "
                f"there are {', '.join(METHODS)}."
            )

    def installed(self) -> list[str]:
        """The methods whose packages are there; a warning tells of others."""
        if KSVD in self.methods and importlib.util.find_spec("dictlearn") is None:
            warnings.warn(
                "K-SVD is left out, since dictlearn is not installed: "
                "pip install -e '.[classics]' in a clone of sparse_lightning.",
                stacklevel=2,
            )
            return [method for method in self.methods if method != KSVD]
        return list(self.methods)

    def key(self) -> list:
        """What a dictionary depends on besides the method, as plain data."""
        return [self.num_images, self.iterations, self.sparsity_weight, self.seed]


def fitted_dictionary(
    method: str,
    inputs: np.ndarray,
    num_atoms: int,
    num_active: int,
    settings: ClassicSettings,
    positive: bool = False,
) -> np.ndarray:
    """The atoms (l, d), of norm 1, that a method finds for inputs (n, d).

    Args:
        method: one of `METHODS`.
        inputs: (n, d), at least as many as atoms.
        num_atoms: l.
        num_active: k, which K-SVD codes with; the other method has a weight instead.
        settings: iterations, weight, seed.
        positive: whether the codes of online dictionary learning are to have no signs. Those of
            K-SVD have.
    """
    inputs = np.asarray(inputs, dtype=np.float64)
    if len(inputs) < num_atoms:
        raise SettingError(
            f"classics.num_images={len(inputs)} is less than the number of atoms, {num_atoms}: "
            "fit more samples."
        )
    generator = np.random.default_rng(settings.seed)
    start = unit_rows(inputs[generator.choice(len(inputs), num_atoms, replace=False)])
    if method == KSVD:
        return _ksvd(inputs, start, num_active, settings)
    learning = MiniBatchDictionaryLearning(
        n_components=num_atoms,
        alpha=settings.sparsity_weight * inputs.shape[1] / 2,
        max_iter=settings.iterations,
        fit_algorithm="cd",
        batch_size=min(256, len(inputs)),
        # All passes are made.
        tol=0.0,
        max_no_improvement=None,
        dict_init=start,
        positive_code=positive,
        random_state=settings.seed,
    )
    with warnings.catch_warnings():
        # Codes for the atoms that it begins with need not be exact.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return unit_rows(learning.fit(inputs).components_)


def _ksvd(
    inputs: np.ndarray, start: np.ndarray, num_active: int, settings: ClassicSettings
) -> np.ndarray:
    from dictlearn import DictionaryLearning

    learning = DictionaryLearning(
        n_components=len(start),
        fit_algorithm="aksvd",
        n_nonzero_coefs=num_active,
        max_iter=settings.iterations,
        dict_init=start,
        random_state=settings.seed,
    )
    return unit_rows(learning.fit(inputs).components_)


def pursued(inputs: np.ndarray, atoms: np.ndarray, num_active: int) -> np.ndarray:
    """Codes (n, l) by orthogonal matching pursuit with at most k atoms.

    Args:
        inputs: (n, d).
        atoms: (l, d), of any norm; codes are for the atoms as they are. Atoms of zeros are unused.
        num_active: k, at least 1.
    """
    norms = np.linalg.norm(np.asarray(atoms, dtype=np.float64), axis=1)
    with warnings.catch_warnings():
        # Of atoms that depend on one another fewer than k are taken, which is what is asked for.
        warnings.simplefilter("ignore", RuntimeWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        codes = sparse_encode(
            np.asarray(inputs, dtype=np.float64),
            unit_rows(atoms),
            algorithm="omp",
            n_nonzero_coefs=int(min(num_active, len(atoms), np.shape(atoms)[1])),
        )
    return np.divide(codes, norms, out=np.zeros_like(codes), where=norms > 0)
