"""Work on patches in pieces: a shard is what one worker makes at a time, and what is not redone.

What is in a shard depends on its description alone, so neither the number of workers nor their
order shows in the result.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from sparse_lightning.data.patch_pipeline.crops import draw_patches, seeded_generator
from sparse_lightning.data.patch_pipeline.decode import UnusableImage, read_grey
from sparse_lightning.data.patch_pipeline.photographs import Photograph
from sparse_lightning.data.patch_pipeline.recipe import Recipe
from sparse_lightning.files import replaced_whole

PATCHES_IN_SHARD = 4096
FEWEST_IMAGES, MOST_IMAGES = 16, 256


@dataclass(frozen=True)
class Shard:
    """Some crops of some images of one split.

    Args:
        split: train, val or test.
        round: 0, or more where the rounds before gave too few patches.
        group, part: position among the groups of images, and among the pieces of one group.
        first: index of the first image in its split.
        photographs: images to crop.
        crops_per_image: patches from each.
    """

    split: str
    round: int
    group: int
    part: int
    first: int
    photographs: Sequence[Photograph]
    crops_per_image: int

    @property
    def name(self) -> str:
        return f"{self.split}-{self.round:02d}-{self.group:06d}-{self.part:04d}"


@dataclass(frozen=True)
class Made:
    """A shard that is on disk: where, how many patches, and why which images gave none."""

    path: Path
    patches: int
    skipped: dict[str, str]
    last: int


def plan(
    split: str, round_number: int, photographs: Sequence[Photograph], crops_per_image: int
) -> Iterator[Shard]:
    """Cut a split into shards of 4,096 patches at most, mostly from 16 images or more."""
    # Few enough that workers end together, but 1,000 patches where images are plenty.
    size = min(1024 // crops_per_image, len(photographs) // 16, MOST_IMAGES)
    size = max(size, FEWEST_IMAGES)
    groups = math.ceil(len(photographs) / size)
    for group in range(groups):
        first = group * len(photographs) // groups
        last = (group + 1) * len(photographs) // groups
        most = max(1, PATCHES_IN_SHARD // (last - first))
        for part, done in enumerate(range(0, crops_per_image, most)):
            crops = min(most, crops_per_image - done)
            images = photographs[first:last]
            yield Shard(split, round_number, group, part, first, images, crops)


def make(shard: Shard, recipe: Recipe, folder: Path, decoded: Mapping[str, Tensor]) -> Made:
    """Make a shard, unless its file is there.

    Args:
        shard: which.
        recipe: how.
        folder: where its file goes.
        decoded: grey images by name that are in memory already.
    """
    path, notes = folder / f"{shard.name}.npy", folder / f"{shard.name}.json"
    last = shard.first + len(shard.photographs)
    try:
        patches = len(np.load(path, mmap_mode="r", allow_pickle=False))
        return Made(path, patches, json.loads(notes.read_text()), last)
    except (OSError, EOFError, ValueError):
        pass  # Not there, or not whole, which a crash of the whole machine may leave.
    greys, indices, generators, skipped = [], [], [], {}
    for index, photograph in enumerate(shard.photographs, shard.first):
        try:
            grey = decoded.get(photograph.name)
            if grey is None:
                grey = read_grey(photograph.path, recipe.shorter_side, recipe.crop_size)
        except UnusableImage as error:
            skipped[photograph.name] = str(error)
            continue
        greys.append(grey)
        indices.append(index)
        seed = (recipe.split_seed, shard.round, shard.part, photograph.name)
        generators.append(seeded_generator(*seed))
    records = draw_patches(greys, indices, generators, shard.crops_per_image, recipe)
    with replaced_whole(notes) as temporary:
        temporary.write_text(json.dumps(skipped))
    with replaced_whole(path) as temporary:
        np.save(temporary, records, allow_pickle=False)
    return Made(path, len(records), skipped, last)
