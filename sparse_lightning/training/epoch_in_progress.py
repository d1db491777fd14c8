"""What a run needs to go on inside an epoch beside what Lightning keeps.

Lightning keeps weights, optimizer, schedules, counters, and how far the data have been read. An
epoch that goes on needs also, of each process, the sums of its metrics so far and the states of
the random number generators. Its row of ``metrics.csv`` needs the time that it has taken.
"""

from __future__ import annotations

import random
from typing import Any

import lightning
import numpy as np
import torch
import torch.distributed as distributed
from lightning.fabric.utilities import move_data_to_device
from torchmetrics import Metric

from sparse_lightning.checkpoint_format import is_inside_epoch
from sparse_lightning.distributed import Processes
from sparse_lightning.training.loggers import MetricsTable

EPOCH_IN_PROGRESS = "epoch_in_progress"


class EpochInProgress(lightning.Callback):
    """Keep in checkpoints what `EPOCH_IN_PROGRESS` names, and go on with it.

    A list with an entry for each process. Where a run goes on with another number of processes, the
    sums of metrics are shared out among them, and so are the generators.

    Args:
        table: whose row of the epoch goes on.
    """

    def __init__(self, table: MetricsTable) -> None:
        self.table = table
        self._kept: list[dict[str, Any]] = []

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        is_inside = is_inside_epoch(checkpoint)
        mine = {
            "metrics": metric_states(pl_module) if is_inside else {},
            "random": random_states(pl_module.device),
            "spent": self.table.spent(trainer.current_epoch) if is_inside else (0.0, 0.0),
        }
        checkpoint[EPOCH_IN_PROGRESS] = _of_all_processes(mine)

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        # Earlier versions kept nothing.
        self._kept = checkpoint.get(EPOCH_IN_PROGRESS, [])

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Go on. What other callbacks draw when training starts must not count."""
        kept, self._kept = self._kept, []
        if not kept:
            return
        for part in kept[trainer.global_rank :: trainer.world_size]:
            add_metric_states(pl_module, part["metrics"])
        self.table.add_spent(*kept[0]["spent"])
        set_random_states(kept[trainer.global_rank % len(kept)]["random"], pl_module.device)


def _of_all_processes(mine: dict[str, Any]) -> list[dict[str, Any]]:
    if Processes.present() is None:
        return [mine]
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, mine)
    return parts


def metric_states(model: torch.nn.Module) -> dict[str, dict[str, Any]]:
    """Sums and number of updates of each metric of a model that has been updated, by its name."""
    return {
        name: {
            "updates": metric.update_count,
            "state": move_data_to_device(metric.metric_state, torch.device("cpu")),
        }
        for name, metric in _metrics(model).items()
        if metric.update_called
    }


def add_metric_states(model: torch.nn.Module, states: dict[str, dict[str, Any]]) -> None:
    """Merge what `metric_states` returned into the metrics of a model.

    To a metric that has not been updated this is exact: its sums are 0.
    """
    metrics = _metrics(model)
    for name, kept in states.items():
        metric = metrics[name]
        state = move_data_to_device(kept["state"], metric.device)
        if not metric.update_called:
            for key, value in state.items():
                setattr(metric, key, value)
        else:
            metric.merge_state(state)
        # torchmetrics restores sums only, and takes such a metric for one without any.
        metric._update_count += kept["updates"]


def _metrics(model: torch.nn.Module) -> dict[str, Metric]:
    return {name: part for name, part in model.named_modules() if isinstance(part, Metric)}


def random_states(device: torch.device) -> dict[str, Any]:
    """The states of Python's, NumPy's and torch's generators, in types that need no pickle."""
    name, keys, *rest = np.random.get_state()
    states = {
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Go on with the states that `random_states` returned."""
    version, numbers, following = states["python"]
    random.setstate((version, tuple(numbers), following))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
