"""Inference of each family against a textbook FISTA: ``python -m benchmarks.inference``.

The textbook (`benchmarks.textbook`) takes the energy forward, autograd backward, and shrinks. It
stops when the last sample has converged. The paper's solver and the adaptive solver stop as
``conf/solver`` says. Decoders have been trained for a few steps. The energy of each solver's codes
is judged in float64, relative to the energy of the textbook's codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from hydra.utils import instantiate
from torch import Tensor

from benchmarks.problems import FAMILIES, FOLDER_SETTING, Problem, problem, settings
from benchmarks.textbook import textbook_fista
from benchmarks.timing import machine, medians, parser, show


def textbook(case: Problem, step_size: float, num_iterations: int, tolerance: float) -> Tensor:
    """Codes of the textbook's loop."""
    energy = case.energy
    return textbook_fista(
        case.decoder,
        case.inputs,
        case.initial,
        sparsity_weight=energy.sparsity_weight,
        variance_weight=energy.variance_weight,
        variance_threshold=energy.variance_threshold,
        encoder_weight=energy.encoder_weight,
        step_size=step_size,
        num_iterations=num_iterations,
        tolerance=tolerance,
    )


def compare(case: Problem, family: str, data: str, repeats: int) -> list[str]:
    """One row of the table."""
    paper = settings(f"model={family}", f"data={data}", "solver=paper").solver
    limits = (paper.step_size, paper.max_iterations, paper.tolerance)
    rivals = {
        "textbook": partial(textbook, case, *limits),
        "paper": partial(case.infer, instantiate(paper)),
        "adaptive": partial(case.infer, instantiate(case.config.solver)),
    }
    energies = {name: case.judge(rival()) for name, rival in rivals.items()}
    seconds = medians(rivals, repeats)
    row = [family, f"{1e3 * seconds['textbook']:.1f}"]
    for name in ("paper", "adaptive"):
        row += [
            f"{1e3 * seconds[name]:.1f}",
            f"{seconds['textbook'] / seconds[name]:.1f}",
            f"{energies[name] / energies['textbook'] - 1:+.0e}",
        ]
    return row


def main(words: Sequence[str] | None = None) -> None:
    """Command line."""
    known = parser(__doc__)
    known.add_argument("--families", nargs="*", default=FAMILIES)
    known.add_argument("--data", choices=FOLDER_SETTING, default="mnist")
    known.add_argument("--steps", type=int, default=50, help="of training")
    known.add_argument("--repeats", type=int, default=5)
    known.add_argument("--device", default="cpu")
    given = known.parse_args(words)
    if given.quick:
        given.families, given.steps, given.repeats = ("sdl",), 2, 1
    rows = [
        compare(
            problem(family, given.steps, given.data, device=given.device),
            family,
            given.data,
            given.repeats,
        )
        for family in given.families
    ]
    show(
        f"Inference of 250 samples of {given.data}, {given.steps} steps of training, "
        f"ms and times faster than the textbook\n{machine(given.device)}",
        ("family",),
        ("textbook", *("paper", "times", "energy"), *("adaptive", "times", "energy")),
        rows,
    )


if __name__ == "__main__":
    main()
