"""Processes that share a batch find the codes and weights that one process would find."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import Compose
from hydra.utils import instantiate

from sparse_lightning import FISTA, Adaptive, Energy, LinearDecoder
from sparse_lightning.data.batch import EpochShuffle, Share
from sparse_lightning.errors import SettingError
from sparse_lightning.moments import Moments

REPOSITORY = Path(__file__).parent.parent
ENERGY = Energy(0.02, variance_weight=10.0, variance_threshold=0.5)


class OneOther:
    """A peer with given codes, in this process."""

    def __init__(self, codes: torch.Tensor) -> None:
        self.codes = codes

    def merge(self, moments: Moments) -> Moments:
        return moments.merge(Moments.of(self.codes))


def test_the_parts_of_a_batch_have_the_gradient_and_energy_of_the_whole():
    decoder = LinearDecoder(6, 11).double()
    inputs, codes = torch.randn(9, 11).double(), torch.rand(9, 6).double() * 0.3
    whole = ENERGY.bind(decoder, inputs)
    halves = (slice(0, 4), slice(4, 9))
    parts = [
        ENERGY.bind(decoder, inputs[mine], peers=OneOther(codes[others]))
        for mine, others in (halves, halves[::-1])
    ]
    found = torch.cat([part.gradient(codes[mine]) for part, mine in zip(parts, halves)])
    torch.testing.assert_close(found, whole.gradient(codes), rtol=1e-12, atol=1e-14)
    value = sum(part.value(codes[mine]) for part, mine in zip(parts, halves))
    torch.testing.assert_close(value, whole.value(codes), rtol=1e-12, atol=0)
    alone = parts[0].alone().value(codes[halves[0]])
    torch.testing.assert_close(alone, ENERGY.bind(decoder, inputs[:4]).value(codes[:4]))


def test_shares_of_a_batch_are_the_batch():
    order = EpochShuffle(24, seed=3)
    shares = [Share(EpochShuffle(24, seed=3), rank, 2) for rank in range(2)]
    for epoch in range(2):
        for sampler in (order, *shares):
            sampler.set_epoch(epoch)
        whole, first, second = list(order), *(list(share) for share in shares)
        assert len(first) == len(second) == len(shares[0]) == 12
        for start, end in pairwise(range(0, 25, 8)):
            parts = first[start // 2 : end // 2] + second[start // 2 : end // 2]
            assert sorted(parts) == sorted(whole[start:end])


def test_what_cannot_be_shared_evenly_is_refused(compose_small: Compose):
    data = instantiate(compose_small("model=sdl", "data.batch_size=51").data)
    data.prepare_data()
    data.setup()

    class TwoDevices:
        global_rank, world_size = 0, 2

    data.trainer = TwoDevices()
    with pytest.raises(SettingError, match=r"data\.batch_size=51 cannot be shared"):
        data.train_dataloader()
    # The test split is found wanting before training, not after it.
    odd = instantiate(compose_small("model=sdl", "data.num_test=99").data)
    odd.prepare_data()
    odd.setup()
    odd.trainer = TwoDevices()
    with pytest.raises(SettingError, match=r"data\.num_test=99 cannot be shared"):
        odd.train_dataloader()


PART = """
import sys
import torch, torch.distributed as distributed
from sparse_lightning.peers import Peers
from test_peers import SOLVERS, problem
rank, folder, solver = int(sys.argv[1]), sys.argv[2], SOLVERS[sys.argv[3]]
distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
energy, decoder, inputs = problem()
objective = energy.bind(decoder, inputs[rank::2], peers=Peers.present())
solution = solver(objective, torch.zeros(len(inputs[rank::2]), 16))
torch.save((solution.codes, solution.iterations), f"{folder}/{rank}.pt")
"""


SOLVERS = {"paper": FISTA(0.5), "adaptive": Adaptive()}


def problem() -> tuple[Energy, LinearDecoder, torch.Tensor]:
    """A batch of which one process's part converges long before the other's."""
    generator = torch.Generator().manual_seed(1)
    decoder = LinearDecoder(16, 40)
    decoder.weight.data = torch.randn(40, 16, generator=generator) / 40**0.5
    inputs = torch.randn(40, 40, generator=generator)
    inputs[::2] *= 0.01
    return Energy(0.002, variance_weight=0.5, variance_threshold=0.3), decoder, inputs


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLVERS)
def test_inference_in_two_processes_equals_one(name, tmp_path: Path):
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PART, str(rank), str(tmp_path), name],
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    energy, decoder, inputs = problem()
    expected = SOLVERS[name](energy.bind(decoder, inputs), torch.zeros(40, 16))
    ends = []
    for rank in range(2):
        codes, iterations = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(codes, expected.codes[rank::2], rtol=1e-4, atol=1e-6)
        assert (iterations - expected.iterations[rank::2]).abs().max() <= 1
        ends.append(int(iterations.max()))
    if name == "paper":
        assert ends[0] != ends[1], "the early one must have had to keep step"


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vdl", "sdl_nl", "vdl solver=adaptive"])
def test_training_in_two_processes_equals_one(model, mnist_root: Path, tmp_path: Path):
    common = [
        *(sys.executable, "-m", "sparse_lightning.train", *f"model={model}".split()),
        *("logger=none", f"data.root={mnist_root}", "data.num_train=460", "data.num_val=100"),
        *("data.num_test=100", "data.batch_size=100", "trainer.max_epochs=2", "hidden_dim=64"),
        *("solver.max_iterations=50", "trainer.enable_progress_bar=false", "~callbacks.figures"),
    ]
    ways = {
        "one": ["trainer=cpu"],
        "two": ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"],
    }
    states, tables = {}, {}
    for name, how in ways.items():
        command = [*common, *how, f"hydra.run.dir={tmp_path / name}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, cwd=REPOSITORY, env=environment, timeout=300)
        last = tmp_path / name / "checkpoints" / "last.ckpt"
        states[name] = torch.load(last, weights_only=True)["state_dict"]
        tables[name] = pd.read_csv(tmp_path / name / "metrics.csv").drop(columns="seconds")
    for name, weight in states["one"].items():
        # Adam makes a good part of a step, 3e-4, of a gradient that is all rounding.
        torch.testing.assert_close(states["two"][name], weight, rtol=1e-3, atol=1e-4)
    pd.testing.assert_frame_equal(tables["two"], tables["one"], rtol=1e-3)
    assert (tmp_path / "two" / "metrics.json").exists()
