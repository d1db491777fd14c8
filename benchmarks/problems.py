"""What is solved: a batch, the decoder of a family after some training, and a judge.

The judge is the energy in float64, computed from codes alone. Solvers never score themselves.
"""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import hydra
import lightning
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

import sparse_lightning.train  # noqa: F401, which makes the resolvers of the configs known
from sparse_lightning import Energy, Objective, Solution, SparseAutoencoder

ROOT = Path(__file__).parents[1]
FAMILIES = ("sdl", "vdl", "wdl", "do", "sdl_nl", "vdl_nl", "wdl_nl", "do_nl")

# The setting that says where the files of a data set are kept.
FOLDER_SETTING = {"mnist": "data.root", "imagenet_patches": "data.cache_dir"}


@dataclass(frozen=True)
class Problem:
    """One batch to infer codes of, with a family's numbers and the two solvers of ``conf/``."""

    energy: Energy
    decoder: nn.Module
    inputs: Tensor
    prediction: Tensor | None
    config: DictConfig

    @property
    def initial(self) -> Tensor:
        if self.prediction is not None:
            return self.prediction
        return self.inputs.new_zeros(len(self.inputs), self.decoder.code_dim)

    def bind(self) -> Objective:
        """As inference does at every training step; part of what is timed."""
        with torch.no_grad():
            return self.energy.bind(self.decoder, self.inputs, self.prediction)

    def infer(self, solver: Callable[[Objective, Tensor], Solution]) -> Tensor:
        """Codes (n, l)."""
        return solver(self.bind(), self.initial).codes

    @cached_property
    def _exact(self) -> Objective:
        prediction = None if self.prediction is None else self.prediction.double()
        decoder = copy.deepcopy(self.decoder).double()
        return self.energy.bind(decoder, self.inputs.double(), prediction)

    def judge(self, codes: Tensor) -> float:
        """The energy of codes, in float64."""
        with torch.no_grad():
            return float(self._exact.value(codes.double()))


def settings(*overrides: str) -> DictConfig:
    """The composed configuration of a training, as the command line makes it."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return hydra.compose("train", ["run_dir=.", *overrides])


def problem(
    family: str, steps: int, data: str = "mnist", samples: int = 250, device: str = "cpu"
) -> Problem:
    """Samples of the training set and a model of a family after some training steps."""
    with tempfile.TemporaryDirectory() as folder:
        config = settings(
            *(f"model={family}", f"data={data}", f"{FOLDER_SETTING[data]}={folder}"),
            *("solver=adaptive", "data.num_train=10000", "data.num_val=250", "data.num_test=250"),
        )
        lightning.seed_everything(0, verbose=False)
        model, module = instantiate(config.model), instantiate(config.data)
        train(model, module, steps)
        batches = [batch.inputs for batch in module.train_dataloader()]
    inputs = torch.cat(batches)[:samples].to(device)
    model.to(device)
    with torch.no_grad():
        prediction = None if model.encoder is None else model.encoder(inputs)
    return Problem(model.energy, model.decoder, inputs, prediction, config)


def train(
    model: SparseAutoencoder, module: lightning.LightningDataModule, steps: int
) -> lightning.Trainer:
    """Some steps on the CPU, of which nothing is kept or shown."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=steps,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, module)
    return trainer
