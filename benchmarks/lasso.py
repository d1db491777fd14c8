r"""The positive lasso against SPAMS, scikit-learn and skglm: ``python -m benchmarks.lasso``.

:math:`\min_{z \ge 0} \frac1d \|x - W z\|^2 + \lambda \|z\|_1` for 2,500 digits and the 128 atoms of
an SDL dictionary, from codes of zero, at two levels of sparsity and after two lengths of training.
Training makes the atoms alike, which slows all that follows gradients; after 200 steps even codes
without a penalty have 83 % zeros, so that the denser problem needs a younger dictionary.

Each solver is timed at the loosest setting of its own stopping rule that ends within 1e-6 of the
minimum, relative, as judged from outside in float64; one that has no such setting is timed at its
tightest. Its gap is printed.

Peers: ``pip install -e ".[bench]"``; those that are not installed are left out.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from sklearn.decomposition import sparse_encode
from torch import Tensor

from benchmarks.problems import Problem, problem
from benchmarks.timing import machine, medians, parser, show
from sparse_lightning import Adaptive, Energy

GAP = 1e-6
PROBLEMS = ((0.91, 200), (0.91, 20), (0.75, 20))  # share of zeros, steps of training
TOLERANCES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 1e-6)
Peer = Callable[[Problem, float], Tensor]


def ours(case: Problem, tolerance: float) -> Tensor:
    return case.infer(Adaptive(5_000, tolerance))


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


def peers(skipped: Sequence[str]) -> dict[str, Peer]:
    """The solvers that are installed and not skipped; says which are not installed."""
    found: dict[str, Peer] = {
        "this package, adaptive": ours,
        "scikit-learn, lasso_cd": scikit_learn,
    }
    for name, module, peer in (
        ("SPAMS, LARS", "spams", spams_lars),
        ("skglm, one at a time", "skglm", skglm_lasso),
    ):
        if importlib.util.find_spec(module):
            found[name] = peer
        else:
            print(f'{name}: not installed, left out (pip install -e ".[bench]")')
    return {name: peer for name, peer in found.items() if name.split(",")[0] not in skipped}


def at_zeros(share: float, steps: int, samples: int) -> Problem:
    """The problem whose solution has that share of zeros, by bisection over λ."""
    trained = replace(problem("sdl", steps, samples=samples), prediction=None)
    low, high = 1e-5, 1.0
    for _ in range(14):
        weight = (low * high) ** 0.5
        case = replace(trained, energy=Energy(weight))
        zeros = float((ours(case, 1e-3) == 0).float().mean())
        low, high = (weight, high) if zeros < share else (low, weight)
    if abs(zeros - share) > 0.01:
        raise ValueError(f"This dictionary gives {zeros:.0%} zeros at the least: train it less.")
    return case


def loosest(case: Problem, peer: Peer, lowest: float) -> tuple[float, float]:
    """The loosest tolerance that ends close enough, or the tightest, and its gap."""
    for tolerance in TOLERANCES:
        gap = case.judge(peer(case, tolerance)) / lowest - 1
        if gap <= GAP:
            break
    return tolerance, gap


def compare(name: str, case: Problem, solvers: dict[str, Peer], repeats: int) -> list[list[str]]:
    """One row per solver, timed in turn."""
    lowest = case.judge(ours(case, 1e-8))
    found = {solver: loosest(case, peer, lowest) for solver, peer in solvers.items()}
    rivals = {solver: partial(peer, case, found[solver][0]) for solver, peer in solvers.items()}
    seconds = medians(rivals, repeats)
    unit = next(iter(seconds.values()))
    return [
        [name, solver, f"{1e3 * time:.1f}", f"{time / unit:.2f}", f"{found[solver][1]:.0e}"]
        for solver, time in seconds.items()
    ]


def main(words: Sequence[str] | None = None) -> None:
    """Command line."""
    known = parser(__doc__)
    known.add_argument("--repeats", type=int, default=5)
    known.add_argument("--skip", nargs="*", default=(), help="peers to leave out, by first word")
    given = known.parse_args(words)
    samples, repeats = (250, 1) if given.quick else (2_500, given.repeats)
    solvers, rows = peers(given.skip), []
    for share, steps in PROBLEMS[-1:] if given.quick else PROBLEMS:
        case = at_zeros(share, steps, samples)
        rows += compare(f"{share:.0%} zeros, {steps} steps", case, solvers, repeats)
    show(
        f"Positive lasso, {samples:,} digits, 128 atoms\n{machine()}",
        ("problem", "solver"),
        ("ms", "first = 1", "gap"),
        rows,
    )


if __name__ == "__main__":
    main()
