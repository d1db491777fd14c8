"""Operating systems and terminals."""

from __future__ import annotations

import io
import sys

import pytest

from sparse_lightning.errors import SettingError
from sparse_lightning.machine import require_supported, tolerate_poor_terminals


def test_other_systems_are_refused_with_what_helps(monkeypatch):
    for known in ("linux", "darwin"):
        monkeypatch.setattr(sys, "platform", known)
        require_supported()
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SettingError, match=r"Linux and macOS, and this is win32: .* WSL"):
        require_supported()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_a_terminal_that_lacks_a_character_shows_another(monkeypatch, encoding):
    written = io.BytesIO()
    poor = io.TextIOWrapper(written, encoding=encoding, write_through=True)
    monkeypatch.setattr(sys, "stdout", poor)
    with pytest.raises(UnicodeEncodeError):
        print("☃")
    tolerate_poor_terminals()
    print("☃ ♘")
    assert written.getvalue().decode(encoding).strip() == "? ?"
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    tolerate_poor_terminals()
