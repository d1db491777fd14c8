"""From image files to patches on disk: survey, split by image, crop, and put together.

A small collection is decoded before it is split, so that each split gets images that can be used.
Of a large one, whose unusable images are few beside those of any split, each file is opened when
its turn comes; an image of which nothing is needed is never opened.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sparse_lightning.data.cache import require_room
from sparse_lightning.data.npy_writer import write_npy
from sparse_lightning.data.patch_pipeline.crops import deviations, record_type, seeded_generator
from sparse_lightning.data.patch_pipeline.decode import (
    UnusableImage,
    read_grey,
    without_decoder_warnings,
)
from sparse_lightning.data.patch_pipeline.photographs import Photograph, copies, in_seeded_order
from sparse_lightning.data.patch_pipeline.recipe import SPLITS, Recipe
from sparse_lightning.data.patch_pipeline.shards import Made, make, plan
from sparse_lightning.errors import DataError
from sparse_lightning.files import write_json

SMALL_COLLECTION = 1000
MOST_ROUNDS = 10
NAMED = 3
# Pieces of work that give no patch at all, after which there will be none.
SHARDS_IN_VAIN = 8
# Of which the standard deviations are told where too few pass the threshold.
MEASURED_IMAGES, MEASURED_CROPS = 16, 64


def build_patches(
    photographs: list[Photograph],
    recipe: Recipe,
    source: str,
    num_workers: int | None,
    progress: Path,
    result: Path,
) -> None:
    """Write ``train.npy``, ``val.npy``, ``test.npy`` of records and ``images.json``.

    Args:
        photographs: the image files.
        recipe: what to cut from them.
        source: the images' folder, for messages.
        num_workers: threads, or None for one on each core.
        progress: folder of shards, which are not made again where they are there.
        result: folder of the files above.

    Raises:
        DataError: too few images that can be used, or too little room on the disk.
    """
    total = sum(recipe.number(split) for split in SPLITS)
    require_room(result, 2 * total * record_type(recipe.patch_size).itemsize)
    photographs = in_seeded_order(photographs, recipe.split_seed)
    with workers(num_workers) as pool:
        photographs, decoded, skipped = _survey(photographs, recipe, pool)
        splits, copied = split_by_image(photographs, recipe)
        skipped |= copied
        _require_images(splits, skipped, recipe, source)
        task = partial(make, recipe=recipe, folder=progress, decoded=decoded)
        run, names, joined = partial(pool, task), {}, []
        bar = tqdm(total=total, desc="Cutting patches", unit=" patches", unit_scale=True)
        # One split is joined, which waits for the disk, while the next is cut.
        with bar, ThreadPoolExecutor(1) as writer:
            for split, images in splits.items():
                shards = _cut(split, images, recipe, source, run, bar)
                for shard in shards:
                    skipped |= shard.skipped
                used = max(shard.last for shard in shards)
                names[split] = [photograph.name for photograph in images[:used]]
                paths = [shard.path for shard in shards]
                joined.append(writer.submit(_concatenate, paths, result / f"{split}.npy"))
        for future in joined:
            future.result()
    write_json(
        result / "images.json", {"recipe": asdict(recipe), "skipped": skipped, "images": names}
    )


def split_by_image(
    photographs: Sequence[Photograph], recipe: Recipe
) -> tuple[dict[str, Sequence[Photograph]], dict[str, str]]:
    """Give each split its share of the images, disjoint from the others'.

    The shares are as the numbers of patches, but validation and test get two images each, where
    there are enough, and at most a third of all. What is a copy of a file in an earlier split is
    left out.

    Returns:
        Photographs by split, and why which are in none.
    """
    count = len(photographs)
    total = sum(recipe.number(split) for split in SPLITS)
    shares, taken, left_out = {}, 0, {}
    for split in ("val", "test", "train"):
        share = max(2, math.ceil(count * recipe.number(split) / total))
        share = min(share, max(1, (count - 1) // 3)) if split != "train" else count
        images = photographs[taken : taken + share]
        copied = copies(images, photographs[:taken])
        left_out |= {name: f"is a copy of {other}" for name, other in copied.items()}
        shares[split] = [image for image in images if image.name not in copied]
        taken += share
    return {split: shares[split] for split in SPLITS}, left_out


def usable_cores() -> int:
    """Cores that this process may use, where the operating system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


Pool = Callable[[Callable, Iterable], Iterator]


@contextmanager
def workers(num_workers: int | None) -> Iterator[Pool]:
    """A function that maps over threads, in order and a few items ahead of its reader.

    Decoding and arithmetic release the interpreter's lock, so threads use all cores, and share
    memory.
    """
    threads = num_workers or usable_cores()
    torch_threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    def in_order(function: Callable, items: Iterable) -> Iterator:
        pending: deque = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= 2 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    with without_decoder_warnings():
        try:
            yield in_order
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(torch_threads)


def _survey(
    photographs: list[Photograph], recipe: Recipe, pool: Pool
) -> tuple[list[Photograph], dict[str, Tensor], dict[str, str]]:
    """Usable images, their greys by name, and why others are not; of a small collection only."""
    if len(photographs) > SMALL_COLLECTION:
        return photographs, {}, {}
    skipped = {
        name: f"is a copy of {other}" for name, other in copies(photographs, photographs).items()
    }
    photographs = [photograph for photograph in photographs if photograph.name not in skipped]

    def read(photograph: Photograph) -> Tensor | str:
        try:
            return read_grey(photograph.path, recipe.shorter_side, recipe.crop_size)
        except UnusableImage as error:
            return str(error)

    results = tqdm(
        pool(read, photographs),
        total=len(photographs),
        desc="Decoding",
        unit=" images",
        leave=False,
    )
    decoded = {}
    for photograph, result in zip(photographs, results):
        kept = skipped if isinstance(result, str) else decoded
        kept[photograph.name] = result
    usable = [photograph for photograph in photographs if photograph.name in decoded]
    return usable, decoded, skipped


def _require_images(
    splits: dict[str, Sequence[Photograph]], skipped: dict[str, str], recipe: Recipe, source: str
) -> None:
    usable, crops = sum(map(len, splits.values())), recipe.crops_per_image
    needed = 3
    if not all(splits.values()):
        needed = max(needed, usable + 1)
    elif crops and any(len(splits[split]) * crops < recipe.number(split) for split in splits):
        total = sum(recipe.number(split) for split in SPLITS)
        needed = max(usable + 1, math.ceil(total / crops))
    if usable < needed:
        raise DataError(
            f"data.root={source} has {usable} usable images{_passed_over(skipped)}, and at "
            f"least {needed} are needed{_reason(recipe)}: add images"
            f"{'' if needed == 3 else ', set data.crops_per_image=null or ask for fewer patches'}."
        )


def _reason(recipe: Recipe) -> str:
    if recipe.crops_per_image is None:
        return " (training, validation and test share none)"
    return f" with data.crops_per_image={recipe.crops_per_image}"


def _passed_over(skipped: dict[str, str]) -> str:
    return f" ({describe_skipped(skipped)})" if skipped else ""


def describe_skipped(skipped: dict[str, str]) -> str:
    """How many files were passed over, and the first few of them with the reason."""
    first = [f"{name} {reason}" for name, reason in sorted(skipped.items())[:NAMED]]
    rest = len(skipped) - len(first)
    files = "1 file" if len(skipped) == 1 else f"{len(skipped)} files"
    return f"{files} skipped: {'; '.join(first)}{f'; and {rest} more' if rest else ''}"


def _cut(
    split: str,
    photographs: Sequence[Photograph],
    recipe: Recipe,
    source: str,
    run: Callable[[Iterable], Iterator[Made]],
    bar: tqdm,
) -> list[Made]:
    """Make shards, in their order, until the split has its patches.

    Images that give fewer than asked for are made up for by further rounds over all.
    """
    number, total, shards, skipped = recipe.number(split), 0, [], {}
    for round_number in range(MOST_ROUNDS):
        usable = len(photographs) - len(skipped)
        crops = recipe.crops_per_image or math.ceil((number - total) / max(1, usable))
        before = total
        for count, made in enumerate(run(plan(split, round_number, photographs, crops)), 1):
            shards.append(made)
            skipped |= made.skipped
            bar.update(min(made.patches, max(0, number - total)))
            total += made.patches
            if total >= number:
                return shards
            if total == 0 and count == SHARDS_IN_VAIN:
                break
        if recipe.crops_per_image is not None or total == before:
            break
    usable = [photograph for photograph in photographs if photograph.name not in skipped]
    raise DataError(_too_few(split, usable, total, skipped, recipe, source))


def _too_few(
    split: str,
    usable: Sequence[Photograph],
    total: int,
    skipped: dict[str, str],
    recipe: Recipe,
    source: str,
) -> str:
    """What to say of a split whose images give too few patches above the threshold."""
    number = recipe.number(split)
    told = (
        f"data.root={source} gives {total} of data.num_{split}={number} patches of standard "
        f"deviation data.threshold={recipe.threshold} or more, from the {len(usable)} images of "
        f"that split{_passed_over(skipped)}"
    )
    found = _measured(usable, recipe)
    if found is None:
        return f"{told}, none of which can be read: add images."
    spread = f"{len(found)} patches of them have {found.median():.3g} in the middle"
    if total == 0:
        return (
            f"{told}: {spread}, and {found.max():.3g} at most. Lower data.threshold, or take "
            "images with more contrast."
        )
    needed = math.ceil(len(usable) * number / total)
    return (
        f"{told}, which needs about {needed} such images ({spread}): add images, ask for fewer "
        "patches, lower data.threshold, or set data.crops_per_image=null."
    )


def _measured(photographs: Sequence[Photograph], recipe: Recipe) -> Tensor | None:
    """Standard deviations of some patches of a few images; None where none can be read."""
    greys = []
    for photograph in photographs[:MEASURED_IMAGES]:
        with suppress(UnusableImage, DataError):
            greys.append(read_grey(photograph.path, recipe.shorter_side, recipe.crop_size))
    generators = [seeded_generator("deviations", index) for index in range(len(greys))]
    return deviations(greys, generators, MEASURED_CROPS, recipe) if greys else None


def _concatenate(shards: Sequence[Path], path: Path) -> None:
    """Join arrays of records into one, a shard in memory at a time."""
    dtype = np.load(shards[0], mmap_mode="r", allow_pickle=False).dtype
    write_npy(path, dtype, (), (np.load(shard, allow_pickle=False) for shard in shards))
