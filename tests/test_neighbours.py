"""Sparse autoencoders and deeper decoders train, go on, and are studied as every family is."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from hydra.utils import instantiate
from interruptions import weights_of
from omegaconf import OmegaConf

from sparse_lightning.errors import SettingError
from sparse_lightning.experiments.runs import Run
from sparse_lightning.experiments.table import collect, summarize
from sparse_lightning.figures.style import families_in_order, family_name, family_style
from sparse_lightning.figures.sweep import splitting_settings
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.studies.regret import regret
from sparse_lightning.studies.result_cache import ResultCache
from sparse_lightning.studies.shared_data import shared_data
from sparse_lightning.studies.trained_models import find_trained_models
from sparse_lightning.train import train

AUTOENCODERS = ["l1_sae", "topk", "batchtopk", "jumprelu"]
DEEPER = [
    f"{stem}_{decoder}" for stem in ("sdl", "vdl") for decoder in ("ln", "nl2", "nl3", "conv")
]
CONVOLUTIONAL = ["model.decoder.channels=[4,3]", "code_dim=16", "solver=adaptive"]


def deeper(*quick: str) -> list:
    """All deeper families, the others of which are slow."""
    slow = [pytest.param(f, marks=pytest.mark.slow) for f in DEEPER if f not in quick]
    return [*quick, *slow]


@pytest.mark.parametrize("family", AUTOENCODERS)
def test_sparse_autoencoders_train_from_end_to_end(family, compose_small, tmp_path):
    config = compose_small(
        f"model={family}", "sparsity_level=2", "model.optimizer.decoder_learning_rate=0.003"
    )
    results = train(config)
    run = Run(tmp_path / "run")
    table = pd.read_csv(run.folder / "metrics.csv")
    assert table["train/reconstruction"].iloc[1] < table["train/reconstruction"].iloc[0]
    assert "train/iterations" not in table
    assert ("train/auxiliary" in table) is (family in ("topk", "batchtopk"))
    assert results["val/energy"] == table["val/energy"].min()
    model = run.model()
    assert model.family == family
    for norms in model.decoder.column_norms():
        torch.testing.assert_close(norms, torch.ones_like(norms))
    assert model.decoder.bias.any(), "the bias has been learned"
    if family == "topk":
        assert results["val/zeros"] >= 1 - config.model.encoder.k / config.code_dim
    inputs = torch.randn(5, 784)
    torch.testing.assert_close(model(inputs), model.decode(model.encode(inputs)))


def test_a_sparse_autoencoder_goes_on_bit_by_bit(compose_small, tmp_path):
    settings = ("model=batchtopk", "model.training_rule.auxiliary.dead_after=100")
    train(compose_small(*settings, run_dir=tmp_path / "whole"))
    train(compose_small(*settings, "trainer.max_epochs=1", run_dir=tmp_path / "parts"))
    train(compose_small(*settings, "resume=true", run_dir=tmp_path / "parts"))
    whole, parts = (
        weights_of(tmp_path / n / "checkpoints" / "last.ckpt") for n in ("whole", "parts")
    )
    assert {"encoder.threshold", "training_rule.auxiliary.idle"} <= set(whole)
    for name, weight in whole.items():
        assert torch.equal(weight, parts[name]), name


def test_levels_pick_k_and_names_tell_it(compose):
    grid = compose("model=topk").active_counts
    assert list(grid) == sorted(grid, reverse=True)
    for level, k in ((0, grid[0]), (5, grid[5])):
        config = compose("model=batchtopk", f"sparsity_level={level}")
        assert config.model.encoder.k == k
        assert config.model.energy.sparsity_weight == 0
        assert config.experiment_name == f"mnist-batchtopk-k{k}"
    assert compose("model=topk", "model.encoder.k=5").experiment_name == "mnist-topk-k5"
    assert compose("model=vdl").experiment_name == "mnist-vdl-lambda0.02"
    with pytest.raises(Exception, match=r"active_counts=\[.*has 6 values"):
        OmegaConf.to_container(compose("model=topk", "sparsity_level=6").model, resolve=True)


def test_the_rule_names_the_metric_by_which_the_best_model_is_kept(compose):
    assert compose("model=topk").callbacks.checkpoint.monitor == "val/energy"
    chosen = compose("model=topk", "model.training_rule.metric=val/below_threshold")
    assert chosen.callbacks.checkpoint.monitor == "val/below_threshold"
    stopping = compose("callbacks=early_stopping", "model.training_rule.metric=val/zeros")
    assert stopping.callbacks.early_stopping.monitor == "val/zeros"


def test_studies_take_k_for_what_a_curve_runs_over(compose_small, tmp_path):
    for k in (4, 16):
        train(
            compose_small(
                "model=topk",
                f"model.encoder.k={k}",
                "trainer.max_epochs=1",
                run_dir=tmp_path / "runs" / str(k),
            )
        )
    models = find_trained_models(runs=tmp_path / "runs")
    assert sorted(m.columns["sparsity_weight"] for m in models) == [4, 16]
    found = regret(models, shared_data(models), ResultCache(tmp_path / "memory"), 100)
    assert set(found.table["codes"]) == {"encoder"}, "inference is no part of the model"
    assert found.table.set_index("sparsity_weight")["zeros"].between(0.87, 1).all()
    summary = summarize(collect(tmp_path / "runs"))
    assert len(summary) == 2
    assert splitting_settings(summary) == [], "one curve over k"


@pytest.mark.parametrize("family", deeper("vdl_nl3", "sdl_conv"))
def test_deeper_families_learn_by_the_papers_rule(family, compose_small):
    small = CONVOLUTIONAL if family.endswith("conv") else ["code_dim=16", "hidden_dim=20"]
    model = instantiate(compose_small(f"model={family}", *small).model)
    assert model.family == family
    assert (model.constraint is None) is family.startswith("vdl")
    assert (model.energy.hinge is not None) is family.startswith("vdl")
    inputs = torch.randn(20, 784)
    atoms = model.decoder.atoms()
    assert atoms.shape == (16, 784)
    assert (atoms.norm(dim=1) > 0).all()
    model.energy.bind(model.decoder, inputs, model.encoder(inputs))
    for norms in model.decoder.column_norms():
        assert torch.allclose(norms, torch.ones_like(norms)) is (model.constraint is not None)


@pytest.mark.parametrize("family", deeper("vdl_conv"))
def test_deeper_families_train_and_are_drawn(family, compose_small, tmp_path):
    small = CONVOLUTIONAL if family.endswith("conv") else ["code_dim=16"]
    config = compose_small(
        f"model={family}", *small, "data.num_train=100", "solver.max_iterations=15"
    )
    results = train(config)
    assert results["test/psnr"] > 5
    again = SparseAutoencoder.load_from_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert again.decoder.atoms().shape == (config.code_dim, 784)


def test_names_and_looks_of_families():
    assert family_name("vdl_nl2") == "VDL-NL2"
    assert family_name("sdl_conv") == "SDL-CONV"
    assert family_name("topk") == "TopK SAE"
    assert family_name("my_family") == "my_family"
    assert family_style("vdl_conv")["color"] == family_style("vdl")["color"]
    assert family_style("vdl_ln")["linestyle"] == "--"
    names = ["zebra", "topk", "vdl_nl", "sdl_nl", "vdl", "ant_nl"]
    assert families_in_order(names) == ["vdl", "topk", "sdl_nl", "vdl_nl", "ant_nl", "zebra"]


def test_gated_lista_takes_the_place_of_lista(compose):
    model = instantiate(compose("model=sdl", "model/encoder=gated_lista", "code_dim=8").model)
    assert type(model.encoder).__name__ == "GatedLISTA"
    assert model.encode(torch.randn(3, 784)).shape == (3, 8)


def test_k_beyond_the_code_is_refused(compose):
    with pytest.raises(Exception, match=r"model\.encoder\.k=16 is more than") as caught:
        instantiate(compose("model=topk", "code_dim=8", "model.encoder.k=16").model)
    assert isinstance(caught.value.__cause__, SettingError)
