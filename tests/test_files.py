"""Files are written whole or not at all."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from sparse_lightning.files import replaced_whole, write_figure, write_json


def interrupted_write(path):
    with replaced_whole(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("power cut")


def test_files_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "table.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError, match="power cut"):
        interrupted_write(path)
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [p.name for p in path.parent.iterdir()] == ["table.json"]
    assert write_figure(Figure(), tmp_path / "figure.png").stat().st_size > 1000
