"""Which rows are for training, validation and test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparse_lightning.errors import DataError


def shuffled(count: int, seed: int) -> np.ndarray:
    """The numbers from 0 to count − 1 in a random order that depends on the seed alone."""
    order = np.arange(count, dtype=np.int32 if count < 2**31 else np.int64)
    np.random.default_rng(seed).shuffle(order)
    return order


def by_row(count: int, shares: Sequence[float], seed: int) -> list[np.ndarray]:
    """Random rows for each share, and then those that are left.

    Args:
        count: rows in all.
        shares: fractions of them; one above 0 gives at least 2 rows.
        seed: fixes the order.

    Returns:
        Numbers of rows, disjoint, in random order, one array more than there are shares.
    """
    sizes = [max(2, round(share * count)) if share else 0 for share in shares]
    return np.split(shuffled(count, seed), np.cumsum(sizes))


def by_group(groups: np.ndarray, shares: Sequence[float], seed: int) -> list[np.ndarray]:
    """As `by_row`, with whole groups: no group is in two splits.

    Groups are taken in a random order, for each share until it is nearest to full, and at least
    one. How large the shares become depends on how large the groups are.

    Raises:
        DataError: fewer groups than splits.
    """
    names, index = np.unique(groups, return_inverse=True)
    wanted = [share for share in shares if share]
    if len(names) <= len(wanted):
        raise DataError(
            f"data.groups has {len(names)} groups for {len(wanted) + 1} splits, each of which "
            "needs one: give more groups, or data.path_val and data.path_test."
        )
    sizes = np.bincount(index)
    order = np.random.default_rng(seed).permutation(len(names))
    split_of = np.full(len(names), len(shares))
    taken, needed_after = 0, len(wanted)
    for split, share in enumerate(shares):
        if not share:
            continue
        target, have = share * len(groups), 0
        while taken < len(names) - needed_after:
            size = sizes[order[taken]]
            if have and have + size - target > target - have:
                break
            split_of[order[taken]] = split
            taken, have = taken + 1, have + size
        needed_after -= 1
    rows = shuffled(len(groups), seed)
    split_of_rows = split_of[index[rows]]
    return [rows[split_of_rows == split] for split in range(len(shares) + 1)]
