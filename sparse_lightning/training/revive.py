r"""Dead atoms begin anew as what the worst rebuilt inputs lack.

A code component that is active for no sample gets no gradient of the error, so that its atom learns
nothing. Such an atom is replaced, a habit from K-SVD (Aharon, Elad & Bruckstein 2006, section IV),
where the input that is represented worst takes its place. This follows "neuron resampling" of
Bricken et al. 2023, "Towards Monosemanticity". Inputs are drawn with probabilities that grow with
the square of their error. The component's encoder weights begin anew as well, small and without
bias, and Adam forgets its moments of what was replaced. Both sources take the input itself for the
new atom. Here it is what the other atoms leave of the input, which has an equivalent for decoders
with hidden layers:

.. math:: w_j \propto -\nabla_{w_j} \tfrac12 \|x_i - D(z_i)\|^2
          \quad\text{at}\quad w_j = 0, \; z_{ij} = 1,

the column of the bottom weight that lowers the error of :math:`x_i` fastest. Of a linear decoder
it is the residual :math:`x_i - W z_i`.

The paper (Evtimova & LeCun 2022) revives nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning
import torch
import torch.distributed as distributed
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor, nn
from torch.linalg import vector_norm
from torch.optim import Optimizer

from sparse_lightning.datafits import mean_squares
from sparse_lightning.decoders import Decoder
from sparse_lightning.distributed import Processes
from sparse_lightning.errors import SettingError, require_count, require_positive
from sparse_lightning.inputs import as_batch
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.training.evaluation_mode import evaluation_mode

MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")


class Revive(lightning.Callback):
    """Before an epoch replace the atoms that no sample used in the epoch before.

    Args:
        every_epochs: before every so many epochs, at least 1.
        num_inputs: training inputs that are drawn from, at least 1; at most so many atoms are
            replaced at a time.
        encoder_scale: norm of a component's new encoder weights, as a share of the mean over the
            components that are alive.
        until_epoch: before no later epoch, counted from 0; None for no end.

    Raises:
        SettingError: a setting outside these bounds. In ``on_fit_start``: no data module, or see
            `require_revivable`.
    """

    def __init__(
        self,
        every_epochs: int,
        num_inputs: int,
        encoder_scale: float,
        until_epoch: int | None = None,
    ) -> None:
        require_count("callbacks.revive.every_epochs", every_epochs)
        require_count("callbacks.revive.num_inputs", num_inputs)
        require_positive("callbacks.revive.encoder_scale", encoder_scale)
        if until_epoch is not None:
            require_count("callbacks.revive.until_epoch", until_epoch)
        self.every_epochs, self.num_inputs = every_epochs, num_inputs
        self.encoder_scale, self.until_epoch = encoder_scale, until_epoch
        self.dead: list[int] = []

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: SparseAutoencoder) -> None:
        require_revivable(pl_module)
        if trainer.datamodule is None:
            raise SettingError(
                "callbacks=revive draws inputs from a data module: give "
                "trainer.fit(model, datamodule=...) one with a train_dataloader()."
            )

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: SparseAutoencoder) -> None:
        # A checkpoint of the epoch keeps them, for the epoch after may be another process's.
        self.dead = dead_units(pl_module)

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, pl_module: SparseAutoencoder
    ) -> None:
        epoch, dead = trainer.current_epoch, self.dead
        is_over = self.until_epoch is not None and epoch > self.until_epoch
        if not dead or is_over or epoch % self.every_epochs != 0:
            return
        # One choice for all processes, and for the run that goes on from here.
        generator = torch.Generator()
        generator.manual_seed((1_000_003 * torch.initial_seed() + epoch) % 2**63)
        drawn_from = _training_inputs(trainer, pl_module, self.num_inputs)
        with evaluation_mode(pl_module):
            inputs = hard_inputs(pl_module, drawn_from, len(dead), generator)
            units = torch.tensor(dead[: len(inputs)], device=pl_module.device)
            revive(pl_module, trainer.optimizers[0], units, inputs, self.encoder_scale)
        self.dead = []
        rank_zero_info(f"Revived {len(units)} of {len(dead)} dead atoms before epoch {epoch}.")

    def state_dict(self) -> dict[str, Any]:
        return {"dead": self.dead}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.dead = state_dict["dead"]


def require_revivable(model: SparseAutoencoder) -> None:
    """Raise `SettingError` unless a model's atoms are columns, and its encoder tells its units."""
    decoder, encoder = model.decoder, model.encoder
    if _atom_columns(decoder) is None:
        raise SettingError(
            f"callbacks=revive needs an atom to be one column of the bottom weight, and those of "
            f"{type(decoder).__name__} are not (see its column_groups()): leave callbacks=revive "
            "out, or choose another model.decoder."
        )
    if encoder is not None and not encoder.unit_slices():
        raise SettingError(
            f"callbacks=revive must know which weights of {type(encoder).__name__} belong to one "
            "code component: give that class a unit_slices(), or leave callbacks=revive out."
        )


def _atom_columns(decoder: Decoder) -> tuple[nn.Parameter, int] | None:
    """The bottom weight, and its dimension along which code components are counted."""
    groups = decoder.column_groups()
    if not groups:
        return None
    weight, dims = groups[0]
    others = set(range(weight.ndim)) - {dim % weight.ndim for dim in dims}
    if len(others) != 1 or weight.shape[(axis := others.pop())] != decoder.code_dim:
        return None
    return weight, axis


def dead_units(model: SparseAutoencoder) -> list[int]:
    """Code components that were active for no training sample of this epoch, in any process."""
    active = model.meters["train_meters"]["codes"].active
    processes = Processes.present()
    if processes is not None:
        active = processes.total(active)
    return (active == 0).nonzero().flatten().tolist()


def _training_inputs(
    trainer: lightning.Trainer, model: SparseAutoencoder, count: int
) -> Iterator[Tensor]:
    """This process's share of the first ``count`` inputs of the epoch, batch by batch."""
    loader = trainer.datamodule.train_dataloader()
    if hasattr(getattr(loader, "sampler", None), "set_epoch"):
        loader.sampler.set_epoch(trainer.current_epoch)
    wanted = -(-count // trainer.world_size)
    for batch in loader:
        batch = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch))
        inputs = as_batch(batch, model.decoder).inputs
        yield inputs[:wanted]
        wanted -= len(inputs)
        if wanted <= 0:
            return


@torch.no_grad()
def hard_inputs(
    model: SparseAutoencoder, batches: Iterator[Tensor], count: int, generator: torch.Generator
) -> Tensor:
    """Different inputs (k, d), k at most ``count``, drawn by the square of their errors.

    Args:
        model: whose codes and reconstructions have the errors, :math:`\\|x - D(z)\\|^2 / d`.
        batches: inputs (n, d), of each process its share.
        count: how many.
        generator: of the CPU, in the same state in every process.
    """
    inputs = torch.cat(list(batches))
    errors = torch.cat(
        [mean_squares(model.decode(_codes(model, part)) - part) for part in inputs.split(1000)]
    )
    processes = Processes.present()
    if processes is not None:
        # In the order of the samples, which the processes share out one by one.
        errors = processes.gather(errors).view(distributed.get_world_size(), -1).T.flatten()
    weights = errors.double().square().cpu()
    count = min(count, int(weights.count_nonzero()))
    if count == 0:
        return inputs[:0]
    chosen = torch.multinomial(weights, count, generator=generator).to(inputs.device)
    if processes is None:
        return inputs[chosen]
    rank, size = distributed.get_rank(), distributed.get_world_size()
    is_here = (chosen % size == rank)[:, None]
    return processes.total(torch.where(is_here, inputs[chosen // size], 0.0))


def _codes(model: SparseAutoencoder, inputs: Tensor) -> Tensor:
    """Of each input by itself: hard inputs are no batch that the hinge could be asked of."""
    return model.infer_alone(inputs) if model.encoder is None else model.encode(inputs)


def revive(
    model: SparseAutoencoder,
    optimizer: Optimizer,
    units: Tensor,
    inputs: Tensor,
    encoder_scale: float,
) -> None:
    """Let dead units begin anew, each as what one input lacks.

    Atoms get the mean norm of those that are alive, and then the model's constraint. Of the
    encoder's weights the component's row of the first gets the direction of what the input lacks,
    and all others of the component are 0.

    Args:
        model: its weights change in place.
        optimizer: whose moments of the weights that change become 0.
        units: (k,) indices of code components.
        inputs: (k, d).
        encoder_scale: as for `Revive`.
    """
    weight, axis = _atom_columns(model.decoder)
    columns, lacking = missing_columns(model, units, inputs)
    has_direction = vector_norm(columns, dim=1) > 0
    units, columns, lacking = (part[has_direction] for part in (units, columns, lacking))
    _replace(weight, axis, units, columns, 1.0)
    changed = [(weight, axis)]
    if model.encoder is not None:
        changed += (slices := model.encoder.unit_slices())
        for number, (part, part_axis) in enumerate(slices):
            if number == 0:
                _replace(part, part_axis, units, lacking, encoder_scale)
            else:
                part.data.index_fill_(part_axis, units, 0.0)
    if model.constraint is not None:
        model.constraint(model.decoder)
    for part, part_axis in changed:
        for name in MOMENTS:
            if name in optimizer.state[part]:
                optimizer.state[part][name].index_fill_(part_axis, units, 0.0)


def missing_columns(
    model: SparseAutoencoder, units: Tensor, inputs: Tensor
) -> tuple[Tensor, Tensor]:
    """New columns (k, m) of the bottom weight, and what the inputs lack, (k, d)."""
    weight, axis = _atom_columns(model.decoder)
    codes = _codes(model, inputs).detach().to(weight.dtype)
    codes[:, units] = 0.0
    lacking = inputs - model.decode(codes).detach()
    codes[torch.arange(len(units)), units] = 1.0
    with torch.enable_grad():
        before = weight.detach().clone()
        weight.data.index_fill_(axis, units, 0.0)
        loss = (inputs - model.decode(codes)).square().sum() / 2
        (gradient,) = torch.autograd.grad(loss, weight)
        weight.data.copy_(before)
    # Each unit is active for one input alone.
    return -gradient.movedim(axis, 0)[units].flatten(1), lacking


@torch.no_grad()
def _replace(weight: Tensor, axis: int, units: Tensor, columns: Tensor, scale: float) -> None:
    """Give a weight new columns, of a share of the mean norm of all others."""
    norms = vector_norm(weight.movedim(axis, 0).flatten(1), dim=1)
    is_other = torch.ones_like(norms, dtype=torch.bool)
    is_other[units] = False
    norm = scale * (norms[is_other] if is_other.any() else norms).mean()
    new = columns / vector_norm(columns, dim=1, keepdim=True) * norm
    shape = weight.movedim(axis, 0)[units].shape
    weight.movedim(axis, 0)[units] = new.to(weight.dtype).reshape(shape)
