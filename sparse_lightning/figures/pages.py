"""Pages of one model each: what chooses the model in a table, and how a page is called."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from sparse_lightning.figures.style import family_name, sparsity_name


class Page(NamedTuple):
    """A model among others.

    Attributes:
        model: values of the columns that choose its rows.
        name: the end of a file's name.
        title: the same for readers.
    """

    model: dict[str, object]
    name: str
    title: str


def pages(table: pd.DataFrame) -> Iterator[Page]:
    """One page for each run of a table, whose family, λ and seed another run may share.

    Such runs, as of several ``data.shuffle_seed``, are numbered, and their titles name them.
    """
    keys = ["family", "sparsity_weight", "seed"]
    for (family, weight, seed), rows in table.groupby(keys):
        name = f"{family}_lambda{weight:g}_seed{seed}"
        title = f"{family_name(family)}, {sparsity_name(family, weight)}, seed {seed}"
        runs = sorted(rows["run"].unique())
        for number, run in enumerate(runs, 1):
            model = {"family": family, "sparsity_weight": weight, "seed": seed, "run": run}
            if len(runs) == 1:
                yield Page(model, name, title)
            else:
                yield Page(model, f"{name}_{number}", f"{title}, run {Path(run).name}")
