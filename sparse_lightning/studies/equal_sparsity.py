r"""PSNR at equal sparsity: read off curves of measured points, never beyond them.

Tables of data that are no images have R² in place of PSNR, in a column ``r2``; both are read
off in one way.

Along a family's curve PSNR is nearly linear in the logarithm of the active share, which is 1 less
the share of zeros. PSNR is therefore interpolated in that logarithm, between two measured points
that are close enough for the curve between them to be known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sparse_lightning.quality import quality_of

# What tells one model's curve over λ from another's.
CURVE = ["family", "seed"]


def interpolate(zeros: np.ndarray, psnr: np.ndarray, at: float, largest_gap: float) -> float:
    """PSNR at a share of zeros, linear in the logarithm of the active share.

    Args:
        zeros: shares of zeros of the measured points, in any order.
        psnr: of the points, in dB.
        at: the share of zeros asked for, below 1.
        largest_gap: factor in active share that the two neighbours must be closer than.

    Returns:
        dB; NaN beyond the ends of the curve and in a hole of it.
    """
    alive = zeros < 1
    active, values = np.log(1 - zeros[alive]), psnr[alive]
    order = np.argsort(active)
    active, values = active[order], values[order]
    wanted = np.log(1 - at)
    measured = np.isclose(active, wanted, rtol=0, atol=1e-9)
    if measured.any():
        return float(values[measured].mean())
    right = int(np.searchsorted(active, wanted))
    if right in (0, len(active)):
        return np.nan
    low, high = active[right - 1], active[right]
    if high - low >= np.log(largest_gap):
        return np.nan
    share = (wanted - low) / (high - low)
    return float((1 - share) * values[right - 1] + share * values[right])


def curves_at_zeros(
    points: pd.DataFrame, at_zeros: Sequence[float], largest_gap: float, keys: list[str]
) -> pd.DataFrame:
    """Interpolated PSNR of each curve.

    Args:
        points: with ``sparsity_weight``, ``zeros``, ``psnr`` and the keys.
        at_zeros: shares of zeros.
        largest_gap: see `interpolate`.
        keys: columns that tell curves apart.

    Returns:
        The keys, zeros, psnr (NaN where a curve does not reach).
    """
    rows, name = [], quality_of(points).name
    for values, curve in points.groupby(keys):
        means = curve.groupby("sparsity_weight")[["zeros", name]].mean()
        zeros, measured = means["zeros"].to_numpy(), means[name].to_numpy()
        names = dict(zip(keys, values))
        rows += [
            names | {"zeros": at, name: interpolate(zeros, measured, at, largest_gap)}
            for at in at_zeros
        ]
    return pd.DataFrame(rows, columns=[*keys, "zeros", name])


def over_seeds(curves: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Mean over seeds.

    Returns:
        The keys, psnr in dB, std (unbiased; NaN for one seed), ``seeds``, how many curves reach,
        and ``curves``, how many there are.
    """
    name = quality_of(curves).name
    grouped = curves.groupby(keys)[name]
    measures = {name: "mean", "std": "std", "seeds": "count", "curves": "size"}
    return grouped.agg(**measures).reset_index()


def against_epochs(
    histories: pd.DataFrame, at_zeros: Sequence[float], largest_gap: float
) -> pd.DataFrame:
    """Interpolated PSNR of each curve after each epoch that all its points have reached.

    Args:
        histories: one row per model and epoch: family, seed, sparsity_weight, ``epochs`` (behind
            it), ``zeros`` and ``psnr``.
        at_zeros: shares of zeros.
        largest_gap: see `interpolate`.

    Returns:
        Columns family, seed, epochs, zeros, psnr.
    """
    keys = [*CURVE, "epochs"]
    if histories.empty:
        return pd.DataFrame(columns=[*keys, "zeros", quality_of(histories).name])
    ends = histories.groupby([*CURVE, "sparsity_weight"])["epochs"].max()
    common = ends.groupby(CURVE).min().rename("common")
    reached = histories.join(common, on=CURVE).query("epochs <= common")
    return curves_at_zeros(reached, at_zeros, largest_gap, keys)


def last_doubling(curves: pd.DataFrame) -> pd.DataFrame:
    """What the last doubling of epochs changed, from `against_epochs`.

    Returns:
        Columns family, zeros, ``epochs`` (of the seed with the fewest) and ``change`` in dB, the
        mean over seeds; NaN where a seed's curve does not reach there at either time.
    """
    if curves.empty:
        return pd.DataFrame(columns=["family", "zeros", "epochs", "change"])
    last = curves.groupby(CURVE)["epochs"].transform("max")
    keys = [*CURVE, "zeros"]
    late = curves[curves["epochs"] == last].set_index(keys)
    early = curves[curves["epochs"] == last // 2].set_index(keys)
    name = quality_of(curves).name
    late["change"] = late[name] - early[name].reindex(late.index)
    grouped = late.reset_index().groupby(["family", "zeros"])
    ends = grouped["epochs"].min().to_frame()
    ends["change"] = grouped["change"].agg(lambda changes: changes.mean(skipna=False))
    return ends.reset_index()
