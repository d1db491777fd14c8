"""Trackio gets what W&B gets, on this machine alone."""

from __future__ import annotations

import importlib.util
import os
import tempfile

import pytest
from conftest import Compose
from hydra.utils import instantiate

from sparse_lightning.errors import SettingError
from sparse_lightning.train import train

# Trackio reads it when it is imported.
os.environ["TRACKIO_DIR"] = tempfile.mkdtemp()


def test_a_missing_package_is_named(compose: Compose, monkeypatch):
    monkeypatch.setattr("sparse_lightning.training.trackio_logger.find_spec", lambda name: None)
    config = compose("logger=trackio")
    with pytest.raises(Exception, match=r"pip install 'sparse-lightning\[trackio\]'") as raised:
        instantiate(config.logger.trackio)
    assert isinstance(raised.value.__cause__ or raised.value, SettingError)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.skipif(importlib.util.find_spec("trackio") is None, reason="needs the extra trackio")
def test_a_run_and_its_resumption_are_one(compose_small: Compose, tmp_path):
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    options = ("model=vdl", "logger=trackio", "logger.trackio.project=tried")
    final = train(compose_small(*options, "trainer.max_epochs=1"))
    train(compose_small(*options, "trainer.max_epochs=2", "resume=true"))
    (run,) = trackio.Api().runs("tried")
    assert run.name.endswith((tmp_path / "run" / "trackio_id").read_text())
    rows = SQLiteStorage.get_logs("tried", run.name)
    shown = [row for row in rows if "val/psnr" in row]
    assert len(shown) == 2
    tested = [row["test/psnr"] for row in rows if "test/psnr" in row]
    assert tested[0] == pytest.approx(final["test/psnr"])
    assert run.config["model"]["family"] == "vdl"
