r"""A share of zeros is asked for, and training finds the :math:`\lambda` that gives it.

A slow controller on logarithms. After validation k with a share of zeros :math:`s_k` and a target
:math:`s^*` the relative error of the active share is
:math:`e_k = \log\frac{1 - s_k}{1 - s^*}`, and

.. math:: \log\lambda \leftarrow \log\lambda + \frac{1}{1 + c_k} \big( \mathrm{gain} \cdot e_k
          + \mathrm{damping} \cdot (e_k - e_{k-1}) \big) + d_k,

by a limited step. :math:`c_k` counts how often the error has changed its sign, where either error
was beyond a factor of 1.25: steps shrink where they overshoot, and only there (Kesten, "Accelerated
stochastic approximation", 1958). The second term holds back while the error is on its way down
already, since codes follow :math:`\lambda` over several epochs. :math:`d_k` is ``tracking`` times
the sum of all errors within that factor: codes go on growing sparser at an equal :math:`\lambda`,
and a rule without memory would stay behind.

The controller looks at ``val/zeros``. That is the share that tables and figures judge a model by:
of the encoder's codes where there is an encoder. Training's own codes, which come from inference,
have other zeros. ``val/zeros`` is one number for all of an epoch, equal in every process, and no
test sample plays a part.

An encoder that learns slowly has dense codes for many epochs, whatever :math:`\lambda` is.
:math:`\lambda` would grow until inference has no active code left for the encoder to learn. So
neither :math:`\lambda` nor :math:`d_k` grows after an epoch whose training codes were sparser than
asked for by more than a factor of 1.25.

:math:`\lambda` is frozen before the last third of the epochs. Energies of different
:math:`\lambda` are no measure of one another, so that the best model is one of that third.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any

import lightning
import numpy as np
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from sparse_lightning.errors import SettingError, require_non_negative, require_positive
from sparse_lightning.model import SparseAutoencoder

LEAST_EPOCHS = 3
# Within this factor of the active share asked for a target counts as reached.
REACHED = 1.25


@dataclass(frozen=True)
class Search:
    """Where a search stands.

    Attributes:
        start: λ at the beginning.
        weight: λ now.
        last_error: :math:`e_{k-1}`, None before the first.
        turns: :math:`c_k`.
        drift: :math:`d_k`.
    """

    start: float
    weight: float
    last_error: float | None = None
    turns: int = 0
    drift: float = 0.0

    @classmethod
    def at(cls, weight: float) -> Search:
        """Before the first step, rounded as `SparsityController.advance` does."""
        return cls(_single(weight), _single(weight))


def _single(weight: float) -> float:
    """Logs have numbers of single precision: they are to show the very λ."""
    return float(np.float32(weight))


@dataclass(frozen=True)
class SparsityController:
    """The rule; see the module's formula.

    Args:
        target_zeros: share of zeros asked for, between 0 and 1.
        gain: of the error itself.
        damping: of its change.
        tracking: of the sum of small errors.
        largest_step: the factor by which λ changes at most at a time.
        largest_change: the factor by which λ differs at most from where it started.

    Raises:
        SettingError: a number outside its bounds.
    """

    target_zeros: float
    gain: float
    damping: float
    tracking: float
    largest_step: float
    largest_change: float

    def __post_init__(self) -> None:
        if not isinstance(self.target_zeros, Real) or not 0 < self.target_zeros < 1:
            raise SettingError(
                f"target_zeros={self.target_zeros!r} must lie between 0 and 1, as the number 0.9 "
                "does."
            )
        require_positive("callbacks.sparsity_target.gain", self.gain)
        for name in ("damping", "tracking"):
            require_non_negative(f"callbacks.sparsity_target.{name}", getattr(self, name))
        for name in ("largest_step", "largest_change"):
            if not getattr(self, name) > 1:
                raise SettingError(
                    f"callbacks.sparsity_target.{name}={getattr(self, name)} is a factor: take "
                    "one above 1."
                )

    def advance(self, search: Search, zeros: float, training_zeros: float) -> Search:
        """The search after an epoch at its λ.

        Args:
            search: where it stands.
            zeros: share of zeros in the codes that are judged.
            training_zeros: share of zeros in the codes that the decoder and the encoder learn from.
        """
        # Codes of nothing but zeros have no logarithm, and ask for the largest step.
        error = math.log(max(1 - zeros, 1e-12) / (1 - self.target_zeros))
        last = error if search.last_error is None else search.last_error
        small = math.log(REACHED)
        turns = search.turns + (error * last < 0 and max(abs(error), abs(last)) > small)
        growth = self.tracking * (error if abs(error) <= small else 0.0)
        is_held = (1 - training_zeros) * REACHED < 1 - self.target_zeros
        # What λ cannot follow is not to add up.
        drift = search.drift + (min(growth, 0.0) if is_held else growth)
        step = (self.gain * error + self.damping * (error - last)) / (1 + turns) + drift
        step = min(step, 0.0) if is_held else step
        largest = math.log(self.largest_step)
        weight = search.weight * math.exp(min(max(step, -largest), largest))
        lowest, highest = search.start / self.largest_change, search.start * self.largest_change
        weight = _single(min(max(weight, lowest), highest))
        return Search(search.start, weight, error, turns, drift)

    def shortfall(self, search: Search, zeros: float, training_zeros: float) -> str | None:
        """A sentence where the active share is not the one asked for, None where it is.

        Args:
            search: where it ended.
            zeros, training_zeros: as for `advance`.
        """
        active, wanted = 1 - zeros, 1 - self.target_zeros
        if wanted / REACHED <= active <= wanted * REACHED:
            return None
        return (
            f"target_zeros={self.target_zeros:g} was not reached: the codes have {zeros:.3f} zeros "
            f"at λ = {search.weight:.3g}, and training's codes {training_zeros:.3f}. An active "
            f"share within a factor {REACHED} of the one asked for counts as reached."
        )


class SparsityTarget(lightning.Callback):
    """Find λ while the model is trained; without a target, do nothing.

    Args:
        target_zeros: None for the λ of the settings; the rest as for `SparsityController`.
    """

    def __init__(
        self,
        target_zeros: float | None,
        gain: float,
        damping: float,
        tracking: float,
        largest_step: float,
        largest_change: float,
    ) -> None:
        self.controller = None
        if target_zeros is not None:
            self.controller = SparsityController(
                target_zeros, gain, damping, tracking, largest_step, largest_change
            )
        self.search: Search | None = None
        self.first_frozen = 0

    def is_searching(self, epoch: int) -> bool:
        """Whether λ of an epoch is not yet the one that training ends with."""
        return self.controller is not None and epoch < self.first_frozen

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: SparseAutoencoder) -> None:
        if self.controller is None:
            return
        if self.search is None:
            self.search = Search.at(pl_module.energy.sparsity_weight)
            self.first_frozen = self._search_epochs(trainer)
        pl_module.set_sparsity_weight(self.search.weight)

    def _search_epochs(self, trainer: lightning.Trainer) -> int:
        if trainer.fast_dev_run:
            return 0
        target = self.controller.target_zeros
        if self.search.start <= 0:
            raise SettingError(
                f"target_zeros={target:g} cannot start from model.energy.sparsity_weight="
                f"{self.search.start:g}: give one above 0, or of an encoder that keeps the k "
                "largest components set model.encoder.k in place of the target."
            )
        if trainer.max_epochs is None or trainer.max_epochs < LEAST_EPOCHS:
            raise SettingError(
                f"target_zeros={target:g} freezes λ before the last third of the epochs: set "
                f"trainer.max_epochs={trainer.max_epochs} to at least {LEAST_EPOCHS}."
            )
        return search_epochs(trainer.max_epochs)

    def on_validation_epoch_end(
        self, trainer: lightning.Trainer, pl_module: SparseAutoencoder
    ) -> None:
        if self.controller is not None and trainer.state.fn == TrainerFn.FITTING:
            pl_module.log("val/sparsity_weight", self.search.weight)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: SparseAutoencoder) -> None:
        if self.controller is None or trainer.state.fn != TrainerFn.FITTING:
            return
        if trainer.sanity_checking or not self.is_searching(trainer.current_epoch):
            return
        zeros = float(trainer.callback_metrics["val/zeros"])
        trained = pl_module.meters["train_meters"].so_far("codes")
        self.search = self.controller.advance(self.search, zeros, float(trained["zeros"]))
        pl_module.set_sparsity_weight(self.search.weight)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: SparseAutoencoder) -> None:
        if self.controller is None or trainer.fast_dev_run:
            return
        if self.search.last_error is None:
            rank_zero_warn(
                f"target_zeros={self.controller.target_zeros:g} was never compared with val/zeros, "
                f"and λ is still {self.search.weight:.3g}: give validation data, and validate in "
                "the first two thirds of the epochs."
            )
            return
        measured = trainer.callback_metrics
        told = self.controller.shortfall(
            self.search, float(measured["val/zeros"]), float(measured["train/zeros"])
        )
        if told is not None:
            rank_zero_warn(
                f"{told} Take more epochs, another start by model.energy.sparsity_weight, or a "
                "target that this family reaches. Where training's codes are far sparser, the "
                "encoder does not follow: raise model.optimizer.encoder_learning_rate."
            )

    def state_dict(self) -> dict[str, Any]:
        if self.search is None:
            return {}
        return {"search": asdict(self.search), "first_frozen": self.first_frozen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict:
            self.search = Search(**state_dict["search"])
            self.first_frozen = state_dict["first_frozen"]


def search_epochs(max_epochs: int) -> int:
    """How many epochs may have a λ that is not yet final: two thirds."""
    return 2 * max_epochs // 3


class AfterSearch(lightning.Callback):
    """For a callback that compares epochs: with ``monitor`` set, it sleeps while λ is sought."""

    monitor: str | None

    def _sleeps(self, trainer: lightning.Trainer) -> bool:
        return self.monitor is not None and is_searching(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: SparseAutoencoder) -> None:
        if not self._sleeps(trainer):
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: SparseAutoencoder) -> None:
        if not self._sleeps(trainer):
            super().on_validation_end(trainer, pl_module)


def is_searching(trainer: lightning.Trainer) -> bool:
    """Whether a training is in an epoch whose λ is not yet final."""
    return any(
        callback.is_searching(trainer.current_epoch)
        for callback in trainer.callbacks
        if isinstance(callback, SparsityTarget)
    )
