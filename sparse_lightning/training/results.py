"""What a training comes to: the metrics of the model that was kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
from rich.console import Console
from rich.table import Table

from sparse_lightning.checkpoint_format import read_checkpoint
from sparse_lightning.data.module import FINGERPRINT, SplitDataModule
from sparse_lightning.energy import TERMS
from sparse_lightning.errors import SettingError
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.training.code_identity import code_identity
from sparse_lightning.training.loggers import MetricsTable

WORSE_THAN_THE_MEAN = (
    "R² is below 0: the model rebuilds worse than the mean of the training rows does. "
    "Train longer, or with a smaller λ."
)


@dataclass(frozen=True)
class Results:
    """Final metrics.

    Attributes:
        metrics: ``val/...`` and ``test/...`` of the best model, ``epochs``, ``max_epochs`` (what
            the run was to have, if limited), ``seconds``, ``cpu_seconds`` (of all threads),
            ``version`` and ``commit`` of the code, and ``data_fingerprint``, if a model was kept.
            A split whose batches the Trainer was told to leave out has none. Of a run that began
            from another's checkpoint (``ckpt_path``) ``epochs`` counts the other's as well, as
            ``max_epochs`` does; the seconds are its own.
        codes: what finds the codes that metrics are of, ``encoder`` or ``inference``.
        best_epoch: the epoch that the best model is from, counted from 0.
        is_chosen: whether it is the best of several; else it is that of the last epoch.
        halfway: ``epoch`` and the ``val/...`` of the last validation by half of the epochs: results
            that it is far from are those of too short a training. Empty where there was none, and
            where λ was another then.
    """

    metrics: dict[str, float | str | None]
    codes: str
    best_epoch: int
    is_chosen: bool
    halfway: dict[str, float]

    def show(self, run_dir: Path) -> None:
        """Print the metrics, and where the run's files are; epochs are counted from 1."""
        which = "Best" if self.is_chosen else "Last"
        epochs, seconds = self.metrics["epochs"], self.metrics["seconds"]
        title = f"{which} model: epoch {self.best_epoch + 1} of {epochs}\ncodes by {self.codes}"
        table = Table(title=title)
        columns = {"validation": (self.metrics, "val"), "test": (self.metrics, "test")}
        if self.halfway:
            before = f"validation, epoch {self.halfway['epoch'] + 1}"
            columns = {before: (self.halfway, "val")} | columns
        table.add_column("metric")
        for heading in columns:
            table.add_column(heading, justify="right")
        names = [name.partition("/")[2] for name in self.metrics if "/" in name]
        for name in dict.fromkeys(names):
            cells = [source.get(f"{phase}/{name}") for source, phase in columns.values()]
            if name in TERMS and not any(cells):
                continue  # The model has no such term.
            table.add_row(name, *("" if cell is None else f"{cell:.4f}" for cell in cells))
        console = Console()
        console.print(table)
        if self.metrics.get("test/r2", 0.0) < 0:
            console.print(WORSE_THAN_THE_MEAN)
        console.print(f"{epochs} epochs in {seconds:.0f} s", highlight=False)
        for name in ("metrics.json", "metrics.csv", "checkpoints/best.ckpt", "figures"):
            if (run_dir / name).exists():
                console.print(f"{run_dir / name}", soft_wrap=True, highlight=False)


def best_checkpoint(trainer: lightning.Trainer) -> str:
    """The checkpoint of the best model, empty where none was kept."""
    callback = trainer.checkpoint_callback
    return "" if callback is None else callback.best_model_path


def tested_best(
    trainer: lightning.Trainer, model: SparseAutoencoder, data: SplitDataModule, table: MetricsTable
) -> Results | None:
    """Test the best model, by the training rule's metric; None in all processes but the first.

    Where no checkpoint is kept, the model of the last epoch is tested.

    Raises:
        SettingError: training ended before there was one.
    """
    best = best_checkpoint(trainer)
    if not best and (trainer.checkpoint_callback is not None or trainer.current_epoch == 0):
        raise SettingError(
            "The run ended before an epoch was validated (with target_zeros, one of the last "
            "third, whose λ is frozen): there is no model to keep. Allow more "
            f"than trainer.max_epochs={trainer.max_epochs}, max_steps={trainer.max_steps}, or "
            "max_time does."
        )
    tested = trainer.test(model, data, ckpt_path=best or None, verbose=False, weights_only=True)
    if not trainer.is_global_zero:
        return None
    # Without test batches there are no results of them.
    test = tested[0] if tested else {}
    rows = table.frame()
    kept = read_checkpoint(best) if best else {}
    last_epoch = int(rows["epoch"].max())
    best_epoch = kept.get("epoch", last_epoch)
    metrics = _validation(rows, best_epoch) | test | {"epochs": last_epoch + 1}
    if trainer.max_epochs not in (None, -1):
        metrics["max_epochs"] = trainer.max_epochs
    metrics |= {
        name: round(float(rows[name].sum()), 3) for name in ("seconds", "cpu_seconds")
    } | code_identity()
    metrics["data_fingerprint"] = kept.get(type(data).__qualname__, {}).get(FINGERPRINT)
    is_chosen = bool(best) and trainer.checkpoint_callback.monitor is not None
    codes = "inference" if model.encoder is None else "encoder"
    return Results(metrics, codes, best_epoch, is_chosen, _halfway(rows, last_epoch, metrics))


def _halfway(rows: pd.DataFrame, last_epoch: int, final: dict[str, Any]) -> dict[str, float]:
    """The last validation by half of the epochs; none of a model that had another λ then."""
    validated = rows[rows["val/energy"].notna()] if "val/energy" in rows else rows[:0]
    validated = validated[validated["epoch"] < (last_epoch + 1) // 2]
    if validated.empty:
        return {}
    epoch = int(validated["epoch"].iloc[-1])
    found = _validation(rows, epoch)
    name = "val/sparsity_weight"  # Of a search.
    return {"epoch": epoch} | found if found.get(name) == final.get(name) else {}


def _validation(rows: pd.DataFrame, epoch: int) -> dict[str, float]:
    """The ``val/...`` of an epoch."""
    own = rows.loc[rows["epoch"] == epoch].filter(like="val/").dropna(axis="columns")
    return {name: float(column.iloc[0]) for name, column in own.items()}
