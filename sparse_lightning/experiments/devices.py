"""Jobs of sweeps that run side by side on one machine share out its devices.

A job holds a place on a device for as long as it trains. A place is a lock of the operating system,
in a folder of the machine, and goes with the process that holds it. Jobs need not know of each
other, whichever sweep they are of and whatever launched them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from omegaconf import DictConfig, ListConfig, OmegaConf

from sparse_lightning.errors import SettingError, require_count

POLL = 1.0  # seconds


@contextmanager
def own_device(config: DictConfig) -> Iterator[int | None]:
    """Hold a place on the device that fewest jobs are on, and tell its index.

    Waits where each device has as many jobs as ``sweep.jobs_per_device`` allows. None where jobs
    share nothing, as on CPUs without ``sweep.devices``.

    Raises:
        SettingError: see `require_places`; or there is no such device.
    """
    require_places(config)
    devices = shared_devices(config)
    if not devices:
        yield None
        return
    with place(devices, OmegaConf.select(config, "sweep.jobs_per_device")) as index:
        yield index


def require_places(config: DictConfig) -> None:
    """Raise `SettingError` unless the settings of devices and places have their kinds."""
    count = OmegaConf.select(config, "sweep.jobs_per_device")
    if count is not None:
        require_count("sweep.jobs_per_device", count)
    chosen = OmegaConf.select(config, "sweep.devices")
    if chosen is None:
        return
    is_list = isinstance(chosen, ListConfig) and len(chosen) > 0
    if not is_list or not all(type(index) is int and index >= 0 for index in chosen):
        raise SettingError(
            f"sweep.devices={chosen} must be a list of whole numbers, the indices of devices, as "
            "in [0,1]; or null for all."
        )


def uses_cuda(config: DictConfig) -> bool:
    """Whether a training with these settings would run on a GPU of CUDA."""
    return config.trainer.get("accelerator") != "cpu" and torch.cuda.is_available()


def shared_devices(config: DictConfig) -> Mapping[int, str]:
    """The devices that jobs share, by index, with the names that all processes know them by."""
    chosen = OmegaConf.select(config, "sweep.devices")
    if not uses_cuda(config):
        return {index: str(index) for index in chosen or ()}
    present = range(torch.cuda.device_count())
    asked = config.trainer.devices
    if chosen is None:
        chosen = asked if isinstance(asked, ListConfig) else present
    missing = sorted(set(chosen) - set(present))
    if missing:
        raise SettingError(
            f"sweep.devices={list(chosen)} names device {missing[0]}, and this process sees "
            f"{len(present)}: choose from {list(present)}, or see CUDA_VISIBLE_DEVICES."
        )
    # An index depends on what a process is shown.
    return {index: str(torch.cuda.get_device_properties(index).uuid) for index in chosen}


@contextmanager
def place(devices: Mapping[int, str], jobs_per_device: int | None) -> Iterator[int]:
    """Hold a place on one of these devices, once there is one; the index of that device.

    Args:
        devices: the name of each, by its index.
        jobs_per_device: None for any number.
    """
    while (found := _free_place(devices, jobs_per_device)) is None:
        time.sleep(POLL)
    index, lock = found
    try:
        yield index
    finally:
        lock.release()


def _free_place(
    devices: Mapping[int, str], jobs_per_device: int | None
) -> tuple[int, FileLock] | None:
    """A place that has just been taken, on the device with the fewest; None where none is free."""
    folder = places_folder()
    for number in itertools.count() if jobs_per_device is None else range(jobs_per_device):
        for index, name in devices.items():
            lock = FileLock(folder / f"{name}.{number}.lock")
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=0)
                return index, lock
    return None


def places_folder() -> Path:
    """Where the places of this machine are, of one user.

    Raises:
        SettingError: another user has made that folder.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"sparse_lightning-devices-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and folder.stat().st_uid != user:
        raise SettingError(
            f"{folder} belongs to another user, and jobs cannot share out devices by it: set the "
            "environment variable TMPDIR to a folder of your own."
        )
    return folder
