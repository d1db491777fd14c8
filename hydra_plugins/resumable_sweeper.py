"""Hydra's sweeper with a memory: it knows by their folders which jobs are done.

Hydra finds it here, in the namespace that it searches for plug-ins; the work is done by
`sparse_lightning.experiments.sweeps`.
"""

from __future__ import annotations

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser


class ResumableSweeper(BasicSweeper):
    """Every combination of the given settings, but for those that are done."""

    def sweep(self, arguments: list[str]) -> Any:
        # Every Hydra program in the environment imports this file.
        from sparse_lightning.experiments.job_settings import check_jobs

        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        (combinations,) = self.split_arguments(overrides, None)
        loader = self.hydra_context.config_loader
        check_jobs(self.config, loader, combinations)
        # Now that the settings are known to compose: it imports torch.
        from sparse_lightning.experiments.sweeps import Sweep, run_sweep

        swept = [override.key_or_group for override in overrides if override.is_sweep_override()]
        sweep = Sweep.compose(self.config, loader, combinations, swept)
        return run_sweep(sweep, self.launcher, self.max_batch_size)
