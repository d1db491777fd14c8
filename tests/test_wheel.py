"""The wheel carries the configurations, and they compose from any directory."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_wheel_composes_from_elsewhere(tmp_path: Path):
    subprocess.run(
        [
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "-o",
            str(tmp_path),
            str(ROOT),
        ],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(site)
    conf = {path.relative_to(ROOT).as_posix() for path in (ROOT / "conf").rglob("*.yaml")}
    assert {f"sparse_lightning/{name}" for name in conf} <= names
    assert "sparse_lightning/data/idx/train-images-idx3-ubyte.gz" in names

    # Before any other copy of the package on the path, and with no repository around it.
    program = f"""
import sys
sys.path.insert(0, {str(site)!r})
import hydra
from sparse_lightning import config
assert str(config.CONFIG_DIR).startswith({str(site)!r}), config.CONFIG_DIR
config.register_resolvers()
with hydra.initialize_config_dir(str(config.CONFIG_DIR), version_base="1.3"):
    composed = hydra.compose("train", ["model=vdl", "data=mnist"])
print(composed.model.energy.sparsity_weight)
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=elsewhere,
        check=True,
        capture_output=True,
        text=True,
    )
    assert result.stdout.strip() == "0.02"
