r"""The positive lasso against SPAMS, scikit-learn and skglm: ``python -m benchmarks.lasso``.

:math:`\min_{z \ge 0} \frac1d \|x - W z\|^2 + \lambda \|z\|_1` for 2,500 digits and the 128 atoms of
an SDL dictionary, from codes of zero, at two levels of sparsity and after two lengths of training.
Training makes the atoms alike, which slows all that follows gradients; after 200 steps even codes
without a penalty have 83 % zeros, so that the denser problem needs a younger dictionary.

Each solver is timed at the loosest setting of its own stopping rule that ends within 1e-6 of the
minimum, relative, as judged from outside in float64; one that has no such setting is timed at its
tightest. Its gap is printed.
With ``--folder`` the gap at looser settings is drawn against time.

Peers: ``pip install -e ".[bench]"``; those that are not installed are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from sklearn.decomposition import sparse_encode
from torch import Tensor

from benchmarks.problems import Problem, digits, problem
from benchmarks.timing import label_milliseconds, machine, medians
from sparse_lightning import Adaptive, Energy
from sparse_lightning.files import write_figure

SAMPLES, GAP = 2_500, 1e-6
PROBLEMS = ((0.91, 200), (0.91, 20), (0.75, 20))  # share of zeros, steps of training
TOLERANCES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 1e-6)
Peer = Callable[[Problem, float], Tensor]


def ours(case: Problem, tolerance: float) -> Tensor:
    return Adaptive(5_000, tolerance)(case.bind(), case.initial).codes


def spams_lars(case: Problem, tolerance: float) -> Tensor:
    """Least-angle regression is exact: it has no tolerance."""
    import spams

    atoms, inputs, weight = in_half_squares(case)
    codes = spams.lasso(
        np.asfortranarray(inputs.T),
        D=np.asfortranarray(atoms),
        lambda1=weight,
        pos=True,
        numThreads=torch.get_num_threads(),
    )
    return torch.from_numpy(np.ascontiguousarray(codes.toarray().T))


def scikit_learn(case: Problem, tolerance: float) -> Tensor:
    """Its stopping rule is fixed (1e-4 in its own units); only iterations can be limited."""
    atoms, inputs, weight = in_half_squares(case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        codes = sparse_encode(
            inputs,
            np.ascontiguousarray(atoms.T),
            algorithm="lasso_cd",
            alpha=weight,
            positive=True,
            n_jobs=torch.get_num_threads(),
            max_iter=round(1 / tolerance),
        )
    return torch.from_numpy(codes)


def skglm_lasso(case: Problem, tolerance: float) -> Tensor:
    """One problem after another: its estimator knows one target at a time."""
    from skglm import Lasso

    atoms, inputs, weight = in_half_squares(case)
    atoms = np.asfortranarray(atoms, dtype=np.float64)
    solver = Lasso(
        alpha=weight / len(atoms), positive=True, fit_intercept=False, tol=tolerance, max_iter=500
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        codes = [solver.fit(atoms, x.astype(np.float64)).coef_ for x in inputs]
    return torch.from_numpy(np.stack(codes))


def in_half_squares(case: Problem) -> tuple[np.ndarray, np.ndarray, float]:
    """W (d, l), inputs (n, d) and the weight of the l1 norm beside half a sum of squares."""
    atoms = case.decoder.weight.detach().numpy()
    return atoms, case.inputs.numpy(), case.energy.sparsity_weight * len(atoms) / 2


def peers() -> dict[str, Peer]:
    found: dict[str, Peer] = {
        "this package, adaptive": ours,
        "scikit-learn, lasso_cd": scikit_learn,
    }
    if importlib.util.find_spec("spams"):
        found["SPAMS, LARS"] = spams_lars
    if importlib.util.find_spec("skglm"):
        found["skglm"] = skglm_lasso
    return found


def at_zeros(share: float, steps: int) -> Problem:
    """The problem whose solution has that share of zeros, by bisection over λ."""
    trained = problem("sdl", steps)
    low, high = 1e-5, 1.0
    for _ in range(14):
        weight = (low * high) ** 0.5
        case = Problem(
            f"{share:.0%} zeros, {steps} steps",
            Energy(weight),
            trained.decoder,
            digits()[:SAMPLES],
            None,
            1.0,
        )
        zeros = float((ours(case, 1e-3) == 0).float().mean())
        low, high = (weight, high) if zeros < share else (low, weight)
    if abs(zeros - share) > 0.01:
        raise ValueError(f"This dictionary gives {zeros:.0%} zeros at the least: train it less.")
    return case


def curve(case: Problem, peer: Peer, lowest: float) -> Iterator[dict[str, float]]:
    """Seconds and gap at tighter and tighter settings, until one is close enough."""
    for tolerance in TOLERANCES:
        run = partial(peer, case, tolerance)
        gap = case.judge(run()) / lowest - 1
        yield {"tolerance": tolerance, "gap": gap, "seconds": medians({"": run}, 3)[""]}
        if gap <= GAP:
            break


def measure(case: Problem, skipped: Sequence[str], repeats: int) -> pd.DataFrame:
    """The curve of each solver; their last points are measured again, in turn."""
    lowest = case.judge(ours(case, 1e-8))
    solvers = {n: peer for n, peer in peers().items() if n.split(",")[0] not in skipped}
    curves, last = [], {}
    for name, peer in solvers.items():
        points = pd.DataFrame(curve(case, peer, lowest))
        curves.append(points.assign(problem=case.name, solver=name, in_turn=False))
        last[name] = partial(peer, case, points["tolerance"].iloc[-1])
    in_turn = medians(last, repeats)
    for points in curves:
        points.loc[points.index[-1], "seconds"] = in_turn[points["solver"].iloc[0]]
        points.loc[points.index[-1], "in_turn"] = True
    return pd.concat(curves, ignore_index=True)


def show(table: pd.DataFrame) -> None:
    """Print each solver at the setting that is close enough."""
    printed = Table(title=f"Positive lasso, {SAMPLES:,} digits, 128 atoms\n{machine()}")
    for heading in ("problem", "solver", "ms", "SPAMS = 1", "gap"):
        printed.add_column(heading, justify="left" if heading in ("problem", "solver") else "right")
    for name, part in table[table["in_turn"]].groupby("problem", sort=False):
        unit = part.loc[part["solver"] == "SPAMS, LARS", "seconds"]
        unit = float(unit.iloc[0]) if len(unit) else float("nan")
        for row in part.to_dict("records"):
            seconds = row["seconds"]
            cells = (f"{1e3 * seconds:.1f}", f"{seconds / unit:.2f}", f"{row['gap']:.0e}")
            printed.add_row(name, row["solver"], *cells)
    Console().print(printed)


def draw(table: pd.DataFrame) -> Figure:
    """Gap against time, one curve per solver."""
    problems = list(table["problem"].unique())
    figure, axes = plt.subplots(
        1, len(problems), figsize=(4.6 * len(problems), 3.8), layout="constrained", squeeze=False
    )
    for axis, name in zip(axes.flat, problems):
        for solver, points in table[table["problem"] == name].groupby("solver", sort=False):
            milliseconds, gap = 1e3 * points["seconds"], points["gap"].clip(lower=1e-9)
            axis.loglog(milliseconds, gap, marker="o", label=solver)
        axis.axhline(GAP, color="grey", linewidth=0.8, linestyle=":")
        axis.set(title=name, xlabel="milliseconds", ylabel="energy above the minimum, relative")
        label_milliseconds(axis)
        axis.grid(alpha=0.3)
    axes[0, 0].legend(fontsize=8)
    figure.suptitle(f"Positive lasso, {SAMPLES:,} digits, 128 atoms; {machine()}", fontsize=9)
    return figure


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--skip", nargs="*", default=(), help="peers to leave out, by first word")
    parser.add_argument("--folder", type=Path, default=None, help="for lasso.png")
    arguments = parser.parse_args()
    table = pd.concat(
        measure(at_zeros(*of_case), arguments.skip, arguments.repeats) for of_case in PROBLEMS
    )
    show(table)
    if arguments.folder is not None:
        write_figure(draw(table), arguments.folder / "lasso.png")


if __name__ == "__main__":
    main()
