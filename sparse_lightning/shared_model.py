"""Models as two files that anybody may read: ``model.safetensors`` and ``config.json``.

The first holds the weights, the second the description of each part (`sparse_lightning.registry`)
and the digest of the weights. Neither can hold code, and nothing is imported because a file names
it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from sparse_lightning.errors import CheckpointError, SettingError
from sparse_lightning.files import replaced_whole, require_writable, write_json
from sparse_lightning.inputs import at_least_float32
from sparse_lightning.registry import build

WEIGHTS_FILE, SETTINGS_FILE = "model.safetensors", "config.json"
LIBRARY = "sparse_lightning"
# To be raised with every change that older code cannot read.
FORMAT = 1
# Of what a file describes; layers that share their weights are not bounded by these.
MOST_LAYERS = 1_000
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class SharedModel:
    """What the two files say, or a checkpoint of training.

    Attributes:
        parts: descriptions by the names of the model's arguments.
        family: name of the composition.
        weights: tensors by their names in the model's ``state_dict``.
    """

    parts: Mapping[str, Any]
    family: str
    weights: Mapping[str, Tensor]

    def write(self, folder: Path) -> None:
        """Write both files, each whole; the one that tells of the other comes last.

        Raises:
            SettingError: the folder cannot be written.
        """
        require_writable("folder", folder)
        # Each by itself: a weight that two layers share is written twice.
        weights = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in self.weights.items()
        }
        content = safetensors.torch.save(weights, metadata={"format": "pt"})
        with replaced_whole(folder / WEIGHTS_FILE) as temporary:
            temporary.write_bytes(content)
        settings = {
            "library_name": LIBRARY,
            "format": FORMAT,
            "weights_sha256": hashlib.sha256(content).hexdigest(),
            "family": self.family,
            "parts": self.parts,
        }
        write_json(folder / SETTINGS_FILE, settings)

    @classmethod
    def read(cls, folder: Path) -> SharedModel:
        """What `write` left in a folder. Weights in float16 are read in float32.

        Raises:
            CheckpointError: a file is missing, damaged, of another version, or something else.
        """
        settings = _read_settings(folder / SETTINGS_FILE)
        path = folder / WEIGHTS_FILE
        try:
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != settings["weights_sha256"]:
                raise CheckpointError(
                    f"{path} is not the file that {SETTINGS_FILE} beside it is about (its SHA-256 "
                    "is another): it is damaged or of another model, so get both files again."
                )
            weights = {
                # Such weights were saved to take less room.
                name: tensor.float() if tensor.dtype == torch.float16 else tensor
                for name, tensor in safetensors.torch.load(content).items()
            }
        except (OSError, SafetensorError, ValueError) as error:
            raise CheckpointError(
                f"{path} cannot be read ({type(error).__name__}): give a folder that "
                "save_pretrained wrote, with both of its files."
            ) from error
        return cls(settings["parts"], settings["family"], weights)

    @classmethod
    def of_checkpoint(cls, contents: Mapping[str, Any]) -> SharedModel:
        """What a checkpoint holds of it. Weights in a half type are read in float32."""
        described = contents["hyper_parameters"]
        weights = {
            name: at_least_float32(value) if _is_floating(value) else value
            for name, value in contents["state_dict"].items()
        }
        return cls(described, described["family"], weights)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        tensors = (value for value in self.weights.values() if isinstance(value, Tensor))
        return next((tensor.device for tensor in tensors), torch.device("cpu"))

    def made(self, kind: type[Model], given: Mapping[str, Any], source: object) -> Model:
        """The model itself, in the floating types of the weights.

        Args:
            kind: its class.
            given: parts to use in place of those that are described.
            source: where the model comes from, for errors.

        Raises:
            CheckpointError: what was read makes no model.
            SettingError: the given parts fit neither each other nor those that are left.
        """
        try:
            self._require_sizes(given)
            model = kind(**{**self.parts, "family": self.family, **given})
            self._fill(model, given)
        except CheckpointError:
            raise
        except Exception as error:  # What a file says may fail in any constructor.
            if given and isinstance(error, SettingError):
                raise
            told = " ".join(str(error).split())[:300].removesuffix(".")
            advice = "get its files again, or train again"
            if given:
                advice = f"check the given parts ({', '.join(given)}), which take its weights"
            raise CheckpointError(
                f"{source} holds no model that can be made ({type(error).__name__}: {told}): "
                f"{advice}."
            ) from error
        return model

    def _fill(self, model: nn.Module, given: Mapping[str, Any]) -> None:
        """Let a model take the weights, in their types."""
        # A given part takes the file's weights, and one that has none of its own leaves them.
        own = {key.partition(".")[0] for key in model.state_dict()}
        weights = {
            key: value
            for key, value in self.weights.items()
            if key.partition(".")[0] in own or key.partition(".")[0] not in given
        }
        kinds = {key: value.dtype for key, value in weights.items() if _is_floating(value)}
        # A file has no order, and a model begins with its decoder. The decoder's type is also for
        # buffers that no file has.
        for key in [own_key for own_key in model.state_dict() if own_key in kinds][:1]:
            model.to(kinds[key])
        for key, tensor in model.state_dict(keep_vars=True).items():
            if key in kinds and _is_floating(tensor):
                tensor.data = tensor.data.to(kinds[key])
        model.load_state_dict(weights)

    def _require_sizes(self, given: Mapping[str, Any]) -> None:
        """Compare the weights with what the descriptions would make, before memory is taken for it.

        Raises:
            CheckpointError: they are of another model.
        """
        shapes = _shapes(self.weights)
        for name in ("decoder", "encoder"):
            described = self.parts.get(name)
            if described is None or name in given:
                continue
            _require_few_layers(described)
            try:
                with torch.device("meta"):
                    part: nn.Module = build(described)
                expected = _shapes(part.state_dict(prefix=f"{name}."))
            except Exception:  # A part whose making needs numbers, or that cannot be made at all.
                continue
            found = {key: shape for key, shape in shapes.items() if key.startswith(f"{name}.")}
            if found != expected:
                differing = sorted(
                    key for key in found.keys() | expected if found.get(key) != expected.get(key)
                )
                raise CheckpointError(
                    f"The weights of the {name} are not those of the {described['name']} that is "
                    f"described beside them ({', '.join(differing[:3])}): they are of different "
                    "models."
                )


def _is_floating(value: object) -> bool:
    # A module may keep other things than tensors in its state.
    return isinstance(value, Tensor) and value.is_floating_point()


def _shapes(state: Mapping[str, Any]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in state.items() if isinstance(value, Tensor)}


def _require_few_layers(described: Any) -> None:
    """Raise `CheckpointError` for layers that share their weights and would never end."""
    count = described.get("num_layers") if isinstance(described, dict) else None
    if isinstance(count, int | float) and count > MOST_LAYERS:
        raise CheckpointError(
            f"The file describes an encoder of num_layers={count}, and at most {MOST_LAYERS} are "
            "read: get its files again, or train again."
        )


def _read_settings(path: Path) -> dict[str, Any]:
    """The contents of ``config.json``, of the right version and with all that belongs there."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        is_ours = settings["library_name"] == LIBRARY
        found = settings["format"]
        kinds = {"parts": dict, "family": str, "weights_sha256": str}
        is_ours = is_ours and all(isinstance(settings[key], kind) for key, kind in kinds.items())
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}): give a folder that save_pretrained "
            "wrote."
        ) from error
    if not is_ours:
        raise CheckpointError(f"{path} is of no model of {LIBRARY}: give one that it has written.")
    if found != FORMAT:
        raise CheckpointError(
            f"{path} is of another version of {LIBRARY} (its format is {found}, this version reads "
            f"{FORMAT}): use the version that wrote it."
        )
    return settings
