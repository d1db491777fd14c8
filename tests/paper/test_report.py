"""The report holds every study, and a verdict for each claim."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from sparse_lightning.figures.tiles import image_rows
from sparse_lightning.files import write_figure
from sparse_lightning.paper.report import Section, claims_table, write_report
from sparse_lightning.studies.study_result import StudyResult


def section(folder: Path) -> Section:
    rows = [
        {"zeros": zeros, "family": family, "psnr": psnr, "std": std, "seeds": 2}
        for family, psnr, std in (("vdl_nl", 17.0, 0.3), ("sdl", 16.0, 0.4))
        for zeros in (0.9, 0.95)
    ]
    at_zeros = pd.DataFrame(rows)
    StudyResult(at_zeros, {"at_zeros": at_zeros}).write(folder)
    write_figure(image_rows({"a": np.ones((2, 4, 4))}, "t"), folder / "regret.png")
    write_figure(image_rows({"a": np.ones((2, 4, 4))}, "t"), folder / "other.png")
    return Section("mnist_regret", "regret", "mnist", folder, ["reg*"], "python <x>", 12.0)


def test_report_holds_everything(tmp_path: Path):
    page = write_report([section(tmp_path)], "A <title>", "about")
    assert "A &lt;title&gt;" in page
    assert "python &lt;x&gt;" in page
    assert page.count("data:image/png;base64,") == 1
    assert "17.00 ± 0.30 dB" in page
    assert '<span class="holds">holds</span>' in page
    assert "http" not in page
    assert "12 s" in page


def test_table_of_claims_has_a_verdict_for_each(tmp_path: Path):
    table = claims_table([section(tmp_path)]).set_index("claim")
    assert table.loc["At high sparsity VDL-NL reconstructs best.", "verdict"] == "holds"
    assert table.loc["VDL is on par with SDL.", "verdict"] == "open"
