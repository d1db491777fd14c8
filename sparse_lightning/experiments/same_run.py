"""Whether a run that is to go on is the run that was begun: its settings, its data, its model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig

from sparse_lightning.checkpoint_format import is_inside_epoch, read_checkpoint
from sparse_lightning.data.module import FINGERPRINT, SplitDataModule
from sparse_lightning.errors import CheckpointError, SettingError
from sparse_lightning.experiments.early_checks import FORCE
from sparse_lightning.experiments.fingerprint import changed_settings
from sparse_lightning.experiments.runs import CONFIG_FILE, Run
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.registry import build, describe


def whole_checkpoint(run_dir: Path) -> dict[str, Any]:
    """The contents of a run's last checkpoint.

    Raises:
        CheckpointError: that or the best model is missing or damaged; it says what helps.
    """
    run = Run(run_dir)
    last, best = run.last_checkpoint, run.best_checkpoint
    try:
        contents = read_checkpoint(last)
    except CheckpointError as error:
        remedy = "move the folder's checkpoints away to start afresh"
        if best.exists():
            remedy = f"copy {best} over it to go on from the best epoch, or {remedy}"
        raise CheckpointError(f"{str(error).removesuffix('.')}; or {remedy}.") from error
    # Before the first validation, and before λ is frozen, there is none.
    kept = {Path(path).name for state in _keepers(contents) if (path := state["best_model_path"])}
    missing = [name for name in sorted(kept) if not (last.parent / name).exists()]
    if missing:
        raise CheckpointError(
            f"{last.parent / missing[0]}, the best model of the run, is gone: put it back, or copy "
            f"{last} there to take the model of the last epoch for the best."
        )
    return contents


def _keepers(contents: dict[str, Any]) -> list[dict[str, Any]]:
    """The states of the callbacks that keep the best model."""
    states = contents.get("callbacks", {}).values()
    return [state for state in states if isinstance(state, dict) and state.get("monitor")]


def require_same_settings(config: DictConfig, run_dir: Path, has_diverged: bool) -> None:
    """Raise `SettingError` unless the settings are those that the run was made with."""
    if not (run_dir / CONFIG_FILE).exists():
        return
    changed = changed_settings(Run(run_dir).config, config, has_diverged)
    if changed:
        told = ", ".join(
            f"{name}={ours} (was {theirs})" for name, (theirs, ours) in changed.items()
        )
        raise SettingError(
            f"hydra.run.dir={run_dir} holds a run with other settings: {told}. Set them as they "
            f"were, choose another folder, or add resume={FORCE} to go on all the same."
        )


@rank_zero_only
def require_same_data(contents: dict[str, Any], data: SplitDataModule) -> None:
    """Raise `SettingError` unless the data are those of a checkpoint, where that says which."""
    theirs = contents.get(type(data).__qualname__, {}).get(FINGERPRINT)
    if theirs is None:
        return
    data.prepare_data()
    data.setup()
    if data.fingerprint() != theirs:
        raise SettingError(
            f"The data, {data.title}, are not those that the run was trained on: their contents or "
            "their splits differ. Set data.root or data.path to those, choose another folder, or "
            f"add resume={FORCE} to go on all the same."
        )


def differences(description: Any, part: Any) -> str:
    """How a part differs from a description of one, in words; empty where it does not."""
    # Built and described again: an older description lacks what has been added since.
    theirs, ours = describe(build(description)) or {}, describe(part) or {}
    names = sorted(name for name in theirs.keys() | ours if theirs.get(name) != ours.get(name))
    return ", ".join(f"{name} {theirs.get(name)}, not {ours.get(name)}" for name in names)


def require_same_model(
    checkpoint: Path,
    contents: dict[str, Any],
    model: SparseAutoencoder,
    parts: Sequence[str],
    is_own: bool,
) -> None:
    """Check that parts of a checkpoint's model are those of ``model``.

    Args:
        checkpoint: the file.
        contents: what is in it.
        model: what is to go on from it.
        parts: their names.
        is_own: whether it is the run's own checkpoint.

    Raises:
        CheckpointError: a part is another one; it says how. Or the checkpoint is another run's,
            from inside an epoch, which only that run can end.
    """
    parameters = contents["hyper_parameters"]
    if not is_own and parameters["family"] != model.family:
        raise CheckpointError(
            f"{checkpoint} is of family {parameters['family']}, not {model.family}: set "
            f"model={parameters['family']}, or choose another ckpt_path."
        )
    if not is_own and is_inside_epoch(contents):
        raise CheckpointError(
            f"{checkpoint} was saved inside epoch {contents['epoch']}, which only its own run can "
            "end: resume that run, or start from its weights alone with init_from."
        )
    for part in parts:
        own = model.optimizer_settings if part == "optimizer" else getattr(model, part)
        told = differences(parameters[part], own)
        if told:
            raise CheckpointError(
                f"{checkpoint} has another model.{part} than the settings ({told}): make them "
                f"equal, or choose another {'folder' if is_own else 'ckpt_path'}."
            )
