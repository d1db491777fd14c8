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
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from sparse_lightning.errors import CheckpointError
from sparse_lightning.files import replaced_whole, require_writable, write_json
from sparse_lightning.registry import build

WEIGHTS_FILE, SETTINGS_FILE = "model.safetensors", "config.json"
LIBRARY = "sparse_lightning"
# To be raised with every change that older code cannot read.
FORMAT = 1


@dataclass(frozen=True)
class SharedModel:
    """What the two files say.

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

    def require_sizes(self, given: Mapping[str, Any]) -> None:
        """Compare the weights with what the descriptions would make, before memory is taken for it.

        Args:
            given: parts that are used in place of those in the file.

        Raises:
            CheckpointError: they are of another model.
        """
        for name in ("decoder", "encoder"):
            if self.parts.get(name) is None or name in given:
                continue
            try:
                with torch.device("meta"):
                    part: nn.Module = build(self.parts[name])
                expected = {f"{name}.{key}": t.shape for key, t in part.state_dict().items()}
            except (RuntimeError, TypeError):  # A part whose making needs numbers.
                continue
            found = {
                key: tensor.shape
                for key, tensor in self.weights.items()
                if key.startswith(f"{name}.")
            }
            if found != expected:
                differing = sorted(
                    key for key in found.keys() | expected if found.get(key) != expected.get(key)
                )
                raise CheckpointError(
                    f"The weights of the {name} are not those of the {self.parts[name]['name']} "
                    f"that {SETTINGS_FILE} describes ({', '.join(differing[:3])}): the two files "
                    "are of different models."
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
