"""How a model is given to others, and taken from them.

See `SharedModel` for what is written, and `sparse_lightning.hub` for where it may be.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from torch import nn

from sparse_lightning.hub import located, push
from sparse_lightning.shared_model import SharedModel


class Shareable(nn.Module):
    """A module that is made of parts.

    Attributes:
        descriptions: the parts as plain data, by the names of the constructor's arguments.
        family: name of the composition, another argument of the constructor.
    """

    descriptions: Mapping[str, Any]
    family: str

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``model.safetensors`` and ``config.json``, from which `from_pretrained` reads.

        Raises:
            SettingError: the folder cannot be written.
        """
        self._shared().write(Path(folder))

    def push_to_hub(
        self,
        name: str,
        private: bool | None = None,
        token: str | None = None,
        message: str = "Model of sparse_lightning",
    ) -> str:
        """Share the model on the Hugging Face Hub, and return its address there.

        Args:
            name: ``owner/model``; it is made where it is not there.
            private: whether only the owner sees a new one.
            token: where none is stored.
            message: of the commit.

        Raises:
            SettingError: ``huggingface_hub`` is not installed, or the Hub refuses.
        """
        return push(self._shared(), name, private, token, message)

    def _shared(self) -> SharedModel:
        return SharedModel(self.descriptions, self.family, self.state_dict())

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        revision: str | None = None,
        token: str | None = None,
        **parts: Any,
    ) -> Self:
        """A model that was shared: of a folder, of this package, or of the Hugging Face Hub.

        It is on the CPU, in evaluation mode and in the floating type that it was saved in; float16
        becomes float32.

        Args:
            name: a folder that `save_pretrained` wrote, a model of `sparse_lightning.pretrained`
                such as ``mnist-vdl-nl``, or ``owner/model`` on the Hub.
            revision: branch, tag or commit on the Hub.
            token: for a model that is not public, where none is stored.
            **parts: parts to use in place of those in the file, whose weights they take; None
                for no encoder or constraint.

        Raises:
            CheckpointError: there is no such model, or its files are damaged or of another kind.
            SettingError: the Hub is asked for and ``huggingface_hub`` is not installed, or
                the given parts do not fit.
        """
        folder = located(name, revision, token)
        return SharedModel.read(folder).made(cls, parts, folder).eval()
