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
# # Sparse coding of digits in five minutes
#
# This notebook trains a small model on the 1,797 digits of 8×8 pixels that scikit-learn carries. It
# then looks at inference: the energy, the code and the reconstruction, iteration by iteration. It
# runs on any laptop, and downloads nothing.
#
# The notebook is a script in the percent format: `jupytext --to notebook examples/digits.py` makes
# an `.ipynb` of it, and JupyterLab with jupytext opens it as it is.

# %%
import logging
import tempfile
import warnings
from pathlib import Path

import lightning
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits

from sparse_lightning import (
    FISTA,
    ISTA,
    LISTA,
    AdamSettings,
    Energy,
    LinearDecoder,
    SparseAutoencoder,
)
from sparse_lightning.data.batch import TensorSlices, slice_loader
from sparse_lightning.figures.tiles import tile_grid
from sparse_lightning.training.loggers import MetricsTable

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", ".*does not have many workers.*")
torch.manual_seed(0)
EPOCHS = 100

# %% [markdown]
# ## Data
#
# A pixel in [0, 1] becomes (pixel − mean) / deviation. `scale` and `shift` undo that, so that PSNR
# is measured in pixels.

# %%
pixels = torch.as_tensor(load_digits().data / 16, dtype=torch.float32)
pixels = pixels[torch.randperm(len(pixels))]
shift, scale = pixels[:1500].mean(), pixels[:1500].std()
inputs = (pixels - shift) / scale
train = slice_loader(TensorSlices(inputs[:1500], scale, shift), batch_size=250, shuffle_seed=0)
val = slice_loader(TensorSlices(inputs[1500:], scale, shift), batch_size=250)

# %% [markdown]
# ## Model
#
# A linear decoder with 64 atoms, a LISTA encoder, and the energy
#
# $$\sum_i \Big[ \tfrac1d \|x_i - D z_i\|^2 + \lambda \|z_i\|_1
# + \tfrac{\gamma}{l} \|z_i - E(x_i)\|^2 \Big] + \beta \sum_j \big[ (T - \sigma_j)_+ \big]^2 .$$
#
# The last term keeps the deviation of each code component over a batch near T or above. The
# decoder is free: nothing bounds its columns.

# %%
model = SparseAutoencoder(
    decoder=LinearDecoder(code_dim=64, input_dim=64),
    encoder=LISTA(input_dim=64, code_dim=64),
    energy=Energy(
        sparsity_weight=0.01, variance_weight=10.0, variance_threshold=0.5, encoder_weight=1.0
    ),
    solver=FISTA(step_size=0.5),
    optimizer=AdamSettings(decoder_learning_rate=3e-3, encoder_learning_rate=1e-3),
)

# %% [markdown]
# ## Training
#
# A step finds the codes of a batch by inference, and then improves decoder and encoder by one Adam
# step. `MetricsTable` keeps a row of metrics for each epoch.

# %%
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
trainer.fit(model, train, val)
metrics = table.frame()
metrics[["epoch", "train/psnr", "train/zeros", "val/psnr", "val/zeros"]].iloc[[0, 9, -1]]

# %% [markdown]
# ## What the model learned
#
# Each tile is an atom, a column of the decoder, over its own largest magnitude: red adds ink, blue
# takes ink away.

# %%
atoms = model.decoder.atoms().reshape(-1, 8, 8).numpy()
atoms = atoms / np.abs(atoms).max(axis=(1, 2), keepdims=True)
atoms_figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
axes.imshow(tile_grid(atoms, columns=8), cmap="RdBu_r", vmin=-1, vmax=1)
axes.set_title("the 64 atoms")
_ = axes.axis("off")

# %% [markdown]
# ## Inference, iteration by iteration
#
# Inference minimises the energy over the code while the decoder stays as it is. Here it starts from
# a code of zeros, with reconstruction and l1 norm alone. The problem is then convex and separate
# for each digit. FISTA adds momentum to the steps of ISTA.
#
# A solver that may take k iterations stops at the k-th iterate, so that one call for each k shows
# the whole way.

# %%
digits = inputs[1500:1508]
objective = Energy(sparsity_weight=0.01).bind(model.decoder, digits)
start = torch.zeros(len(digits), 64)
counts = [*range(31), 40, 60, 80, 100, 150, 200]


def path(solver: type) -> list[torch.Tensor]:
    """The codes after each number of iterations in `counts`."""
    codes = [
        solver(step_size=0.5, max_iterations=k, tolerance=0.0)(objective, start).codes
        for k in counts
        if k > 0
    ]
    return [start, *codes]


paths = {"ISTA": path(ISTA), "FISTA": path(FISTA)}
best = FISTA(step_size=0.5, max_iterations=3000, tolerance=0.0)(objective, start).codes
least = float(objective.value(best))

# %%
inference_figure, (energy_axes, code_axes) = plt.subplots(
    1, 2, figsize=(10.5, 3.8), layout="constrained"
)
for name, codes in paths.items():
    gap = [(float(objective.value(code)) - least) / len(digits) for code in codes]
    energy_axes.plot(counts, gap, label=name, color={"ISTA": "0.5", "FISTA": "tab:red"}[name])
energy_axes.set(
    xlabel="iteration",
    ylabel="energy above the minimum, per digit",
    yscale="log",
    ylim=(1e-5, None),
)
energy_axes.legend(frameon=False)
energy_axes.spines[["top", "right"]].set_visible(False)
shown = torch.stack(paths["FISTA"])[:31, 0].T.numpy()
order = np.argsort(-shown[:, -1], kind="stable")
image = code_axes.imshow(shown[order], aspect="auto", cmap="Reds", interpolation="nearest")
code_axes.set(xlabel="iteration of FISTA", ylabel="code component, largest first")
code_axes.set_title("the code of one digit", fontsize=10)
_ = inference_figure.colorbar(image, ax=code_axes, label="value")

# %% [markdown]
# Many components start, and most of them end at exactly 0. The reconstruction is there after a few
# iterations; the later ones make the code sparse.

# %%
steps = [1, 3, 10, 30, 36]
rebuilt_figure, panels = plt.subplots(1, 6, figsize=(9, 1.9), layout="constrained")
pictures = [digits[0], *(model.decode(paths["FISTA"][step][:1])[0] for step in steps)]
titles = ["input", *(f"iteration {counts[step]}" for step in steps)]
for panel, picture, title in zip(panels, pictures, titles):
    shades = (picture.detach() * scale + shift).reshape(8, 8)
    panel.imshow(shades, cmap="gray", vmin=0, vmax=1)
    panel.set_title(title, fontsize=10)
    panel.axis("off")

# %%
active = {counts[step]: int((paths["FISTA"][step][0] > 0).sum()) for step in steps}
print("active components of 64, by iteration:", active)

# %% [markdown]
# ## The encoder
#
# The encoder predicts the code in one pass, and does not need a batch. Inference from the encoder's
# prediction, with all terms of the energy, is `model.infer`.

# %%
codes = model.encode(inputs[1500:])
inferred = model.infer(inputs[1500:])
print(f"zeros, encoder:   {float((codes == 0).float().mean()):.1%}")
print(f"zeros, inference: {float((inferred.codes == 0).float().mean()):.1%}")
print(f"iterations:       {float(inferred.iterations.float().mean()):.1f}")
