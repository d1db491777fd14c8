"""Settings of a study that cannot work are told before it measures."""

from __future__ import annotations

import functools

import pytest

from sparse_lightning.errors import SettingError
from sparse_lightning.studies.arguments import require_possible
from sparse_lightning.studies.denoising import denoising
from sparse_lightning.studies.features import features
from sparse_lightning.studies.low_data import low_data
from sparse_lightning.studies.rate import rate
from sparse_lightning.studies.regret import regret


@pytest.mark.parametrize(
    ("study", "settings", "told"),
    [
        (regret, {"at_zeros": 0.9}, r"at_zeros=0.9 must be a list, such as \[0.9\]"),
        (
            regret,
            {"at_zeros": [0.9, 1]},
            r"at_zeros=\[0.9,1\] must each be a share",
        ),
        (regret, {"num_components": [-1]}, "must each be a whole number of at least 0"),
        (denoising, {"noise_levels": []}, r"noise_levels=\[\] must not be empty"),
        (denoising, {"noise_levels": [0.0]}, "must each be a finite number above 0"),
        (denoising, {"num_shown": 0}, "num_shown=0 must be a whole number of at least 1"),
        (features, {"part_level": 1.5}, "part_level=1.5 must be a share"),
        (features, {"smoothing": -1}, "smoothing=-1 must be a finite number, 0 or more"),
        (features, {"scramble_seed": -1}, "scramble_seed=-1 must be a whole number of at least 0"),
        (low_data, {"patience": 0}, "patience=0 must be a whole number of at least 1"),
        (low_data, {"patience": -1}, "patience=-1 must be"),
        (low_data, {"scratch_draws": 0}, "scratch_draws=0 must be"),
        (low_data, {"fixed_zeros": 90}, "fixed_zeros=90 must be a share"),
        (low_data, {"labels_per_class": ["every"]}, r"labels_per_class=\[every\] must each be"),
        (low_data, {"inverse_penalties": [0]}, "must each be a finite number above 0"),
        (rate, {"steps": [float("inf")]}, "must each be a finite number above 0"),
    ],
)
def test_settings_out_of_range_are_named(study, settings, told):
    with pytest.raises(SettingError, match=told):
        require_possible(functools.partial(study, **settings))


def test_settings_in_range_and_those_of_another_package_pass():
    own = {"at_zeros": (0.0, 0.99), "num_components": [0, 4], "num_images": None}
    require_possible(functools.partial(regret, **own))
    labelled = {"labels_per_class": [1, "all"], "num_draws": [3, 1], "patience": None}
    require_possible(functools.partial(low_data, **labelled))

    def of_another_package(steps: int) -> None: ...

    require_possible(functools.partial(of_another_package, steps=-3))
