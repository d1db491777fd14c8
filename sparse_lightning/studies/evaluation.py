"""One study from its settings to its tables and figures.

Leaves in the run directory the study's tables, ``table.csv`` first of all, and its figures as PNG.
The same command with the same ``hydra.run.dir`` goes on where it was stopped.
"""

from __future__ import annotations

import inspect
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger, WandbLogger
from matplotlib.figure import Figure
from omegaconf import DictConfig
from rich.console import Console

from sparse_lightning.errors import NoModelsError
from sparse_lightning.experiments.locks import held_alone
from sparse_lightning.files import require_writable, write_figure, write_json
from sparse_lightning.studies.arguments import require_possible
from sparse_lightning.studies.result_cache import ResultCache
from sparse_lightning.studies.shared_data import shared_data
from sparse_lightning.studies.study_result import StudyResult
from sparse_lightning.studies.trained_models import WeightsGoneError, find_trained_models
from sparse_lightning.training.loggers import wandb_finished

FIGURES_FILE = "figures.json"


def evaluate(config: DictConfig) -> StudyResult:
    """Run one study from a composed configuration and return its result.

    Raises:
        SettingError, DataError, CheckpointError: before it begins, for models and data that the
            study cannot use.
    """
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    torch.set_float32_matmul_precision("highest")
    run_dir = Path(config.run_dir)
    require_writable("hydra.run.dir", run_dir)
    with held_alone("hydra.run.dir", run_dir):
        return _evaluate_in_held_folder(config, run_dir)


def _evaluate_in_held_folder(config: DictConfig, run_dir: Path) -> StudyResult:
    compute = instantiate(config.study.compute)
    require_possible(compute)
    result = _computed(compute, _what_it_needs(compute, config, run_dir))
    console = Console()
    for path in result.write(run_dir):
        console.print(str(path), soft_wrap=True, highlight=False)
    pictures = []
    for name, figure in draw(config, result):
        pictures.append(write_figure(figure, run_dir / f"{name}.png"))
        console.print(str(pictures[-1]), soft_wrap=True, highlight=False)
    _remove_earlier(run_dir, pictures)
    with wandb_finished():
        chosen = (config.logger or {}).values()
        loggers = [instantiate(logger) for logger in chosen if logger is not None]
        _log(loggers, config.study.name, result, pictures)
    return result


def _computed(compute: Callable[..., StudyResult], given: dict[str, Any]) -> StudyResult:
    """The result, without models whose weights are gone and that were not measured before.

    Raises:
        NoModelsError: no other model is left.
    """
    while True:
        try:
            return compute(**given)
        except WeightsGoneError as error:
            left = [trained for trained in given["trained_models"] if trained is not error.trained]
            if not left:
                raise NoModelsError(str(error)) from error
            warnings.warn(f"Left out: {error}", stacklevel=2)
            given = given | {"trained_models": left}


def _remove_earlier(run_dir: Path, pictures: list[Path]) -> None:
    """Remove figures of an earlier call that this one did not draw, as of a λ best no more.

    The folder's other pictures may be the user's.
    """
    record = run_dir / FIGURES_FILE
    earlier = json.loads(record.read_text()) if record.is_file() else []
    for path in run_dir.glob("*.png"):
        if path.name in earlier and path not in pictures:
            path.unlink()
    write_json(record, [path.name for path in pictures])


def draw(config: DictConfig, result: StudyResult) -> Iterator[tuple[str, Figure]]:
    """Name and figure of everything that a study shows."""
    yield from instantiate(config.study.draw)(result)


def _what_it_needs(compute: Callable, config: DictConfig, run_dir: Path) -> dict[str, Any]:
    """Models, their data and a cache, as far as the study's function has an argument for them."""
    wanted = inspect.signature(compute).parameters
    given: dict[str, Any] = {}
    if "cache" in wanted:
        given["cache"] = ResultCache(run_dir / "memory")
    if "trained_models" in wanted:
        compares = config.study.get("compares_settings", False)
        given["trained_models"] = find_trained_models(
            config.checkpoint, config.runs, config.where, of_any_settings=compares
        )
    if "data" in wanted:
        given["data"] = shared_data(given["trained_models"], config.get("data"))
    return given


def _log(loggers: list[Logger], study: str, result: StudyResult, pictures: list[Path]) -> None:
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            for name, table in result.tables.items():
                logger.log_table(f"{study}/{name}", dataframe=table)
            for path in pictures:
                logger.log_image(f"{study}/{path.stem}", [str(path)])
