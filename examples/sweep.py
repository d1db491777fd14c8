# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Reading a sweep
#
# A sweep leaves one folder per run. This notebook reads six such folders, which travel with the
# repository: three families at two λ, one epoch each, on a small part of MNIST. The numbers mean
# nothing by themselves. To read a sweep of your own, set `FOLDER` to its folder.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from sparse_lightning.experiments.glance import Glance, ranked
from sparse_lightning.experiments.table import collect, summarize
from sparse_lightning.figures.style import family_name, family_style

here = Path.cwd()
root = next(path for path in (here, *here.parents) if (path / "pyproject.toml").is_file())
FOLDER = root / "tests" / "data" / "old_sweep"

# %% [markdown]
# ## At a glance
#
# In the terminal `python -m sparse_lightning.runs FOLDER` shows this, the best first. The order is
# that of validation; test metrics are only reported.

# %%
rows = ranked(Glance([FOLDER]).rows(), "val/psnr")
shown = ["state", "family", "sparsity_weight", "seed", "val/psnr", "test/psnr", "val/zeros"]
pd.DataFrame(rows)[shown].round(3)

# %% [markdown]
# ## The table, and the summary over seeds
#
# `collect` has one row per run with every setting that differs and every final metric. `summarize`
# takes the mean and the deviation over seeds of finished runs. Runs that differ in anything but the
# seed are never averaged.

# %%
table = collect(FOLDER)
summary = summarize(table)
columns = ["family", "sparsity_weight", "n", "test/psnr_mean", "test/psnr_std", "test/zeros_mean"]
summary[columns].round(3)

# %% [markdown]
# One seed has no spread: the column of deviations is empty.
#
# ## PSNR against zeros
#
# PSNR falls as codes get sparser. So two models are compared at equal zeros, never at equal λ,
# which means something else in each family.

# %%
curve, axes = plt.subplots(figsize=(6, 3.8), layout="constrained")
for family, group in summary.groupby("family", sort=False):
    group = group.sort_values("test/zeros_mean")
    axes.plot(
        100 * group["test/zeros_mean"],
        group["test/psnr_mean"],
        label=family_name(family),
        **family_style(family),
    )
axes.set(xlabel="zeros in the codes (%)", ylabel="test PSNR (dB)")
axes.spines[["top", "right"]].set_visible(False)
_ = axes.legend(frameon=False)

# %% [markdown]
# ## Over epochs
#
# Each run's `metrics.csv` has a row per epoch, which `pandas` reads.

# %%
run = FOLDER / table["run"].iloc[0]
pd.read_csv(run / "metrics.csv").filter(regex="epoch|energy|psnr|zeros").round(3)
