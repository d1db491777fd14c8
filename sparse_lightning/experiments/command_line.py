"""Command lines that go on with something, as they can be pasted into a shell."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString

_PLAIN = re.compile(r"[A-Za-z0-9_./-]+")
_OF_THE_RUN = re.compile(r"\+{0,2}(hydra\.run\.dir|resume)=")


def hydra_value(text: str) -> str:
    """A string as Hydra's command line takes it, in quotes where it needs them."""
    if _PLAIN.fullmatch(text):
        return text
    return QuotedString(text.replace("${", "\\${"), Quote.double).with_quotes()


def handed_on(imports: Sequence[str]) -> list[str]:
    """What a command that this one starts is given, so that it knows the user's own parts as well.

    Args:
        imports: modules of the user's own.

    Returns:
        Overrides: the folders of the user's own configurations, which this command has by
        ``--config-dir`` or ``hydra.searchpath``, and ``imports``, each where there is any.
    """
    words = []
    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else []
    folders = [
        hydra_value(f"{source.schema}://{source.path}")
        for source in sources
        if source.provider.endswith("command-line")
    ]
    if folders:
        words.append(f"hydra.searchpath=[{','.join(folders)}]")
    return words + ([f"imports=[{','.join(imports)}]"] if imports else [])


def same_command() -> str:
    """The command that started this process."""
    return shlex.join([*_program(), *sys.argv[1:]])


def continuing_command(run_dir: Path) -> str:
    """The command that goes on with the run in ``run_dir``, which this process began."""
    settings = [word for word in sys.argv[1:] if not _OF_THE_RUN.match(word)]
    folder = f"hydra.run.dir={hydra_value(str(run_dir))}"
    return shlex.join([*_program(), *settings, folder, "resume=true"])


def _program() -> Sequence[str]:
    """What stands before the arguments: ``python -m sparse_lightning.train``."""
    arguments = sys.argv[1:]
    program = sys.orig_argv[: len(sys.orig_argv) - len(arguments)]
    if program and sys.orig_argv[len(program) :] == arguments:
        return program
    # Called from another program.
    return ["python", "-m", "sparse_lightning.train"]
