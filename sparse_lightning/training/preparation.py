"""What is seen to before training: that settings fit each other and this machine."""

from __future__ import annotations

import copy
import inspect
import logging
import warnings
from typing import Any

import torch
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.errors import SettingError
from sparse_lightning.model import SparseAutoencoder

# Among what is measured in validation.
HIGHER_IS_BETTER = ("psnr", "r2", "converged")


def made_model(config: DictConfig) -> SparseAutoencoder:
    """The model of settings; lists in them are plain lists."""
    settings = copy.deepcopy(config.model)
    rule = settings.get("training_rule")
    # One that has a metric of its own need not take another.
    if rule is not None and not _takes(rule._target_, "metric"):
        with read_write(settings), open_dict(settings):
            del rule.metric
    return instantiate(settings, _convert_="all")


def _takes(target: str, argument: str) -> bool:
    try:
        parameters = inspect.signature(get_object(target)).parameters
    except Exception:  # What is wrong with it shows when it is made.
        return True
    return argument in parameters or any(p.kind == p.VAR_KEYWORD for p in parameters.values())


def require_fit(model: SparseAutoencoder, data: SplitDataModule) -> None:
    """Raise `SettingError` if a model cannot be trained on these data."""
    if model.decoder.input_dim != data.input_dim:
        raise SettingError(
            f"model.decoder.input_dim={model.decoder.input_dim} does not fit the data, whose "
            f"inputs have {data.input_dim} values: set model.decoder.input_dim={data.input_dim}, "
            "or leave it out."
        )
    if model.energy.hinge is not None:
        data.require_variance()


def require_trainable(config: DictConfig) -> None:
    """Raise `SettingError` if parts of the Trainer are switched off that a training needs."""
    if config.trainer.limit_train_batches == 0:
        raise SettingError(
            "trainer.limit_train_batches=0 leaves nothing to train on: leave it null, or take at "
            "least 1 batch."
        )
    epochs, every = config.trainer.max_epochs, config.trainer.get("check_val_every_n_epoch")
    if epochs == 0:
        raise SettingError("trainer.max_epochs=0 trains nothing: take at least 1.")
    if config.get("target_zeros") is not None:
        _require_search(config)
    watchers = [
        name
        for name, callback in (config.callbacks or {}).items()
        if callback is not None
        and str(callback.get("monitor")).startswith("val/")
        and (config.trainer.enable_checkpointing or name != "checkpoint")
    ]
    if config.trainer.limit_val_batches == 0 and watchers:
        name = watchers[0]
        without = " and ".join(f"'~callbacks.{watcher}'" for watcher in watchers)
        raise SettingError(
            f"trainer.limit_val_batches=0 leaves no {config.callbacks[name].monitor}, by which "
            f"callbacks.{name} chooses: take at least 1 batch, or add {without}."
        )
    if every and epochs and 0 < epochs < every and not config.trainer.get("fast_dev_run"):
        raise SettingError(
            f"trainer.check_val_every_n_epoch={every} validates none of "
            f"trainer.max_epochs={epochs} epochs, and results are those of the best epoch: take "
            f"{epochs} at most."
        )


def _require_search(config: DictConfig) -> None:
    """Raise `SettingError` if nothing would look for the λ of a target."""
    if (config.callbacks or {}).get("sparsity_target") is None:
        raise SettingError(
            f"target_zeros={config.target_zeros} needs callbacks.sparsity_target: take the "
            "callback in, or set target_zeros=null."
        )
    if config.trainer.limit_val_batches == 0:
        raise SettingError(
            f"target_zeros={config.target_zeros} is compared with val/zeros, of which "
            "trainer.limit_val_batches=0 leaves none: take at least 1 batch."
        )


def usable_accelerator(config: DictConfig) -> str:
    """The one of the settings; ``auto`` is never Apple's, which lacks float64."""
    chosen = config.trainer.accelerator
    only_apple = torch.backends.mps.is_available() and not torch.cuda.is_available()
    if chosen == "mps" or (chosen == "gpu" and only_apple):
        raise SettingError(
            f"trainer.accelerator={chosen} has no float64 here, in which metrics are summed: set "
            "trainer.accelerator=cpu."
        )
    return "cpu" if chosen == "auto" and only_apple else chosen


def usable_devices(config: DictConfig) -> Any:
    """Those of the settings; of a job of a sweep on GPUs the one that it has a place on."""
    own = OmegaConf.select(config, "sweep.device")
    if own is None or config.trainer.accelerator == "cpu" or not torch.cuda.is_available():
        return config.trainer.devices
    return [own]


def require_objective(config: DictConfig, model: SparseAutoencoder) -> None:
    """Raise `SettingError` unless ``objective`` is null or names a metric of this model."""
    name = config.get("objective")
    if name is None:
        return
    measured = _measured(model)
    phase, _, metric = str(name).partition("/")
    if phase not in ("val", "test") or metric not in measured:
        raise SettingError(
            f"objective={name} must be val/ or test/ and one of {', '.join(sorted(measured))}."
        )


def require_metric(config: DictConfig, model: SparseAutoencoder, data: SplitDataModule) -> None:
    """Raise `SettingError` unless the best model can be told by the metric of the training rule."""
    name, measured = model.training_rule.metric, _measured(model)
    if data.image_shape is not None:  # Images have a PSNR in place of R² and this.
        del measured["relative_error"]
    if (chosen := config.model.training_rule.metric) != name:
        kind = type(model.training_rule)
        raise SettingError(
            f"model.training_rule.metric={chosen} is not {name}, which {kind.__name__} keeps the "
            f"best model by: leave the setting out, and add imports=[{kind.__module__}]."
        )
    phase, _, metric = str(name).partition("/")
    possible = sorted(key for key, is_higher_better in measured.items() if not is_higher_better)
    if phase != "val" or metric not in possible:
        reason = ", the higher the better," if measured.get(metric) else ""
        raise SettingError(
            f"model.training_rule.metric={name}{reason} does not tell the best model, which has "
            f"the lowest: take val/ and one of {', '.join(possible)}."
        )


def _measured(model: SparseAutoencoder) -> dict[str, bool]:
    """What is measured of a model in validation, and whether higher is better."""
    meters = dict(model.meters["val_meters"])
    if model.encoder is not None:  # Whose codes take no inference.
        del meters["effort"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Nothing has been measured yet.
        found = {
            key: key in HIGHER_IS_BETTER for meter in meters.values() for key in meter.compute()
        }
    for meter in meters.values():
        meter.reset()
    return found


def quieten() -> None:
    """Silence advice that does not apply."""
    # Batches are slices of memory.
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    # Only a resumed run comes here with checkpoints in its folder.
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
    # What is logged per epoch is the same in every process already.
    warnings.filterwarnings("ignore", r".*sync_dist=True.*")
    warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\).*")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_advertisement)
    _tell_once()
    torch.set_float32_matmul_precision("highest")


def _tell_once() -> None:
    """Leave Lightning's lines to the handlers of all programs where there are some, as Hydra's.

    Imported after these were set up, Lightning hands its lines on, and prints them as well.
    """
    log = logging.getLogger("lightning")
    if logging.getLogger().hasHandlers():
        for handler in [own for own in log.handlers if type(own) is logging.StreamHandler]:
            log.removeHandler(handler)


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    return "Tip:" not in record.getMessage()
