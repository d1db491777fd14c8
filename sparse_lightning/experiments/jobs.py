"""A job is one run of a sweep: done once, whoever is asked to do it and however often.

A finished one is left as it is, one that another process has is left to it, an interrupted one
goes on from its last checkpoint, and so does one that is to have more epochs than it had; one that
failed or diverged is tried again. What it prints goes to
``output.log`` in its folder.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import torch
from filelock import Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from sparse_lightning.errors import SettingError, SweepError, told_to_the_user
from sparse_lightning.experiments.devices import own_device, require_places
from sparse_lightning.experiments.early_checks import FORCE
from sparse_lightning.experiments.locks import held
from sparse_lightning.experiments.runs import Run, record_settings

OUTPUT_FILE = "output.log"

Train = Callable[[DictConfig], dict[str, float]]


def is_job() -> bool:
    """Whether Hydra runs this as one of several."""
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    return hydra is not None and not OmegaConf.is_missing(hydra.job, "num")


def run_once(train: Train, config: DictConfig) -> dict[str, float] | None:
    """Train unless it is done already; the final metrics, None where another process is at it.

    Raises:
        SweepError: training failed; why is in the run's folder.
    """
    run, epochs = Run(Path(config.run_dir)), config.trainer.get("max_epochs")
    if run.covers(epochs):
        return run.results
    run.folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(run.folder))
        except Timeout:
            return None
        # The lock may have come free because the other process is done.
        return run.results if run.covers(epochs) else _attempt(train, config, run)


def objective_of(
    config: DictConfig, metrics: dict[str, float] | None
) -> dict[str, float] | float | None:
    """What a job returns: the metric that ``objective`` names, or all where it names none.

    Raises:
        SettingError: there is no such metric.
        SweepError: another process has the job, whose metrics are not known yet.
    """
    name = config.get("objective")
    if name is None:
        return metrics
    if metrics is None:
        raise SweepError(f"{config.run_dir} is in use by another process: objective={name} waits.")
    if not isinstance(metrics.get(name), int | float):
        known = ", ".join(key for key in metrics if "/" in key)
        raise SettingError(f"objective={name} is no metric of this training: take one of {known}.")
    return float(metrics[name])


def _attempt(train: Train, config: DictConfig, run: Run) -> dict[str, float]:
    run.forget_failure()
    with _output_to(run.folder / OUTPUT_FILE):
        print(f"--- {datetime.now():%Y-%m-%d %H:%M:%S}, {platform.node()}, process {os.getpid()}")
        try:
            require_one_device(config)
            with own_device(config) as device, open_dict(config):
                config.sweep.device = device
                is_forced = config.get("resume") == FORCE
                config.resume = run.last_checkpoint.exists() and (FORCE if is_forced else True)
                config.trainer.enable_progress_bar = False
                record_settings(config, run.folder)
                if config.sweep.threads is not None:
                    torch.set_num_threads(config.sweep.threads)
                return train(config)
        except Exception as error:
            run.record_failure(error)
            # Not every error survives the way back from a worker; a sentence does.
            raise SweepError(f"{run.folder.name}: {told_to_the_user(error) or error}") from None


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Send what is printed to a file; the terminal belongs to the sweep."""
    lightning_log = logging.getLogger("lightning.pytorch")
    level = lightning_log.level
    lightning_log.setLevel(logging.WARNING)
    with (
        path.open("a", buffering=1, encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        try:
            yield
        finally:
            lightning_log.setLevel(level)


def require_one_device(config: DictConfig) -> None:
    """Raise `SettingError` if a job of a sweep would spread over several devices.

    Or if the settings by which jobs share out devices are of a wrong kind.
    """
    require_places(config)
    trainer = config.trainer
    strategy = str(trainer.strategy)
    devices = trainer.devices
    several = len(devices) > 1 if isinstance(devices, ListConfig) else str(devices) != "1"
    if several or trainer.num_nodes > 1 or strategy.startswith(("ddp", "fsdp", "deepspeed")):
        raise SettingError(
            f"trainer.strategy={strategy} with trainer.devices={devices} may spread one model "
            "over several devices, which a sweep does not do: leave trainer=ddp out, set "
            "trainer.devices=1, and let the launcher run several jobs at a time "
            "(hydra/launcher=joblib), each on one device, or train this model on its own, "
            "without -m."
        )
