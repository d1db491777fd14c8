"""Trackio: a dashboard of runs on one's own machine, without an account.

Trackio keeps one SQLite file per project, in the folder that ``TRACKIO_DIR`` names, and takes a
file lock for each write, so that parallel jobs of one machine may share it.
"""

from __future__ import annotations

from argparse import Namespace
from importlib.util import find_spec
from numbers import Number
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from sparse_lightning.errors import SettingError
from sparse_lightning.training.loggers import lasting_id

ID_FILE = "trackio_id"


class TrackioLogger(Logger):
    """Metrics, settings and figures of one run, to Trackio.

    A run that is resumed goes on in its own Trackio run: the name ends with an id that is kept in
    ``trackio_id`` in the run's folder.

    Args:
        project: Trackio's project.
        name: of the run, as the dashboard shows it.
        save_dir: the run's folder.
        group: what runs of one sweep share.

    Raises:
        SettingError: the package is not installed.
    """

    def __init__(
        self, project: str, name: str, save_dir: str | Path, group: str | None = None
    ) -> None:
        super().__init__()
        if find_spec("trackio") is None:
            raise SettingError(
                "logger=trackio needs the package trackio: pip install 'sparse-lightning[trackio]',"
                " or choose logger=csv."
            )
        self.project, self.group = project, group
        self._label, self._folder = name, Path(save_dir)
        self._settings: dict[str, Any] = {}
        self._run: Any = None

    @property
    def name(self) -> str:
        return self.project

    @property
    def version(self) -> str:
        return self._label

    @property
    def experiment(self) -> Any:
        """Trackio's run; begun or resumed where it is first needed."""
        if self._run is None:
            import trackio

            self._run = trackio.init(
                project=self.project,
                name=f"{self._label}-{lasting_id(self._folder, ID_FILE)}",
                group=self.group,
                config=self._settings,
                resume="allow",
                embed=False,
                # Else two threads of their own measure the machine beside the training.
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        return self._run

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kw: Any) -> None:
        self._settings = vars(params) if isinstance(params, Namespace) else dict(params)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        numbers = {name: value for name, value in metrics.items() if isinstance(value, Number)}
        self.experiment.log(numbers, step=step)

    @rank_zero_only
    def log_image(self, name: str, path: Path) -> None:
        """Show a picture that has been written to a file."""
        import trackio

        self.experiment.log({name: trackio.Image(str(path))})

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left. Lightning ends fitting and testing each; the next resumes."""
        if self._run is not None:
            self._run.finish()
            self._run = None
