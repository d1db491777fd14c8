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
# # Why codes collapse
#
# An l1 penalty makes codes small, and a free decoder can undo that: half the code and twice the
# decoder rebuild the same input at half the penalty. So codes shrink and the decoder grows, for as
# long as training lasts. This notebook shows it on the small digits of scikit-learn, and shows two
# remedies: unit columns, and the variance hinge.

# %%
import logging
import tempfile
import warnings
from pathlib import Path

import lightning
import matplotlib.pyplot as plt
import pandas as pd
import torch
from sklearn.datasets import load_digits

from sparse_lightning import (
    FISTA,
    LISTA,
    AdamSettings,
    Energy,
    LinearDecoder,
    SparseAutoencoder,
    UnitColumns,
)
from sparse_lightning.data.batch import TensorSlices, slice_loader
from sparse_lightning.training.loggers import MetricsTable

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", ".*does not have many workers.*")
warnings.filterwarnings("ignore", "All validation codes are zero.*")
EPOCHS = 100
THRESHOLD = 0.5

# %%
torch.manual_seed(0)
pixels = torch.as_tensor(load_digits().data / 16, dtype=torch.float32)
pixels = pixels[torch.randperm(len(pixels))]
shift, scale = pixels[:1500].mean(), pixels[:1500].std()
inputs = (pixels - shift) / scale
train = TensorSlices(inputs[:1500], scale, shift)
val = TensorSlices(inputs[1500:], scale, shift)

# %% [markdown]
# ## Three models, one difference
#
# Data, sizes, λ and learning rates are those of all three models. Only what prevents collapse
# differs.


# %%
def model_with(variance_weight: float, constraint: UnitColumns | None) -> SparseAutoencoder:
    """A linear decoder of 64 atoms."""
    torch.manual_seed(0)
    return SparseAutoencoder(
        decoder=LinearDecoder(code_dim=64, input_dim=64),
        encoder=LISTA(input_dim=64, code_dim=64),
        energy=Energy(
            sparsity_weight=0.01,
            variance_weight=variance_weight,
            variance_threshold=THRESHOLD,
            encoder_weight=1.0,
        ),
        solver=FISTA(step_size=0.5),
        optimizer=AdamSettings(decoder_learning_rate=3e-3, encoder_learning_rate=1e-3),
        constraint=constraint,
    )


def trained(model: SparseAutoencoder) -> pd.DataFrame:
    """Train a model, and return its metrics, a row per epoch."""
    table = MetricsTable(Path(tempfile.mkdtemp()) / "metrics.csv")
    trainer = lightning.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=table,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )
    trainer.fit(model, slice_loader(train, 250, shuffle_seed=0), slice_loader(val, 250))
    return table.frame()


models = {
    "nothing": model_with(0.0, None),
    "unit columns": model_with(0.0, UnitColumns()),
    "variance hinge": model_with(10.0, None),
}
COLORS = {"nothing": "0.35", "unit columns": "tab:blue", "variance hinge": "tab:red"}
metrics = {name: trained(model) for name, model in models.items()}

# %% [markdown]
# ## Codes shrink while the decoder grows
#
# Both measures are of training: the codes are those of inference.

# %%
collapse_figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
shown = {
    "train/code_l1": ("mean l1 norm of a code", (6, 8, 10, 15, 20)),
    "train/column_norm": ("mean norm of the decoder's columns", (0.6, 0.8, 1, 1.5, 2, 2.5)),
}
for panel, (column, (title, ticks)) in zip(panels, shown.items()):
    for name, table in metrics.items():
        panel.plot(table["epoch"] + 1, table[column], color=COLORS[name], label=name)
    panel.set(xlabel="epoch", yscale="log")
    panel.set_yticks(ticks, map(str, ticks))
    panel.minorticks_off()
    panel.set_title(title, fontsize=10)
    panel.spines[["top", "right"]].set_visible(False)
_ = panels[0].legend(frameon=False, title="what prevents collapse")

# %% [markdown]
# ## What the hinge does
#
# The hinge is β·Σⱼ [(T − σⱼ)₊]², where σⱼ is the deviation of component j over the batch. It costs
# nothing where σⱼ is at least T. Below T it pushes the values of the component apart. It acts on
# codes, during inference, and never on the decoder's weights.

# %%
hinge_figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", sharey=True)
for panel, name in zip(panels, ("nothing", "variance hinge")):
    deviations = models[name].infer(inputs[:250]).codes.std(dim=0)
    panel.hist(deviations.numpy(), bins=30, range=(0, 1.2), color=COLORS[name])
    panel.axvline(THRESHOLD, color="black", linestyle=":")
    panel.annotate("T", (THRESHOLD, 0.92), xycoords=("data", "axes fraction"), xytext=(4, 0),
                   textcoords="offset points")  # fmt: skip
    panel.set(xlabel="standard deviation of a code component over a batch")
    panel.set_title(f"what prevents collapse: {name}", fontsize=10)
    panel.spines[["top", "right"]].set_visible(False)
_ = panels[0].set_ylabel("code components")

# %% [markdown]
# ## Numbers of the last epoch
#
# A collapse is no failure to rebuild: training PSNR stays, since the decoder makes up for small
# codes. What is lost is the meaning of λ, which falls as the codes do, and in the end precision.

# %%
columns = ["train/psnr", "train/zeros", "train/code_l1", "train/column_norm", "val/psnr"]
pd.DataFrame({name: table[columns].iloc[-1] for name, table in metrics.items()}).T.round(3)
