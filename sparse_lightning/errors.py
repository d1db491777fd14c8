"""Errors whose message is one sentence for the person at the keyboard.

The command line prints these without a traceback; from Python they are ordinary exceptions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from numbers import Integral, Real


class SettingError(ValueError):
    """A setting that cannot work: the message names it, its value and what to do."""


class NoModelsError(SettingError):
    """No trained model is there that a study asks for. A command ends with this exit code."""

    exit_code = 3


class InputError(ValueError):
    """Inputs or codes that cannot be what they are given as."""


class DataError(RuntimeError):
    """Data files that are missing, damaged or not what they claim to be."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read, or that belongs to another model."""


class DivergenceError(RuntimeError):
    """Inference left the region where its step size is stable.

    Attributes:
        epoch: in which, once the run has ended with a model; else None.
    """

    epoch: int | None = None


class SweepError(RuntimeError):
    """Jobs of a sweep that did not end well."""


class StorageError(OSError):
    """A file that could not be written: the disk is full, the name too long, the folder locked."""


FOR_THE_USER = (
    SettingError,
    InputError,
    DataError,
    CheckpointError,
    DivergenceError,
    StorageError,
    SweepError,
)


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on, each once."""
    # Errors may be raised from each other.
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def told_to_the_user(error: BaseException) -> Exception | None:
    """The first error in a chain whose message is one sentence, None where there is none."""
    return next((cause for cause in causes_of(error) if isinstance(cause, FOR_THE_USER)), None)


def first_line(error: BaseException) -> str:
    """The first line of a message, without its full stop, to be told within a sentence."""
    return (str(error).splitlines() or [""])[0].strip(" .")


def require_non_negative(setting: str, value: float) -> None:
    """Raise `SettingError` unless ``value`` is a finite number of at least 0."""
    if not _is_finite(value) or value < 0:
        raise SettingError(f"{setting}={value} must be a finite number, 0 or more.")


def require_count(setting: str, value: float) -> None:
    """Raise `SettingError` unless ``value`` is a whole number of at least 1."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise SettingError(f"{setting}={value} must be a whole number of at least 1.")


def require_positive(setting: str, value: float) -> None:
    """Raise `SettingError` unless ``value`` is a finite number above 0."""
    if not _is_finite(value) or value <= 0:
        raise SettingError(f"{setting}={value} must be a finite number above 0.")


def _is_finite(value: object) -> bool:
    # A number of numpy's is one as well.
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
