"""Files that are written whole or not at all, and names that follow from a content."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_lightning.errors import SettingError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def replaced_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON, indented."""
    with replaced_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def digest(content: Any) -> str:
    """20 hexadecimal digits that stand for anything that JSON can hold."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def write_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, and return its path."""
    with replaced_whole(path) as temporary:
        figure.savefig(temporary, dpi=110, facecolor="white")
    return path


def require_writable(setting: str, folder: Path) -> None:
    """Make a folder and raise `SettingError`, naming the setting, where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SettingError(
            f"{setting}={folder} cannot be written ({error.strerror or error}): choose a folder "
            "that can."
        ) from error
