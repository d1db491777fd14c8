"""What is solved: real digits, the decoders of each family, and a judge that no solver can bend.

The judge is the energy in float64, computed from codes alone. Solvers never score themselves.
"""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import count, islice
from pathlib import Path

import hydra
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from sparse_lightning import Adaptive, Energy, Objective, SparseAutoencoder
from sparse_lightning.config import CONFIG_DIR, register_resolvers
from sparse_lightning.data.mnist import MNIST
from sparse_lightning.decoders import Decoder

SEED = 0


@dataclass(frozen=True)
class Problem:
    """One batch to infer codes of, with a family's numbers."""

    name: str
    energy: Energy
    decoder: Decoder
    inputs: Tensor
    prediction: Tensor | None
    step_size: float

    @property
    def initial(self) -> Tensor:
        if self.prediction is not None:
            return self.prediction
        return self.inputs.new_zeros(len(self.inputs), self.decoder.code_dim)

    def to(self, device: str) -> Problem:
        """The same on another device."""
        prediction = None if self.prediction is None else self.prediction.to(device)
        return replace(
            self,
            decoder=copy.deepcopy(self.decoder).to(device),
            inputs=self.inputs.to(device),
            prediction=prediction,
        )

    def bind(self) -> Objective:
        """As inference does at every training step; part of what is timed."""
        with torch.no_grad():
            return self.energy.bind(self.decoder, self.inputs, self.prediction)

    @cached_property
    def _exact(self) -> Objective:
        prediction = None if self.prediction is None else self.prediction.double()
        decoder = copy.deepcopy(self.decoder).double()
        return self.energy.bind(decoder, self.inputs.double(), prediction)

    def judge(self, codes: Tensor) -> float:
        """The energy of codes, in float64."""
        with torch.no_grad():
            return float(self._exact.value(codes.double()))


@cache
def digits() -> Tensor:
    """MNIST's training digits, standardised, (55,000, 784)."""
    with tempfile.TemporaryDirectory() as folder:
        data = MNIST(Path(folder))
        data.prepare_data()
        data.setup()
        return data.splits["train"].tensors.inputs


def settings(family: str, data: str = "mnist", *overrides: str) -> DictConfig:
    """The composed configuration of a family, as the command line makes it."""
    register_resolvers()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = hydra.compose(
            "train",
            [f"model={family}", f"data={data}", "run_dir=.", *overrides],
            return_hydra_config=True,
        )
    HydraConfig.instance().set_config(config)
    return config


def problem(family: str, steps: int = 0, data: str = "mnist", batch: int = 250) -> Problem:
    """A batch of a family, after that many training steps on digits; patches get random inputs."""
    return problems(family, steps, 1, data, batch)[0]


def problems(
    family: str,
    steps: int,
    how_many: int,
    data: str = "mnist",
    batch: int = 250,
    sparsity_level: int | None = None,
) -> list[Problem]:
    """Several batches of `problem`, of one decoder, with a λ of the family's grid if it is given.

    Raises:
        ValueError: there are not so many digits.
    """
    of_the_grid = [] if sparsity_level is None else [f"sparsity_level={sparsity_level}"]
    config = settings(family, data, *of_the_grid)
    torch.manual_seed(SEED)
    model = instantiate(config.model)
    dim = model.decoder.input_dim
    inputs = digits() if data == "mnist" else torch.randn(how_many * batch, dim)
    if how_many * batch > len(inputs):
        raise ValueError(f"There are {len(inputs)} digits: take {len(inputs) // batch} batches.")
    learn(model, inputs, steps, batch)
    name = f"{family.upper().replace('_', '-')}, " + ("initial" if not steps else f"{steps} steps")
    if sparsity_level is not None:
        name += f", λ level {sparsity_level}"
    found = []
    for part in inputs[: how_many * batch].split(batch):
        with torch.no_grad():
            prediction = None if model.encoder is None else model.encoder(part)
        found.append(Problem(name, model.energy, model.decoder, part, prediction, config.step_size))
    return found


def learn(model: SparseAutoencoder, inputs: Tensor, steps: int, batch: int) -> None:
    """A bare training loop, to have decoders as they are after a while."""
    optimizer, _ = model.optimizer_settings.build(model.decoder, model.encoder)
    model.solver = Adaptive()
    batches = (rows for _ in count() for rows in torch.randperm(len(inputs)).split(batch))
    for rows in islice(batches, steps):
        codes = model.infer(inputs[rows]).codes
        loss = (model.decoder(codes) - inputs[rows]).square().mean()
        if model.encoder is not None:
            loss = loss + (model.encoder(inputs[rows]) - codes).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if model.constraint is not None:
            model.constraint(model.decoder)
