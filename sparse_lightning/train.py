"""Train a model: ``python -m sparse_lightning.train model=vdl_nl data=mnist``.

Fits, keeps the model with the lowest validation energy, tests it, and leaves in the run directory
``config.yaml``, ``metrics.csv``, ``metrics.json``, ``checkpoints/best.ckpt``,
``checkpoints/last.ckpt`` and ``figures/``. A run that diverges ends with an error, and with the
results of its best model until then.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import lightning
import torch
from hydra.utils import instantiate
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from sparse_lightning import config as configuration
from sparse_lightning import jobs
from sparse_lightning.callbacks import FreshCallbacks, OwnLearningRates
from sparse_lightning.checkpoints import read_checkpoint
from sparse_lightning.errors import CheckpointError, DivergenceError, SettingError
from sparse_lightning.files import require_writable, write_json
from sparse_lightning.loggers import MetricsTable, record_config, wandb_finished
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.parts import describe
from sparse_lightning.runs import DIVERGED_AT, RESULTS_FILE, Run, record_settings


def train(config: DictConfig) -> dict[str, float]:
    """Run one training from a composed configuration and return its final metrics.

    Raises:
        SettingError, DataError, CheckpointError: before training, for settings, files or
            checkpoints that cannot work.
        DivergenceError: during training; the last good checkpoint is kept, and where an epoch was
            validated before, the best model is tested.
    """
    _quieten()
    run_dir = Path(config.run_dir)
    require_writable("hydra.run.dir", run_dir)
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    data = instantiate(config.data)
    model = instantiate(config.model)
    _require_fit(model, data)
    checkpoint = _checkpoint_to_continue(config, run_dir)
    goes_on = checkpoint == _last_checkpoint(run_dir)
    first_epoch = 0
    if checkpoint is not None:
        first_epoch = _require_same_model(checkpoint, model, goes_on)
        _require_resumable(config, first_epoch, goes_on)
    rank_zero_only(_begin)(config, run_dir)

    table = MetricsTable(run_dir / "metrics.csv")
    loggers = [table, *(instantiate(logger) for logger in (config.logger or {}).values())]
    with wandb_finished():
        record_config(loggers, config, data)
        callbacks = [
            instantiate(callback)
            for name, callback in (config.callbacks or {}).items()
            # Lightning refuses a progress bar where it was told to have none.
            if name != "progress_bar" or config.trainer.enable_progress_bar
        ]
        if checkpoint is not None:
            callbacks.append(OwnLearningRates() if goes_on else FreshCallbacks())
        trainer = instantiate(
            config.trainer, logger=loggers, callbacks=callbacks, accelerator=_accelerator(config)
        )
        table.begin(first_epoch)
        try:
            trainer.fit(model, data, ckpt_path=checkpoint, weights_only=True)
        except DivergenceError as error:
            _conclude_diverged(error, trainer, model, data, table, run_dir)
        if trainer.fast_dev_run:
            return {}
        return _conclude(trainer, model, data, table, run_dir)


def _begin(config: DictConfig, run_dir: Path) -> None:
    """Record the settings; results of an earlier part of the run are not those of the whole."""
    record_settings(config, run_dir)
    Run(run_dir).forget_failure()
    (run_dir / RESULTS_FILE).unlink(missing_ok=True)


def _accelerator(config: DictConfig) -> str:
    """The one of the settings; ``auto`` is never Apple's, which lacks float64."""
    chosen = config.trainer.accelerator
    only_apple = torch.backends.mps.is_available() and not torch.cuda.is_available()
    if chosen == "mps" or (chosen == "gpu" and only_apple):
        raise SettingError(
            f"trainer.accelerator={chosen} has no float64 here, in which metrics are summed: set "
            "trainer.accelerator=cpu."
        )
    return "cpu" if chosen == "auto" and only_apple else chosen


def _require_fit(model: SparseAutoencoder, data: lightning.LightningDataModule) -> None:
    if model.decoder.input_dim != data.input_dim:
        raise SettingError(
            f"model.decoder.input_dim={model.decoder.input_dim} does not fit the data, whose "
            f"inputs have {data.input_dim} pixels: set model.decoder.input_dim={data.input_dim}."
        )
    if model.energy.has_hinge:
        data.require_variance()


def _checkpoint_to_continue(config: DictConfig, run_dir: Path) -> Path | None:
    """The checkpoint to start from, None for a fresh start."""
    last = _last_checkpoint(run_dir)
    if last.exists() and not config.resume:
        raise SettingError(
            f"hydra.run.dir={run_dir} holds an earlier run: add resume=true to continue it, or "
            "choose another folder."
        )
    if last.exists():
        return last
    if config.ckpt_path is not None:
        return Path(config.ckpt_path)
    if config.resume:
        rank_zero_info(f"resume=true, and {run_dir} holds no checkpoint: starting afresh.")
    return None


def _last_checkpoint(run_dir: Path) -> Path:
    return run_dir / "checkpoints" / "last.ckpt"


def _require_same_model(checkpoint: Path, model: SparseAutoencoder, goes_on: bool) -> int:
    """Check that a checkpoint fits the model, and return the epoch that it continues with.

    A run that goes on from its own checkpoint keeps its energy and its constraint as well, since
    the best of its models is that of the lowest energy. It keeps its optimizer's settings unless
    it diverged.
    """
    contents = read_checkpoint(checkpoint)
    parameters = contents["hyper_parameters"]
    if parameters["family"] != model.family:
        raise CheckpointError(
            f"{checkpoint} is of family {parameters['family']}, not {model.family}: set "
            f"model={parameters['family']}, or choose another ckpt_path."
        )
    parts = {"decoder": model.decoder, "encoder": model.encoder}
    if not (goes_on and _may_learn_otherwise(checkpoint)):
        parts["optimizer"] = model.optimizer_settings
    if goes_on:
        parts |= {"energy": model.energy, "constraint": model.constraint}
    for part, own in parts.items():
        theirs, ours = parameters[part] or {}, describe(own) or {}
        names = sorted(name for name in theirs.keys() | ours if theirs.get(name) != ours.get(name))
        if names:
            told = ", ".join(f"{name} {theirs.get(name)}, not {ours.get(name)}" for name in names)
            raise CheckpointError(
                f"{checkpoint} has another model.{part} than the settings ({told}): make them "
                f"equal, or choose another {'folder' if goes_on else 'ckpt_path'}."
            )
    return contents["epoch"] + 1


def _may_learn_otherwise(last_checkpoint: Path) -> bool:
    """Whether a run may go on with another optimizer: after it diverged.

    The first process says so for all: the mark is gone once it has begun.
    """
    run = Run(last_checkpoint.parent.parent)
    return rank_zero_only.rank != 0 or run.diverged_at_epoch is not None


def _require_resumable(config: DictConfig, first_epoch: int, goes_on: bool) -> None:
    if config.trainer.max_steps != -1:
        raise SettingError(
            f"trainer.max_steps={config.trainer.max_steps} and a checkpoint do not go together: "
            "Lightning would count an epoch twice. Set trainer.max_epochs instead."
        )
    limit = config.trainer.max_epochs
    if not goes_on and limit is not None and 0 <= limit <= first_epoch:
        raise SettingError(
            f"ckpt_path={config.ckpt_path} has {first_epoch} epochs behind it, which leaves none "
            f"of trainer.max_epochs={limit}: set a larger one."
        )


def _conclude(
    trainer: lightning.Trainer,
    model: SparseAutoencoder,
    data: lightning.LightningDataModule,
    table: MetricsTable,
    run_dir: Path,
    marks: dict[str, int] | None = None,
) -> dict[str, float]:
    """Test the best model, write ``metrics.json`` and show the result, in the first process."""
    best = trainer.checkpoint_callback.best_model_path
    if not best:
        raise SettingError(
            "The run ended before an epoch was validated: there is no model to keep. Allow more "
            f"than trainer.max_epochs={trainer.max_epochs}, max_steps={trainer.max_steps}, or "
            "max_time does."
        )
    tested = trainer.test(model, data, ckpt_path=best, verbose=False, weights_only=True)[0]
    if not trainer.is_global_zero:
        return {}
    rows = table.frame()
    row = rows.set_index("epoch", drop=False).loc[read_checkpoint(best)["epoch"]]
    names = [name.removeprefix("test/") for name in tested]
    final = {f"val/{name}": float(row[f"val/{name}"]) for name in names} | tested
    final |= {"epochs": len(rows), "seconds": round(float(rows["seconds"].sum()), 3)}
    final |= marks or {}
    _write_and_show(final, tested, row, run_dir)
    return final


def _conclude_diverged(
    error: DivergenceError,
    trainer: lightning.Trainer,
    model: SparseAutoencoder,
    data: lightning.LightningDataModule,
    table: MetricsTable,
    run_dir: Path,
) -> NoReturn:
    """End a run that diverged with the results of its best model, if it has one.

    Loggers are told that the run diverged and not how the model did, so that none shows it among
    results of finished runs.
    """
    best = trainer.checkpoint_callback.best_model_path
    if not best:
        raise error
    mark = {DIVERGED_AT: trainer.current_epoch}
    if trainer.is_global_zero:
        Run(run_dir).record_failure(error)
    for logger in trainer.loggers:
        logger.log_metrics(mark, trainer.global_step)
        logger.save()
    trainer.loggers = [table]
    _conclude(trainer, model, data, table, run_dir, mark)
    raise DivergenceError(
        f"{str(error).removesuffix('.')}; the best model before, of epoch "
        f"{read_checkpoint(best)['epoch']}, has been tested, and resume=true with another solver "
        "or learning rate goes on."
    ) from error


def _write_and_show(
    final: dict[str, float], tested: dict[str, float], row: dict[str, float], run_dir: Path
) -> None:
    write_json(run_dir / RESULTS_FILE, final)
    table = Table(title=f"Best model: epoch {int(row['epoch'])} (from 0)")
    for heading, justify in (("metric", "left"), ("validation", "right"), ("test", "right")):
        table.add_column(heading, justify=justify)
    for name, value in tested.items():
        metric = name.removeprefix("test/")
        table.add_row(metric, f"{row[f'val/{metric}']:.4f}", f"{value:.4f}")
    console = Console()
    console.print(table)
    console.print(f"{final['epochs']} epochs in {final['seconds']:.0f} s", highlight=False)
    for name in ("metrics.json", "metrics.csv", "checkpoints/best.ckpt", "figures"):
        console.print(f"{run_dir / name}", soft_wrap=True, highlight=False)


def _quieten() -> None:
    """Silence advice that does not apply."""
    # Batches are slices of memory.
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    # Only a resumed run comes here with checkpoints in its folder.
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
    # What is logged per epoch is the same in every process already.
    warnings.filterwarnings("ignore", r".*sync_dist=True.*")
    warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\).*")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_advertisement)
    torch.set_float32_matmul_precision("highest")


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    return "Tip:" not in record.getMessage()


@contextmanager
def _interruption_explained(run_dir: Path) -> Iterator[None]:
    """Say how to go on, where somebody or Lightning ends the process by an interruption."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if _last_checkpoint(run_dir).exists():
            message = (
                f"Interrupted: the same command with hydra.run.dir={run_dir} resume=true goes on "
                "from the last finished epoch."
            )
        else:
            message = (
                "Interrupted before the end of the first epoch: the same command starts afresh."
            )
        rank_zero_only(print)(message, file=sys.stderr)
        raise


def start(config: DictConfig) -> dict[str, float] | None:
    """What Hydra calls: one run, or one job of a sweep."""
    if jobs.is_job():
        return jobs.run_once(train, config)
    with _interruption_explained(Path(config.run_dir)):
        return train(config)


def main() -> None:
    """Entry point of the command line."""
    configuration.run(start, "train")


if __name__ == "__main__":
    # Under its own name, by which the workers of a sweep import it.
    from sparse_lightning.train import main as importable_main

    importable_main()
