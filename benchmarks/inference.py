"""One inference of the paper's solver against a textbook autograd FISTA.

200 iterations at tolerance 0, batch 250, at the sizes of MNIST and of patches, with each family's
own settings: ``python -m benchmarks.inference``. Then SDL-NL at its default tolerance, where
converged samples leave the batch; the textbook goes on until the last sample has converged.
``--device cuda`` does the same on an accelerator.
"""

from __future__ import annotations

import argparse

import torch
from rich.console import Console

from benchmarks.problems import Problem, problem
from benchmarks.textbook import textbook_fista
from benchmarks.timing import empty_table, machine, medians
from sparse_lightning import FISTA

FAMILIES = ("sdl", "vdl", "sdl_nl", "vdl_nl")
ITERATIONS = 200


def textbook(case: Problem, tolerance: float = 0.0) -> torch.Tensor:
    """Codes by the textbook's loop."""
    energy = case.energy
    return textbook_fista(
        case.decoder,
        case.inputs,
        case.initial,
        sparsity_weight=energy.sparsity_weight,
        variance_weight=energy.variance_weight,
        variance_threshold=energy.variance_threshold,
        encoder_weight=energy.encoder_weight,
        step_size=case.step_size,
        num_iterations=ITERATIONS,
        tolerance=tolerance,
    )


def compare(case: Problem, tolerance: float = 0.0, repeats: int = 3) -> list[str]:
    """One row of the table."""
    solver = FISTA(case.step_size, ITERATIONS, tolerance)
    codes = {}

    def ours() -> None:
        codes["ours"] = solver(case.bind(), case.initial).codes

    def theirs() -> None:
        codes["textbook"] = textbook(case, tolerance)

    seconds = medians({"ours": ours, "textbook": theirs}, repeats)
    difference = case.judge(codes["ours"]) / case.judge(codes["textbook"]) - 1
    return [
        f"{1e3 * seconds['ours']:.1f}",
        f"{1e3 * seconds['textbook']:.1f}",
        f"{seconds['textbook'] / seconds['ours']:.1f}",
        f"{difference:.0e}",
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--families", nargs="*", default=FAMILIES)
    parser.add_argument("--data", nargs="*", default=("mnist", "imagenet_patches"))
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    device = arguments.device
    table = empty_table(
        f"Up to {ITERATIONS} iterations, batch 250\n{machine(device)}",
        ("family", "data", "tolerance"),
        ("ours (ms)", "textbook (ms)", "times faster", "energy, relative difference"),
    )
    for data in arguments.data:
        for family in arguments.families:
            repeats = 3 if family.endswith("nl") else 9
            case = problem(family, data=data).to(device)
            table.add_row(case.name, data, "0", *compare(case, repeats=repeats))
    if "sdl_nl" in arguments.families:
        for steps in (0, 1_000):
            case = problem("sdl_nl", steps).to(device)
            table.add_row(case.name, "mnist", "1e-3", *compare(case, tolerance=1e-3))
    Console().print(table)


if __name__ == "__main__":
    main()
