"""Data and models that are small enough for a study to take a moment."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch

from sparse_lightning import SparseAutoencoder
from sparse_lightning.data.batch import TensorSlices
from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.decoders import LinearDecoder
from sparse_lightning.encoders import LISTA, SignedLISTA
from sparse_lightning.energy import Energy
from sparse_lightning.optimizers import AdamSettings
from sparse_lightning.penalties import L1, NonNegativeL1
from sparse_lightning.solvers import FISTA

SIZE = 8


class TinyData(SplitDataModule):
    """Smooth images of 8×8 in three classes."""

    input_dim, image_shape, title = SIZE * SIZE, (SIZE, SIZE), "tiny"

    def __init__(self, count: int = 60, labelled: bool = True) -> None:
        super().__init__({"train": count, "val": count, "test": count}, 25, 0, False)
        generator = torch.Generator().manual_seed(0)
        patterns = torch.randn(3, self.input_dim, generator=generator)
        for split in ("train", "val", "test"):
            labels = torch.arange(count) % 3
            inputs = patterns[labels] + 0.3 * torch.randn(
                count, self.input_dim, generator=generator
            )
            self.splits[split] = TensorSlices(
                inputs, torch.tensor(0.3), torch.tensor(0.5), labels if labelled else None
            )


class FlatValidation(TinyData):
    """Validation images are flat, and pixels of the others are as good as independent."""

    def __init__(self) -> None:
        super().__init__()
        val = self.splits["val"]
        val.tensors = val.tensors._replace(inputs=torch.zeros_like(val.tensors.inputs))


class TinyModel:
    """A model with random weights, and what tables say of it."""

    def __init__(
        self,
        family: str = "sdl",
        encoder: bool = True,
        seed: int = 0,
        signed: bool = False,
        **columns,
    ) -> None:
        torch.manual_seed(seed)
        self.model = SparseAutoencoder(
            decoder=LinearDecoder(12, SIZE * SIZE),
            encoder=(SignedLISTA if signed else LISTA)(SIZE * SIZE, 12) if encoder else None,
            energy=Energy(
                sparsity_weight=0.05,
                penalty=L1() if signed else NonNegativeL1(),
                encoder_weight=1.0 if encoder else 0.0,
            ),
            solver=FISTA(step_size=1.0, max_iterations=50),
            optimizer=AdamSettings(1e-3, 1e-4),
            family=family,
        ).eval()
        self.run = SimpleNamespace(folder=Path(columns.get("run", "run")), results=None)
        self.settings: dict[str, object] = {}
        self.digest, self.has_weights, self.metric = f"{family}{seed}", True, "val/energy"
        self.columns = {
            "data": "tiny", "family": family, "sparsity_weight": 0.05, "seed": seed, "run": "run",
            "max_epochs": 5, "epochs": 5, "solver": "FISTA",
        } | columns  # fmt: skip
