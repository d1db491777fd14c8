"""R² against zeros of a sweep on activations, beside scikit-learn's dictionary learning.

    python -m sparse_lightning.evaluate study=regret runs=sweeps/speech hydra.run.dir=runs/regret
    python examples/activations/compare.py activations runs/regret speech.png

The first command is the package's own study. The second fits dictionaries to training rows with
scikit-learn, whose codes are not negative either, and draws both. What scikit-learn found is kept
beside the figure, in a file named by passes and rows, and taken from there the next time. The
problem of ``MiniBatchDictionaryLearning`` is that of a linear decoder with columns of norm 1,
without an encoder: the least of ‖x − D z‖² / d + λ ‖z‖₁ over D and z ≥ 0 (Mairal, Bach, Ponce &
Sapiro, "Online dictionary learning for sparse coding", ICML 2009).
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import sparse_encode
from sklearn.exceptions import ConvergenceWarning
from tqdm import tqdm

from sparse_lightning.data.arrays import Arrays
from sparse_lightning.figures.style import families_in_order, family_name, family_style, tidy
from sparse_lightning.files import replaced_whole, write_figure
from sparse_lightning.studies.classics import ONLINE, ClassicSettings, fitted_dictionary
from sparse_lightning.studies.coding import all_inputs
from sparse_lightning.studies.study_result import StudyResult

PANELS = {"encoder": "codes predicted in one pass", "inference": "codes found by inference"}
MARGIN = 0.005  # share of zeros beside the curves up to which principal components are shown


def dictionary_learning(
    train: np.ndarray, test: np.ndarray, num_atoms: int, weight: float, passes: int
) -> dict[str, float]:
    """R² and zeros of test rows, with a dictionary that scikit-learn fits to training rows.

    Args:
        train: (n, d).
        test: (m, d).
        num_atoms: l.
        weight: λ, beside the mean of squared errors over the d values of a row.
        passes: over the training rows.

    Returns:
        ``sparsity_weight``; ``r2`` = 1 − Σ‖x − x̂‖² / Σ‖x − mean of the training rows‖², both sums
        over test rows; ``zeros``, the share of code components that are exactly 0.
    """
    settings = ClassicSettings([ONLINE], iterations=passes, sparsity_weight=weight)
    atoms = fitted_dictionary(ONLINE, train, num_atoms, 0, settings, positive=True)
    inputs = test.astype(np.float64)
    # scikit-learn's weight stands beside half a sum of squares.
    with warnings.catch_warnings():
        # Some rows miss the tolerance, which is 1e-8 of a row's squared norm.
        warnings.simplefilter("ignore", ConvergenceWarning)
        codes = sparse_encode(
            inputs, atoms, algorithm="lasso_cd", alpha=weight * test.shape[1] / 2, positive=True
        )
    left = np.square(inputs - codes @ atoms).sum()
    r2 = 1 - left / np.square(inputs - train.mean(axis=0, dtype=np.float64)).sum()
    return {"sparsity_weight": weight, "r2": float(r2), "zeros": float((codes == 0).mean())}


def learn(activations: Path, result: StudyResult, rows: int | None, passes: int) -> pd.DataFrame:
    """A row of `dictionary_learning` for each λ of a study, with as many atoms as its codes have.

    Args:
        activations: folder of ``x.npy`` and ``groups.npy``, split as the command line splits them.
        result: of the study of regret.
        rows: training rows that are fitted, drawn at random; None for all.
        passes: over these rows.
    """
    data = Arrays(
        activations / "x.npy",
        cache_dir=activations / "cache",
        groups=activations / "groups.npy",
    )
    data.setup()
    # The rows of a split are in random order.
    train, test = all_inputs(data, "train", rows), all_inputs(data, "test")
    num_atoms = int(result.table["code_dim"].max())
    # Those of inference: sparse autoencoders have another penalty, or a number of components.
    inferred = result.table[result.table["codes"] == "inference"]
    weights = sorted(inferred["sparsity_weight"].unique())
    return pd.DataFrame(
        [
            dictionary_learning(train, test, num_atoms, weight, passes)
            for weight in tqdm(weights, desc="scikit-learn", unit="λ")
        ]
    )


def draw(result: StudyResult, learned: pd.DataFrame, title: str) -> Figure:
    """One panel for codes of one pass through the encoder, and one for codes by inference.

    Means over seeds, with bars of one standard deviation.
    """
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    num_units = int(result.table["code_dim"].max())
    for axes, (codes, name) in zip(panels, PANELS.items()):
        rows = result.table[result.table["codes"] == codes]
        for family in families_in_order(rows["family"]):
            by_weight = rows[rows["family"] == family].groupby("sparsity_weight")[["zeros", "r2"]]
            mean, spread = by_weight.mean(), by_weight.std()
            style = family_style(family) | {"markersize": 5, "linewidth": 1.4, "capsize": 2}
            axes.errorbar(
                100 * mean["zeros"],
                mean["r2"],
                xerr=100 * spread["zeros"],
                yerr=spread["r2"],
                label=family_name(family),
                **style,
            )
        if codes == "inference":
            style = {"color": "black", "marker": "x", "linestyle": ":"}
            _curve(axes, learned, label="scikit-learn, codes without signs", **style)
        _components(axes, result)
        axes.set(title=name, xlabel=f"zeros among {num_units} code components (%)")
        axes.legend(fontsize=8, loc="lower left", handlelength=3.5)
        tidy(axes)
    panels[0].set_ylabel("R² of test rows")
    figure.suptitle(title, fontsize=10)
    return figure


def _curve(axes: Axes, rows: pd.DataFrame, **style) -> None:
    axes.plot(100 * rows["zeros"], rows["r2"], markersize=5, linewidth=1.4, **style)


def _components(axes: Axes, result: StudyResult) -> None:
    """As many principal components as codes have active ones, where the curves are."""
    known, zeros = result.more["references"], result.table["zeros"]
    known = known.assign(zeros=1 - known["components"] / result.table["code_dim"].max())
    shown = known[known["zeros"].between(zeros.min() - MARGIN, zeros.max() + MARGIN)]
    _curve(axes, shown, label="PCA, as many components", color="0.5", linestyle="-.")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("activations", type=Path, help="the folder of x.npy and groups.npy")
    parser.add_argument("study", type=Path, help="the folder that study=regret wrote")
    parser.add_argument("figure", type=Path, help="the figure; numbers go beside it")
    parser.add_argument("--rows", type=int, help="training rows for scikit-learn; all, if left out")
    parser.add_argument("--passes", type=int, default=2, help="of scikit-learn over the rows")
    parser.add_argument("--title", default="Reconstruction against sparsity, test rows")
    given = parser.parse_args(arguments)
    result = StudyResult.read(given.study)
    asked = f"{given.figure.stem}_passes{given.passes}_rows{given.rows or 'all'}.csv"
    numbers = given.figure.with_name(asked)
    if not numbers.exists():
        learned = learn(given.activations, result, given.rows, given.passes)
        with replaced_whole(numbers) as temporary:
            learned.to_csv(temporary, index=False)
    learned = pd.read_csv(numbers)
    write_figure(draw(result, learned, given.title), given.figure)
    print(learned.to_string(index=False))


if __name__ == "__main__":
    main()
