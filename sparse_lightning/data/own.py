"""A data module of one's own, as the package sees it.

Any LightningDataModule whose batches are tensors (n, d), or tuples that begin with one, can be
trained on and studied. What it says of itself is taken: ``input_dim``, ``image_shape``, ``title``,
``column_names``, ``training_mean``. What it does not say is looked up in its first batch, or left
out.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from sparse_lightning.data.batch import Batch, TensorSlices
from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.errors import FOR_THE_USER, DataError, SettingError, first_line
from sparse_lightning.files import digest
from sparse_lightning.instantiation import instantiated

SPLITS = ("train", "val", "test")
# Sizes of an input, by the settings and the state of the files that make them.
_INPUT_DIMS: dict[str, int] = {}


def data_of(settings: DictConfig) -> SplitDataModule:
    """The data that settings name, a module of another package as `OwnData`.

    Raises:
        SettingError: what is named cannot be made, or is no LightningDataModule.
    """
    made = _made(settings)
    if isinstance(made, SplitDataModule):
        return made
    if isinstance(made, lightning.LightningDataModule):
        return OwnData(made)
    raise SettingError(
        f"data._target_={settings.get('_target_')} gives a {type(made).__name__}, which is no "
        "LightningDataModule: name a subclass of it."
    )


def _made(settings: DictConfig) -> Any:
    """What settings name, or one sentence for whatever its class raises."""
    try:
        return instantiated(settings)
    except FOR_THE_USER:
        raise
    except Exception as error:  # A class of the user's own may fail in any way.
        named = OmegaConf.to_container(settings)
        given = ", ".join(f"data.{key}={value}" for key, value in named.items() if key[0] != "_")
        raise SettingError(
            f"data._target_={settings.get('_target_')} cannot be made "
            f"({type(error).__name__}: {first_line(error)}): mend the class, or its settings "
            f"({given or 'there are none'})."
        ) from error


def input_dim_of(settings: DictConfig) -> int:
    """Size of an input of the data that settings name.

    A module of one's own is made and set up for that once in a process, and ``path`` is looked into
    again only once its files have changed.

    Raises:
        SettingError: the settings name nothing that could be made.
    """
    target = settings.get("_target_") if settings else None
    try:
        kind = get_object(target)
    except Exception as error:
        raise SettingError(
            f"data._target_={target} cannot be imported ({error}): name a class of data, as in "
            "data._target_=my_package.MyData, or choose data=mnist or data=arrays."
        ) from error
    known = getattr(kind, "input_dim", None)
    if inspect.isclass(kind) and isinstance(known, int):
        return known
    is_ours = inspect.isclass(kind) and issubclass(kind, SplitDataModule)
    resolved = OmegaConf.to_container(settings, resolve=True)
    path = resolved.get("path") if is_ours else None
    name = json.dumps([resolved, state_of_files(path)], sort_keys=True, default=str)
    if (is_ours and path is None) or name not in _INPUT_DIMS:
        _INPUT_DIMS[name] = data_of(settings).input_dim
    return _INPUT_DIMS[name]


def state_of_files(path: str | Path | None) -> list:
    """What changes with a file, or with one directly in a folder: its size and its time."""
    if path is None:
        return []
    place = Path(path).expanduser()
    try:
        files = sorted(place.iterdir()) if place.is_dir() else [place]
        states = [(file.name, file.stat()) for file in files if file.exists()]
    except OSError:  # Told by whoever reads it.
        return []
    return [[name, state.st_ino, state.st_size, state.st_mtime_ns] for name, state in states]


class OwnData(SplitDataModule):
    """A data module of another package with all that this one asks of data.

    Its loaders are used as they are. Their order is the module's own, so that a resumed run sees
    other batches than the uninterrupted one would have seen, unless the module sees to that.

    Args:
        inner: the module. Where it has ``input_dim``, ``image_shape``, ``title``,
            ``column_names`` or ``training_mean``, these are taken.

    Raises:
        SettingError: a loader that the module does not define, or more than one process, whose
            shares of a batch the module would not make.
    """

    def __init__(self, inner: lightning.LightningDataModule) -> None:
        super().__init__({}, 1, 0, False)
        _require_loaders(inner)
        self.inner = inner
        self._stages: set[str | None] = set()
        self.splits = _LoadedSplits(inner, self._set_up_once)
        self.image_shape = getattr(inner, "image_shape", None)
        self.training_mean = getattr(inner, "training_mean", None)
        self.title = str(getattr(inner, "title", type(inner).__name__))
        self.batch_size = int(getattr(inner, "batch_size", None) or 250)

    @cached_property
    def input_dim(self) -> int:
        """What the module says, else the size of an input of its first batch."""
        known = getattr(self.inner, "input_dim", None)
        if known is not None:
            return int(known)
        self.prepare_data()
        self._set_up_once("fit")
        first = next(iter(seeded(self.inner.train_dataloader)), None)
        if first is None:
            raise DataError(f"{self.title} has no batch to train on: give it data.")
        return inputs_of(first, self.title)[0].numel()

    def prepare_data(self) -> None:
        self.inner.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        self.inner.setup(stage)
        self._stages.add(stage)
        # Which a module may know only now.
        self.image_shape = getattr(self.inner, "image_shape", self.image_shape)
        self.column_names = getattr(self.inner, "column_names", None)
        self.training_mean = getattr(self.inner, "training_mean", self.training_mean)

    def _set_up_once(self, stage: str) -> None:
        """Set a stage up unless it is: many modules have the data of that stage alone."""
        if stage not in self._stages:
            self.setup(stage)

    def teardown(self, stage: str) -> None:
        self.inner.teardown(stage)

    def require_variance(self) -> None:
        """Nothing is known of the sizes of batches; one of a single sample is refused in use."""

    def fingerprint(self) -> str:
        """What stands for the data: their first validation batch, and the size of an input."""
        self._set_up_once("fit")
        first = next(iter(seeded(self.inner.val_dataloader)), None)
        inputs = torch.empty(0) if first is None else inputs_of(first, self.title)
        return digest([self.input_dim, list(inputs.shape), inputs.double().flatten().tolist()])

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "inner": self.inner.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.inner.load_state_dict(state_dict["inner"])

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return self.inner.on_before_batch_transfer(batch, dataloader_idx)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        return self.inner.transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return self.inner.on_after_batch_transfer(batch, dataloader_idx)

    def train_dataloader(self) -> Any:
        return self._own("train")

    def val_dataloader(self) -> Any:
        return self._own("val")

    def test_dataloader(self) -> Any:
        return self._own("test")

    def predict_dataloader(self) -> Any:
        return self.inner.predict_dataloader()

    def _own(self, split: str) -> Any:
        trainer = self.trainer
        self.inner.trainer = trainer
        if trainer is not None and trainer.world_size > 1 and not _shares(trainer):
            raise SettingError(
                f"trainer.devices={trainer.world_size} with {self.title}, a data module of your "
                "own, would train every process on all samples: set trainer.devices=1, or "
                "trainer.use_distributed_sampler=true, by which Lightning shares them out."
            )
        return getattr(self.inner, f"{split}_dataloader")()


def _require_loaders(inner: lightning.LightningDataModule) -> None:
    names = [f"{split}_dataloader" for split in SPLITS]
    # Lightning's own raises when it is called, which is after training for the last of them.
    missing = [
        name
        for name in names
        if getattr(getattr(inner, name), "__func__", None)
        is getattr(lightning.LightningDataModule, name)
    ]
    if missing:
        raise SettingError(
            f"{type(inner).__name__}, a data module of your own, does not define "
            f"{' and '.join(missing)}: let its class have all of {', '.join(names)}."
        )


def _shares(trainer: lightning.Trainer) -> bool:
    return trainer._accelerator_connector.use_distributed_sampler


class _LoadedSplits(Mapping[str, TensorSlices]):
    """The samples of each split in memory, loaded when they are first asked for.

    Args:
        inner: the module.
        set_up_once: sees to it that the module has the data of a stage.
    """

    def __init__(
        self, inner: lightning.LightningDataModule, set_up_once: Callable[[str], None]
    ) -> None:
        self.inner, self.set_up_once = inner, set_up_once
        self.loaded: dict[str, TensorSlices] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(SPLITS)

    def __len__(self) -> int:
        return len(SPLITS)

    def __getitem__(self, split: str) -> TensorSlices:
        if split not in self.loaded:
            self.set_up_once("test" if split == "test" else "fit")
            batches = list(seeded(getattr(self.inner, f"{split}_dataloader")))
            self.loaded[split] = _joined(batches, type(self.inner).__name__)
        return self.loaded[split]


def seeded(loader: Callable[[], Iterable]) -> Iterator[Any]:
    """The batches of a loader, in the same order each time, although it may shuffle them."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield from loader()


def _joined(batches: list, title: str) -> TensorSlices:
    if not batches:
        raise DataError(f"{title} has a split without a batch: give it data.")
    first = batches[0]
    inputs = torch.cat([inputs_of(batch, title).flatten(1) for batch in batches])
    if isinstance(first, Batch):
        labels = None if first.labels is None else torch.cat([b.labels for b in batches])
        return TensorSlices(inputs, *_normalisation(batches), labels)
    return TensorSlices(inputs, labels=_labels(batches))


def _normalisation(batches: list[Batch]) -> tuple[Tensor | None, Tensor | None]:
    first = batches[0]
    if first.scale is None or first.scale.ndim == 0 or len(first.scale) != len(first.inputs):
        return first.scale, first.shift
    return torch.cat([b.scale for b in batches]), torch.cat([b.shift for b in batches])


def _labels(batches: list) -> Tensor | None:
    """The second tensor of each batch, where it has a whole number for each sample."""
    found = [batch[1] for batch in batches if isinstance(batch, list | tuple) and len(batch) == 2]
    if len(found) < len(batches):
        return None
    is_labels = all(
        isinstance(f, Tensor) and f.ndim == 1 and not f.is_floating_point() for f in found
    )
    return torch.cat(found) if is_labels else None


def inputs_of(batch: Any, title: str) -> Tensor:
    """The inputs of a batch that is a tensor or begins with one.

    Raises:
        DataError: it is something else.
    """
    inputs = batch[0] if isinstance(batch, list | tuple) and len(batch) else batch
    if isinstance(inputs, Tensor) and inputs.ndim > 1:
        return inputs
    raise DataError(
        f"A batch of {title} is a {type(batch).__name__} that is no tensor (n, d) and does not "
        "begin with one: let its DataLoaders give tensors, or tuples that begin with one."
    )
