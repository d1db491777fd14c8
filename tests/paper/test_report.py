"""The report holds every study, and a verdict for each claim."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

from sparse_lightning.figures.tiles import image_rows
from sparse_lightning.files import write_figure
from sparse_lightning.paper.claims import CLAIMS
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
        {"zeros": zeros, "family": family, "psnr": psnr, "std": 0.1, "seeds": 3, "curves": 3,
         "epochs": 100, "change": 0.01}
        for family, psnr in families.items()
        for zeros in (0.9, 0.95)
    ]  # fmt: skip
    at_zeros = pd.DataFrame(rows)
    StudyResult(at_zeros.assign(data="MNIST"), {"at_zeros": at_zeros}).write(folder)
    write_figure(image_rows({"a": np.ones((2, 4, 4))}, "t"), folder / "regret.png")
    write_figure(image_rows({"a": np.ones((2, 4, 4))}, "t"), folder / "other.png")
    return Section("mnist_regret", "regret", "mnist", folder, ["reg*"], "python <x>", 12.0)


def test_report_holds_everything(tmp_path: Path, rules):
    sections = [section(tmp_path)]
    page = write_report(sections, claims_table(sections, rules), "A <title>", "about")
    assert "A &lt;title&gt;" in page
    assert "python &lt;x&gt;" in page
    assert page.count("data:image/png;base64,") == 1
    assert "17.00 ± 0.10 dB (3 seeds, 100 epochs)" in page
    assert '<span class="holds">holds</span>' in page
    assert '<span class="not">does not hold</span>' in page
    assert '<span class="open">open</span>' in page
    assert "http" not in page
    assert "12 s" in page


def test_studies_of_our_own_are_called_so(tmp_path: Path, rules):
    paper = section(tmp_path)
    own = dataclasses.replace(paper, title="mnist_rate", study="rate")
    page = write_report([paper, own], claims_table([paper, own], rules), "title", "about")
    assert "<h2>mnist_rate (not in the paper)</h2>" in page
    assert "<h2>mnist_regret</h2>" in page


def test_a_rule_is_told_with_the_constants_that_judged(tmp_path: Path, rules):
    other = dataclasses.replace(
        rules, confidence=0.99, parity_confidence=0.8, parity_margin=1.5, high_sparsity=[0.7],
        few_labels=[3], labels_with_codes=[4, 6], growth=1.7, gabor_share=0.6, collapse_epochs=70,
    )  # fmt: skip
    told = "\n".join(claim.rule_by(other) for claim in CLAIMS)
    for words in ("99 %", "80 %", "1.5 dB", "70 % zeros", "At 3 labels", "At 4 and 6 labels",
                  "1.7 times", "above 60 %", "least 70 epochs"):  # fmt: skip
        assert words in told
    for words in ("95", "90", "0.5", "1, 2, 5", "1.2", "half", "50 epochs"):
        assert words not in told
    (_, _, parity) = claims_table([section(tmp_path)], other)["rule"]
    assert "parity, 1.5 dB" in parity


def test_a_study_is_read_once(tmp_path: Path, rules, monkeypatch):
    sections, read = [section(tmp_path)], []
    result = StudyResult.read(tmp_path)
    monkeypatch.setattr(StudyResult, "read", lambda folder: read.append(folder) or result)
    write_report(sections, claims_table(sections, rules), "title", "about")
    assert read == [tmp_path]


def test_table_of_claims_has_a_verdict_for_each(tmp_path: Path, rules):
    verdicts = claims_table([section(tmp_path)], rules)["verdict"]
    # Best of those with an encoder; no DO to compare with; VDL not on par.
    assert verdicts.to_list() == ["holds", "open", "does not hold"]
