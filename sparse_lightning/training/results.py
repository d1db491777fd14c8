"""What a training comes to: the metrics of the model that was kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import lightning
from rich.console import Console
from rich.table import Table

from sparse_lightning.checkpoint_format import read_checkpoint
from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.errors import SettingError
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.training.code_identity import code_identity
from sparse_lightning.training.loggers import MetricsTable


@dataclass(frozen=True)
class Results:
    """Final metrics.

    Attributes:
        metrics: ``val/...`` and ``test/...`` of the best model, ``epochs``, ``max_epochs`` (what
            the run was to have, if limited), ``seconds``, ``cpu_seconds`` (of all threads),
            ``version`` and ``commit`` of the code.
        best_epoch: the epoch that the best model is from, counted from 0.
    """

    metrics: dict[str, float | str | None]
    best_epoch: int

    def show(self, run_dir: Path) -> None:
        """Print the metrics, and where the run's files are."""
        table = Table(title=f"Best model: epoch {self.best_epoch} (from 0)")
        for heading, justify in (("metric", "left"), ("validation", "right"), ("test", "right")):
            table.add_column(heading, justify=justify)
        for name, value in self.metrics.items():
            if name.startswith("test/"):
                metric = name.removeprefix("test/")
                table.add_row(metric, f"{self.metrics[f'val/{metric}']:.4f}", f"{value:.4f}")
        console = Console()
        console.print(table)
        epochs, seconds = self.metrics["epochs"], self.metrics["seconds"]
        console.print(f"{epochs} epochs in {seconds:.0f} s", highlight=False)
        for name in ("metrics.json", "metrics.csv", "checkpoints/best.ckpt", "figures"):
            console.print(f"{run_dir / name}", soft_wrap=True, highlight=False)


def tested_best(
    trainer: lightning.Trainer, model: SparseAutoencoder, data: SplitDataModule, table: MetricsTable
) -> Results | None:
    """Test the model of lowest validation energy; None in all processes but the first.

    Raises:
        SettingError: training ended before there was one.
    """
    best = trainer.checkpoint_callback.best_model_path
    if not best:
        raise SettingError(
            "The run ended before an epoch was validated: there is no model to keep. Allow more "
            f"than trainer.max_epochs={trainer.max_epochs}, max_steps={trainer.max_steps}, or "
            "max_time does."
        )
    tested = trainer.test(model, data, ckpt_path=best, verbose=False, weights_only=True)[0]
    if not trainer.is_global_zero:
        return None
    best_epoch, rows = read_checkpoint(best)["epoch"], table.frame()
    row = rows.set_index("epoch").loc[best_epoch]
    names = [name.removeprefix("test/") for name in tested]
    metrics = {f"val/{name}": float(row[f"val/{name}"]) for name in names} | tested
    metrics |= {"epochs": len(rows)}
    if trainer.max_epochs not in (None, -1):
        metrics["max_epochs"] = trainer.max_epochs
    metrics |= {
        name: round(float(rows[name].sum()), 3) for name in ("seconds", "cpu_seconds")
    } | code_identity()
    return Results(metrics, best_epoch)
