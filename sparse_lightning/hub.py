"""Where a shared model is: a folder, this package, or a repository of the Hugging Face Hub.

On the Hub a model is a repository of the two files of `SharedModel` and a page about it.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sparse_lightning import pretrained
from sparse_lightning.errors import CheckpointError, SettingError
from sparse_lightning.shared_model import LIBRARY, SETTINGS_FILE, WEIGHTS_FILE, SharedModel

PAGE_FILE = "README.md"


def located(name: str | Path, revision: str | None = None, token: str | None = None) -> Path:
    """The folder of a shared model: of this machine, of this package, or a copy of the Hub's.

    Args:
        name: a folder, the name of a model of `pretrained`, or ``owner/model`` on the Hub.
        revision: branch, tag or commit there.
        token: for a model that is not public, where none is stored.

    Raises:
        CheckpointError: there is no such folder, nor can it be had from the Hub.
        SettingError: the Hub is asked for and ``huggingface_hub`` is not installed.
    """
    if Path(name).is_dir():
        return Path(name)
    text = str(name)
    if text in pretrained.names():
        return pretrained.FOLDER / text
    if Path(name).exists() or Path(name).is_absolute() or text.count("/") != 1 or text[0] == ".":
        raise CheckpointError(
            f"There is no folder {name}: give one that save_pretrained wrote, a model that comes "
            f"with the package ({', '.join(pretrained.names())}), or a model's name on the Hugging "
            "Face Hub, owner/model."
        )
    hub = _hub()
    try:
        files = [SETTINGS_FILE, WEIGHTS_FILE]
        copy = hub.snapshot_download(
            text, revision=revision, token=token, allow_patterns=files, library_name=LIBRARY
        )
    except Exception as error:  # Those of the network, of the Hub, and of its names.
        raise CheckpointError(
            f"There is no folder {name}, and no such model can be had from the Hugging Face Hub "
            f"({type(error).__name__}): check its name, the connection, and the token."
        ) from error
    return Path(copy)


def push(
    model: SharedModel, name: str, private: bool | None, token: str | None, message: str
) -> str:
    """Make or change a repository of the Hub, and return its address.

    Raises:
        SettingError: ``huggingface_hub`` is not installed, or the Hub refuses.
    """
    if not all(name.split("/")) or name.count("/") != 1:
        raise SettingError(
            f"push_to_hub({name!r}) is no name on the Hub: give owner/model, where the owner is "
            "you, by your name there, or an organisation of yours."
        )
    hub = _hub()
    try:
        api = hub.HfApi(token=token, library_name=LIBRARY)
        with TemporaryDirectory() as folder:
            model.write(Path(folder))
            (Path(folder) / PAGE_FILE).write_text(_page(model, name), encoding="utf-8")
            address = api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(repo_id=name, folder_path=folder, commit_message=message)
    except Exception as error:  # The client's errors have no common base, as httpx.ConnectError.
        told = " ".join(str(error).split())[:300].removesuffix(".")
        raise SettingError(
            f"push_to_hub({name!r}) was refused ({type(error).__name__}: {told}): check the name, "
            "owner/model, the connection, and the token."
        ) from error
    return str(address)


def _page(model: SharedModel, name: str) -> str:
    """The page of a model on the Hub."""
    parts = "\n".join(
        f"- {part}: `{json.dumps(described)}`" for part, described in model.parts.items()
    )
    return (
        f"---\nlibrary_name: {LIBRARY}\ntags:\n- sparse-coding\n---\n\n"
        f"# {name.rpartition('/')[2]}\n\nA sparse-coding model, family `{model.family}`:\n\n"
        f"{parts}\n\n```python\nfrom sparse_lightning import SparseAutoencoder\n\n"
        f'model = SparseAutoencoder.from_pretrained("{name}")\n```\n'
    )


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise SettingError(
            "The Hugging Face Hub needs the package huggingface_hub: pip install "
            "'sparse-lightning[hub]', or give a folder."
        ) from error
    return huggingface_hub
