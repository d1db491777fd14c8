"""One inference of 200 iterations at tolerance 0 against a textbook autograd FISTA.

Batch 250, l=128, d=784, one hidden layer of 1024 where there is one: ``python -m
benchmarks.inference``.
"""

from __future__ import annotations

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.textbook import textbook_fista
from benchmarks.timing import machine, medians
from sparse_lightning import FISTA, Energy, LinearDecoder, MultiLayerDecoder

# λ, β, γ, η, hidden layers, repeats
FAMILIES = {
    "SDL": (0.005, 0.0, 1.0, 1.0, [], 9),
    "VDL": (0.02, 10.0, 5.0, 0.5, [], 9),
    "SDL-NL": (0.01, 0.0, 1.0, 1.0, [1024], 3),
    "VDL-NL": (0.01, 10.0, 100.0, 0.5, [1024], 3),
}
SAMPLES, CODE_DIM, INPUT_DIM, ITERATIONS = 250, 128, 784, 200


def compare(family: str) -> tuple[float, float, float]:
    """Milliseconds of ours and of the textbook's, and the largest difference of codes."""
    weight, variance_weight, encoder_weight, step_size, hidden, repeats = FAMILIES[family]
    torch.manual_seed(0)
    decoder = (
        MultiLayerDecoder(CODE_DIM, hidden, INPUT_DIM)
        if hidden
        else LinearDecoder(CODE_DIM, INPUT_DIM)
    )
    inputs, initial = torch.randn(SAMPLES, INPUT_DIM), torch.rand(SAMPLES, CODE_DIM)
    energy = Energy(weight, variance_weight, 0.5, encoder_weight)
    solver = FISTA(step_size, ITERATIONS, tolerance=0.0)

    def ours() -> torch.Tensor:
        return solver(energy.bind(decoder, inputs, initial), initial).codes

    def textbook() -> torch.Tensor:
        return textbook_fista(
            decoder,
            inputs,
            initial,
            sparsity_weight=weight,
            variance_weight=variance_weight,
            variance_threshold=0.5,
            encoder_weight=encoder_weight,
            step_size=step_size,
            num_iterations=ITERATIONS,
        )

    difference = float((ours() - textbook()).abs().max())
    seconds = medians({"ours": ours, "textbook": textbook}, repeats)
    return 1e3 * seconds["ours"], 1e3 * seconds["textbook"], difference


def main() -> None:
    table = Table(title=f"{ITERATIONS} iterations, batch {SAMPLES}\n{machine()}")
    for heading in ("family", "ours (ms)", "textbook (ms)", "times faster", "max difference"):
        table.add_column(heading, justify="left" if heading == "family" else "right")
    for family in FAMILIES:
        ours, textbook, difference = compare(family)
        table.add_row(
            family, f"{ours:.1f}", f"{textbook:.1f}", f"{textbook / ours:.1f}", f"{difference:.1e}"
        )
    Console().print(table)


if __name__ == "__main__":
    main()
