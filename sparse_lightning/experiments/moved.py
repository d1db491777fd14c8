"""Where classes are that recorded settings know by an earlier path.

A run's ``config.yaml`` names classes by the path that they had when the run began. Whoever reads
recorded settings translates these paths first, so that old runs go on working.
"""

from __future__ import annotations

from typing import Any

TARGET = "_target_"
# Whoever moves a class that a configuration names adds a line.
MOVED: dict[str, str] = {
    "sparse_lightning.callbacks.EarlyStopping": "sparse_lightning.training.callbacks.EarlyStopping",
    "sparse_lightning.callbacks.Figures": "sparse_lightning.training.callbacks.Figures",
    "sparse_lightning.callbacks.RunCheckpoint": (
        "sparse_lightning.training.checkpoints.RunCheckpoint"
    ),
    "sparse_lightning.checkpoints.WholeFiles": "sparse_lightning.training.checkpoints.WholeFiles",
    "sparse_lightning.loggers.wandb_logger": "sparse_lightning.training.loggers.wandb_logger",
}


def translated(settings: Any) -> Any:
    """Settings with the present path of every class that they name.

    Args:
        settings: dictionaries and lists of plain values, nested in any way.
    """
    if isinstance(settings, list):
        return [translated(item) for item in settings]
    if not isinstance(settings, dict):
        return settings
    present = {name: translated(value) for name, value in settings.items()}
    target = present.get(TARGET)
    if isinstance(target, str):
        present[TARGET] = MOVED.get(target, target)
    return present
