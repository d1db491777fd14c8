"""Exit codes after a signal: 143 after SIGTERM, and 130 after SIGINT (Ctrl-C).

Lightning's own exit codes are 0 after SIGTERM and 1 after SIGINT. A scheduler would take 0 for
success.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGINT_EXIT, SIGTERM_EXIT = (128 + number for number in (signal.SIGINT, signal.SIGTERM))


class Terminated(SystemExit):
    """This process got SIGTERM."""


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


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated(SIGTERM_EXIT)
