"""How the time of an iteration grows with the sizes of a problem: ``python -m benchmarks.growth``.

Times 20 iterations of FISTA at tolerance 0, for a linear decoder and for a hidden layer, as one
size at a time doubles from the paper's. The slope is that of log time against log size over all
factors: 1 is proportional.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import torch

from benchmarks.timing import machine, medians, parser, show
from sparse_lightning import FISTA, Energy, LinearDecoder, MultiLayerDecoder

PAPER = {"batch n": 250, "code l": 128, "input d": 784, "hidden m": 1024}
ITERATIONS = 20


def iterations(linear: bool, sizes: dict[str, int]) -> Callable[[], object]:
    """What is timed, binding not included."""
    torch.manual_seed(0)
    n, code_dim, input_dim, hidden_dim = sizes.values()
    if linear:
        decoder = LinearDecoder(code_dim, input_dim)
    else:
        decoder = MultiLayerDecoder(code_dim, [hidden_dim], input_dim)
    inputs, initial = torch.randn(n, input_dim), torch.rand(n, code_dim)
    with torch.no_grad():
        objective = Energy(0.01, encoder_weight=1.0).bind(decoder, inputs, initial)
    solver = FISTA(0.5, ITERATIONS, 0.0)
    return lambda: solver(objective, initial)


def measure(sizes: dict[str, int], factors: Sequence[int], repeats: int) -> list[list[str]]:
    """One row per decoder and size; all are timed in turn."""
    kinds = [("linear", name) for name in sizes if name != "hidden m"]
    kinds += [("one hidden layer", name) for name in sizes]
    rivals = {
        (decoder, name, factor): iterations(
            decoder == "linear", sizes | {name: factor * sizes[name]}
        )
        for (decoder, name), factor in product(kinds, factors)
    }
    seconds = medians(rivals, repeats)
    rows = []
    for decoder, name in kinds:
        times = [1e3 * seconds[decoder, name, factor] / ITERATIONS for factor in factors]
        slope = np.polyfit(np.log(factors), np.log(times), 1)[0]
        rows.append([decoder, name, *(f"{time:.2f}" for time in times), f"{slope:.2f}"])
    return rows


def main(words: Sequence[str] | None = None) -> None:
    """Command line."""
    known = parser(__doc__)
    known.add_argument("--repeats", type=int, default=5)
    given = known.parse_args(words)
    sizes, factors, repeats = PAPER, (1, 2, 4, 8), given.repeats
    if given.quick:
        sizes, factors, repeats = {name: sizes[name] // 8 for name in sizes}, (1, 2), 1
    show(
        f"Milliseconds per iteration, from n, l, d, m = {tuple(sizes.values())}\n{machine()}",
        ("decoder", "size"),
        (*(f"x {factor}" for factor in factors), "slope"),
        measure(sizes, factors, repeats),
    )


if __name__ == "__main__":
    main()
