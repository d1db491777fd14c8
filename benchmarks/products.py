"""Matrix products of float32: torch's own against those of `sparse_lightning.products`.

``python -m benchmarks.products`` times the products of one gradient of a decoder with one hidden
layer, at the paper's sizes. Where oneDNN is not the faster library both are the same.
"""

from __future__ import annotations

from functools import partial

import torch
from rich.console import Console
from sparse_lightning.products import onednn_is_faster, times

from benchmarks.timing import empty_table, machine, medians

# What is multiplied, and n x k x m.
PRODUCTS = (
    ("codes and W1", 250, 128, 1024),
    ("hidden layer and the Gram matrix of W2", 250, 1024, 1024),
    ("hidden layer and W2", 250, 1024, 784),
    ("back through W1", 250, 1024, 128),
    ("the Gram matrix of W2 itself", 1024, 784, 1024),
    ("the same of patches", 2048, 256, 2048),
    ("a batch of digits and a linear dictionary", 250, 784, 128),
)


@torch.no_grad()
def main() -> None:
    """Command line."""
    chosen = "oneDNN's" if onednn_is_faster() else "torch's"
    table = empty_table(
        f"Products of float32, {chosen} here\n{machine()}",
        ("product", "sizes"),
        ("torch (ms)", "here (ms)", "times faster", "here (billion multiplications a second)"),
    )
    for name, n, k, m in PRODUCTS:
        left, right = torch.randn(n, k), torch.randn(m, k).T
        rivals = {"torch": partial(torch.mm, left, right), "here": partial(times, left, right)}
        seconds = medians(rivals, repeats=101)
        table.add_row(
            name,
            f"{n} x {k} x {m}",
            f"{1e3 * seconds['torch']:.2f}",
            f"{1e3 * seconds['here']:.2f}",
            f"{seconds['torch'] / seconds['here']:.1f}",
            f"{n * k * m / seconds['here'] / 1e9:.0f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
