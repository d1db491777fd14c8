r"""Sparse coding as a scikit-learn transformer: ``SparseCoding(family="sdl").fit(X).transform(X)``.

The families are those of the command line: their parts and numbers are composed from ``conf/``.
`SparseCoding.fit` is a loop over the model's own training step. The loop writes no file, and does
not change the state of numpy's and torch's random generators.

The code of a row does not depend on the other rows, but within the tolerance of some solvers (see
``solver``): the variance hinge, which couples the samples of a batch, is used in `SparseCoding.fit`
and never in `SparseCoding.transform`.
"""

from __future__ import annotations

import secrets
import warnings
from typing import Any, Self

import numpy as np
import torch
from omegaconf import DictConfig, open_dict
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from torch import Tensor

from sparse_lightning.data.batch import EpochShuffle
from sparse_lightning.decoders import LinearDecoder, LinearNetworkDecoder
from sparse_lightning.errors import SettingError
from sparse_lightning.estimator_settings import (
    LOCK,
    controller_of,
    fewest_rows,
    made,
    require_algorithm,
    settings_of,
)
from sparse_lightning.learner import Learner, mini_batches
from sparse_lightning.training.sparsity_target import LEAST_EPOCHS, search_epochs

DTYPES = (np.float64, np.float32)
# Rows that are encoded at a time, and rows by whose codes a target is judged.
CHUNK, JUDGED = 2_048, 2_000
# Parameters of a model, and those that may change from one pass over the rows to the next.
OF_THE_MODEL = ("n_components", "family", "target_zeros", "hidden_dim", "solver", "preset")
OF_A_PASS = ("alpha", "batch_size")


class SparseCoding(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    r"""Non-negative sparse codes and the decoder that rebuilds inputs from them.

    Codes and decoder minimise, for each row x with d features and its code z,

    .. math:: \tfrac1d \|x - D(z)\|^2 + \lambda \|z\|_1

    with what the family adds against collapse (Evtimova & LeCun, TMLR 2022). scikit-learn's
    ``MiniBatchDictionaryLearning`` has :math:`\frac12 \|x - D z\|^2 + \alpha \|z\|_1`: its α is
    :math:`\lambda d / 2`.

    The numbers of a family are made for inputs of mean 0 and standard deviation 1: of each feature
    with ``preset="arrays"``, of all features together with those of images. Nothing is scaled here.

    Args:
        n_components: l, code components; None for that of the preset.
        family: ``sdl``, ``vdl``, ``wdl``, ``do`` (decoder only) with a linear decoder, ``sdl_nl``,
            ``vdl_nl``, ``wdl_nl``, ``do_nl`` with a hidden layer; or ``none``, ``none_nl``, which
            collapse.
        alpha: λ; None for that of the preset.
        target_zeros: share of zeros that codes are to have. λ then starts from ``alpha``, is sought
            in the first two thirds of the epochs, and is kept in the last.
        hidden_dim: width of the hidden layer; None for that of the preset.
        max_epochs: passes of `fit` over the rows; None for that of the preset.
        batch_size: rows of a mini-batch, at most all of them; None for that of the data
            configuration. A single row that is left over joins the batch before in families with
            the variance hinge (``vdl``, ``vdl_nl``), and is a batch of its own in others.
        solver: ``paper`` (FISTA with the paper's step, safeguarded), ``adaptive`` or ``ista``. With
            a hidden layer ``adaptive`` uses one Hessian for the rows of a call, and ``paper``
            leaves rows to it for which the step is many times too long: codes of a part of the rows
            then agree with those of all to the tolerance only.
        transform_algorithm: ``encoder``, one pass of the encoder; ``inference``, the minimum of the
            formula above, from the encoder's codes or from 0; ``auto``, the encoder where the
            family has one, else inference.
        preset: data set whose numbers are taken: ``arrays``, which go with d, for rows of any kind;
            or one of the paper's, such as ``mnist``.
        random_state: of the weights and of the order of rows. None draws a new one from the
            operating system, and leaves numpy's global generator alone.
        verbose: whether `fit` prints a line for each epoch.

    Attributes:
        components_: (l, d), what each code component draws, :math:`D(s_j e_j) - D(0)`, where
            :math:`s_j` is 1 for a linear decoder, and else the largest value of the component in
            the last epoch (1 for one that was never active).
        alpha_: λ at the end.
        mean_: (d,), mean of the rows that were learned from.
        model_: the trained `SparseAutoencoder`, on the CPU.
        n_iter_: epochs, and ``n_steps_`` mini-batches, that were learned from.
        n_features_in_, feature_names_in_: as everywhere in scikit-learn.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(200, 20))
        >>> coding = SparseCoding(n_components=30, family="vdl", max_epochs=2, random_state=0)
        >>> coding.fit(rows).transform(rows).shape
        (200, 30)
    """

    def __init__(
        self,
        n_components: int | None = None,
        *,
        family: str = "vdl_nl",
        alpha: float | None = None,
        target_zeros: float | None = None,
        hidden_dim: int | None = None,
        max_epochs: int | None = None,
        batch_size: int | None = None,
        solver: str = "paper",
        transform_algorithm: str = "auto",
        preset: str = "arrays",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.n_components = n_components
        self.family = family
        self.alpha = alpha
        self.target_zeros = target_zeros
        self.hidden_dim = hidden_dim
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.solver = solver
        self.transform_algorithm = transform_algorithm
        self.preset = preset
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from rows (n, d), in ``max_epochs`` passes from new weights.

        Raises:
            SettingError: a parameter that cannot work.
            ValueError: rows that are not finite numbers.
            DivergenceError: inference diverged.

        Warns:
            ConvergenceWarning: ``target_zeros`` was not reached.
        """
        config = settings_of(self)
        epochs, searched = config.max_epochs, 0
        if self.target_zeros is not None:
            if epochs < LEAST_EPOCHS:
                raise SettingError(
                    f"max_epochs={epochs} is too short for target_zeros={self.target_zeros}, which "
                    f"freezes alpha before the last third: take at least {LEAST_EPOCHS}."
                )
            searched = search_epochs(epochs)
        inputs = self._begin(X, config)
        learner = self._learner
        for epoch in range(epochs):
            self._learn(inputs, is_searching=epoch < searched)
        self._end()
        if learner.controller is not None:
            told = learner.controller.shortfall(
                learner.search, self._zeros(inputs), learner.training_zeros
            )
            if told is not None:
                advice = "Take a larger max_epochs, another alpha to start from, or another preset."
                warnings.warn(f"{told} {advice}", ConvergenceWarning, stacklevel=2)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Learn from rows (n, d) in one pass, from where learning stands.

        With ``target_zeros`` each call adjusts λ, unless `fit` has found it before. Another
        ``alpha`` or ``batch_size`` counts from the next call on.

        Raises:
            SettingError: a parameter that cannot work, or has changed and is of the model's making.
        """
        if hasattr(self, "_learner"):
            self._take_changes()
            rows = validate_data(
                self, X, dtype=DTYPES, reset=False, ensure_min_samples=fewest_rows(self._config)
            )
            inputs = self._tensor(rows, self._dtype)
        else:
            inputs = self._begin(X, settings_of(self))
        self._learn(inputs, is_searching=not self._learner.is_frozen)
        self._end()
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Codes (n, l) of rows (n, d), in the floating type of the rows."""
        check_is_fitted(self)
        require_algorithm(self, self.model_.encoder is not None)
        rows = validate_data(self, X, dtype=DTYPES, reset=False)
        codes = self._codes(self._tensor(rows, self._dtype))
        return codes.numpy().astype(rows.dtype, copy=False)

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Reconstructions (n, d) of codes (n, l)."""
        check_is_fitted(self)
        codes = check_array(X, dtype=DTYPES)
        if codes.shape[1] != self._n_features_out:
            raise ValueError(
                f"Codes have {codes.shape[1]} components, and this SparseCoding has "
                f"{self._n_features_out}."
            )
        chunks = self._tensor(codes, self._dtype).split(CHUNK)
        with torch.no_grad():
            rebuilt = torch.cat([self.model_.decoder(chunk) for chunk in chunks])
        return rebuilt.numpy().astype(codes.dtype, copy=False)

    def score(self, X: Any, y: Any = None) -> float:
        r"""R² of reconstructions, pooled over rows; at most 1, higher is better.

        :math:`1 - \sum \|x - \hat x\|^2 / \sum \|x - \bar x\|^2` with the mean of the training
        rows; 0 where that denominator is 0.
        """
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=DTYPES, reset=False)
        rebuilt = self.inverse_transform(self.transform(X))
        total = float(np.square(rows - self.mean_, dtype=np.float64).sum())
        errors = float(np.square(rows - rebuilt, dtype=np.float64).sum())
        return 1 - errors / total if total > 0 else 0.0

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    # Learning.

    def _begin(self, X: Any, config: DictConfig) -> Tensor:
        """New weights for rows of this width and type; the rows.

        What was learned before stays where something is refused.
        """
        rows = check_array(X, dtype=DTYPES, ensure_min_samples=fewest_rows(config), estimator=self)
        inputs = self._tensor(rows, None)
        with open_dict(config):
            config.data.input_dim = inputs.shape[1]
        controller = controller_of(config)
        if self.random_state is None:
            seed = secrets.randbelow(2**31)
        else:
            seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        with LOCK, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model = made(config.model).to(inputs.dtype)
        validate_data(self, X, skip_check_array=True)  # Notes names of features and their number.
        self._config, self._chosen, self.model_ = config, self._choices, model
        self._learner = Learner(model, seed, controller)
        self._total, self._count = np.zeros(inputs.shape[1]), 0
        self.n_iter_ = self.n_steps_ = 0
        # Until something is learned it is not fitted.
        vars(self).pop("components_", None)
        return inputs

    @property
    def _choices(self) -> dict[str, Any]:
        """The parameters by which a model is made and learns."""
        return {name: getattr(self, name) for name in (*OF_THE_MODEL, *OF_A_PASS)}

    def _take_changes(self) -> None:
        """Go on with the parameters that were set since, as far as a model can."""
        chosen = self._choices
        changed = [name for name in chosen if chosen[name] != self._chosen[name]]
        if not changed:
            return
        config = settings_of(self)
        # A target's λ is sought from the first ``alpha``.
        free = OF_A_PASS if self.target_zeros is None else ("batch_size",)
        for name in changed:
            if name not in free:
                raise SettingError(
                    f"{name}={chosen[name]!r} is for a new model, and this one has "
                    f"{name}={self._chosen[name]!r}: call fit, or set it back for partial_fit."
                )
        with open_dict(config):
            config.data.input_dim = self._config.data.input_dim
        if "alpha" in changed:
            self.model_.set_sparsity_weight(config.model.energy.sparsity_weight)
        self._config, self._chosen = config, chosen

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "components_")

    def _learn(self, inputs: Tensor, is_searching: bool) -> None:
        """One epoch, and the next λ where that is sought."""
        learner = self._learner
        order = EpochShuffle(len(inputs), learner.seed)
        order.set_epoch(self.n_iter_)
        size = self._config.data.batch_size
        batches = mini_batches(list(order), size, fewest=fewest_rows(self._config))
        measured = learner.epoch(inputs, batches)
        self.n_iter_ += 1
        self.n_steps_ += len(batches)
        self._total += inputs.sum(0, dtype=torch.float64).numpy()
        self._count += len(inputs)
        if self.verbose:
            names = ("energy", "reconstruction", "zeros", "dead_units")
            told = ", ".join(f"{name} {measured[name]:.4g}" for name in names)
            weight = self.model_.energy.sparsity_weight
            print(f"epoch {self.n_iter_}: {told}, alpha {weight:.3g}")
        if learner.controller is not None and is_searching:
            learner.adjust(self._zeros(inputs))
        learner.is_frozen = not is_searching

    def _end(self) -> None:
        """What is known after learning."""
        self.model_.eval()
        self.alpha_ = self.model_.energy.sparsity_weight
        numpy_type = torch.empty((), dtype=self._dtype).numpy().dtype
        self.mean_ = (self._total / self._count).astype(numpy_type)
        scale = 1.0
        if not self._is_linear:
            largest = self._learner.largest
            scale = torch.where(largest > 0, largest, 1.0)
        self.components_ = self.model_.decoder.atoms(scale).numpy()

    # Codes.

    @torch.no_grad()
    def _codes(self, inputs: Tensor) -> Tensor:
        model, chunks = self.model_, inputs.split(CHUNK)
        if model.encoder is not None and self.transform_algorithm != "inference":
            return torch.cat([model.predict_codes(chunk) for chunk in chunks])
        # The steps of inference through a hidden layer make much of rounding.
        wide = None if self._is_linear else torch.float64
        return torch.cat([model.infer_alone(chunk, wide) for chunk in chunks]).to(inputs.dtype)

    @property
    def _is_linear(self) -> bool:
        return isinstance(self.model_.decoder, LinearDecoder | LinearNetworkDecoder)

    def _zeros(self, inputs: Tensor) -> float:
        """Share of zeros in the codes of `transform`, of some of the rows."""
        generator = torch.Generator().manual_seed(self._learner.seed)
        rows = torch.randperm(len(inputs), generator=generator)[:JUDGED]
        return float((self._codes(inputs[rows]) == 0).double().mean())

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.model_.parameters()).dtype

    @staticmethod
    def _tensor(rows: np.ndarray, dtype: torch.dtype | None) -> Tensor:
        """Rows in a type, or in their own.

        A copy, since those of a memory map cannot be written to; and torch takes no negative
        strides.
        """
        return torch.tensor(np.ascontiguousarray(rows), dtype=dtype)
