"""Draw ``docs/images/neighbours.png``: sparse autoencoders beside the paper's families on MNIST.

    python -m sparse_lightning.evaluate study=regret runs=sweeps/neighbours hydra.run.dir=runs/n
    python docs/make_neighbours_figure.py runs/n docs/results/neighbours_sdl_vdl_table.parquet

The first argument is the folder of the study, the second the collected results of other runs with
an encoder. Their test PSNR and zeros are those of the encoder's codes of all test images, as the
study's are. Also prints, for each family and sparsity, means over seeds as a Markdown table.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from sparse_lightning.figures.regret import regret_curves
from sparse_lightning.figures.style import families_in_order, family_name, sparsity_name
from sparse_lightning.files import write_figure
from sparse_lightning.studies.equal_sparsity import CURVE, curves_at_zeros, over_seeds
from sparse_lightning.studies.study_result import StudyResult

KEYS = ["family", "sparsity_weight", "seed"]
AT_ZEROS, LARGEST_GAP = (0.9, 0.95), 2.5


def of_encoders(collected: pd.DataFrame, code_dim: int) -> pd.DataFrame:
    """Finished runs of a collected table, as rows of the study of regret."""
    done = collected[collected["state"] == "finished"]
    tested = {f"test/{name}": name for name in ("psnr", "zeros", "dead_units")}
    rows = done[[*KEYS, *tested]].rename(columns=tested)
    return rows.assign(codes="encoder", code_dim=code_dim)


def summary(table: pd.DataFrame) -> str:
    """Means over seeds, a row for each family and sparsity."""
    lines = ["| family | sparsity | seeds | PSNR, test (dB) | zeros | dead units |"]
    lines.append("|---|---|---|---|---|---|")
    for family in families_in_order(table["family"]):
        for value, rows in table[table["family"] == family].groupby("sparsity_weight"):
            mean = rows[["psnr", "zeros", "dead_units"]].mean()
            lines.append(
                f"| {family_name(family)} | {sparsity_name(family, value)} | {len(rows)} "
                f"| {mean['psnr']:.2f} | {mean['zeros']:.3f} | {mean['dead_units']:.0f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Write the figure, and print its path and the tables."""
    if len(sys.argv) != 3:
        sys.exit("error: give the folder of a study of regret and a collected table.")
    result = StudyResult.read(Path(sys.argv[1]))
    own = result.table[result.table["codes"] == "encoder"]
    others = of_encoders(pd.read_parquet(sys.argv[2]), int(own["code_dim"].max()))
    table = pd.concat([own, others], ignore_index=True)
    figure = regret_curves(table, result.more["references"], result.more["classics"], result.data)
    figure.set_size_inches(9.0, 6.4)
    print(write_figure(figure, Path(__file__).parent / "images" / "neighbours.png"))
    print(summary(table))
    equal = over_seeds(curves_at_zeros(table, AT_ZEROS, LARGEST_GAP, CURVE), ["zeros", "family"])
    print(equal.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
