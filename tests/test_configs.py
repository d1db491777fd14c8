"""Every file of conf/ composes, runs, and holds the paper's numbers."""

from __future__ import annotations

import itertools
from operator import attrgetter

import hydra
import numpy as np
import pytest
from conftest import FAMILIES
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import OmegaConf

from hydra_plugins.resumable_sweeper import combined
from sparse_lightning.config import CONFIG_DIR, nearest_names
from sparse_lightning.experiments.settings import convert_settings
from sparse_lightning.model import SparseAutoencoder
from sparse_lightning.penalties import (
    GroupLasso,
    NonNegativeLogSum,
)
from sparse_lightning.train import train


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))


GROUPS = ("model", "data", "solver", "trainer", "callbacks", "logger", "experiment")
# decoder rate, encoder rate, λ, γ, β, η, decay of hidden bias, of encoder bias, epochs of decay
MNIST = {
    "sdl": (1e-3, 3e-4, 0.005, 1, 0, 1.0, 0, 0, None),
    "vdl": (3e-4, 1e-4, 0.02, 5, 10, 0.5, 0, 0, None),
    "sdl_nl": (1e-3, 1e-4, 0.01, 1, 0, 1.0, 1e-3, 0, None),
    "vdl_nl": (3e-4, 1e-4, 0.01, 100, 10, 0.5, 1e-3, 0, 30),
    "wdl": (1e-3, 3e-4, 0.005, 1, 0, 1.0, 0, 0, None),
    "wdl_nl": (1e-3, 1e-4, 0.01, 1, 0, 1.0, 1e-3, 0, None),
    "do": (1e-3, None, 0.005, 0, 0, 1.0, 0, 0, None),
    "do_nl": (1e-3, None, 0.01, 0, 0, 1.0, 1e-3, 0, None),
}


@pytest.mark.parametrize("family", MNIST)
def test_numbers_of_the_paper_for_mnist(family, compose):
    config = compose(f"model={family}", "data=mnist")
    decoder, encoder, weight, gamma, beta, eta, hidden, bias, decay = MNIST[family]
    model = instantiate(config.model)
    settings, energy = model.optimizer_settings, model.energy
    assert settings.decoder_learning_rate == decoder
    assert encoder is None or settings.encoder_learning_rate == encoder
    assert (energy.sparsity_weight, energy.encoder_weight) == (weight, gamma)
    assert (energy.variance_weight, energy.variance_threshold) == (beta, 0.5)
    assert model.solver.step_size == eta
    assert (model.solver.max_iterations, model.solver.tolerance) == (200, 1e-3)
    assert settings.decoder_bias_weight_decay == hidden
    assert settings.encoder_bias_weight_decay == bias
    assert settings.decoder_decay_epochs == decay
    assert model.decoder.code_dim == 128
    assert not family.endswith("_nl") or model.decoder.hidden_dims == [1024]
    assert config.trainer.max_epochs == 200
    assert config.data.batch_size == 250
    grid = config.sparsity_weights
    assert len(grid) == 6
    assert grid[0] == 0
    assert list(grid) == sorted(grid)


@pytest.fixture
def needed(tmp_path) -> dict[str, list[str]]:
    """What data sets must be told, by their name."""
    np.save(tmp_path / "x.npy", np.zeros((3, 4)))
    return {"arrays": [f"data.path={tmp_path / 'x.npy'}"], "image_folder": ["data.root=images"]}


@pytest.mark.parametrize(
    ("group", "option"),
    [
        (group, option)
        for group in (*GROUPS, "model/encoder", "model/energy/penalty")
        for option in options(group)
        if (group, option) != ("model", "base")
    ],
)
def test_every_file_composes_and_resolves(group, option, compose, needed):
    value = f"[{option}]" if group == "logger" else option
    own = needed.get(option, []) if group == "data" else []
    config = compose(f"{group}={value}", "hydra.job.num=0", *own)
    OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


# With numbers of their own; other data take those of MNIST.
OWN_PRESETS = ["arrays", "image_folder", "imagenet_patches", "synthetic"]


@pytest.mark.parametrize(("data", "family"), list(itertools.product(OWN_PRESETS, FAMILIES)))
def test_every_pair_has_a_preset(data, family, compose, needed):
    config = compose(f"data={data}", f"model={family}", *needed.get(data, []))
    OmegaConf.resolve(config)  # in place, as --cfg job --resolve does
    assert config.sparsity_weights is not None


@pytest.mark.parametrize("data", ["mnist", *OWN_PRESETS])
def test_one_setting_is_the_encoders_rate_of_every_family(data, compose, needed):
    for family in (*FAMILIES, "topk", "jumprelu", "l1_sae"):
        asked = "encoder_learning_rate=0.02"
        config = compose(f"data={data}", f"model={family}", asked, *needed.get(data, []))
        assert config.model.optimizer.encoder_learning_rate == 0.02


@pytest.mark.parametrize("data", ["mnist", "arrays"])
@pytest.mark.parametrize("family", ["topk", "batchtopk", "l1_sae", "jumprelu"])
def test_sparse_autoencoders_have_presets(data, family, compose, needed):
    """With six levels from dense to sparse, the first of which is not sparse at all."""
    config = compose(f"data={data}", f"model={family}", "sparsity_level=5", *needed.get(data, []))
    OmegaConf.resolve(config)
    grid = config.sparsity_weights or config.active_counts
    assert len(grid) == 6
    assert grid[5] in (config.model.energy.sparsity_weight, config.model.encoder.get("k"))
    assert config.model.optimizer.encoder_learning_rate == 1e-3


@pytest.mark.parametrize("data", ["mnist", *OWN_PRESETS])
@pytest.mark.parametrize("family", ["topk", "batchtopk"])
def test_encoders_that_keep_k_have_no_penalty(data, family, compose, needed):
    overrides = [f"data={data}", f"model={family}", *needed.get(data, [])]
    assert compose(*overrides).model.energy.sparsity_weight == 0


@pytest.mark.parametrize("family", ["topk", "batchtopk"])
def test_known_dictionaries_have_a_grid_of_k(family, compose):
    config = compose("data=synthetic", f"model={family}", "sparsity_level=3")
    assert config.model.encoder.k == config.data.num_active
    assert config.model.training_rule.auxiliary.dead_after == 10000
    assert config.sparsity_weights is None


@pytest.mark.parametrize("family", ["vdl", "jumprelu"])
def test_every_family_takes_every_penalty(family, compose):
    for penalty in options("model/energy/penalty"):
        config = compose(f"model={family}", f"model/energy/penalty={penalty}")
        own = OmegaConf.load(CONFIG_DIR / "model/energy/penalty" / f"{penalty}.yaml")
        assert config.model.energy.penalty == own
    assert compose("model=jumprelu").model.energy.penalty._target_.endswith(".NonNegativeL0")


def test_sizes_follow_from_the_data(compose, needed):
    config = compose("data=arrays", "model=vdl_nl", *needed["arrays"])
    assert (config.model.decoder.input_dim, config.model.encoder.input_dim) == (4, 4)
    assert config.model.decoder.code_dim == config.model.encoder.code_dim == 8
    config = compose("data=arrays", "model=sdl", "code_dim=5", *needed["arrays"])
    assert config.model.decoder.code_dim == 5
    config = compose("data=image_folder", "model=sdl", "data.root=images")
    assert (config.model.decoder.input_dim, config.model.decoder.code_dim) == (3072, 1024)
    config = compose("model=sdl", "data=imagenet_patches", "data.patch_size=16")
    assert (config.model.decoder.input_dim, config.model.decoder.code_dim) == (256, 256)
    config = compose("model=sdl", "model.decoder.input_dim=null")
    convert_settings(config)
    assert config.model.decoder.input_dim == 784


@pytest.mark.parametrize("data", ["kmnist", "fashion_mnist"])
@pytest.mark.parametrize("family", ["do", "vdl_nl"])
def test_data_without_numbers_of_their_own_take_mnists(data, family, compose):
    mnist, own = (compose(f"model={family}", f"data={name}") for name in ("mnist", data))
    for part in ("model", "sparsity_weights", "step_size", "max_epochs"):
        assert own[part] == mnist[part]


@pytest.mark.parametrize("data", ["mnist", "imagenet_patches"])
def test_families_take_the_numbers_of_those_they_follow(data, compose):
    energy, optimizer = attrgetter("model.energy"), attrgetter("model.optimizer")
    for depth in ("", "_nl"):
        sdl = compose(f"model=sdl{depth}", f"data={data}")
        for follower in ("wdl", "none", "do"):
            config = compose(f"model={follower}{depth}", f"data={data}")
            for name in ("code_dim", "hidden_dim", "step_size", "max_epochs"):
                assert config[name] == sdl[name]
            assert energy(config).sparsity_weight == energy(sdl).sparsity_weight
            expected = dict(optimizer(sdl), decoder_weight_decay=5e-4 * (follower == "wdl"))
            if follower == "do":
                expected |= {"encoder_learning_rate": 1e-4, "encoder_bias_weight_decay": 0.0}
                assert energy(config).encoder_weight == 0
            else:
                assert energy(config).encoder_weight == energy(sdl).encoder_weight
                assert config.sparsity_weights == sdl.sparsity_weights
            assert optimizer(config) == expected


def test_data_and_models_from_outside_need_no_preset(compose, tmp_path, needed):
    for group, text in (("data", "_target_: mine.Data"), ("model", "defaults: [base]")):
        (tmp_path / group).mkdir()
        (tmp_path / group / "mine.yaml").write_text(text)
    faster = "defaults: [base]\noptimizer: {encoder_learning_rate: 2e-3}"
    (tmp_path / "model" / "faster.yaml").write_text(faster)
    outside = f"hydra.searchpath=[file://{tmp_path}]"
    config = compose(outside, "data=mine", "model=vdl")
    assert config.sparsity_weights is None
    assert config.model.energy.encoder_weight == 5
    config = compose(outside, "data=imagenet_patches", "model=mine")
    assert config.sparsity_weights is None
    assert (config.code_dim, config.max_epochs) == (256, 100)
    # Rows of one's own have a rate of their own, which a family's own takes the place of.
    for model, expected in (("mine", 1e-3), ("faster", 2e-3), ("vdl_nl2", 1e-3)):
        config = compose(outside, "data=arrays", f"model={model}", *needed["arrays"])
        assert config.model.optimizer.encoder_learning_rate == expected


@pytest.mark.filterwarnings("ignore:All validation codes are zero")
def test_fast_dev_run(compose, mnist_root):
    config = compose(
        "model=vdl_nl",
        "data.num_train=500",
        "trainer=cpu",
        "trainer.fast_dev_run=true",
        "solver.max_iterations=20",
        "trainer.enable_progress_bar=false",
        "logger=none",
        f"data.root={mnist_root}",
    )
    assert train(config) == {}


SIGNED = ["model/energy/penalty=group_lasso", "model/encoder=signed_lista"]
CHOSEN = [
    (
        ["model/energy/penalty=non_negative_log_sum", "model.energy.penalty.epsilon=0.2"],
        NonNegativeLogSum(0.2),
    ),
    ([*SIGNED, "model.energy.penalty.group_size=8.0"], GroupLasso(8)),
]


@pytest.mark.parametrize(("overrides", "penalty"), CHOSEN)
def test_penalties_are_chosen_by_name_and_travel_in_checkpoints(overrides, penalty, compose_small):
    config = compose_small("model=vdl", *overrides)
    assert train(config)["test/sparsity"] > 0
    model = SparseAutoencoder.load_from_checkpoint(f"{config.run_dir}/checkpoints/best.ckpt")
    assert model.energy.penalty == penalty
    assert type(model.energy.penalty) is type(penalty)


def test_a_penalty_with_signs_needs_an_encoder_with_signs(compose_small):
    config = compose_small("model=vdl", "model/energy/penalty=l1")
    with pytest.raises(InstantiationException, match=r"penalty=L1 .* model/encoder=signed_lista"):
        instantiate(config.model)
    assert instantiate(compose_small("model=do", "model/energy/penalty=l1").model).energy.penalty


def test_an_encoder_with_signs_needs_a_penalty_with_signs(compose_small):
    config = compose_small("model=vdl", "model/encoder=signed_lista")
    with pytest.raises(InstantiationException, match=r"SignedLISTA .* model/energy/penalty=l1"):
        instantiate(config.model)


def test_level_picks_from_the_familys_grid_and_a_number_by_hand_wins(compose):
    grid = compose("model=vdl").sparsity_weights
    for level, expected in enumerate(grid):
        config = compose("model=vdl", f"sparsity_level={level}")
        assert config.model.energy.sparsity_weight == expected
    by_hand = compose("model=vdl", "sparsity_level=1", "model.energy.sparsity_weight=0.123")
    assert by_hand.model.energy.sparsity_weight == 0.123


def test_the_label_of_a_swept_group_is_what_was_chosen_from_it(compose):
    swept = "sweep.swept=[solver,model/encoder,model.energy.encoder_weight]"
    chosen = ["solver=adaptive", "model/encoder=gated_lista", "model.energy.encoder_weight=2"]
    config = compose("model=sdl", *chosen, swept)
    told = "-solveradaptive-encodergated_lista-encoder_weight2"
    assert config.run_label == config.run_name + told


def test_several_loggers_at_once(compose):
    assert set(compose("logger=[wandb,csv,tensorboard]").logger) == {"wandb", "csv", "tensorboard"}
    assert set(compose("logger=csv").logger) == {"csv"}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Could not override 'model.energy.sparsity_wieght'.", "model.energy.sparsity_weight"),
        ("Could not find 'model/vdl_nll'", "model=vdl_nl"),
        ("Could not override 'modle'.", "model"),
        ("Could not override 'solver.stepsize'.", "solver.step_size"),
    ],
)
def test_nearest_names(message, expected):
    suggestion = nearest_names(message, "train")
    assert suggestion.startswith("\nNearest valid names: ")
    assert expected in suggestion.removesuffix(".").split(": ")[1].split(", ")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("lambda", "sparsity_weight"), ("L1", "sparsity_weight"), ("beta", "variance_weight"),
     ("lr", "decoder_learning_rate")],
)  # fmt: skip
def test_symbols_and_names_of_other_programs_are_translated(name, expected):
    told = nearest_names(f"Could not override '{name}'.", "train")
    assert told.startswith("\nWas model.")
    setting = told.removeprefix("\nWas ").partition(" ")[0]
    assert setting.endswith(expected)
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        assert OmegaConf.select(hydra.compose("train"), setting) is not None


def test_settings_of_data_that_are_not_chosen_are_told_of():
    told = nearest_names("Could not override 'data.path'.", "encode")
    assert told.startswith("\nFirst choose the data, such as data=arrays")


@pytest.mark.parametrize("name", [name for name in options("sweep") if name != "default"])
def test_ready_made_sweeps_have_as_many_jobs_as_they_say(name, compose):
    config = compose(f"sweep={name}")
    hydra_config = HydraConfig.get()
    parser = OverridesParser.create()
    params = [f"{key}={value}" for key, value in hydra_config.sweeper.params.items()]
    jobs = combined(parser.parse_overrides(params))
    text = (CONFIG_DIR / "sweep" / f"{name}.yaml").read_text()
    assert f"{len(jobs)} jobs" in text.splitlines()[1]
    assert hydra_config.mode is RunMode.MULTIRUN
    assert config.sweep.name in hydra_config.sweep.dir
    last = compose(f"sweep={name}", *jobs[-1])
    OmegaConf.to_container(last, resolve=True, throw_on_missing=True)
