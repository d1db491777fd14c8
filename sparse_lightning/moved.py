"""Classes that have moved: what old runs call them, and where they are today."""

from __future__ import annotations

from typing import Any

# Path in a record of settings -> path today.
MOVED: dict[str, str] = {}


def translated(settings: Any) -> Any:
    """A copy of settings in which every ``_target_``, at any depth, is the class's path today."""
    if isinstance(settings, dict):
        return {
            key: MOVED.get(value, value)
            if key == "_target_" and isinstance(value, str)
            else translated(value)
            for key, value in settings.items()
        }
    if isinstance(settings, list):
        return [translated(item) for item in settings]
    return settings
