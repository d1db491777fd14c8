r"""``fit`` of family DO against scikit-learn's: ``python -m benchmarks.dictionary_learning``.

Both learn 128 unit atoms and non-negative codes of 10,000 digits for

.. math:: \tfrac1d \|x - D z\|^2 + \lambda \|z\|_1

in mini-batches of 250, one pass after another: `SparseCoding` with ``family="do"``, and
``MiniBatchDictionaryLearning`` with ``positive_code=True``, coordinate descent and
:math:`\alpha = \lambda d / 2`. Each starts as it does by default. After every pass, and outside the
clock, one judge minimises the objective over the codes of held-out digits.

The goal is the objective that both reach in the passes they are given. The clock is the process's
CPU time, which other work on the machine moves less than the time of day.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from sklearn.decomposition import MiniBatchDictionaryLearning
from sklearn.exceptions import ConvergenceWarning

from benchmarks.timing import machine, parser, show
from sparse_lightning import Adaptive, Energy, LinearDecoder, SparseCoding
from sparse_lightning.data.mnist import MNIST

ATOMS, BATCH, WEIGHT = 128, 250, 0.005


@dataclass
class Rival:
    """What learns, pass by pass, and what came of it.

    Attributes:
        one_pass: learn from all rows once.
        atoms: (l, d), those of now.
        seconds: CPU time until the end of each pass.
        objectives: held-out objective after each pass.
    """

    one_pass: Callable[[np.ndarray], object]
    atoms: Callable[[], np.ndarray]
    seconds: list[float] = field(default_factory=list)
    objectives: list[float] = field(default_factory=list)

    def learn(self, rows: np.ndarray, held_out: torch.Tensor, passes: int) -> None:
        spent = 0.0
        for _ in range(passes):
            begun = time.process_time()
            self.one_pass(rows)
            spent += time.process_time() - begun
            self.seconds.append(spent)
            self.objectives.append(judged(self.atoms(), held_out))

    def reaches(self, goal: float) -> tuple[int, float]:
        """Passes and seconds until the objective is no more than ``goal``."""
        first = next(i for i, value in enumerate(self.objectives) if value <= goal)
        return first + 1, self.seconds[first]


def judged(atoms: np.ndarray, rows: torch.Tensor) -> float:
    """Mean over rows of the least objective over codes, until codes change by less than 1e-5."""
    decoder = LinearDecoder(len(atoms), rows.shape[1])
    decoder.weight.data.copy_(torch.from_numpy(atoms.T))
    objective = Energy(WEIGHT).bind(decoder, rows)
    codes = Adaptive(5_000, 1e-5)(objective, rows.new_zeros(len(rows), len(atoms))).codes
    return float(objective.value(codes)) / len(rows)


def ours() -> Rival:
    model = SparseCoding(
        ATOMS,
        family="do",
        alpha=WEIGHT,
        batch_size=BATCH,
        solver="adaptive",
        preset="mnist",
        random_state=0,
    )
    return Rival(model.partial_fit, lambda: model.components_)


def scikit_learn(input_dim: int) -> Rival:
    model = MiniBatchDictionaryLearning(
        ATOMS,
        alpha=WEIGHT * input_dim / 2,
        batch_size=BATCH,
        fit_algorithm="cd",
        positive_code=True,
        random_state=0,
    )
    random = np.random.RandomState(0)

    def one_pass(rows: np.ndarray) -> None:
        order = random.permutation(len(rows))
        with warnings.catch_warnings():
            # Of the first batches, whose codes are far from the start.
            warnings.simplefilter("ignore", ConvergenceWarning)
            for start in range(0, len(rows), BATCH):
                model.partial_fit(rows[order[start : start + BATCH]])

    return Rival(one_pass, lambda: model.components_)


def digits(root: str | None, count: int, held_out: int) -> tuple[np.ndarray, torch.Tensor]:
    """Standardised digits to learn from, and others to judge by."""
    with tempfile.TemporaryDirectory() as folder:
        data = MNIST(root or folder, num_train=count, num_val=held_out, num_test=1)
        data.prepare_data()
        data.setup()
        splits = (data.splits[name].tensors.inputs for name in ("train", "val"))
        rows, others = (inputs.clone() for inputs in splits)
    return rows.numpy(), others


def main(words: Sequence[str] | None = None) -> None:
    """Command line."""
    known = parser(__doc__)
    known.add_argument("--root", help="MNIST in torchvision's layout; unpacked anew without it")
    known.add_argument("--passes", type=int, nargs=2, default=(30, 3), help="ours, scikit-learn's")
    given = known.parse_args(words)
    count, held_out, passes = (500, 50, (2, 1)) if given.quick else (10_000, 1_000, given.passes)
    rows, others = digits(given.root, count, held_out)
    rivals = {"SparseCoding, DO": ours(), "scikit-learn": scikit_learn(rows.shape[1])}
    for rival, number in zip(rivals.values(), passes):
        rival.learn(rows, others, number)
    goal = max(min(rival.objectives) for rival in rivals.values())
    table = []
    for name, rival in rivals.items():
        at, seconds = rival.reaches(goal)
        last = f"{rival.objectives[-1]:.4f}"
        table.append([name, str(at), f"{seconds:.1f}", f"{rival.objectives[0]:.4f}", last])
    show(
        f"{count:,} digits, {ATOMS} atoms, λ = {WEIGHT}, until {goal:.4f} on {held_out:,} others\n"
        f"{machine()}",
        ("what",),
        ("passes", "CPU seconds", "after one pass", "after all"),
        table,
    )


if __name__ == "__main__":
    main()
