"""A model learns from rows in memory: a loop over its own training step, which writes no file."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR

from sparse_lightning.data.batch import Batch
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.training.sparsity_target import Search, SparsityController


@dataclass
class Learner:
    """Where learning stands.

    Attributes:
        model: what learns.
        seed: of the order of rows.
        controller: finds λ for a target; None without one.
        is_frozen: whether λ is found.
        largest: (l,), the largest value of each code component in the last epoch.
        training_zeros: share of zeros in training's codes of the last epoch.
    """

    model: SparseAutoencoder
    seed: int
    controller: SparsityController | None
    is_frozen: bool = False
    largest: Tensor | None = None
    training_zeros: float = 0.0
    search: Search = field(init=False)
    optimizer: Adam = field(init=False)
    schedule: LambdaLR = field(init=False)

    def __post_init__(self) -> None:
        model = self.model
        self.search = Search.at(model.energy.sparsity_weight)
        self.optimizer, self.schedule = model.optimizer_settings.build(model.decoder, model.encoder)

    def epoch(self, inputs: Tensor, batches: list[list[int]]) -> dict[str, float]:
        """Learn from each batch once; what was measured on the way."""
        model, one = self.model.train(), torch.ones(())
        meters = model.meters["train_meters"]
        # An epoch that was interrupted does not count.
        meters.reset()
        with torch.enable_grad():
            for number, rows in enumerate(batches):
                loss = model.training_step(Batch(inputs[rows], one, 0 * one), number)
                self.optimizer.zero_grad()
                loss.backward()
                model.training_rule.before_step(model)
                self.optimizer.step()
                if model.constraint is not None:
                    model.constraint(model.decoder)
        self.schedule.step()
        self.largest = meters["codes"].largest.to(inputs.dtype, copy=True)
        measured = {name: float(value) for name, value in meters.results().items()}
        self.training_zeros = measured["zeros"]
        return measured

    def adjust(self, zeros: float) -> None:
        """The next λ, after an epoch and a share of zeros in the codes that are judged."""
        self.search = self.controller.advance(self.search, zeros, self.training_zeros)
        self.model.set_sparsity_weight(self.search.weight)


def mini_batches(order: list[int], size: int, fewest: int) -> list[list[int]]:
    """Batches of ``size`` samples; a last one of less than ``fewest`` joins the one before."""
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    if len(batches) > 1 and len(batches[-1]) < fewest:
        batches[-2:] = [batches[-2] + batches[-1]]
    return batches
