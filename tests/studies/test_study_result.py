"""What a study found, on disk and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sparse_lightning.studies.study_result import Pictures, StudyResult


def test_results_are_read_back(tmp_path: Path):
    pictures = Pictures(pd.DataFrame({"name": ["a", "b"]}), np.arange(8.0).reshape(2, 2, 2))
    table = pd.DataFrame({"family": ["sdl", None], "psnr": [1.5, np.nan]})
    StudyResult(table, {"more": table[:1]}, pictures).write(tmp_path)
    again = StudyResult.read(tmp_path)
    assert again.table["psnr"].to_list() == pytest.approx([1.5, np.nan], nan_ok=True)
    assert again.more["more"]["family"].to_list() == ["sdl"]
    assert again.table["family"].isna().to_list() == [False, True]
    np.testing.assert_array_equal(again.pictures.where(name="b").pixels, pictures.pixels[1:])


def test_texts_stay_what_they_are(tmp_path: Path):
    table = pd.DataFrame({"value": ["None", "NA", "10"], "count": ["1", "2", "all"]})
    StudyResult(table, {"some": table[:2]}).write(tmp_path)
    again = StudyResult.read(tmp_path)
    assert again.table["value"].to_list() == ["None", "NA", "10"]
    assert again.more["some"]["count"].to_list() == ["1", "2"]


def test_pictures_of_an_earlier_result_do_not_stay(tmp_path: Path):
    table = pd.DataFrame({"family": ["sdl"]})
    StudyResult(table, {}, Pictures(table, np.zeros((1, 2, 2)))).write(tmp_path)
    StudyResult(table).write(tmp_path)
    assert StudyResult.read(tmp_path).pictures is None
    assert not list(tmp_path.glob("pictures.*"))
