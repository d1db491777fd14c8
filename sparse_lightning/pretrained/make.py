"""Make a shipped model of a finished run: ``python -m sparse_lightning.pretrained.make RUN NAME``.

The best model of the run goes into the folder ``NAME`` in half precision. It is then read again
from there and tested on all test samples. The card beside it has these numbers, and the settings
of the run.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import lightning
import torch
from omegaconf import OmegaConf

from sparse_lightning.checkpoint_format import read_checkpoint
from sparse_lightning.errors import DataError
from sparse_lightning.experiments.fingerprint import OUTWARD, is_one_of
from sparse_lightning.experiments.runs import Run
from sparse_lightning.hub import PAGE_FILE
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.pretrained import FOLDER
from sparse_lightning.shared_model import WEIGHTS_FILE

# Of a run's settings, those that say where things are, and what is shown; they change no number.
PLACES = ("hydra", "data.root", *(name for name in OUTWARD if name != "imports"))
CHOICES = ("trainer=cpu", "trainer=gpu", "callbacks=milestones")

CARD = """# {name}

{family} with λ = {weight:g}, trained on {title}. Half precision, {size:,.0f} kB; it is read
as single precision.

```python
from sparse_lightning import SparseAutoencoder

model = SparseAutoencoder.from_pretrained("{name}")
codes = model.encode(inputs)  # ({dim} numbers, standardised as below) -> {code_dim}
reconstructions = model.decode(codes)
```

| all {count:,} test samples, codes of the encoder | |
|---|---|
| PSNR | {psnr:.2f} dB |
| zeros | {zeros:.1%} |
| dead units | {dead:.0f} of {code_dim} |

*Measured from the shipped files by `python -m sparse_lightning.pretrained.make RUN {name}`.*

- **Trained** by

      {command}

  These are the weights after epoch {epoch} of {epochs}, those of lowest validation energy.
  Version {version}, commit {commit}.
- **Inputs**: {inputs}
- **Data and licence**: {data}
"""

MNIST = (
    "digits of 28 × 28 pixels in [0, 1], less 0.1307, over 0.3081.",
    "MNIST (LeCun, Cortes, Burges), CC BY-SA 3.0.",
)
PATCHES = (
    "patches of 28 × 28 pixels with local contrast normalisation, as `data=imagenet_patches` makes "
    "them.",
    "patches of the photographs astronaut, brick, camera, chelsea, coffee, coins, grass, gravel "
    "and rocket that scikit-image brings with it, all in the public domain or CC0.",
)
DATA = {"mnist": MNIST, "imagenet_patches": PATCHES}


def make(run: Run, name: str) -> Path:
    """Write the folder of a model, once all of it is made, and return it.

    Raises:
        DataError: the licence of the run's data is not known.
    """
    inputs, licence = _about_data(run)
    with TemporaryDirectory() as temporary:
        made = Path(temporary)
        run.model().half().save_pretrained(made)
        card = _card(run, name, made, inputs, licence)
        (made / PAGE_FILE).write_text(card, encoding="utf-8")
        shutil.copytree(made, FOLDER / name, dirs_exist_ok=True)
    return FOLDER / name


def _about_data(run: Run) -> tuple[str, str]:
    """What the inputs are, and where they are from."""
    name = run.config.data_name
    if name not in DATA:
        raise DataError(
            f"{run.folder} was trained on data={name}, whose licence is not known: take a run on "
            f"{' or '.join(DATA)}."
        )
    if name == "imagenet_patches" and run.config.data.root is not None:
        raise DataError(
            f"{run.folder} was trained on photographs in data.root={run.config.data.root}, whose "
            "licence is not known: take a run on the sample photographs."
        )
    return DATA[name]


def _card(run: Run, name: str, folder: Path, inputs: str, licence: str) -> str:
    """The card of a model in a folder, with numbers that are measured from there."""
    shipped = SparseAutoencoder.from_pretrained(folder)
    data = run.data()
    trainer = lightning.Trainer(logger=False, enable_progress_bar=False, enable_model_summary=False)
    (numbers,) = trainer.test(shipped, datamodule=data, verbose=False)
    data.setup("test")
    commit, *changed = (run.results["commit"] or "unknown").partition("-")
    return CARD.format(
        name=name,
        family=run.config.model.family.upper().replace("_", "-"),
        weight=shipped.energy.sparsity_weight,
        title=data.title,
        size=(folder / WEIGHTS_FILE).stat().st_size / 1000,
        dim=data.input_dim,
        code_dim=shipped.decoder.code_dim,
        count=len(data.splits["test"]),
        psnr=numbers["test/psnr"],
        zeros=numbers["test/zeros"],
        dead=numbers["test/dead_units"],
        command=command(run),
        epoch=read_checkpoint(run.best_checkpoint)["epoch"] + 1,
        epochs=run.results["epochs"],
        version=run.results["version"],
        commit=commit[:7] + "".join(changed),
        inputs=inputs,
        data=licence,
    )


def command(run: Run) -> str:
    """What trains the model again, on any machine."""
    recorded = OmegaConf.load(run.folder / ".hydra" / "overrides.yaml")
    given = OmegaConf.to_container(recorded, resolve=False)
    settings = [setting for setting in given if not _is_place(setting)]
    return shlex.join(["python", "-m", "sparse_lightning.train", *settings])


def _is_place(setting: str) -> bool:
    return setting in CHOICES or is_one_of(setting.lstrip("+~").partition("=")[0], PLACES)


def main() -> None:
    """Entry point of the command line."""
    known = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    known.add_argument("run", type=Path, help="folder of a finished run")
    known.add_argument("name", help="of the model, as in mnist-sdl")
    given = known.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.manual_seed(0)
    print(make(Run(given.run), given.name))


if __name__ == "__main__":
    main()
