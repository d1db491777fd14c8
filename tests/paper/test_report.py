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
    families = {
        "vdl_nl": 17.0,
        "sdl": 16.0,
        "wdl": 15.0,
        "sdl_nl": 16.0,
        "wdl_nl": 16.0,
        "vdl": 9.0,
    }
    rows = [
        {"zeros": zeros, "family": family, "psnr": psnr, "std": 0.1, "seeds": 3, "epochs": 100,
         "change": 0.01}
        for family, psnr in families.items()
        for zeros in (0.9, 0.95)
    ]  # fmt: skip
    at_zeros = pd.DataFrame(rows)
    StudyResult(at_zeros.assign(data="MNIST"), {"at_zeros": at_zeros}).write(folder)
    write_figure(image_rows({"a": np.ones((2, 4, 4))}, "t"), folder / "regret.png")
    write_figure(image_rows({"a": np.ones((2, 4, 4))}, "t"), folder / "other.png")
    return Section("mnist_regret", "regret", "mnist", folder, ["reg*"], "python <x>", 12.0)


def test_report_holds_everything(tmp_path: Path, rules):
    page = write_report([section(tmp_path)], "A <title>", "about", rules)
    assert "A &lt;title&gt;" in page
    assert "python &lt;x&gt;" in page
    assert page.count("data:image/png;base64,") == 1
    assert "17.00 ± 0.10 dB (3 seeds, 100 epochs)" in page
    assert '<span class="holds">holds</span>' in page
    assert '<span class="not">does not hold</span>' in page
    assert '<span class="open">open</span>' in page
    assert "http" not in page
    assert "12 s" in page


def test_table_of_claims_has_a_verdict_for_each(tmp_path: Path, rules):
    verdicts = claims_table([section(tmp_path)], rules)["verdict"]
    # Best of those with an encoder; no DO to compare with; VDL not on par.
    assert verdicts.to_list() == ["holds", "open", "does not hold"]
