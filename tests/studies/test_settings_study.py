"""What settings do, on results that are known."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest

from sparse_lightning.errors import DataError, SettingError
from sparse_lightning.figures.settings import draw
from sparse_lightning.solvers import FISTA, Adaptive
from sparse_lightning.studies.settings import MEASURES, settings

PAPER = FISTA(0.5)


def trained(family: str, psnr: float, seed: int = 0, solver=PAPER, **given) -> SimpleNamespace:
    chosen = {
        "model.family": family, "model.energy.variance_weight": 10.0, "data.batch_size": 250,
        "model.solver._target_": f"sparse_lightning.solvers.{type(solver).__name__}",
        "model.solver.tolerance": solver.tolerance,
    }  # fmt: skip
    results = {f"test/{name}": 0.5 for name in MEASURES} | {"test/psnr": psnr}
    columns = {"data": "tiny", "family": family, "sparsity_weight": 0.02, "seed": seed}
    run = SimpleNamespace(results=results, folder="run")
    # Without weights, which may be gone.
    return SimpleNamespace(run=run, columns=columns, settings=chosen | given)


def effect(table: pd.DataFrame, family: str, setting: str) -> dict[str, float]:
    rows = table[(table["family"] == family) & (table["setting"] == setting)]
    return dict(zip(rows["value"], rows["psnr"]))


def test_a_setting_is_judged_where_all_others_are_the_usual_ones():
    weight, size = "model.energy.variance_weight", "data.batch_size"
    models = [
        *(trained("vdl", 16 + seed, seed) for seed in range(3)),
        *(trained("vdl", 15 + seed, seed, **{weight: 1.0}) for seed in range(2)),
        trained("vdl", 14, **{size: 1000}),
        trained("vdl", 13, **{size: 25}),
        trained("vdl", 99, **{size: 25, weight: 1.0}),
        *(trained("sdl_nl", 18 + seed, seed) for seed in range(2)),
        trained("sdl_nl", 17, solver=Adaptive(), **{"model.solver.tolerance": 3e-4}),
    ]
    result = settings(models)
    effects = result.more["effects"]
    assert effect(effects, "vdl", weight) == {"1": 15.5, "10": 17}
    # Numbers stand in their order, not in that of their texts.
    assert list(effect(effects, "vdl", size).items()) == [("25", 13), ("250", 17), ("1000", 14)]
    # All settings of a solver are one.
    assert effect(effects, "sdl_nl", "model.solver") == {"FISTA": 18.5, "Adaptive": 17}
    assert set(effects["setting"]) == {weight, size, "model.solver"}
    base = effects[(effects["setting"] == weight) & (effects["value"] == "10")].iloc[0]
    assert (base["seeds"], base["psnr_std"]) == (3, 1)
    # One seed has no spread.
    assert effects[effects["value"] == "25"]["psnr_std"].isna().all()
    ((name, figure),) = draw(result)
    assert name == "settings"
    assert [axes.get_xlabel() for axes in figure.axes[-3:]] == ["β", "batch size", "solver"]


def test_epochs_widths_and_the_settings_of_a_solver_are_told_apart():
    widths = {"model.decoder.code_dim": 64, "model.encoder.code_dim": 64}
    usual = {"model.decoder.code_dim": 128, "model.encoder.code_dim": 128, "trainer.max_epochs": 30}
    models = [
        *(trained("vdl", 16 + seed, seed, **usual) for seed in range(2)),
        trained("vdl", 12, **usual | widths),
        trained("vdl", 13, **usual | {"trainer.max_epochs": 5}),
        trained("vdl", 14, **usual | {"model.solver.tolerance": 0.1}),
        trained("vdl", 15, **usual | {"callbacks.revive._target_": "Revive"}),
        # Another family's own settings do not matter.
        trained("sdl_nl", 18, **usual | {"model.decoder.hidden_dims": [9]}),
    ]
    effects = settings(models).more["effects"]
    found = {
        "model.decoder.code_dim": {"64": 12, "128": 16.5},
        "trainer.max_epochs": {"5": 13, "30": 16.5},
        "model.solver": {"FISTA, tolerance 0.1": 14, "FISTA, tolerance 0.001": 16.5},
        "callbacks.revive._target_": {"none": 16.5, "Revive": 15},
    }
    assert set(effects["setting"]) == set(found)
    for name, expected in found.items():
        assert effect(effects, "vdl", name) == expected


def test_models_that_differ_in_the_seed_alone_are_refused():
    with pytest.raises(SettingError, match="differ in the seed alone"):
        settings([trained("vdl", 16, seed) for seed in range(2)])


def test_a_run_without_test_results_is_named():
    unfinished = trained("vdl", 17, **{"data.batch_size": 25})
    unfinished.run.results = None
    with pytest.raises(DataError, match="run has no test results"):
        settings([trained("vdl", 16), unfinished])
