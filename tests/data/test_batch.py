"""Samplers, and the shares of a batch that several processes have."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from sparse_lightning.data.batch import EpochShuffle, Share, TensorSlices
from sparse_lightning.data.module import SplitDataModule
from sparse_lightning.errors import SettingError


def test_shares_of_a_batch_are_the_batch():
    order = EpochShuffle(24, seed=3)
    shares = [Share(EpochShuffle(24, seed=3), rank, 2) for rank in range(2)]
    orders = []
    for epoch in range(2):
        for sampler in (order, *shares):
            sampler.set_epoch(epoch)
        whole, first, second = list(order), *(list(share) for share in shares)
        orders.append(whole)
        assert len(first) == len(second) == len(shares[0]) == 12
        for start, end in pairwise(range(0, 25, 8)):
            parts = first[start // 2 : end // 2] + second[start // 2 : end // 2]
            assert sorted(parts) == sorted(whole[start:end])
    assert orders[0] != orders[1]


def shared(size: int, batch_size: int, rank: int) -> SplitDataModule:
    """Data whose first column numbers the samples, as one of two processes sees them."""
    sizes = {"train": size, "val": 8, "test": 8}
    data = SplitDataModule(sizes, batch_size, shuffle_seed=0, drop_last=False)
    for split, count in sizes.items():
        inputs = torch.arange(count)[:, None].float()
        data.splits[split] = TensorSlices(inputs, torch.tensor(1.0), torch.tensor(0.0))
    data.trainer = SimpleNamespace(global_rank=rank, world_size=2)
    return data


def test_each_process_loads_its_share():
    loaders = [shared(8, 4, rank).train_dataloader() for rank in range(2)]
    seen = [[batch.inputs.flatten().tolist() for batch in loader] for loader in loaders]
    assert [len(batch) for share in seen for batch in share] == [2, 2, 2, 2]
    assert sorted(sum(seen[0] + seen[1], [])) == list(range(8))


@pytest.mark.parametrize(
    ("size", "batch_size", "setting"), [(8, 3, r"batch_size=3"), (9, 4, r"num_train=9")]
)
def test_what_cannot_be_shared_evenly_is_refused(size: int, batch_size: int, setting: str):
    """All splits are looked at when any is loaded."""
    with pytest.raises(SettingError, match=rf"data\.{setting} cannot be shared evenly by the 2"):
        shared(size, batch_size, 0).val_dataloader()
