"""The data set that the models of a study share, and whether it is what they were trained on."""

from __future__ import annotations

import filecmp
import inspect
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from sparse_lightning.checkpoint_format import read_checkpoint
from sparse_lightning.data.array_pipeline.standardisation import NONE
from sparse_lightning.data.arrays import ALL, Arrays
from sparse_lightning.data.module import FINGERPRINT, SplitDataModule
from sparse_lightning.data.own import data_of
from sparse_lightning.errors import SettingError
from sparse_lightning.experiments.fingerprint import effective_settings
from sparse_lightning.experiments.runs import Run
from sparse_lightning.experiments.settings import convert_data
from sparse_lightning.studies.trained_models import TrainedModel

# Settings of a data set that change neither the samples of a split nor their order in it.
IMMATERIAL = {
    *("cache_dir", "batch_size", "shuffle_seed", "drop_last", "num_workers", "sorted_by_class")
}
# Settings that say where the files of data are.
PLACES = ("path", "root")
# Settings of files of one's own by which a sample is in one split or another.
SPLITTING = (
    *("path_val", "path_test", "groups", "val_share", "test_share"),
    *("num_train", "num_val", "num_test", "split_seed"),
)


def shared_data(
    trained_models: Sequence[TrainedModel], config: DictConfig | None = None, whole: bool = False
) -> SplitDataModule:
    """The data that the models were trained on, ready to use.

    Args:
        trained_models: at least one.
        config: settings of other data to use instead.
        whole: keep all rows together, see `Arrays.keep_whole`.

    Raises:
        SettingError: the models were trained on different data, on other contents than the files
            have now, or do not fit ``config``; ``config`` splits their own files otherwise; or data
            that are no rows of a file are to be whole.
    """
    if config is None:
        first, *others = trained_models
        for other in others:
            _require_same_data(first, other)
        data = first.run.data()
    else:
        convert_data(config)
        data = data_of(config)
        for trained in trained_models:  # Tables and titles name what was measured.
            trained.columns["data"] = data.title
    if whole:
        keep_whole(data)
    elif config is not None:
        for trained in trained_models:
            _require_equal_splits(trained, data, config)
    is_split_anew = whole or config is not None
    if is_split_anew and isinstance(data, Arrays):
        _take_as_in_training(data, trained_models)
    for trained in trained_models:
        if trained.has_weights and trained.model.decoder.input_dim != data.input_dim:
            raise SettingError(
                f"{trained.checkpoint} takes inputs of {trained.model.decoder.input_dim} values, "
                f"and the data have {data.input_dim}: choose other data=."
            )
    data.prepare_data()
    data.setup("test")
    if not is_split_anew:
        _require_same_contents(trained_models, data)
    return data


def keep_whole(data: SplitDataModule) -> None:
    """Keep all rows together, or raise `SettingError` for data that are no rows of a file."""
    if not isinstance(data, Arrays):
        raise SettingError(
            f"splits=[{ALL}] needs data=arrays or data=image_folder, and {data.title} are none: "
            "name some of train, val and test."
        )
    data.keep_whole()


def state_of_data(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint keeps of the data, whatever their class; empty where it keeps nothing."""
    contents = read_checkpoint(checkpoint).values()
    states = [state for state in contents if isinstance(state, dict) and FINGERPRINT in state]
    return states[0] if states else {}


def _take_as_in_training(data: Arrays, trained_models: Sequence[TrainedModel]) -> None:
    """Order columns and standardise rows as the checkpoints say, where these say the same."""
    states = [state_of_data(each.checkpoint) for each in trained_models if each.has_weights]
    if not states or any("mean" not in state for state in states):
        return
    first, *others = states
    # Checkpoints of earlier versions do not tell.
    names = first.get("columns")
    if names is not None and all(other.get("columns") == names for other in others):
        data.order_columns_by(names)
    if data.standardise == NONE:
        return
    if all(torch.equal(first[name], other[name]) for other in others for name in ("mean", "std")):
        data.standardise_by(first["mean"], first["std"])
    else:
        warnings.warn(
            "Checkpoints were trained on rows of different means or standard deviations: those of "
            f"{data.title} are standardised by their own.",
            stacklevel=3,
        )


def _require_equal_splits(trained: TrainedModel, data: SplitDataModule, config: DictConfig) -> None:
    """Raise `SettingError` where settings split a run's own files otherwise than its training did.

    Rows that were trained on would be tested on.
    """
    own = trained.run.config.get("data")
    if data.is_the_same_everywhere or own is None or own.get("_target_") != config.get("_target_"):
        return
    place = next((name for name in PLACES if config.get(name)), None)
    if place is None or not own.get(place) or not _hold_the_same(own[place], config[place]):
        return
    arguments = inspect.signature(type(data)).parameters
    differing = {}
    for name in (name for name in SPLITTING if name in arguments):
        theirs, ours = (of.get(name, arguments[name].default) for of in (own, config))
        if theirs != ours and not (theirs and ours and _hold_the_same(theirs, ours)):
            differing[name] = theirs, ours
    if differing:
        theirs, ours = (
            ", ".join(f"data.{name}={told[side]}" for name, told in differing.items())
            for side in (0, 1)
        )
        raise SettingError(
            f"{ours.replace('=None', '=null')} would split data.{place}={config[place]} otherwise "
            f"than the training of {trained.checkpoint} did, and rows that were trained on would "
            f"be tested on: set {theirs.replace('=None', '=null')} as in training."
        )


def _hold_the_same(path: object, other: object) -> bool:
    """Whether two settings name one file or folder, or files of equal contents."""
    first, second = (Path(str(named)).expanduser() for named in (path, other))
    if not (first.exists() and second.exists()):
        return first == second
    if first.samefile(second):
        return True
    return first.is_file() and second.is_file() and filecmp.cmp(first, second, shallow=False)


def _require_same_contents(trained_models: Sequence[TrainedModel], data: SplitDataModule) -> None:
    """Raise `SettingError` where a run's files hold something else than they did in training.

    Another content is split anew, and rows that were trained on would be tested on.
    """
    ours = cache(data.fingerprint)
    for trained in trained_models:
        settings = trained.run.config.data
        place = next((name for name in PLACES if name in settings), None)
        # Data without files are computed, and their last bits depend on the machine.
        if place is None or _recorded_fingerprint(trained) in (None, ours()):
            continue
        told = "null" if settings[place] is None else settings[place]
        raise SettingError(
            f"{trained.checkpoint} was trained on other contents of data.{place}={told} than are "
            "there now: restore them, or set data= to use what is there all the same."
        )


def _recorded_fingerprint(trained: TrainedModel) -> str | None:
    """Of the data in training, by the run's results or by the checkpoint; None for older ones."""
    # Results are of the run's best model, and a file that is given may be another.
    results = {} if trained.by_name else trained.run.results or {}
    if (recorded := results.get("data_fingerprint")) is None and trained.has_weights:
        recorded = state_of_data(trained.checkpoint).get(FINGERPRINT)
    return recorded


def _require_same_data(first: TrainedModel, other: TrainedModel) -> None:
    ours, theirs = (_material(trained.run) for trained in (first, other))
    if ours == theirs:
        return
    names = sorted(name for name in ours.keys() | theirs if ours.get(name) != theirs.get(name))
    raise SettingError(
        f"{first.run.folder} and {other.run.folder} were trained on different data (data."
        f"{', data.'.join(names)}): study one data set at a time, or set data= to the one to use."
    )


def _material(run: Run) -> dict[str, object]:
    """The settings by which the samples of a split are what they are."""
    ignored = IMMATERIAL | ({"root"} if run.data_class().is_the_same_everywhere else set())
    settings = effective_settings(run.config)
    names = [name.removeprefix("data.") for name in settings if name.startswith("data.")]
    return {name: settings[f"data.{name}"] for name in names if name not in ignored}
