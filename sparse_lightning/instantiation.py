"""What settings name is made, and errors are those of the part itself."""

from __future__ import annotations

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig


def instantiated(settings: DictConfig, **kwargs: Any) -> Any:
    """What `hydra.utils.instantiate` makes of settings.

    Raises:
        Exception: what a part has against its settings, without Hydra's own error round it.
    """
    try:
        return instantiate(settings, **kwargs)
    except InstantiationException as error:
        cause = error.__cause__ or error
    # Raised in the block, the cause would be raised from an error that was raised from it.
    raise cause
