"""What a search for photographs passes over: how much, which, and what to do about it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

# Image files that no decoder here reads, and what is often taken for a folder of images.
OTHER_IMAGES = frozenset(
    f".{name}"
    for name in (
        *("heic", "heif", "hif", "jxl", "psd", "svg", "eps", "tga", "pcx", "ico", "exr", "hdr"),
        *("dng", "cr2", "cr3", "nef", "arw", "orf", "rw2", "raf", "raw", "pdf", "dcm", "npy"),
    )
)
ARCHIVES = frozenset(f".{name}" for name in ("zip", "tar", "gz", "tgz", "bz2", "xz", "7z", "rar"))
NAMED = 3


@dataclass
class PassedOver:
    """Folders and files that cannot be read, and files of other kinds, by extension.

    Attributes:
        unreadable: why, by name.
        others: number and first name of the files of each extension, in lower case.
    """

    unreadable: dict[str, str] = field(default_factory=dict)
    others: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add_unreadable(self, name: str, error: OSError) -> None:
        self.unreadable[name] = error.strerror or str(error)

    def add_other(self, name: str) -> None:
        extension = os.path.splitext(name)[1].lower()
        count, first = self.others.get(extension, (0, name))
        self.others[extension] = count + 1, first

    def report(self, everything: bool = False) -> str:
        """Clauses with what to do, empty where there is nothing to say.

        Args:
            everything: whether to tell also of files that nobody would take for images.
        """
        kinds = OTHER_IMAGES | ARCHIVES | {""}
        found = {
            extension: counted
            for extension, counted in sorted(self.others.items())
            if everything or extension in kinds
        }
        told = []
        if self.unreadable:
            told.append(_unreadable(self.unreadable))
        images = {name: counted for name, counted in found.items() if name not in ARCHIVES}
        if images:
            told.append(f"{_counted(images)} passed over: convert images to JPEG or PNG")
        archives = {name: counted for name, counted in found.items() if name in ARCHIVES}
        if archives:
            told.append(f"{_counted(archives)} passed over: unpack what holds images")
        return "; ".join(told)


def _unreadable(reasons: Mapping[str, str]) -> str:
    first = [f"{name} ({reason})" for name, reason in sorted(reasons.items())[:NAMED]]
    more = len(reasons) - len(first)
    what = "1 folder or file" if len(reasons) == 1 else f"{len(reasons)} folders or files"
    return (
        f"{what} cannot be read, and nothing of them is used: {', '.join(first)}"
        f"{f' and {more} more' if more else ''}; allow reading, or mend the links"
    )


def _counted(kinds: Mapping[str, tuple[int, str]]) -> str:
    """Such as ``30 .heic files (the first a.heic)``."""
    told = []
    for extension, (count, first) in kinds.items():
        files = "file" if count == 1 else "files"
        told.append(f"{count} {extension or 'extensionless'} {files} (the first {first})")
    return ", ".join(told)
