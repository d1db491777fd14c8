"""Draw the figures of the page Concepts: run two notebooks, and write the figures that they make.

python docs/make_concept_figures.py
"""

from __future__ import annotations

import runpy
from pathlib import Path

import matplotlib

from sparse_lightning.files import write_figure

HERE = Path(__file__).parent
FIGURES = {
    "digits": {"inference_figure": "inference", "rebuilt_figure": "inference_pictures"},
    "collapse": {"collapse_figure": "collapse", "hinge_figure": "hinge"},
}


def main() -> None:
    """Write the figures and print their paths."""
    matplotlib.use("Agg")
    for notebook, figures in FIGURES.items():
        made = runpy.run_path(str(HERE.parent / "examples" / f"{notebook}.py"))
        for name, file in figures.items():
            print(write_figure(made[name], HERE / "images" / f"{file}.png"), flush=True)


if __name__ == "__main__":
    main()
