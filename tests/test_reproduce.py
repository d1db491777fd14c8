"""What the scales of `reproduce` ask for exists, and studies are done once."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from conftest import composed
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from sparse_lightning.config import CONFIG_DIR
from sparse_lightning.experiments.sweep_commands import commands
from sparse_lightning.paper.reproduction import DONE_FILE
from sparse_lightning.paper.statistics import Rules
from sparse_lightning.reproduce import reproduce

SCALES = sorted(path.stem for path in (CONFIG_DIR / "scale").glob("*.yaml"))


@pytest.mark.parametrize("scale", SCALES)
def test_scales_ask_for_what_exists(scale, compose, tmp_path: Path):
    config = composed("reproduce", f"scale={scale}", folder=tmp_path)
    commands(config.trainings, config.everywhere, tmp_path, config.jobs)
    for line in config.trainings:
        parsed = OverridesParser.create().parse_overrides(list(line))
        for override in parsed:
            if (CONFIG_DIR / override.key_or_group).is_dir():
                for name in values_of(override):
                    assert (CONFIG_DIR / override.key_or_group / f"{name}.yaml").is_file()
        first = [f"{p.key_or_group}={values_of(p)[0]}" for p in parsed]
        OmegaConf.to_container(compose(*first), resolve=True)
    studied = OmegaConf.to_container(config.studies, resolve=True)
    trained = {word.removeprefix("data=") for line in config.trainings for word in line}
    for study in studied.values():
        assert study["data"] is None or study["data"] in trained
        config = composed("evaluate", *study["settings"], run_dir=tmp_path)
        images = config.study.get("compute", {}).get("num_images", None)
        assert images is None or isinstance(images, int)


@pytest.fixture
def scale_of(tmp_path: Path):
    return lambda scale: composed("reproduce", f"scale={scale}", folder=tmp_path)


def judged(study: str, rules: Rules) -> set[str]:
    """The families that the judges of a study name."""
    few = {name for name in rules.few_label_rivals if " " not in name}
    return {
        "regret": {"vdl_nl", *rules.rivals, *rules.rivals_by_inference},
        "denoising": {*rules.families_with_hinge, *rules.denoising_candidates},
        "low_data": {"vdl_nl", *few, *rules.rivals_by_inference, *rules.families_with_codes},
        "features": {*rules.families_with_strokes},
        "filters": {"wdl", *rules.rivals_of_filters},
        "ablation": {*rules.collapse_rivals}.union(*rules.collapse_rivals.values()),
    }.get(study, set())


# At hinge no family is compared with another.
@pytest.mark.parametrize("scale", [scale for scale in SCALES if scale != "hinge"])
def test_studies_look_at_every_family_that_a_judge_names(scale, scale_of, rules):
    for study in scale_of(scale).studies.values():
        given = dict(setting.split("=", 1) for setting in study.settings)
        if "where.family" in given:
            looked_at = set(given["where.family"].strip("[]").split(","))
            assert judged(given["study"], rules) <= looked_at


@pytest.mark.parametrize("scale", [scale for scale in SCALES if scale != "hinge"])
def test_a_family_has_one_solver_at_every_weight(scale, scale_of):
    """But for a control, which no other study looks at."""
    config = scale_of(scale)
    looked_at = yaml.safe_load(config.solvers.replace(":", ": ")) or {}
    solvers: dict[tuple[str, str], str] = {}
    for line in config.trainings:
        given = dict(setting.split("=", 1) for setting in line)
        for family in given["model"].split(","):
            solver = {"paper": "FISTA", "adaptive": "Adaptive"}[given.get("solver", "paper")]
            if solver in looked_at.get(family, [solver]):
                assert solvers.setdefault((given["data"], family), solver) == solver
    for study in config.studies.values():
        compares = study.settings[0] in ("study=settings", "study=hinge_surface")
        assert compares or f"where.solver={config.solvers}" in study.settings


@pytest.mark.parametrize("scale", ["evening", "evening_adaptive"])
def test_validation_chooses_from_equally_many_weights_of_each_family(scale, scale_of):
    config = scale_of(scale)
    trained: dict[str, set[float]] = {}
    for line in config.trainings:
        given = dict(setting.split("=", 1) for setting in line)
        weights = {float(weight) for weight in given["model.energy.sparsity_weight"].split(",")}
        if given["data"] == "mnist":
            for family in given["model"].split(","):
                trained.setdefault(family, set()).update(weights)
    chosen = yaml.safe_load(config.chosen_from.replace(":", ": "))
    for study in ("mnist_denoising", "mnist_low_data"):
        (families,) = (s for s in config.studies[study].settings if s.startswith("where.family"))
        assert set(families.partition("=")[2].strip("[]").split(",")) <= chosen.keys()
        assert f"where.sparsity_weight={config.chosen_from}" in config.studies[study].settings
    for family, weights in chosen.items():
        assert len(weights) == 3
        assert set(weights) <= trained.get(family, set(weights))


def values_of(override: Override) -> list[str]:
    if override.is_sweep_override():
        return [*override.sweep_string_iterator()]
    return [override.get_value_element_as_str()]


@pytest.mark.slow
def test_a_study_is_run_once_and_reported(tmp_path: Path, capfd):
    config = composed("reproduce", "scale=small", "trainings=[]", folder=tmp_path)
    hinge = {"settings": ["study=hinge_surface"], "data": None, "figures": ["hinge_surface"]}
    config.studies = {"hinge": hinge}
    reproduce(config)
    assert "hinge_gradient.png" in capfd.readouterr().out
    for name in ("report.html", "claims.csv", "figures/hinge_hinge_surface.png"):
        assert (tmp_path / name).is_file()
    done = (tmp_path / "studies" / "hinge" / DONE_FILE).read_text()
    reproduce(config)
    assert "hinge_gradient.png" not in capfd.readouterr().out
    assert (tmp_path / "studies" / "hinge" / DONE_FILE).read_text() == done
