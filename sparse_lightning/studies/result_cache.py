"""What a study has measured already, so that it can continue where it was stopped.

The name of each result is a digest of all that shapes it: the checkpoint's bytes, the settings of
the data, and those of the study. A changed setting gives another name, so that no result becomes
stale. Changed code gives no other name: whoever changes what is measured must change the first word
of the key as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sparse_lightning.files import digest, replaced_whole, write_json

Rows = list[dict[str, object]]


class ResultCache:
    """Results by key, in a folder.

    Args:
        folder: where they are kept; None keeps nothing.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def rows(self, key: list, compute: Callable[[], Rows | None]) -> Rows:
        """The rows of a table that ``compute`` gives, computed once for each key.

        None stands for what cannot be measured yet: it gives no rows, and is not kept.
        """
        path = self._path(key, ".json")
        if path is not None and path.exists():
            return json.loads(path.read_text())
        found = compute()
        if path is not None and found is not None:
            write_json(path, found)
            return json.loads(path.read_text())
        return found or []

    def array(self, key: list, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """The array that ``compute`` gives, computed once for each key."""
        path = self._path(key, ".npy")
        if path is None:
            return compute()
        if not path.exists():
            with replaced_whole(path) as temporary:
                np.save(temporary, compute())
        return np.load(path, allow_pickle=False)

    def _path(self, key: list, suffix: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{digest(key)}{suffix}"
