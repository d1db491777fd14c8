"""What a W&B run that is offline leaves on disk, read back."""

from __future__ import annotations

import json
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from wandb.proto import wandb_internal_pb2

BLOCK, HEADER = 32_768, 7
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def chunks(content: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log, which is what a .wandb file is after its first 7 bytes.

    W&B goes on writing for a moment after ``finish``: a piece that is not all there, by its length
    or by its checksum, ends them.
    """
    position, pieces = HEADER, b""
    while position + HEADER <= len(content):
        if BLOCK - position % BLOCK < HEADER:
            position += BLOCK - position % BLOCK
            continue
        checksum, length, kind = struct.unpack_from("<IHB", content, position)
        position += HEADER
        piece = content[position : position + length]
        position += length
        if zlib.crc32(bytes([kind]) + piece) != checksum:
            return
        pieces = piece if kind in (WHOLE, FIRST) else pieces + piece
        if kind in (WHOLE, LAST):
            yield pieces


def records(run_dir: Path) -> list[wandb_internal_pb2.Record]:
    """All records of a finished run, the last of which W&B writes a moment after ``finish``."""
    (path,) = run_dir.glob("wandb/offline-run-*/*.wandb")
    for _ in range(600):
        found = []
        for chunk in chunks(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(chunk)
            found.append(record)
        if any(record.HasField("exit") for record in found):
            return found
        time.sleep(0.1)
    raise TimeoutError(f"{path} has no exit record")


def recorded_settings(written: list[wandb_internal_pb2.Record]) -> dict:
    return {
        update.key: json.loads(update.value_json)
        for record in written
        for update in (*record.config.update, *record.run.config.update)
    }
