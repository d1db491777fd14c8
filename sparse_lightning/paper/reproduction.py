"""What `reproduce` does after the trainings: the studies, each once, and the report on them."""

from __future__ import annotations

import json
import math
import shlex
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from sparse_lightning.errors import NoModelsError, SweepError
from sparse_lightning.experiments.command_line import hydra_value
from sparse_lightning.experiments.runs import Run
from sparse_lightning.experiments.sweep_commands import exit_code
from sparse_lightning.files import digest, replaced_whole, write_json
from sparse_lightning.paper.report import (
    FAILED,
    NOT_TRAINED,
    Section,
    claims_table,
    write_report,
)
from sparse_lightning.paper.statistics import Rules
from sparse_lightning.studies.trained_models import TrainedModel
from sparse_lightning.training.code_identity import code_identity

DONE_FILE = "done.json"


def run_study(
    title: str,
    study: DictConfig,
    digests: Mapping[Path, str],
    folder: Path,
    before: Sequence[str] = (),
) -> Section:
    """Run a study unless it is done with these settings, code and trainings; say where it is.

    Args:
        title: of the study.
        study: its settings, data and figures.
        digests: of the model of each training, by the training's folder.
        folder: of trainings and studies.
        before: what stands in the command before the settings.

    Returns:
        Where it is, or why there is no result: it failed, or no training that it asks for is
        finished yet.
    """
    out = folder / "studies" / title
    settings = list(study.settings)
    looked_at: list[list] = []
    if study.data is not None:
        trained = folder / "trainings" / study.data
        settings.append(f"runs={hydra_value(str(trained))}")
        # A training that goes on may keep its best model, and has other results.
        looked_at = [
            [key, Run(run).results] for run, key in digests.items() if run.is_relative_to(trained)
        ]
    program = ["python", "-m", "sparse_lightning.evaluate", *before]
    command = [*program, *settings, f"hydra.run.dir={hydra_value(str(out))}"]
    # A training that was done again, with other code, is another.
    key = digest([command, code_identity(), looked_at])
    done = _done(out)
    kind = next(s.removeprefix("study=") for s in settings if s.startswith("study="))
    shown = title, kind, study.data, out, list(study.figures), shlex.join(command)
    if study.data is not None and not looked_at:
        return Section(*shown, seconds=0.0, missing=NOT_TRAINED)
    if done.get("key") != key:
        Console().rule(title)
        began = time.monotonic()
        code = exit_code(command[1:])
        if code != 0:
            missing = NOT_TRAINED if code == NoModelsError.exit_code else FAILED
            return Section(*shown, seconds=0.0, missing=missing)
        # A study that is taken up again is quick; what it took the first time counts as well.
        seconds = time.monotonic() - began + done.get("seconds", 0.0)
        done = {"key": key, "seconds": round(seconds, 1)}
        write_json(out / DONE_FILE, done)
    return Section(*shown, done["seconds"])


def require_studies(sections: Sequence[Section]) -> None:
    """Raise `SweepError` naming the studies that failed, and a command that says why."""
    failed = [section for section in sections if section.missing == FAILED]
    if failed:
        raise SweepError(
            f"{len(failed)} of {len(sections)} studies failed, and the report is without them: "
            f"{', '.join(section.title for section in failed)}. The reasons are above; mend them "
            f"and give the same command again. The first was {failed[0].command}"
        )


def digests_of(runs: Sequence[Run]) -> dict[Path, str]:
    """Digest of the model of each training, by the training's folder."""
    return {run.folder: TrainedModel(run, run.best_checkpoint).digest for run in runs}


def require_one_commit(runs: Sequence[Run]) -> None:
    """Refuse to report on trainings by different states of the code.

    Raises:
        SweepError: naming a training of each of two commits.
    """
    first: dict[object, Run] = {}
    for run in runs:
        first.setdefault(run.results.get("commit"), run)
    if len(first) > 1:
        (one, ours), (other, theirs), *_ = first.items()
        raise SweepError(
            f"{ours.folder} was trained by commit {one} and {theirs.folder} by {other}: one report "
            "is about one state of the code, so train one of them again in another folder=."
        )


def cpu_hours(runs: Sequence[Run]) -> str:
    """Those of each family's trainings, such as ``sdl 1.5, vdl 2.0``."""
    hours: dict[str, float] = {}
    for run in runs:
        family = run.config.model.family
        hours[family] = hours.get(family, 0.0) + run.results.get("cpu_seconds", math.nan) / 3600
    return ", ".join(f"{family} {spent:.1f}" for family, spent in hours.items())


def unfinished(runs: Sequence[Run]) -> str:
    """A sentence that names the trainings that no study looks at, empty without any."""
    names = [
        run.folder.name
        + ("" if run.diverged_at_epoch is None else f" (diverged in epoch {run.diverged_at_epoch})")
        for run in runs
        if not run.is_finished
    ]
    return f" Not finished, and in no table: {', '.join(names)}." if names else ""


def _done(folder: Path) -> dict:
    path = folder / DONE_FILE
    return json.loads(path.read_text()) if path.is_file() else {}


def write_pages(
    sections: Sequence[Section], runs: Sequence[Run], folder: Path, heading: str, rules: Rules
) -> Path:
    """Write ``report.html``, ``claims.csv`` and the report's ``figures/``; the report's path.

    Args:
        sections: of the report, in order.
        runs: all trainings; the report counts those that are finished, and names the others.
        folder: where everything goes.
        heading: title of the report.
        rules: by which claims are judged.
    """
    finished = [run for run in runs if run.is_finished]
    studied = sum(section.seconds for section in sections)
    about = (
        f"Finished trainings: {len(finished)}; CPU hours: {cpu_hours(finished) or 0}. "
        f"{studied / 60:.0f} minutes of studies.{unfinished(runs)}"
    )
    claims = claims_table(sections, rules)
    with replaced_whole(folder / "report.html") as temporary:
        temporary.write_text(write_report(sections, claims, heading, about), encoding="utf-8")
    with replaced_whole(folder / "claims.csv") as temporary:
        claims.to_csv(temporary, index=False)
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    for section in sections:
        for old in figures.glob(f"{section.title}_*.png"):
            old.unlink()
        for path in section.pictures():
            shutil.copyfile(path, figures / f"{section.title}_{path.name}")
    return folder / "report.html"
