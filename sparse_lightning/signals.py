"""Exit codes after a signal: 143 after SIGTERM, and 130 after SIGINT (Ctrl-C).

Lightning's own exit codes are 0 after SIGTERM and 1 after SIGINT. A scheduler would take 0 for
success.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGINT_EXIT, SIGTERM_EXIT = (128 + number for number in (signal.SIGINT, signal.SIGTERM))


class Terminated(SystemExit):
    """This process got SIGTERM."""


@dataclass
class _Sigterm:
    """What is known of SIGTERM in this process.

    Attributes:
        has_come: whether it has.
        waits: whether it is Lightning that ends the training, behind a batch.
    """

    has_come: bool = False
    waits: bool = False


_SIGTERM = _Sigterm()


@contextmanager
def exit_codes_of_signals() -> Iterator[None]:
    """Give what Lightning raises after a signal the exit code of that signal.

    Raises:
        SystemExit: in place of Lightning's ``SIGTERMException``, of a `KeyboardInterrupt`, and of
            the ``SystemExit`` that Lightning makes of the latter.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(SIGINT_EXIT) from None
    except SystemExit as error:
        # By its name: a wrong setting is refused before Lightning is imported.
        if type(error).__name__ == "SIGTERMException":
            raise SystemExit(SIGTERM_EXIT) from None
        if isinstance(error.__context__, KeyboardInterrupt):
            raise SystemExit(SIGINT_EXIT) from None
        raise


@contextmanager
def terminated_in_order() -> Iterator[None]:
    """Let SIGTERM end the block by an exception, so that files and loggers are closed.

    A second SIGTERM does not interrupt that. Whoever has a handler of their own keeps it.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _SIGTERM.has_come = False


@contextmanager
def terminated_behind_a_batch(is_alone: bool) -> Iterator[None]:
    """Let SIGTERM end a training behind the batch that it comes in, so that the epoch is saved.

    Lightning does so from the first batch on. Before, while data are loaded, SIGTERM ends the block
    at once.

    Args:
        is_alone: whether one process trains. Several do not get a signal at one batch, and end at
            once.

    Raises:
        Terminated: SIGTERM has come, whatever ended the block.
    """
    _SIGTERM.waits = is_alone
    try:
        yield
    finally:
        _SIGTERM.waits = False
        # Lightning raises an error of its own, and none behind the last batch.
        if _SIGTERM.has_come:
            raise Terminated(SIGTERM_EXIT)


def _terminate(number: int, frame: FrameType | None) -> None:
    is_second, _SIGTERM.has_come = _SIGTERM.has_come, True
    # Lightning has a handler while it trains, which calls this one in its turn.
    is_seen_by_lightning = signal.getsignal(signal.SIGTERM) is not _terminate
    if is_second or (_SIGTERM.waits and is_seen_by_lightning):
        return
    raise Terminated(SIGTERM_EXIT)
