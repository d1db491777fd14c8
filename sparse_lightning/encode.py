"""Codes of a data set: ``python -m sparse_lightning.encode checkpoint=PATH output=DIR``.

Leaves in ``output`` the codes of each split in shards, and ``codes.json``, which says of what they
are (`sparse_lightning.code_files`). The same command goes on where it was stopped.

Codes by inference are those of the model's own energy, batch by batch: with a variance hinge a
sample's code depends on the batch that it is in, so batches are the same however often the command
is stopped.

``splits=[all]`` keeps the rows of a file together, in their order.

Inputs are standardised as those that the model was trained on were: rows of other files
(``data=arrays``) by the mean and the standard deviation in the checkpoint.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from rich.console import Console
from torch import Tensor
from tqdm import tqdm

from sparse_lightning import config as configuration
from sparse_lightning.code_files import FORMATS, LAYOUTS, CodeFiles
from sparse_lightning.data.array_pipeline.standardisation import NONE
from sparse_lightning.data.arrays import ALL, Arrays
from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.data.own import SPLITS, data_of
from sparse_lightning.errors import SettingError, require_count
from sparse_lightning.experiments.early_checks import require_no_sweep
from sparse_lightning.experiments.locks import held_alone
from sparse_lightning.experiments.runs import Run
from sparse_lightning.experiments.settings import convert_data
from sparse_lightning.files import require_writable
from sparse_lightning.imports import import_parts
from sparse_lightning.inputs import at_least_float32
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.shared_model import SETTINGS_FILE, WEIGHTS_FILE
from sparse_lightning.studies.shared_data import keep_whole, shared_data
from sparse_lightning.studies.trained_models import find_trained_models

ENCODER, INFERENCE = "encoder", "inference"


def encode(config: DictConfig) -> CodeFiles:
    """Write codes as a composed configuration says, and return where they are.

    Raises:
        SettingError, DataError, CheckpointError: before it begins, for settings that cannot work.
    """
    import_parts(config)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    torch.set_float32_matmul_precision("highest")
    _require_settings(config)
    folder = Path(config.output)
    require_writable("output", folder)
    with held_alone("output", folder):
        model, data, digest = _model_and_data(config)
        kind = _kind_of_codes(config, model)
        files = _files(config, model, data, kind, digest)
        if _is_coupled(model, kind):
            _require_variance(files.about["counts"])
        files.begin()
        for split in set(config.splits) & data.positions.keys():
            files.write_rows(split, data.positions[split])
        _write(files, model.to(_device(config.device)), data, kind)
    counts = ", ".join(_counted(*counted) for counted in files.about["counts"].items())
    told = f"{folder}: codes by {kind}, {counts}{_statistics_told(config, data)}"
    told += "; sparse_lightning.code_files.read_codes reads them"
    Console().print(told, soft_wrap=True, highlight=False)
    return files


def _counted(split: str, count: int) -> str:
    return f"all {count:,} rows" if split == ALL else f"{count:,} of {split}"


def _require_settings(config: DictConfig) -> None:
    choices = {"layout": LAYOUTS, "format": FORMATS, "codes": (ENCODER, INFERENCE, None)}
    for name, known in choices.items():
        if config[name] not in known:
            told = " or ".join("null" if value is None else value for value in known)
            raise SettingError(f"{name}={config[name]} must be {told}.")
    require_count("shard_size", config.shard_size)
    splits = list(config.splits)
    if splits != [ALL] and (not splits or not set(splits) <= set(SPLITS)):
        raise SettingError(f"splits={splits} must be some of {list(SPLITS)}, or [{ALL}].")


def _model_and_data(config: DictConfig) -> tuple[SparseAutoencoder, SplitDataModule, str]:
    """The model, its data, ready to use, and what stands for the model's bytes."""
    if config.checkpoint is None:
        raise SettingError(
            "checkpoint=null: set checkpoint=PATH to a run's folder, or its best.ckpt."
        )
    path = Path(config.checkpoint)
    require_no_sweep(path)
    if path.is_dir() and not Run(path).best_checkpoint.is_file():
        model = SparseAutoencoder.from_pretrained(path)
        if config.get("data") is None:
            raise SettingError(f"checkpoint={path} does not tell its data: set data= to some.")
        content = b"".join((path / name).read_bytes() for name in (SETTINGS_FILE, WEIGHTS_FILE))
        return model, _data_that_fit(config, model), hashlib.sha256(content).hexdigest()
    (trained,) = find_trained_models(checkpoint=str(path))
    data = shared_data([trained], config.get("data"), whole=ALL in config.splits)
    return trained.model, data, trained.digest


def _kind_of_codes(config: DictConfig, model: SparseAutoencoder) -> str:
    kind = config.codes or (INFERENCE if model.encoder is None else ENCODER)
    if kind == ENCODER and model.encoder is None:
        raise SettingError("codes=encoder, and the model has none: set codes=inference.")
    if kind == INFERENCE and not model.training_rule.infers:
        raise SettingError(
            f"codes=inference, and the model has learned by {type(model.training_rule).__name__}, "
            "whose codes are the encoder's alone: set codes=encoder."
        )
    return kind


def _data_that_fit(config: DictConfig, model: SparseAutoencoder) -> SplitDataModule:
    """The data that the settings name, ready to use, for a model that tells of no statistics."""
    convert_data(config.data)
    data = data_of(config.data)
    if model.decoder.input_dim != data.input_dim:
        raise SettingError(
            f"checkpoint={config.checkpoint} takes inputs of {model.decoder.input_dim} numbers, "
            f"and the data have {data.input_dim}: choose other data=."
        )
    if ALL in config.splits:
        keep_whole(data)
    data.prepare_data()
    data.setup("test")
    return data


def _statistics_told(config: DictConfig, data: SplitDataModule) -> str:
    """By whose statistics rows of other files than the model's are standardised."""
    if config.get("data") is None or not isinstance(data, Arrays) or data.standardise == NONE:
        return ""
    whose = "their own" if data.given is None else "the checkpoint's"
    return f", rows standardised by {whose} mean and standard deviation"


def _files(
    config: DictConfig, model: SparseAutoencoder, data: SplitDataModule, kind: str, digest: str
) -> CodeFiles:
    about = {
        "model": digest,
        "family": model.family,
        "data": data.title,
        "data_fingerprint": data.fingerprint(),
        "codes": kind,
        "batch_size": data.batch_size,
        "layout": config.layout,
        "format": config.format,
        "shard_size": config.shard_size,
        "code_dim": model.decoder.code_dim,
        "counts": {split: len(data.splits[split]) for split in config.splits},
    }
    return CodeFiles(Path(config.output), about)


def _device(name: str) -> torch.device:
    """The device of a name; the GPU for ``auto`` where there is one."""
    has_gpu = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if has_gpu else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    known = ("cpu", "cuda") if has_gpu else ("cpu",)
    if device is None or device.type not in known:
        raise SettingError(f"device={name} is not here: set device=auto or device=cpu.")
    return device


def _is_coupled(model: SparseAutoencoder, kind: str) -> bool:
    """Whether a sample's code depends on the others of its batch."""
    return kind == INFERENCE and model.energy.hinge is not None


def _require_variance(counts: dict[str, int]) -> None:
    single = [split for split, count in counts.items() if count == 1]
    if single:
        raise SettingError(
            f"splits={list(counts)}: {single[0]} has 1 sample, and codes by inference need the "
            "variance of a batch: leave it out, or set codes=encoder."
        )


def _whole_batch(rows: range, batch_size: int, count: int) -> range:
    """Rows of a shard with as many of the rows round it, of ``count``, as make it a batch."""
    start = max(0, min(rows.start, count - batch_size))
    return range(start, max(rows.stop, min(start + batch_size, count)))


def _write(files: CodeFiles, model: SparseAutoencoder, data: SplitDataModule, kind: str) -> None:
    """Write the shards that are missing."""
    missing = [(split, *shard) for split in files.about["counts"] for shard in files.missing(split)]
    code: Callable[[Tensor], Tensor] = (
        model.encode if kind == ENCODER else lambda inputs: model.infer(inputs).codes
    )
    for split, path, rows in tqdm(missing, desc="encode", unit="shard", disable=None):
        found, count = [], files.about["counts"][split]
        # A batch of a few samples would have a variance of its own. So batches of a shard are of
        # equal size, and a shard of fewer samples than a batch is coded with its neighbours.
        coded = _whole_batch(rows, data.batch_size, count) if _is_coupled(model, kind) else rows
        for batch in np.array_split(coded, max(1, round(len(coded) / data.batch_size))):
            inputs = data.splits[split].__getitems__(batch.tolist()).inputs
            with torch.no_grad():
                found.append(at_least_float32(code(inputs.to(model.device))).cpu())
        first = rows.start - coded.start
        files.write(path, torch.cat(found)[first : first + len(rows)].numpy())


def main() -> None:
    """Entry point of the command line."""
    configuration.run(encode, "encode")


if __name__ == "__main__":
    main()
