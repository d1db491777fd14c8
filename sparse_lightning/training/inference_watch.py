"""A warning when inference strains, before it diverges, or finds nothing but zeros."""

from __future__ import annotations

import math
from typing import Any

import lightning
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from sparse_lightning.errors import SettingError, require_non_negative, require_positive
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.registry import describe
from sparse_lightning.training.sparsity_target import is_searching


class InferenceWatch(lightning.Callback):
    """Warn when inference strains, which a constant step does before it diverges.

    The curvature of the energy grows while the decoder learns. Long before a step that was stable
    is too large for it, samples take more iterations, and some no longer converge. After each
    training epoch one of two things is a strain:

    - the share of samples that converged (``train/converged``) is under ``least_converged``, and
      was at or above it in an earlier epoch;
    - the mean iterations per sample (``train/iterations``) are more than ``growth`` times those of
      the epoch that had the fewest, and more than ``from_iterations``.

    The first ``settling_epochs`` are not compared with: samples of a decoder that has learned
    nothing may converge at once, and those of the next epoch may not. Nothing is said of inference
    that takes all its iterations from the first epoch on: its samples never converged, and its
    iterations cannot grow. Nor is anything said of few iterations. Each strain is told once in a
    run, also where the run is resumed; a run that goes on with another solver is watched anew.

    Codes of an epoch that are all 0 are told as well. An encoder that learns slowly may have other
    codes for long, by which validation would show nothing.

    Args:
        least_converged: in (0, 1].
        growth: above 0.
        from_iterations: above 0.
        settling_epochs: 0 or more.

    Raises:
        SettingError: for a setting outside these bounds.
    """

    def __init__(
        self,
        least_converged: float,
        growth: float,
        from_iterations: float,
        settling_epochs: int,
    ) -> None:
        for name, value in (
            ("least_converged", least_converged),
            ("growth", growth),
            ("from_iterations", from_iterations),
        ):
            require_positive(f"callbacks.inference_watch.{name}", value)
        if least_converged > 1:
            raise SettingError(
                f"callbacks.inference_watch.least_converged={least_converged} is a share of "
                "samples: take at most 1."
            )
        require_non_negative("callbacks.inference_watch.settling_epochs", settling_epochs)
        self.least_converged, self.growth = least_converged, growth
        self.from_iterations, self.settling_epochs = from_iterations, settling_epochs
        self._begin(None)

    def _begin(self, solver: dict[str, Any] | None) -> None:
        self.solver, self.told, self.epochs = solver, [], 0
        self.most_converged, self.fewest_iterations = 0.0, math.inf

    def strains(self, iterations: float, converged: float) -> dict[str, str]:
        """Take one more epoch into account; what strains in it and was not told, by kind."""
        self.epochs += 1
        if self.epochs <= self.settling_epochs:
            return {}
        found = {}
        if converged < self.least_converged <= self.most_converged:
            found["converged"] = (
                f"train/converged fell to {converged:.3f} from {self.most_converged:.3f}"
            )
        if iterations > max(self.from_iterations, self.growth * self.fewest_iterations):
            found["iterations"] = (
                f"train/iterations rose to {iterations:.1f} from {self.fewest_iterations:.1f}"
            )
        self.most_converged = max(self.most_converged, converged)
        self.fewest_iterations = min(self.fewest_iterations, iterations)
        new = {kind: text for kind, text in found.items() if kind not in self.told}
        self.told += new
        return new

    def on_train_start(self, trainer: lightning.Trainer, pl_module: SparseAutoencoder) -> None:
        solver = describe(pl_module.solver)
        if solver != self.solver:
            self._begin(solver)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: SparseAutoencoder) -> None:
        # The model logs these numbers, and forgets them, after its callbacks had their turn.
        meter = pl_module.meters["train_meters"]["effort"]
        if not meter.update_called:  # A training rule without inference.
            return
        effort = meter.compute()
        new = self.strains(float(effort["iterations"]), float(effort["converged"]))
        for text in new.values():
            rank_zero_warn(
                f"Inference strains: {text} in epoch {trainer.current_epoch}. "
                f"Remedy: {pl_module.solver.strain_hint}."
            )
        self._tell_of_zeros(trainer, pl_module)

    def _tell_of_zeros(self, trainer: lightning.Trainer, model: SparseAutoencoder) -> None:
        # A search changes λ by itself, and validation tells of its own codes.
        is_known = "zeros" in self.told or trainer.callback_metrics.get("val/zeros") == 1
        if is_known or is_searching(trainer):
            return
        if model.meters["train_meters"].so_far("codes")["zeros"] == 1:
            self.told.append("zeros")
            rank_zero_warn(
                "Inference found zeros alone for all training inputs of epoch "
                f"{trainer.current_epoch}, of which decoder and encoder learn nothing: "
                f"model.energy.sparsity_weight={model.energy.sparsity_weight} is too large for "
                "this data and decoder, take a smaller one."
            )

    def state_dict(self) -> dict[str, Any]:
        names = ("solver", "told", "epochs", "most_converged", "fewest_iterations")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.__dict__.update(state_dict)
