"""Samplers, and the shares of a batch that several processes have."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from sparse_lightning.data.batch import (
    Batch,
    EpochShuffle,
    ResumableLoader,
    Share,
    ShuffleOfClasses,
    TensorSlices,
    slice_loader,
)
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
    together = [sample for share in seen for batch in share for sample in batch]
    assert sorted(together) == list(range(8))


@pytest.mark.parametrize(
    ("size", "batch_size", "setting"), [(8, 3, r"batch_size=3"), (9, 4, r"num_train=9")]
)
def test_what_cannot_be_shared_evenly_is_refused(size: int, batch_size: int, setting: str):
    """All splits are looked at when any is loaded."""
    with pytest.raises(SettingError, match=rf"data\.{setting} cannot be shared evenly by the 2"):
        shared(size, batch_size, 0).val_dataloader()


def test_batches_of_one_class_hold_every_sample_once_in_a_new_order_each_epoch():
    labels = torch.arange(3).repeat(20)
    sampler = ShuffleOfClasses(labels, batch_size=5, seed=1)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert sorted(orders[-1]) == list(range(60))
        batches = labels[torch.tensor(orders[-1])].view(12, 5)
        assert bool((batches == batches[:, :1]).all())
        # Batches of a class do not follow one another.
        assert batches[:, 0].tolist() != sorted(batches[:, 0].tolist())
    assert orders[0] != orders[1] != orders[2]


def test_batches_of_one_class_end_with_the_incomplete_one():
    labels = torch.tensor([0] * 7 + [1] * 6)
    order = list(ShuffleOfClasses(labels, batch_size=5, seed=0))
    assert sorted(order) == list(range(13))
    assert set(labels[order[10:]].tolist()) == {1}


def test_the_order_behind_a_checkpoint_is_drawn_batch_by_batch():
    data, drawn = TensorSlices(torch.arange(100)[:, None].float()), []

    class Counted(EpochShuffle):
        def __iter__(self):
            for row in super().__iter__():
                drawn.append(row)
                yield row

    loader = ResumableLoader(
        data, batch_size=2, sampler=Counted(100, seed=1), collate_fn=lambda batch: batch
    )
    loader.load_state_dict({"taken": 3, "batches": 50})
    batches = iter(loader)
    rest = [next(batches)]
    assert len(drawn) == 8
    rest += batches
    whole = list(slice_loader(data, batch_size=2, shuffle_seed=1))
    assert len(rest) == 47
    for found, expected in zip(rest, whole[3:], strict=True):
        assert torch.equal(found.inputs, expected.inputs)


def test_the_fingerprint_of_many_rows_stays_within_them():
    """Beyond 2²⁴ single precision has no number for each row."""

    asked: list[int] = []

    class Many(TensorSlices):
        def __len__(self) -> int:
            return 2**24 + 4

        def __getitems__(self, indices: list[int]) -> Batch:
            asked.extend(indices)
            return Batch(torch.tensor(indices)[:, None].double())

    data = SplitDataModule({}, 2, shuffle_seed=0, drop_last=False)
    data.splits["train"] = Many(torch.empty(0))
    assert len(data.fingerprint()) == 20
    assert max(asked) == 2**24 + 3
