r"""One LightningModule for every family: families differ in its parts only.

A training step is one Adam step on the loss of the training rule
(`sparse_lightning.training_rules`): the paper's rule, which finds the codes by inference, or the
rule of sparse autoencoders. Validation and test use the encoder's codes if there is an encoder, and
codes by inference otherwise.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from sparse_lightning import sparse_encoders  # noqa: F401 - registered by being imported
from sparse_lightning.checkpoint_format import FORMAT, FORMAT_KEY, read_checkpoint
from sparse_lightning.data.batch import Batch
from sparse_lightning.datafits import mean_squares
from sparse_lightning.decoders import Decoder, UnitColumns
from sparse_lightning.distributed import Processes
from sparse_lightning.encoders import Encoder
from sparse_lightning.energy import Energy, Objective
from sparse_lightning.errors import InputError, SettingError
from sparse_lightning.inference import Inference, require_descent
from sparse_lightning.inputs import (
    as_batch,
    as_codes,
    as_inputs,
    at_least_float32,
    in_type_of,
    require_codes,
    require_finite,
)
from sparse_lightning.meters import Meters
from sparse_lightning.optimizers import AdamSettings
from sparse_lightning.parts_fit import require_parts_fit
from sparse_lightning.registry import build, describe
from sparse_lightning.shared_model import SharedModel
from sparse_lightning.sharing import Shareable
from sparse_lightning.solvers import Solution, Solver
from sparse_lightning.training_rules import InferThenRegress, TrainingRule


class SparseAutoencoder(Shareable, lightning.LightningModule):
    """A sparse-coding model: a decoder, an energy, a solver, and mostly an encoder.

    Args:
        decoder: D.
        encoder: E, or None for codes by inference from 0 (decoder-only).
        energy: what inference minimises.
        solver: how.
        optimizer: learning rates and weight decays.
        constraint: applied to the decoder at the start and after every update.
        training_rule: what is learned from a batch; None for the paper's, `InferThenRegress`.
        family: name of the composition, for logs and tables.

    Each part may also be a description of it (see `sparse_lightning.registry`).

    Raises:
        SettingError: parts that do not fit together.
    """

    def __init__(
        self,
        decoder: Decoder,
        encoder: Encoder | None,
        energy: Energy,
        solver: Solver,
        optimizer: AdamSettings,
        constraint: UnitColumns | None = None,
        family: str = "custom",
        training_rule: TrainingRule | None = None,
    ) -> None:
        super().__init__()
        self.decoder, self.encoder = build(decoder), build(encoder)
        self.energy, self.solver = build(energy), build(solver)
        self.optimizer_settings, self.constraint = build(optimizer), build(constraint)
        self.training_rule = build(training_rule) or InferThenRegress()
        self.family = family
        require_parts_fit(self)
        self.save_hyperparameters({**self.descriptions, "family": family}, logger=False)
        if self.constraint is not None:
            self.constraint(self.decoder)
        self.training_rule.begin(self)
        self.training_mean: Tensor | None = None
        sizes = self.decoder.input_dim, self.decoder.code_dim, self.energy.variance_threshold
        rest = {f"{phase}_meters": Meters(*sizes) for phase in ("val", "test")}
        further_terms = self.training_rule.further_terms
        self.meters = nn.ModuleDict({"train_meters": Meters(*sizes, further_terms), **rest})

    @property
    def descriptions(self) -> dict[str, Any]:
        """The parts as plain data, by their names (see `sparse_lightning.registry`)."""
        return {
            "decoder": describe(self.decoder),
            "encoder": describe(self.encoder),
            "energy": describe(self.energy),
            "solver": describe(self.solver),
            "optimizer": describe(self.optimizer_settings),
            "constraint": describe(self.constraint),
            "training_rule": describe(self.training_rule),
        }

    def set_sparsity_weight(self, weight: float) -> None:
        r"""Take another :math:`\lambda` from the next batch on; checkpoints describe that one."""
        self.energy = replace(self.energy, sparsity_weight=weight)
        self.hparams["energy"] = describe(self.energy)

    # Codes and reconstructions.

    def forward(self, inputs: Tensor | np.ndarray) -> Tensor:
        """Reconstruct inputs from the codes of `encode`."""
        return self.decode(self.encode(inputs))

    def encode(self, inputs: Tensor | np.ndarray) -> Tensor:
        """Codes (n, l) of inputs: the encoder's, or by inference where there is none.

        Args:
            inputs: (n, d), or what `as_inputs` makes that of.

        Raises:
            InputError: inputs that do not fit, or are not finite.
            SettingError, DivergenceError: without an encoder, as for `infer`.
        """
        if self.encoder is None:
            return self.infer(inputs).codes
        return self.predict_codes(in_type_of(self.encoder, self._checked(inputs)))

    def predict_codes(self, inputs: Tensor) -> Tensor:
        """The encoder's codes (n, l) of inputs (n, d) of its own type."""
        codes = self.encoder(self.seen_by_encoder(inputs))
        require_codes(codes, inputs, self.encoder)
        return codes

    def seen_by_encoder(self, inputs: Tensor) -> Tensor:
        """Inputs (n, d), less the decoder's bias where the encoder is one that subtracts it."""
        return inputs - self.decoder.bias if self.encoder.subtracts_decoder_bias else inputs

    def _checked(self, inputs: Tensor | np.ndarray) -> Tensor:
        inputs = as_inputs(inputs, self.decoder)
        require_finite(inputs, "this batch")
        return inputs

    def decode(self, codes: Tensor | np.ndarray) -> Tensor:
        """Reconstructions (n, d) of codes (n, l), which the decoder gets in its own type."""
        return self.decoder(in_type_of(self.decoder, as_codes(codes, self.decoder)))

    def infer(self, inputs: Tensor | np.ndarray) -> Solution:
        """Codes by inference from the encoder's prediction, or from 0.

        Args:
            inputs: as for `encode`.

        Raises:
            InputError: inputs that do not fit, or are not finite.
            SettingError: a single sample, whose codes have no variance, and β > 0; `infer_alone`
                has neither β nor γ.
            DivergenceError: inference has left the region of its start.
        """
        inputs = self._checked(inputs)
        with torch.no_grad():
            prediction = None
            if self.encoder is not None:
                prediction = self.predict_codes(in_type_of(self.encoder, inputs))
            objective, initial, solution = self.infer_batch(inputs, prediction)
            terms = objective.terms(solution.codes)
            require_descent(inputs, objective, initial, terms, self.solver, "this batch")
        return solution

    @torch.compiler.disable
    @torch.no_grad()
    def infer_alone(self, inputs: Tensor | np.ndarray, dtype: torch.dtype | None = None) -> Tensor:
        """Codes (n, l) by inference at γ = 0 and β = 0: of each sample by itself.

        Inference begins where the family's own does, and neither the encoder nor the other samples
        of a batch hold it there.

        Args:
            inputs: as for `encode`.
            dtype: of inference; that of the inputs, and float32 at least, if None. Rounding depends
                on which rows are multiplied together, and in float64 that does not show.

        Raises:
            InputError: inputs that do not fit, or are not finite.
            DivergenceError: inference has left the region of its start.
        """
        inputs = self._checked(inputs)
        if self.encoder is None:
            initial = inputs.new_zeros(len(inputs), self.decoder.code_dim)
        else:
            initial = self.predict_codes(in_type_of(self.encoder, inputs))
        decoder = self.decoder
        if dtype is not None:
            # What is made in inference mode autograd refuses.
            with torch.inference_mode(False):
                decoder = copy.deepcopy(decoder).to(dtype)
        dtype = dtype or at_least_float32(inputs).dtype
        energy = replace(self.energy, variance_weight=0.0, encoder_weight=0.0)
        inputs, initial = inputs.to(dtype), initial.to(dtype)
        with torch.autocast(inputs.device.type, enabled=False):
            objective = energy.bind(decoder, inputs)
            codes = self.solver(objective, initial).codes
            terms = objective.terms(codes)
            require_descent(inputs, objective, initial, terms, self.solver, "this batch")
        return codes

    # Loops that numba compiles are no business of torch's compiler.
    @torch.compiler.disable
    def infer_batch(
        self, inputs: Tensor, prediction: Tensor | None, processes: Processes | None = None
    ) -> Inference:
        """Inference from the encoder's prediction, or from 0, as a training rule asks for it.

        In float32 or better, whatever the precision of training is.

        Args:
            inputs: (n, d), all of the batch or this process's part of it.
            prediction: the encoder's codes (n, l); None without an encoder.
            processes: those that share the batch.
        """
        with torch.no_grad(), torch.autocast(inputs.device.type, enabled=False):
            objective = self.energy.bind(self.decoder, inputs, prediction, processes)
            if prediction is None:
                initial = at_least_float32(inputs).new_zeros(len(inputs), self.decoder.code_dim)
            else:
                initial = at_least_float32(prediction)
            solution = self.solver(objective, initial)
            if solution.codes.shape != initial.shape:
                raise InputError(
                    f"solver={type(self.solver).__name__} gives codes of shape "
                    f"{tuple(solution.codes.shape)} for a start of {tuple(initial.shape)}: let it "
                    "give one code for each sample."
                )
            return Inference(objective, initial, solution)

    def checked_terms(
        self,
        inputs: Tensor,
        objective: Objective,
        initial: Tensor,
        codes: Tensor,
        reconstructions: Tensor,
        where: str | None = None,
    ) -> dict[str, Tensor]:
        """The terms of the energy at codes (n, l), where inference from ``initial`` has ended.

        Args:
            where: which batch this is, in words; None for that of training.

        Raises:
            DivergenceError: inference has left the region of its start.
        """
        with torch.no_grad(), torch.autocast(codes.device.type, enabled=False):
            inputs = at_least_float32(inputs)
            squared_errors = mean_squares(at_least_float32(reconstructions) - inputs)
            terms = objective.terms(codes, squared_errors)
            where, processes = where or self._position(), Processes.present()
            require_descent(inputs, objective, initial, terms, self.solver, where, processes)
        return terms

    def _position(self) -> str:
        """Which batch of training this is."""
        if self._trainer is None:
            return "this batch"
        loop = self.trainer.fit_loop.epoch_loop
        return f"epoch {self.trainer.current_epoch}, batch {loop.batch_idx}"

    # Learning.

    def setup(self, stage: str) -> None:
        known = getattr(getattr(self.trainer, "datamodule", None), "training_mean", None)
        # A mean of other data does not count. That of a run that goes on is in its checkpoint.
        if stage == "fit" or known is not None:
            self.training_mean = known
        for meters in self.meters.values():
            meters.reset()

    def training_step(self, batch: AnyBatch, batch_index: int) -> Tensor:
        batch = as_batch(batch, self.decoder)
        require_finite(batch.inputs, self._position())
        step = self.training_rule(self, batch)
        meters = self.meters["train_meters"]
        meters.measure(batch, step.codes, step.reconstructions, step.terms)
        if step.solution is not None:
            meters["effort"].update(step.solution)
        return step.loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.training_rule.before_step(self)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.constraint is not None:
            self.constraint(self.decoder)

    def configure_optimizers(self) -> dict[str, Any]:
        in_mixed_precision = self._trainer is not None and "mixed" in str(self.trainer.precision)
        optimizer, schedule = self.optimizer_settings.build(
            self.decoder, self.encoder, scales_losses=in_mixed_precision
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "epoch"},
        }

    # Measuring.

    def validation_step(self, batch: AnyBatch, batch_index: int) -> None:
        batch = as_batch(batch, self.decoder)
        self._evaluate("val", batch, f"validation batch {batch_index}")

    def test_step(self, batch: AnyBatch, batch_index: int) -> None:
        batch = as_batch(batch, self.decoder)
        self._evaluate("test", batch, f"test batch {batch_index}")

    def predict_step(self, batch: AnyBatch, batch_index: int) -> Tensor:
        """The codes of `encode`."""
        return self.encode(as_batch(batch, self.decoder).inputs)

    def _evaluate(self, phase: str, batch: Batch, where: str) -> None:
        require_finite(batch.inputs, where)
        if self.encoder is None:
            objective, initial, solution = self.infer_batch(batch.inputs, None, Processes.present())
            codes = solution.codes
            self.meters[f"{phase}_meters"]["effort"].update(solution)
        else:
            codes = initial = at_least_float32(self.predict_codes(batch.inputs))
            objective = self.energy.bind(self.decoder, batch.inputs, codes, Processes.present())
        reconstructions = self.decode(codes)
        terms = self.checked_terms(batch.inputs, objective, initial, codes, reconstructions, where)
        self.meters[f"{phase}_meters"].measure(batch, codes, reconstructions, terms)

    def _log(self, phase: str) -> dict[str, Tensor]:
        """Log what was measured in a phase, and begin anew; the results."""
        results = self.meters[f"{phase}_meters"].results(self._mean_of_training(phase))
        if phase == "train":
            results |= self._column_norms()
        quality = ("energy", "psnr", "r2", "zeros")
        shown = ("iterations", "converged") if phase == "train" else quality
        for name, value in results.items():
            self.log(f"{phase}/{name}", value.float(), prog_bar=name in shown)
        return results

    def _mean_of_training(self, phase: str) -> Tensor | None:
        """Mean of the training rows: what the data tell, else of the rows of the first epoch."""
        meter = self.meters["train_meters"]["r2"]
        if self.training_mean is not None or not meter.update_called:
            return self.training_mean
        self.meters["train_meters"].so_far("r2")
        # Validation comes before the end of the epoch whose rows it is compared with.
        if phase == "train":
            self.training_mean = meter.mean
        return meter.mean

    def _column_norms(self) -> dict[str, Tensor]:
        """Mean norm of the decoder's columns, and of each layer's if several; none if unknown."""
        try:
            norms = self.decoder.column_norms()
        except SettingError:  # Of columns that nobody wrote down, which no constraint needs either.
            norms = []
        results = {"column_norm": torch.cat(norms).mean()} if norms else {}
        if len(norms) > 1:
            results |= {f"column_norm_{i}": layer.mean() for i, layer in enumerate(norms, 1)}
        return results

    def on_train_epoch_end(self) -> None:
        self._log("train")

    def on_validation_epoch_end(self) -> None:
        if self._log("val").get("zeros") == 1 and self.energy.sparsity_weight > 0:
            rank_zero_warn(
                "All validation codes are zero: "
                f"model.energy.sparsity_weight={self.energy.sparsity_weight} is too large for "
                "this data and decoder, take a smaller one."
            )

    def on_test_epoch_end(self) -> None:
        self._log("test")

    # Checkpoints.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[FORMAT_KEY] = FORMAT
        if self.training_mean is not None:
            checkpoint[TRAINING_MEAN] = self.training_mean.cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.training_mean = checkpoint.get(TRAINING_MEAN, self.training_mean)

    @classmethod
    def load_from_checkpoint(
        cls, checkpoint_path: str | Path, map_location: Any = "cpu", **kwargs: Any
    ) -> Self:
        """Load a model from ``checkpoints/best.ckpt`` or ``last.ckpt`` without unpickling code.

        Args:
            checkpoint_path: the file.
            map_location: as for ``torch.load``.
            **kwargs: parts to use in place of those in the file, as for `from_pretrained`.

        Raises:
            CheckpointError: the file cannot be read, or is not a checkpoint of this package.
            SettingError: the given parts do not fit.
        """
        contents = read_checkpoint(checkpoint_path, map_location)
        shared = SharedModel.of_checkpoint(contents)
        model = shared.made(cls, kwargs, checkpoint_path)
        model.on_load_checkpoint(contents)
        return model.to(shared.device)


TRAINING_MEAN = "training_mean"
AnyBatch = Batch | Tensor | Sequence[Tensor]
