"""Small trained models that travel with the package.

Each is a folder of this one: weights in half precision, their description, and a card
(``README.md``) with the command that trained the model and with numbers measured from the shipped
files. ``SparseAutoencoder.from_pretrained("mnist-vdl-nl")`` reads it, without a network.
`sparse_lightning.pretrained.make` makes such a folder of a finished run.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The names of the models, for ``from_pretrained``.

    Example:
        >>> names()
        ['mnist-sdl', 'mnist-vdl', 'mnist-vdl-nl', 'patches-sdl']
    """
    return sorted(path.parent.name for path in FOLDER.glob("*/config.json"))
