"""Hydra's sweeper with a memory: it knows by their folders which jobs are done.

Hydra finds it here, in the namespace that it searches for plug-ins; the work is done by
`sparse_lightning.experiments.sweeps`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class ResumableSweeper(Sweeper):
    """Every combination of the given settings, but for those that are done.

    Args:
        max_batch_size: jobs handed to the launcher at a time, None for all.
        params: settings by name, swept or not, which the command line may change.
    """

    def __init__(self, max_batch_size: int | None, params: dict[str, Any] | None = None) -> None:
        self.max_batch_size, self.params = max_batch_size, params or {}

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        # Every Hydra program in the environment imports this file.
        from sparse_lightning.experiments.job_settings import check_jobs
        from sparse_lightning.imports import import_parts

        # A class of data that settings name may be of the user's own.
        import_parts(self.config)
        loader = self.hydra_context.config_loader
        given = [f"{name}={value}" for name, value in self.params.items()]
        overrides = OverridesParser.create(loader).parse_overrides([*given, *arguments])
        combinations = combined(overrides)
        check_jobs(self.config, loader, combinations)
        # Now that the settings are known to compose: it imports torch.
        from sparse_lightning.experiments.sweeps import Sweep, run_sweep

        swept = [override.key_or_group for override in overrides if override.is_sweep_override()]
        sweep = Sweep.compose(self.config, loader, combinations, swept)
        return run_sweep(sweep, self.launcher, self.max_batch_size)


def combined(overrides: Iterable[Override]) -> list[list[str]]:
    """The overrides of each job; of a setting that is given twice the last counts.

    Raises:
        HydraException: one is an interval, whose values cannot all be tried.
        SettingError: one has no value.
    """
    choices: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if override.is_sweep_override():
            values = list(override.sweep_string_iterator())
        else:
            values = [override.get_value_element_as_str()]
        if not values:
            from sparse_lightning.errors import SettingError

            raise SettingError(
                f"{override.input_line} has no value, which leaves no job: give it one at least."
            )
        choices[key] = [f"{key}={value}" for value in values]
    return [list(combination) for combination in itertools.product(*choices.values())]
