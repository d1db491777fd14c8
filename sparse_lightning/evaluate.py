"""Study trained models: ``python -m sparse_lightning.evaluate study=regret runs=DIR``.

Leaves in the run directory the study's tables, ``table.csv`` first of all, and its figures as PNG.
The same command with the same ``hydra.run.dir`` goes on where it was stopped. Settings are composed
and checked here, before torch is imported: a mistake is answered at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from sparse_lightning import config as configuration
from sparse_lightning.experiments.early_checks import check_study
from sparse_lightning.imports import import_parts

if TYPE_CHECKING:
    from sparse_lightning.studies.study_result import StudyResult


def evaluate(config: DictConfig) -> StudyResult:
    """Run one study from a composed configuration and return its result.

    Raises:
        SettingError, DataError, CheckpointError: before it begins, for models and data that the
            study cannot use.
    """
    import_parts(config)
    check_study(config)
    from sparse_lightning.studies.evaluation import evaluate as evaluated

    return evaluated(config)


def main() -> None:
    """Entry point of the command line."""
    configuration.run(evaluate, "evaluate")


if __name__ == "__main__":
    main()
