"""One HTML page that holds everything: figures inside, claims, verdicts, tables and times."""

from __future__ import annotations

import base64
import fnmatch
import html
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from sparse_lightning.paper.claims import CLAIMS, Claim
from sparse_lightning.paper.statistics import Rules
from sparse_lightning.paper.verdicts import Finding, Word
from sparse_lightning.studies.study_result import StudyResult

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; }
img { max-width: 100%; } figure { margin: 1.2rem 0; } figcaption { font-size: 0.85em; color: #555; }
table { border-collapse: collapse; font-size: 0.85em; margin: 0.8rem 0; }
th, td { border: 1px solid #ccc; padding: 0.2rem 0.5rem; text-align: left; vertical-align: top; }
code, pre { background: #f4f4f4; font-size: 0.85em; overflow-x: auto; white-space: pre-wrap; }
.holds { color: #06702b; font-weight: 600; } .not { color: #b00020; font-weight: 600; }
.open { color: #8a6d00; font-weight: 600; }
"""


OF_THE_PAPER = {
    "regret",
    "denoising",
    "low_data",
    "features",
    "filters",
    "ablation",
    "hinge_surface",
}
NOT_TRAINED = "no training that the study asks for is finished"
FAILED = "the study failed"


@dataclass(frozen=True)
class Section:
    """One study of the report.

    Attributes:
        title: of the section.
        study: its kind, such as ``regret``.
        data: the data set it is about, None for none.
        folder: where it was written.
        figures: patterns of the names of figures to show, without ``.png``.
        command: that made it.
        seconds: that it took.
        missing: why there is no result, None where there is one.
    """

    title: str
    study: str
    data: str | None
    folder: Path
    figures: Sequence[str]
    command: str
    seconds: float
    missing: str | None = None

    def pictures(self) -> list[Path]:
        """The figures to show, in the order of the patterns."""
        if self.missing is not None:
            return []
        found = sorted(self.folder.glob("*.png"))
        chosen = [
            path
            for pattern in self.figures
            for path in found
            if fnmatch.fnmatch(path.stem, pattern)
        ]
        return list(dict.fromkeys(chosen))

    @cached_property
    def result(self) -> StudyResult:
        """What the study found."""
        return StudyResult.read(self.folder)

    def judge(self, claim: Claim, rules: Rules) -> Finding:
        """What is known of a claim; without a result it is open."""
        if self.missing is not None:
            return Finding(Word.OPEN, self.missing)
        return claim.judge(self.result, rules)


def write_report(
    sections: Sequence[Section], claims: pd.DataFrame, heading: str, about: str
) -> str:
    """The page.

    Args:
        sections: in order.
        claims: what `claims_table` says of them.
        heading: title of the page.
        about: what was trained, and how long it took.
    """
    body = [
        f"<h1>{html.escape(heading)}</h1><p>{html.escape(about)}</p>",
        "<h2>What holds</h2>",
        _verdict_table(claims),
        *(_section(section, claims[claims["study"] == section.title]) for section in sections),
        "<h2>Time</h2>",
        _time_table(sections),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>'
        f"{html.escape(heading)}</title><style>{STYLE}</style></head><body>"
        + "\n".join(body)
        + "</body></html>\n"
    )


def claims_table(sections: Sequence[Section], rules: Rules) -> pd.DataFrame:
    """Every claim with its rule, what was found and whether it holds."""
    rows = []
    for section in sections:
        for claim in CLAIMS:
            if claim.study == section.study and claim.data in (None, section.data):
                found = section.judge(claim, rules)
                told = claim.says, claim.rule_by(rules), found.shown, str(found.word)
                rows.append((section.title, *told))
    return pd.DataFrame(rows, columns=["study", "claim", "rule", "these runs", "verdict"])


def _verdict_table(table: pd.DataFrame) -> str:
    escaped = {name: html.escape for name in table.columns} | {"verdict": _badge}
    return table.to_html(index=False, escape=False, formatters=escaped)


def _badge(verdict: str) -> str:
    kind = "not" if verdict == Word.FAILS else verdict
    return f'<span class="{kind}">{verdict}</span>'


def _section(section: Section, claims: pd.DataFrame) -> str:
    origin = "" if section.study in OF_THE_PAPER else " (not in the paper)"
    parts = [f"<h2>{html.escape(section.title)}{origin}</h2>"]
    if section.missing is not None:
        parts.append(f"<p>{section.missing.capitalize()}.</p>")
    for claim in claims.to_dict("records"):
        parts.append(
            f"<p><b>{html.escape(claim['claim'])}</b> {_badge(claim['verdict'])}<br>"
            f"Rule: {html.escape(claim['rule'])}<br>"
            f"These runs: {html.escape(claim['these runs'])}.</p>"
        )
    for path in section.pictures():
        encoded = base64.b64encode(path.read_bytes()).decode()
        name = html.escape(path.stem)
        parts.append(
            f'<figure><img alt="{name}" src="data:image/png;base64,{encoded}">'
            f"<figcaption>{name}</figcaption></figure>"
        )
    for name, table in section.result.more.items() if section.missing is None else ():
        if len(table) <= 100:
            shown = table.drop(columns="run", errors="ignore")
            text = shown.to_html(index=False, float_format=lambda x: f"{x:.4g}", na_rep="")
            parts.append(f"<details><summary>{html.escape(name)}</summary>{text}</details>")
    parts.append(f"<pre>{html.escape(section.command)}</pre>")
    return "\n".join(parts)


def _time_table(sections: Sequence[Section]) -> str:
    rows = [(section.title, f"{section.seconds:.0f} s") for section in sections]
    return pd.DataFrame(rows, columns=["study", "time"]).to_html(index=False)
