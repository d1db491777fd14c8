"""Trainings as data, claims with their rules, and the report."""

from __future__ import annotations

from pathlib import Path

import hydra
import numpy as np
import pandas as pd
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from sparse_lightning import claims
from sparse_lightning.config import CONFIG_DIR, register_resolvers
from sparse_lightning.errors import SettingError, SweepError
from sparse_lightning.files import write_figure
from sparse_lightning.findings import Findings, Pictures
from sparse_lightning.plots import reconstructions
from sparse_lightning.report import Section, claims_table, write_report
from sparse_lightning.runs import State, find_runs
from sparse_lightning.trainings import commands, run_all

EVERYWHERE = {"mnist": ["data.root=/d"], "imagenet_patches": []}


# Trainings.


def test_each_line_is_a_sweep_into_the_folder_of_its_data(tmp_path: Path):
    lines = [["data=mnist", "model=sdl,vdl", "seed=0,1"], ["data=imagenet_patches", "model=sdl"]]
    first, second = commands(lines, EVERYWHERE, tmp_path, jobs=1)
    assert first[:3] == ["-m", "sparse_lightning.train", "-m"]
    assert {*lines[0], "data.root=/d", f"hydra.sweep.dir='{tmp_path / 'mnist'}'"} <= set(first)
    assert {*lines[1], f"hydra.sweep.dir='{tmp_path / 'imagenet_patches'}'"} <= set(second)
    assert not any("launcher" in word or "data.root" in word for word in second)
    two = commands(lines, EVERYWHERE, tmp_path, jobs=2)[0]
    assert {"hydra/launcher=joblib", "hydra.launcher.n_jobs=2"} <= set(two)
    with pytest.raises(SettingError, match="must choose data="):
        commands([["model=sdl"]], EVERYWHERE, tmp_path, jobs=1)


def test_finished_trainings_are_skipped_and_failures_named(tmp_path: Path, mnist_root: Path, capfd):
    small = ["data.num_train=100", "data.num_val=50", "data.num_test=50", "data.batch_size=50"]
    small += ["trainer=cpu", "trainer.max_epochs=1", f"data.root={mnist_root}"]
    lines = [["data=mnist", "model=sdl", f"step_size={step}"] for step in ("0.5", "0.5,5000")]
    with pytest.raises(SweepError, match=r"1 of 2 sweeps failed.*step_size=0\.5,5000"):
        run_all(commands(lines, {"mnist": small}, tmp_path, jobs=1))
    states = sorted(run.state for run in find_runs(tmp_path))
    assert states == [State.FAILED, State.FINISHED]
    printed = capfd.readouterr().err
    assert "Sweep of 1 jobs" in printed
    assert "1 finished, 1 waiting" in printed
    assert "solver.step_size=5000 is too large" in printed


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_scales_ask_for_what_exists(scale, compose, tmp_path: Path):
    register_resolvers()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = hydra.compose("reproduce", [f"scale={scale}", f"folder={tmp_path}"])
    commands(config.trainings, config.everywhere, tmp_path, config.jobs)
    for line in config.trainings:
        parsed = OverridesParser.create().parse_overrides(list(line))
        first = [f"{p.key_or_group}={first_value(p)}" for p in parsed]
        OmegaConf.to_container(compose(*first), resolve=True)
    studied = OmegaConf.to_container(config.studies, resolve=True)
    trained = {word.removeprefix("data=") for line in config.trainings for word in line}
    for study in studied.values():
        assert study["data"] is None or study["data"] in trained
        GlobalHydra.instance().clear()
        with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            composed = hydra.compose("evaluate", [*study["settings"], f"run_dir={tmp_path}"])
        images = composed.study.get("compute", {}).get("num_images", None)
        assert images is None or isinstance(images, int)


def first_value(override: Override) -> str:
    if override.is_sweep_override():
        return next(iter(override.sweep_string_iterator()))
    return override.get_value_element_as_str()


# Claims.


def at_zeros(**families: tuple[float, float]) -> Findings:
    rows = [
        {"zeros": zeros, "family": family, "psnr": psnr, "std": std, "seeds": 2}
        for family, (psnr, std) in families.items()
        for zeros in (0.9, 0.95)
    ]
    return Findings(pd.DataFrame(), {"at_zeros": pd.DataFrame(rows)})


def test_reconstructs_best_by_more_than_the_spread():
    better = claims.reconstructs_best(at_zeros(vdl_nl=(17.0, 0.3), sdl=(16.0, 0.4), vdl=(9.0, 0.1)))
    assert better.holds is True
    assert "17.00 ± 0.30 dB" in better.shown
    assert "sdl 16.00" in better.shown
    assert claims.reconstructs_best(at_zeros(vdl_nl=(16.4, 0.3), sdl=(16.0, 0.4))).holds is False
    assert claims.reconstructs_best(at_zeros(sdl=(16.0, 0.4))).holds is None
    alone = at_zeros(vdl_nl=(16.4, np.nan), sdl=(16.3, np.nan))
    assert claims.reconstructs_best(alone).holds is True
    assert "16.40 dB (one seed)" in claims.reconstructs_best(alone).shown


@pytest.mark.parametrize(("psnr", "holds"), [(17.0, None), (15.0, False)])
def test_half_of_the_evidence_refutes_and_does_not_confirm(psnr, holds):
    findings = at_zeros(vdl_nl=(psnr, 0.1), sdl=(16.0, 0.1))
    table = findings.more["at_zeros"]
    table.loc[(table["family"] == "vdl_nl") & (table["zeros"] == 0.95), "psnr"] = np.nan
    verdict = claims.reconstructs_best(findings)
    assert verdict.holds is holds
    assert "missing: vdl_nl at 95 % zeros" in verdict.shown


def test_a_rival_that_does_not_reach_a_sparsity_leaves_the_claim_open():
    findings = at_zeros(vdl_nl=(17.0, 0.1), sdl=(16.0, 0.1), wdl=(15.0, 0.1))
    table = findings.more["at_zeros"]
    table.loc[(table["family"] == "wdl") & (table["zeros"] == 0.9), "psnr"] = np.nan
    verdict = claims.reconstructs_best(findings)
    assert verdict.holds is None
    assert "missing: wdl at 90 % zeros" in verdict.shown


def test_on_par_within_half_a_decibel():
    assert claims.linear_on_par(at_zeros(vdl=(16.4, 0.0), sdl=(16.0, 0.0))).holds is True
    assert claims.linear_on_par(at_zeros(vdl=(15.4, 0.0), sdl=(16.0, 0.0))).holds is False
    assert claims.linear_on_par(at_zeros(vdl=(15.4, 0.0))).holds is None
    half = at_zeros(vdl=(16.4, 0.0), sdl=(16.0, 0.0))
    half.more["at_zeros"].loc[0, "psnr"] = np.nan
    assert claims.linear_on_par(half).holds is None


def test_classifies_best_at_every_small_count():
    def summary(last: float) -> Findings:
        rows = [
            {"method": method, "labels_per_class": count, "top1": error, "top1_std": 0.01}
            for method, error in (("vdl_nl", 0.3), ("linear on raw", 0.4))
            for count in (1, 2, 5, 10)
        ]
        rows[3]["top1"] = last
        return Findings(pd.DataFrame(), {"summary": pd.DataFrame(rows)})

    assert claims.classifies_best(summary(0.3)).holds is True
    assert claims.classifies_best(summary(0.5)).holds is False
    few = summary(0.3).more["summary"].query("labels_per_class == 1")
    assert claims.classifies_best(Findings(few, {"summary": few})).holds is None


def test_collapse_needs_shrinking_codes_and_growing_columns():
    def history(spread: float, norm: float) -> Findings:
        # The first epoch, and another λ without a rival, must not count.
        rows = [
            ("none", 0.02, 1, 0.9), ("none", 0.02, 5, spread), ("vdl", 0.02, 5, 0.5),
            ("vdl", 0.02, 1, 0.1), ("vdl", 0.05, 5, 0.01),
        ]  # fmt: skip
        table = pd.DataFrame(rows, columns=["family", "sparsity_weight", "epoch", "code_std"])
        table["run"] = table["family"] + table["sparsity_weight"].astype(str)
        change = pd.DataFrame(
            {
                "family": ["none", "vdl"],
                "sparsity_weight": 0.02,
                "code_l1": 0.7,
                "code_std": [0.5, 1.0],
                "column_norm": [norm, 1.0],
            }
        )
        return Findings(table, {"change": change})

    assert claims.collapses(history(0.1, 2.0)).holds is True
    assert claims.collapses(history(0.4, 2.0)).holds is False
    assert claims.collapses(history(0.1, 0.9)).holds is False
    alone = history(0.1, 2.0)
    alone = Findings(alone.table.query("family == 'none'"), alone.more)
    assert claims.collapses(alone).holds is None


def test_atoms_grow_and_atoms_are_gabors():
    table = pd.DataFrame(
        {
            "family": ["sdl"] * 2 + ["vdl"],
            "sparsity_weight": [0.1, 0.2, 0.1],
            "median_active_area": [0.2, 0.3, 0.1],
            "gabor_like": [0.9, 0.6, 0.4],
        }
    )
    assert claims.atoms_grow(Findings(table[:2], {"summary": table[:2]})).holds is True
    assert claims.atoms_grow(Findings(table, {"summary": table})).holds is None
    assert claims.atoms_are_gabors(Findings(table, {"summary": table})).holds is False
    assert claims.atoms_are_gabors(Findings(table, {"summary": table[:2]})).holds is True
    assert claims.atoms_grow(Findings(table, {"summary": table[2:]})).holds is None


def test_denoising_claims():
    best = pd.DataFrame(
        {"noise": 1.0, "family": ["vdl", "vdl_nl"], "psnr_noisy": 10.0, "psnr_denoised": 15.0}
    )
    peers = pd.DataFrame({"noise": [1.0], "peer": ["wavelet"], "psnr_denoised": [16.0]})
    findings = Findings(best, {"best": best, "peers": peers})
    assert claims.denoises(findings).holds is True
    alone = claims.denoises(Findings(best[:1], {"best": best[:1]}))
    assert alone.holds is None
    assert "missing: vdl_nl" in alone.shown
    assert claims.beats_classical_denoisers(findings).holds is False


# Findings and the report.


def section(folder: Path) -> Section:
    found = at_zeros(vdl_nl=(17.0, 0.3), sdl=(16.0, 0.4))
    Findings(found.more["at_zeros"], found.more).write(folder)
    write_figure(reconstructions({"a": np.ones((2, 4, 4))}, "t"), folder / "regret.png")
    write_figure(reconstructions({"a": np.ones((2, 4, 4))}, "t"), folder / "other.png")
    return Section("mnist_regret", "regret", "mnist", folder, ["reg*"], "python <x>", 12.0)


def test_findings_are_read_back(tmp_path: Path):
    pictures = Pictures(pd.DataFrame({"name": ["a", "b"]}), np.arange(8.0).reshape(2, 2, 2))
    table = pd.DataFrame({"family": ["sdl", None], "psnr": [1.5, np.nan]})
    Findings(table, {"more": table[:1]}, pictures).write(tmp_path)
    again = Findings.read(tmp_path)
    assert again.table["psnr"].to_list() == pytest.approx([1.5, np.nan], nan_ok=True)
    assert again.more["more"]["family"].to_list() == ["sdl"]
    np.testing.assert_array_equal(again.pictures.where(name="b").pixels, pictures.pixels[1:])


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
