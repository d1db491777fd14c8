"""A W&B dashboard for sweeps: ``python -m sparse_lightning.experiments.dashboard ENTITY``.

Needs the extra `dashboard`. `PANELS` says what is shown; `workspace` turns it into a saved view of
``wandb-workspaces``, which knows no network until it is saved.
"""

from __future__ import annotations

import argparse
import sys

from sparse_lightning.quality import PSNR, R2, Quality

try:
    import wandb_workspaces.reports.v2 as parts
    import wandb_workspaces.workspaces as workspaces
except ImportError as error:  # pragma: no cover
    sys.exit(f"error: {error}: pip install 'sparse-lightning[dashboard]'")

PROJECT = "sparse_lightning"
ENERGY = "model.energy."
WEIGHTS = {"λ": "sparsity_weight", "β": "variance_weight", "γ": "encoder_weight"}


TERMS = ("energy", "reconstruction", "sparsity", "variance", "encoder")
# Sections of curves over epochs: titles with their units, and metrics.
CURVES = {
    # Of training: in validation the codes are the encoder's, and its term is 0.
    "Energy and its terms, training": {f"{term} (per sample)": f"train/{term}" for term in TERMS},
    "Codes": {
        "zeros (fraction)": "val/zeros",
        "dead units": "val/dead_units",
        "standard deviation of the codes": "val/code_std",
        "units below the variance threshold (fraction)": "val/below_threshold",
        "mean norm of the decoder's columns": "train/column_norm",
    },
    "Inference": {
        "iterations per sample": "train/iterations",
        "samples that converged (fraction)": "train/converged",
    },
}
PICTURES = ("atoms", "encoder_filters", "reconstructions")


def workspace(
    entity: str, project: str = PROJECT, sweep: str | None = None
) -> workspaces.Workspace:
    """The dashboard, not yet saved.

    Args:
        entity: W&B user or team.
        project: W&B project.
        sweep: name of the one sweep to show; None for all runs of the project.
    """
    sections = [
        workspaces.Section("Regret", is_open=True, panels=_regret_panels(PSNR)),
        # Of data that are no images; of others it is empty.
        workspaces.Section("Regret, no images", is_open=False, panels=_regret_panels(R2)),
    ]
    for name, curves in CURVES.items():
        panels = [
            parts.LinePlot(title=title, x="epoch", y=[metric], max_runs_to_show=50)
            for title, metric in curves.items()
        ]
        sections.append(workspaces.Section(name, is_open=True, panels=panels))
    pictures = [
        parts.MediaBrowser(title=name, media_keys=[f"figures/{name}"], num_columns=4)
        for name in PICTURES
    ]
    sections.append(workspaces.Section("Dictionaries side by side", is_open=True, panels=pictures))
    sections.append(workspaces.Section("Whole sweep", is_open=True, panels=_sweep_panels()))
    shown = [workspaces.Metric("JobType").isin(["train", "aggregate"])]
    if sweep is not None:
        shown.append(workspaces.Metric("Group") == sweep)
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name="Sparse coding" if sweep is None else f"Sparse coding: {sweep}",
        sections=sections,
        runset_settings=workspaces.RunsetSettings(filters=shown),
        settings=workspaces.WorkspaceSettings(x_axis="epoch", max_runs=50),
    )


def _regret_panels(quality: Quality) -> list:
    measured = parts.SummaryMetric(f"test/{quality.name}")
    zeros = parts.SummaryMetric("test/zeros")
    weight = parts.Config(ENERGY + "sparsity_weight")
    columns = [
        parts.ParallelCoordinatesPlotColumn(parts.Config(ENERGY + name), symbol, log=symbol == "λ")
        for symbol, name in WEIGHTS.items()
    ]
    columns += [
        parts.ParallelCoordinatesPlotColumn(zeros, "zeros"),
        parts.ParallelCoordinatesPlotColumn(measured, quality.label),
    ]
    return [
        parts.ScatterPlot(
            title=f"{quality.label} against zeros, test", x=zeros, y=measured, z=weight
        ),
        parts.ScatterPlot(title="zeros against λ, test", x=weight, y=zeros, z=measured, log_x=True),
        parts.ParallelCoordinatesPlot(title=f"λ, β, γ → zeros, {quality.label}", columns=columns),
    ]


def _sweep_panels() -> list:
    return [
        parts.MediaBrowser(title="Regret curve over seeds", media_keys=["regret"]),
        parts.MediaBrowser(title="Tables", media_keys=["summary", "runs"]),
    ]


def main() -> None:
    """Entry point of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sparse_lightning.experiments.dashboard",
        description="Save a dashboard for the runs of a W&B project.",
    )
    parser.add_argument("entity", help="W&B user or team")
    parser.add_argument("--project", default=PROJECT)
    parser.add_argument("--sweep", help="show this sweep alone")
    arguments = parser.parse_args()
    workspace(arguments.entity, arguments.project, arguments.sweep).save()


if __name__ == "__main__":
    main()
