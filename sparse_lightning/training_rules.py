r"""Training rules: what a model learns from a batch, one class each.

`InferThenRegress` is the paper's rule. Inference finds the codes :math:`z^*` of a batch, with the
decoder fixed, starting from the encoder's prediction. The codes are constants in the loss

.. math:: \frac1n \sum_i \Big[ \tfrac1d \|x_i - D(z^*_i)\|^2 + \tfrac1l \|E(x_i) - z^*_i\|^2 \Big] .

`EndToEnd` is the rule of sparse autoencoders. The codes are the encoder's, and the error of the
decoder reaches the encoder:

.. math:: \frac1n \sum_i \Big[ \tfrac1d \|x_i - D(E(x_i))\|^2 + \lambda R(E(x_i)) \Big] .

A rule of one's own is a class with a `forward` that returns a `TrainingStep`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from sparse_lightning.data.batch import Batch
from sparse_lightning.distributed import Processes
from sparse_lightning.encoders import Encoder
from sparse_lightning.errors import SettingError, require_count, require_non_negative
from sparse_lightning.inputs import require_codes, require_rebuilt
from sparse_lightning.penalties import Penalty
from sparse_lightning.registry import build, register
from sparse_lightning.solvers import Solution

if TYPE_CHECKING:
    from sparse_lightning.model import SparseAutoencoder

METRIC = "val/energy"


class TrainingStep(NamedTuple):
    """What a rule makes of a batch.

    Attributes:
        loss: a scalar, with its gradient.
        codes: (n, l), float32 or better, without a gradient.
        terms: by name, `sparse_lightning.energy.TERMS` and those that the rule adds
            (`TrainingRule.further_terms`), weighted and summed over the samples.
        reconstructions: D(codes), (n, d).
        solution: of inference; None without inference.
    """

    loss: Tensor
    codes: Tensor
    terms: dict[str, Tensor]
    reconstructions: Tensor
    solution: Solution | None = None


class TrainingRule(nn.Module):
    """Base of all training rules: called with a model and a batch, it returns a `TrainingStep`.

    A rule is a module, so that what it counts is kept in checkpoints (buffers).

    Attributes:
        metric: by which the best model is kept, the lower the better.
        further_terms: names of terms that are logged beside those of the energy.
        infers: whether codes by inference belong to the model. If not, `encode` is the model.
    """

    metric: str = METRIC
    further_terms: Sequence[str] = ()
    infers: bool = True

    # Without arguments, as `registry.describe` reads them; those of nn.Module are *args, **kwargs.
    def __init__(self) -> None:
        super().__init__()

    def require_fit(self, model: SparseAutoencoder) -> None:
        """Raise `SettingError` unless the parts of a model can be trained by this rule."""

    def begin(self, model: SparseAutoencoder) -> None:
        """Set what the rule sets once, when a model is made."""

    def before_step(self, model: SparseAutoencoder) -> None:
        """Change the gradients before the optimizer takes its step."""

    def forward(self, model: SparseAutoencoder, batch: Batch) -> TrainingStep:
        raise NotImplementedError


@register
class InferThenRegress(TrainingRule):
    """The paper's rule (Evtimova & LeCun 2022, section 3); see the module.

    Args:
        metric: by which the best model is kept.
    """

    def __init__(self, metric: str = METRIC) -> None:
        super().__init__()
        self.metric = metric

    def forward(self, model: SparseAutoencoder, batch: Batch) -> TrainingStep:
        inputs = batch.inputs
        prediction = None
        if model.encoder is not None:
            # The encoder's loss is not the decoder's, whose bias may be subtracted.
            seen = model.seen_by_encoder(inputs).detach()
            prediction, _ = model.encoder.encode_with_preactivations(seen)
            require_codes(prediction, inputs, model.encoder)
        objective, initial, solution = model.infer_batch(inputs, prediction, Processes.present())
        codes = solution.codes
        reconstructions = model.decode(codes)
        loss = mse_loss(reconstructions, inputs)
        if prediction is not None:
            loss = loss + mse_loss(prediction.to(codes.dtype), codes)
        terms = model.checked_terms(inputs, objective, initial, codes, reconstructions)
        return TrainingStep(loss, codes, terms, reconstructions, solution)


@register
class EndToEnd(TrainingRule):
    r"""Encoder and decoder learn from one loss, that of the reconstruction; see the module.

    The penalty is the energy's, in units of the data fit. Papers that sum the squared error over
    the d pixels, where it is a mean here, have a :math:`\lambda` that is d times as large.

    Args:
        auxiliary: a loss for dead units, such as `AuxK`; None for none.
        sparsity_warmup_steps: steps over which :math:`\lambda` rises from 0, linearly.
        starts_transposed: whether the encoder's filters begin as the decoder's atoms (Gao et al.
            2024, appendix A.1). Wants an encoder with a weight ``input``.
        projects_gradients: whether the part of a gradient along its column of the decoder is taken
            off before each step. A unit column has no use for it (Bricken et al. 2023).
        metric: by which the best model is kept.
    """

    infers = False

    def __init__(
        self,
        auxiliary: AuxK | None = None,
        sparsity_warmup_steps: int = 0,
        starts_transposed: bool = False,
        projects_gradients: bool = False,
        metric: str = METRIC,
    ) -> None:
        super().__init__()
        require_non_negative("model.training_rule.sparsity_warmup_steps", sparsity_warmup_steps)
        self.auxiliary = build(auxiliary)
        self.further_terms = () if self.auxiliary is None else ("auxiliary",)
        self.sparsity_warmup_steps = sparsity_warmup_steps
        self.starts_transposed, self.projects_gradients = starts_transposed, projects_gradients
        self.metric = metric

    def require_fit(self, model: SparseAutoencoder) -> None:
        if model.encoder is None:
            raise SettingError(
                "model.training_rule=EndToEnd needs an encoder, and model.encoder is null: choose "
                "one, such as model/encoder=topk."
            )
        for name in ("variance_weight", "encoder_weight"):
            if getattr(model.energy, name) > 0:
                raise SettingError(
                    f"model.energy.{name}={getattr(model.energy, name)} belongs to inference, and "
                    f"model.training_rule=EndToEnd has none: set model.energy.{name}=0."
                )
        if self.auxiliary is not None and not model.encoder.gives_preactivations:
            raise SettingError(
                "model.training_rule.auxiliary needs pre-activations, which model.encoder="
                f"{type(model.encoder).__name__} does not give: choose model/encoder=topk, or set "
                "model.training_rule.auxiliary=null."
            )
        filters = getattr(getattr(model.encoder, "input", None), "weight", None)
        if self.starts_transposed and getattr(filters, "shape", None) != (
            model.decoder.code_dim,
            model.decoder.input_dim,
        ):
            raise SettingError(
                "model.training_rule.starts_transposed=true needs an encoder with a weight "
                f"input.weight of (l, d), which model.encoder={type(model.encoder).__name__} has "
                "not: set it to false, or choose model/encoder=topk."
            )
        if model.energy.sparsity_weight > 0 and not has_gradient(
            model.encoder, model.energy.penalty
        ):
            raise SettingError(
                f"model.energy.penalty={type(model.energy.penalty).__name__} has no gradient by "
                f"which model.encoder={type(model.encoder).__name__} could learn: set "
                "model/encoder=jumprelu, model/energy/penalty=non_negative_l1, or "
                "model.energy.sparsity_weight=0."
            )

    def begin(self, model: SparseAutoencoder) -> None:
        if self.auxiliary is not None:
            self.auxiliary.begin(model.decoder.code_dim)
        if self.starts_transposed:
            with torch.no_grad():
                model.encoder.input.weight.copy_(model.decoder.atoms())

    def before_step(self, model: SparseAutoencoder) -> None:
        if not self.projects_gradients:
            return
        for weight, dims in model.decoder.column_groups():
            if weight.grad is None:  # Frozen.
                continue
            squares = weight.detach().square().sum(dims, keepdim=True)
            along = (weight.grad * weight.detach()).sum(dims, keepdim=True)
            weight.grad -= weight.detach() * torch.where(squares > 0, along / squares, 0.0)

    def forward(self, model: SparseAutoencoder, batch: Batch) -> TrainingStep:
        inputs = batch.inputs
        seen = model.seen_by_encoder(inputs)
        codes, preactivations = model.encoder.encode_with_preactivations(seen)
        require_codes(codes, inputs, model.encoder)
        reconstructions = model.decoder(codes)
        require_rebuilt(reconstructions, inputs, model.decoder)
        # Sums over a batch are in float32 or better, whatever the precision of training is.
        kind = torch.promote_types(reconstructions.dtype, torch.float32)
        errors = mse_loss(reconstructions.to(kind), inputs.to(kind), reduction="none")
        squared_errors = errors.mean(-1)
        penalties = model.encoder.penalize(codes, preactivations, model.energy.penalty)
        weight = self._warmup_factor(model) * model.energy.sparsity_weight
        none = squared_errors.new_zeros(())
        terms = {
            "reconstruction": squared_errors.sum(),
            "sparsity": weight * penalties.sum(dtype=kind),
            "variance": none,
            "encoder": none,
        }
        if self.auxiliary is not None:
            losses = self.auxiliary(model.decoder, inputs, reconstructions, codes, preactivations)
            terms["auxiliary"] = losses.sum(dtype=kind)
        loss = sum(terms.values()) / len(inputs)
        told = {name: term.detach() for name, term in terms.items()}
        return TrainingStep(loss, codes.detach().to(kind), told, reconstructions)

    def _warmup_factor(self, model: SparseAutoencoder) -> float:
        """By how much λ is there at this step of the Trainer."""
        if self.sparsity_warmup_steps == 0:
            return 1.0
        if model._trainer is None:
            raise SettingError(
                f"model.training_rule.sparsity_warmup_steps={self.sparsity_warmup_steps} counts "
                "the steps of a Trainer, and the model has none: set it to 0, and raise λ by "
                "model.set_sparsity_weight in a loop of your own."
            )
        return min(1.0, model.global_step / self.sparsity_warmup_steps)


def has_gradient(encoder: Encoder, penalty: Penalty) -> bool:
    """Whether an encoder can learn by a penalty; a number of active components has no gradient."""
    like = next(encoder.parameters(), torch.zeros(()))
    with torch.inference_mode(False), torch.enable_grad():
        codes = like.new_ones(1, encoder.code_dim).requires_grad_()
        return encoder.penalize(codes, codes, penalty).requires_grad


@register
class AuxK(nn.Module):
    r"""Dead units learn from what the others leave (Gao et al. 2024, appendix A.2).

    .. math:: \alpha \tfrac1d \|e_i - \hat e_i\|^2, \qquad e = x - D(z), \quad
              \hat e = D(z_\mathrm{aux}) - D(0),

    with e constant and :math:`z_\mathrm{aux}` the positive part of the ``num_units`` largest
    pre-activations of dead units. A unit is dead once it has been active in none of the last
    ``dead_after`` samples. Without dead units the loss is 0.

    Args:
        weight: :math:`\alpha`; 1/32 in the paper.
        num_units: at most so many dead units learn from a sample; in the paper a power of 2 near
            d/2.
        dead_after: samples; ten million tokens in the paper.

    Attributes:
        idle: samples since each unit was last active, of all processes, (l,).
    """

    idle: Tensor

    def __init__(self, weight: float, num_units: int, dead_after: int) -> None:
        super().__init__()
        require_non_negative("model.training_rule.auxiliary.weight", weight)
        require_count("model.training_rule.auxiliary.num_units", num_units)
        require_count("model.training_rule.auxiliary.dead_after", dead_after)
        self.weight, self.num_units, self.dead_after = weight, num_units, dead_after

    def begin(self, code_dim: int) -> None:
        """Begin to count, for codes of l components."""
        self.register_buffer("idle", torch.zeros(code_dim, dtype=torch.int64))

    def forward(
        self,
        decoder: nn.Module,
        inputs: Tensor,
        reconstructions: Tensor,
        codes: Tensor,
        preactivations: Tensor,
    ) -> Tensor:
        """The loss of each sample, (n,), after this batch is counted.

        Args:
            decoder: D.
            inputs: x, (n, d).
            reconstructions: D(codes), (n, d).
            codes: (n, l).
            preactivations: what the encoder made the codes of, (n, l).
        """
        dead = self.count(codes) >= self.dead_after
        drive = torch.where(dead, torch.relu(preactivations), 0.0)
        strongest = drive.topk(min(self.num_units, len(dead)), dim=-1)
        own = torch.zeros_like(drive).scatter(-1, strongest.indices, strongest.values)
        rebuilt = decoder(own) - decoder(torch.zeros_like(own[:1]))
        errors = (inputs - reconstructions).detach()
        losses = mse_loss(rebuilt, errors, reduction="none").mean(-1)
        return self.weight * torch.where(dead.any(), losses, 0.0)

    @torch.no_grad()
    def count(self, codes: Tensor) -> Tensor:
        """`idle` after a batch of codes (n, l), of which each process has a part."""
        seen = torch.cat([(codes != 0).sum(0), torch.full_like(self.idle[:1], len(codes))])
        processes = Processes.present()
        if processes is not None:
            seen = processes.total(seen)
        self.idle.copy_(torch.where(seen[:-1] > 0, 0, self.idle + seen[-1]))
        return self.idle
