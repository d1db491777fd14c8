"""Which of two methods a class has the newer version of.

A faster or richer method is right for the ``forward`` that it was written with, and wrong for that
of a subclass, or of a class mixed in.
"""

from __future__ import annotations


def overrides(kind: type, method: str, beyond: str) -> bool:
    """Whether a class finds a method before another one, in the order of its bases."""

    def place(name: str) -> int:
        return next(i for i, base in enumerate(kind.__mro__) if name in vars(base))

    return place(method) < place(beyond)
