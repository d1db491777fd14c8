"""Small real runs for the figures of the pages: the 1,797 digits of 8×8 pixels of scikit-learn.

A run takes seconds, so that a reader can repeat every figure. The numbers are those of these digits
and of no larger data.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import lightning
import pandas as pd
import torch
from sklearn.datasets import load_digits

from sparse_lightning import (
    FISTA,
    LISTA,
    AdamSettings,
    Energy,
    LinearDecoder,
    SparseAutoencoder,
    UnitColumns,
)
from sparse_lightning.data.batch import TensorSlices, slice_loader
from sparse_lightning.training.loggers import MetricsTable

PIXELS, CODE_DIM, TRAINING, BATCH = 64, 64, 1500, 250
EPOCHS = 150


def digits() -> tuple[TensorSlices, TensorSlices]:
    """Standardised training and validation digits, (1500, 64) and (297, 64)."""
    pixels = torch.as_tensor(load_digits().data / 16, dtype=torch.float32)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    pixels = pixels[order]
    mean, std = pixels[:TRAINING].mean(), pixels[:TRAINING].std()
    inputs = (pixels - mean) / std
    parts = inputs[:TRAINING], inputs[TRAINING:]
    return tuple(TensorSlices(part, scale=std, shift=mean) for part in parts)


def small_model(variance_weight: float = 0.0, unit_columns: bool = False) -> SparseAutoencoder:
    """A linear decoder of 64 atoms; what prevents collapse is an argument."""
    torch.manual_seed(0)
    return SparseAutoencoder(
        decoder=LinearDecoder(CODE_DIM, PIXELS),
        encoder=LISTA(PIXELS, CODE_DIM),
        energy=Energy(
            sparsity_weight=0.01,
            variance_weight=variance_weight,
            variance_threshold=0.5,
            encoder_weight=1.0,
        ),
        solver=FISTA(step_size=0.5),
        optimizer=AdamSettings(decoder_learning_rate=3e-3, encoder_learning_rate=1e-3),
        constraint=UnitColumns() if unit_columns else None,
    )


def trained(model: SparseAutoencoder, epochs: int = EPOCHS) -> pd.DataFrame:
    """Train a model on the digits; its metrics, a row per epoch."""
    train, val = digits()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = MetricsTable(Path(folder) / "metrics.csv")
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=table,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
        )
        trainer.fit(model, slice_loader(train, BATCH, shuffle_seed=0), slice_loader(val, BATCH))
        return table.frame()
