"""Which settings make a run what it is.

Two runs are the same if all settings that can change their result are equal, however these were
typed: λ by its level or by hand, 1 or 1.0, in any order. Where the files go, what is shown and
what is logged makes no difference. Nor does the age of a record: a class that has moved has its
path of today, and a setting that a record lacks has the value that the run was made with. A sweep
finds its jobs by this less the number of epochs, since a longer run goes on from a shorter one.
Tables and studies group runs by all of it.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sparse_lightning.experiments.moved import translated

# Where files go, and what is shown: settings that do not change a result, with everything below.
OUTWARD = (
    "run_dir",
    "run_name",
    "experiment_name",
    "run_label",
    "run_group",
    "job_type",
    "tags",
    "data_name",
    "sweep",
    "objective",
    "logger",
    "resume",
    "imports",
    "callbacks.checkpoint.dirpath",
    "callbacks.last",
    "callbacks.figures",
    "callbacks.inference_watch",
    "callbacks.learning_rate",
    "callbacks.milestones",
    "callbacks.progress_bar",
    "data.cache_dir",
    "data.num_workers",
    "trainer.detect_anomaly",
    "trainer.enable_model_summary",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
    "trainer.profiler",
)
WITHOUT_EFFECT = (
    *OUTWARD,
    # The level and the grids show in λ and k.
    "sparsity_level",
    "sparsity_weights",
    "active_counts",
    # These show in the target.
    "zeros_targets",
    "callbacks.sparsity_target.target_zeros",
    # These show in the settings that are taken from them.
    "code_dim",
    "hidden_dim",
    "step_size",
    "encoder_learning_rate",
    "max_epochs",
    "solver",
)
# Settings that older records lack, by their full dotted name, and what those runs are read as.
# Whoever adds a setting adds a line, unless the setting is null where nobody sets it.
ADDED: dict[str, Any] = {
    # A run that ended well without the safeguard never needed it.
    "model.solver.safeguard": True,
    # The only penalty that there was.
    "model.energy.penalty._target_": "sparse_lightning.penalties.NonNegativeL1",
    # The only training rule that there was.
    "model.training_rule._target_": "sparse_lightning.training_rules.InferThenRegress",
    "model.training_rule.metric": "val/energy",
    # Batches were of all classes.
    "data.sorted_by_class": False,
}
# Settings that may differ where a run goes on: how long it lasts, where it runs and has its data.
EXTENDABLE = (
    "trainer.max_epochs",
    "trainer.min_epochs",
    "trainer.max_steps",
    "trainer.min_steps",
    "trainer.max_time",
    "trainer.fast_dev_run",
    "callbacks.early_stopping",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.benchmark",
    "trainer.plugins",
    "data.root",
    "data.path",
    "data.path_val",
    "data.path_test",
    "data.groups",
    "data.labels",
    "ckpt_path",
    "init_from",
)
# What a run that diverged may go on with besides.
REMEDIES = ("model.solver", "model.optimizer")
SEED, SHUFFLE_SEED = "seed", "data.shuffle_seed"
EPOCHS = "trainer.max_epochs"
# With it λ is sought in a share of the epochs, so that their number changes the result.
TARGET = "target_zeros"
CALLBACK = re.compile(r"callbacks\.[^.]+\._target_")
# What seeks it does nothing without it, nor what trains an encoder where there is none.
SEARCH = "callbacks.sparsity_target"
ENCODER, OF_ENCODER = "model.encoder._target_", "model.optimizer.encoder_"


def effective_settings(config: DictConfig) -> dict[str, Any]:
    """Every setting that can change a run's result, resolved, by its dotted name.

    A setting that is null is left out, as is one that is not there.
    """
    settings = {**ADDED, **_resolved(config)}
    unused = WITHOUT_EFFECT if settings.get(TARGET) is not None else (*WITHOUT_EFFECT, SEARCH)
    has_encoder = settings.get(ENCODER) is not None
    return {
        name: value
        for name, value in settings.items()
        if value is not None
        and not is_one_of(name, unused)
        and (has_encoder or not name.startswith(OF_ENCODER))
    }


def changed_settings(
    recorded: DictConfig, config: DictConfig, has_diverged: bool
) -> dict[str, tuple[Any, Any]]:
    """Settings that a run cannot go on with, by name: their value on record, and the new one.

    Those count that both the version of the record and this one know, and which callbacks there
    are.

    Args:
        recorded: the settings that the run was made with.
        config: those that it is to go on with.
        has_diverged: whether the run did.
    """
    allowed = (*EXTENDABLE, *REMEDIES) if has_diverged else EXTENDABLE
    if config.get(TARGET) is not None:
        allowed = tuple(name for name in allowed if name != EPOCHS)
    before, now = (_resolved(settings).keys() | ADDED for settings in (recorded, config))
    known = before & now | {name for name in before | now if CALLBACK.fullmatch(name)}
    theirs, ours = effective_settings(recorded), effective_settings(config)
    return {
        name: (theirs.get(name), ours.get(name))
        for name in sorted(known)
        if _canonical(theirs.get(name)) != _canonical(ours.get(name))
        and not is_one_of(name, allowed)
    }


def _resolved(config: DictConfig) -> dict[str, Any]:
    """Every setting, null ones included, by its dotted name."""
    config = copy.deepcopy(config)
    OmegaConf.set_readonly(config, False)
    OmegaConf.set_struct(config, False)
    for part in ("hydra", "logger"):
        config.pop(part, None)
    # Folders are interpolated from it, and it may not be known yet; a record has them resolved.
    folder = str(OmegaConf.to_container(config).get("run_dir"))
    prefix = folder if Path(folder).is_absolute() else ""
    config.run_dir = ""
    settings = _flat(translated(OmegaConf.to_container(config, resolve=True)))
    return {
        name: value.removeprefix(prefix) if isinstance(value, str) else value
        for name, value in settings.items()
    }


def _flat(node: dict[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves by dotted name; a list is a leaf."""
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            leaves |= _flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def is_one_of(name: str, settings: tuple[str, ...]) -> bool:
    """Whether a setting is one of some, or below one."""
    return any(name == known or name.startswith(f"{known}.") for known in settings)


def without_seed(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings less the seeds: that of the weights, and that of the order of samples."""
    return {name: value for name, value in settings.items() if name not in (SEED, SHUFFLE_SEED)}


def of_any_length(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings less the number of epochs: a longer run goes on from a shorter one.

    One that is to find λ does not, see `TARGET`.
    """
    if TARGET in settings:
        return settings
    return {name: value for name, value in settings.items() if name != EPOCHS}


def digest(settings: dict[str, Any]) -> str:
    """Ten hexadecimal digits that stand for settings."""
    canonical = json.dumps(_canonical(settings), sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


def _canonical(value: Any) -> Any:
    """The same for 1 and 1.0."""
    if isinstance(value, dict):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value
