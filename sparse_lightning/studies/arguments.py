"""What a study may be asked for, by the names of its arguments; checked before it measures."""

from __future__ import annotations

import functools
import inspect
import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

from sparse_lightning.errors import SettingError
from sparse_lightning.studies.labelled import ALL


class Range(NamedTuple):
    """Numbers that an argument may be.

    Attributes:
        told: the range in words.
        least: of all numbers in it.
        open_below: whether ``least`` itself is left out.
        below: all numbers in it are; None for no end.
        whole: whether they are whole numbers.
    """

    told: str
    least: float
    open_below: bool = False
    below: float | None = None
    whole: bool = False

    def has(self, value: Any) -> bool:
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            return False
        if self.whole and not isinstance(value, numbers.Integral):
            return False
        is_above = value > self.least if self.open_below else value >= self.least
        return bool(is_above and value < (self.below or float("inf")))


COUNT = Range("a whole number of at least 1", 1, whole=True)
FROM_0 = Range("a whole number of at least 0", 0, whole=True)
POSITIVE = Range("a finite number above 0", 0, open_below=True)
NON_NEGATIVE = Range("a finite number, 0 or more", 0)
SHARE = Range("a share from 0 to below 1", 0, below=1)

RANGES = {
    **dict.fromkeys(
        ("num_images", "num_shown", "num_peer_images", "num_draws", "scratch_draws", "pca_dim"),
        COUNT,
    ),
    **dict.fromkeys(("patience", "num_neighbours", "labels_per_class"), COUNT),
    **dict.fromkeys(("noise_seed", "scramble_seed", "null_seed", "classic_seeds"), FROM_0),
    **dict.fromkeys(("num_components", "most_pursued", "change_draws"), FROM_0),
    **dict.fromkeys(("inverse_penalties", "fixed_inverse_penalty", "noise_levels"), POSITIVE),
    **dict.fromkeys(("steps", "largest", "envelope_width", "largest_gap"), POSITIVE),
    **dict.fromkeys(("smoothing", "least_cycles", "variance_threshold"), NON_NEGATIVE),
    **dict.fromkeys(("at_zeros", "fixed_zeros", "part_level", "least_active"), SHARE),
    **dict.fromkeys(("threshold", "gabor_threshold"), SHARE),
}


def require_possible(compute: functools.partial) -> None:
    """Raise `SettingError` unless a study's settings can work.

    A list must be one, and must not be empty. The numbers of this package's studies are compared
    with `RANGES`.

    Args:
        compute: the study, with its settings.
    """
    asked = inspect.signature(compute.func).parameters
    is_ours = compute.func.__module__.startswith("sparse_lightning.")
    for name, value in compute.keywords.items():
        setting = f"study.compute.{name}={_told(value)}"
        # A name, since annotations may be texts.
        kind = str(asked[name].annotation).partition("[")[0] if name in asked else ""
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        if kind.endswith("Sequence") and not is_list:
            raise SettingError(f"{setting} must be a list, such as [{value}].")
        if not is_ours or name not in RANGES or value is None:
            continue
        if is_list and not value:
            raise SettingError(f"{setting} must not be empty: give {RANGES[name].told}.")
        given = value if is_list else [value]
        if not all(RANGES[name].has(v) or (name, v) == ("labels_per_class", ALL) for v in given):
            every = "each be " if is_list else "be "
            raise SettingError(f"{setting} must {every}{RANGES[name].told}.")


def _told(value: Any) -> str:
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return f"[{','.join(map(str, value))}]" if is_list else str(value)
