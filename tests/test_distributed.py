"""Processes that share a batch find the codes and weights that one process would find."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pandas as pd
import pytest
import torch
from problems import SignedL1
from torch import Tensor

from sparse_lightning.decoders import LinearDecoder, MultiLayerDecoder
from sparse_lightning.distributed import Processes
from sparse_lightning.energy import Energy, Objective
from sparse_lightning.solvers import FISTA, Adaptive, Solution
from sparse_lightning.variance import Moments

REPOSITORY = Path(__file__).parent.parent
ENERGY = Energy(0.02, variance_weight=10.0, variance_threshold=0.5)


def environment() -> dict[str, str]:
    """For a process of its own."""
    folders = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    return os.environ | {"PYTHONPATH": folders, "OMP_NUM_THREADS": "1"}


class OneOther(Processes):
    """Another process with given codes, in this one."""

    def __init__(self, whole: Objective, codes: Tensor) -> None:
        self.whole, self.codes = whole, codes

    def merge(self, moments: Moments) -> Moments:
        return moments.merge(Moments.of(self.codes))

    def total(self, part: Tensor) -> Tensor:
        return part + self.whole.alone().value(self.codes) - self.hinge()

    def hinge(self) -> Tensor:
        return self.whole.energy.hinge.value(Moments.of(self.codes))


def test_the_parts_of_a_batch_have_the_gradient_and_energy_of_the_whole():
    decoder = LinearDecoder(6, 11).double()
    inputs, codes = torch.randn(9, 11).double(), torch.rand(9, 6).double() * 0.3
    whole = ENERGY.bind(decoder, inputs)
    halves = (slice(0, 4), slice(4, 9))
    others = [OneOther(ENERGY.bind(decoder, inputs[rows]), codes[rows]) for rows in halves[::-1]]
    parts = [
        ENERGY.bind(decoder, inputs[rows], processes=other) for rows, other in zip(halves, others)
    ]
    found = torch.cat([part.gradient(codes[rows]) for part, rows in zip(parts, halves)])
    torch.testing.assert_close(found, whole.gradient(codes), rtol=1e-12, atol=1e-14)
    value = sum(part.value(codes[rows]) for part, rows in zip(parts, halves))
    torch.testing.assert_close(value, whole.value(codes), rtol=1e-12, atol=0)
    for part, rows in zip(parts, halves):
        torch.testing.assert_close(part.energies(codes[rows]), whole.energies(codes))
        assert part.lipschitz(codes[rows]) == pytest.approx(whole.lipschitz(codes))
    alone = parts[0].alone().value(codes[halves[0]])
    torch.testing.assert_close(alone, ENERGY.bind(decoder, inputs[:4]).value(codes[:4]))


def test_without_a_hinge_no_process_is_asked():
    """What samples do not share needs no waiting for each other."""
    decoder, inputs = LinearDecoder(6, 11), torch.randn(9, 11)
    objective = Energy(0.02).bind(decoder, inputs, processes=Processes())
    assert FISTA(0.5)(objective, torch.zeros(9, 6)).converged.all()
    assert Processes.present() is None, "there is only this one"


class Side(Processes):
    """One of two processes that are threads of this one."""

    def __init__(self, rank: int, told: list, meeting: Barrier) -> None:
        self.rank, self.told, self.meeting = rank, told, meeting

    def exchange(self, part: Any) -> list:
        self.told[self.rank] = part
        self.meeting.wait()
        both = [*self.told]
        self.meeting.wait()
        return both

    def merge(self, moments: Moments) -> Moments:
        first, second = self.exchange(moments)
        return first.merge(second)

    def total(self, part: Tensor) -> Tensor:
        return sum(self.exchange(part))

    def agree(self, holds: bool, device: torch.device) -> bool:
        return all(self.exchange(holds))


def steep_for_half(steepness: float) -> tuple[MultiLayerDecoder, Tensor, Tensor]:
    """Each sample activates one of two hidden units, every other sample the steep one.

    Curvatures are 2 and 2 · ``steepness``.
    """
    decoder = MultiLayerDecoder(2, [2], 8).double()
    with torch.no_grad():
        decoder.hidden[0].weight.copy_(torch.eye(2))
        decoder.hidden[0].bias.zero_()
        decoder.output.weight.copy_(torch.randn(8, 2).sign() * torch.tensor([1, steepness**0.5]))
    codes = torch.zeros(24, 2).double()
    codes[::2, 1], codes[1::2, 0] = 0.5 + torch.rand(2, 12).double()
    inputs = decoder(codes).detach() + 0.1 * torch.randn(24, 8).double()
    return decoder, inputs, codes + 0.1 * codes.sign() * torch.rand(24, 2)


@pytest.mark.parametrize(("steepness", "is_far"), [(10.0, False), (100.0, True)])
def test_processes_choose_alike_where_half_of_a_batch_is_far_from_stable(steepness, is_far):
    """The steep half is, each by itself; by the mean of both it depends on how steep."""
    decoder, inputs, start = steep_for_half(steepness)
    solver, told, meeting = FISTA(0.5), [None, None], Barrier(2, timeout=20)

    def solve(rank: int) -> Solution:
        own = slice(rank, None, 2)
        side = Side(rank, told, meeting)
        try:
            objective = ENERGY.bind(decoder, inputs[own], processes=side)
            return solver(objective, start[own])
        except BaseException:
            meeting.abort()
            raise

    whole = ENERGY.bind(decoder, inputs)
    expected = solver(whole, start)
    assert torch.equal(expected.codes, Adaptive(200, 1e-3)(whole, start).codes) is is_far
    with ThreadPoolExecutor(2) as pool:
        for rank, found in enumerate(pool.map(solve, range(2))):
            torch.testing.assert_close(found.codes, expected.codes[rank::2])
            assert torch.equal(found.iterations, expected.iterations[rank::2])


PART = """
import sys
import torch, torch.distributed as distributed
from sparse_lightning.distributed import Processes
from test_distributed import CASES, problem
rank, folder, (solver, energy) = int(sys.argv[1]), sys.argv[2], CASES[sys.argv[3]]
distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
decoder, inputs = problem()
objective = energy.bind(decoder, inputs[rank::2], processes=Processes.present())
solution = solver(objective, torch.zeros(len(inputs[rank::2]), 16))
torch.save((solution.codes, solution.iterations), f"{folder}/{rank}.pt")
distributed.destroy_process_group()
"""
COUPLED = Energy(0.002, variance_weight=0.5, variance_threshold=0.3)
SIGNED = Energy(0.002, variance_weight=0.5, variance_threshold=0.3, penalty=SignedL1())
CASES = {
    "paper": (FISTA(0.5), COUPLED),
    "paper, step too large": (FISTA(2.0), COUPLED),
    "adaptive": (Adaptive(), COUPLED),
    "a user's penalty": (FISTA(0.5), SIGNED),
}


def problem() -> tuple[LinearDecoder, Tensor]:
    """A batch of which one process's part converges long before the other's."""
    generator = torch.Generator().manual_seed(1)
    decoder = LinearDecoder(16, 40)
    decoder.weight.data = torch.randn(40, 16, generator=generator) / 40**0.5
    inputs = torch.randn(40, 40, generator=generator)
    inputs[::2] *= 0.01
    return decoder, inputs


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "paper" else pytest.mark.slow) for name in CASES],
)
def test_inference_in_two_processes_equals_one(name: str, tmp_path: Path):
    command = [sys.executable, "-c", PART]
    processes = [
        subprocess.Popen([*command, str(rank), str(tmp_path), name], env=environment())
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=300) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    solver, energy = CASES[name]
    decoder, inputs = problem()
    expected = solver(energy.bind(decoder, inputs), torch.zeros(40, 16))
    ends = []
    for rank in range(2):
        codes, iterations = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(codes, expected.codes[rank::2], rtol=1e-4, atol=1e-6)
        assert (iterations - expected.iterations[rank::2]).abs().max() <= 1
        ends.append(int(iterations.max()))
    if name == "paper":
        assert ends[0] != ends[1], "the early one must have had to keep step"


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vdl", "sdl_nl", "vdl solver=adaptive", "vdl target_zeros=0.8"])
def test_training_in_two_processes_equals_one(model: str, mnist_root: Path, tmp_path: Path):
    common = [
        *(sys.executable, "-m", "sparse_lightning.train", *f"model={model}".split()),
        *("logger=none", f"data.root={mnist_root}", "data.num_train=460", "data.num_val=100"),
        *("data.num_test=100", "data.batch_size=100", "trainer.max_epochs=3", "hidden_dim=64"),
        *("solver.max_iterations=50", "trainer.enable_progress_bar=false", "~callbacks.figures"),
    ]
    ways = {
        "one": ["trainer=cpu"],
        "two": ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"],
    }
    states, tables = {}, {}
    for name, how in ways.items():
        command = [*common, *how, f"run_dir={tmp_path / name}"]
        subprocess.run(command, check=True, cwd=REPOSITORY, env=environment(), timeout=300)
        last = tmp_path / name / "checkpoints" / "last.ckpt"
        states[name] = torch.load(last, weights_only=True)["state_dict"]
        tables[name] = pd.read_csv(tmp_path / name / "metrics.csv").drop(
            columns=["seconds", "cpu_seconds"]
        )
    for name, weight in states["one"].items():
        # Adam makes a good part of a step, 3e-4, of a gradient that is all rounding.
        torch.testing.assert_close(states["two"][name], weight, rtol=1e-3, atol=1e-4)
    pd.testing.assert_frame_equal(tables["two"], tables["one"], rtol=1e-3)
    assert (tmp_path / "two" / "metrics.json").exists()
