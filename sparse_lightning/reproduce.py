"""Reproduce the paper: ``python -m sparse_lightning.reproduce scale=small``.

Trains what the studies need, runs the studies, and writes ``report.html``, ``claims.csv`` and the
report's figures. Given again, the same command goes on where it was stopped. Settings are composed
here, before torch is imported: a mistake is answered at once.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from sparse_lightning import config as configuration
from sparse_lightning.experiments.command_line import handed_on
from sparse_lightning.experiments.early_checks import check_reproduction
from sparse_lightning.experiments.sweep_commands import commands, run_all
from sparse_lightning.imports import import_parts, names_of_imports


def reproduce(config: DictConfig) -> None:
    """Trainings, studies, report.

    Raises:
        SettingError, DataError: settings that cannot work, or photographs that are not there.
        SweepError: a training or a study failed, or trainings are of different commits.
    """
    import_parts(config)
    check_reproduction(config)
    folder = Path(config.folder)
    trained = folder / "trainings"
    own = handed_on(names_of_imports(config))
    run_all(commands(config.trainings, config.everywhere, trained, config.jobs, own))
    from sparse_lightning.experiments.runs import find_runs
    from sparse_lightning.paper.reproduction import (
        digests_of,
        require_one_commit,
        require_studies,
        run_study,
        write_pages,
    )
    from sparse_lightning.paper.statistics import Rules

    runs = find_runs(trained)
    finished = [run for run in runs if run.is_finished]
    require_one_commit(finished)
    digests = digests_of(finished)
    sections = [
        run_study(title, study, digests, folder, own) for title, study in config.studies.items()
    ]
    rules = Rules(**OmegaConf.to_container(config.verdict, resolve=True))
    report = write_pages(sections, runs, folder, config.heading, rules)
    Console().print(str(report), highlight=False, soft_wrap=True)
    require_studies(sections)


def main() -> None:
    """Entry point of the command line."""
    configuration.run(reproduce, "reproduce")


if __name__ == "__main__":
    main()
