"""The example that makes activations of recordings, on made-up recordings and weights."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from scipy.io import wavfile
from scipy.optimize import nnls

from sparse_lightning.data.arrays import Arrays
from sparse_lightning.errors import DataError
from sparse_lightning.studies.study_result import StudyResult

EXAMPLE = Path(__file__).parent.parent / "examples" / "activations"


def imported(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(EXAMPLE)
    yield import_module(name)
    del sys.modules[name]


@pytest.fixture
def extract(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    yield from imported("extract", monkeypatch)


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    yield from imported("compare", monkeypatch)


@pytest.fixture
def weights(extract: ModuleType) -> dict[str, torch.Tensor]:
    return {name: torch.randn(shape) / 8 for name, shape in extract.SHAPES.items()}


def write_sound(path: Path, seconds: float, rate: int = 16_000, channels: int = 1) -> np.ndarray:
    """Noise of 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(path.name)).normal(0, 3000, (int(seconds * rate), channels))
    samples = noise.astype(np.int16)
    wavfile.write(path, rate, samples)
    return samples


def by_loops(samples: np.ndarray, weights: dict[str, torch.Tensor]) -> np.ndarray:
    """One frame of 576 samples through the encoder, number by number, in float64."""
    kernels = {name: tensor.double().numpy() for name, tensor in weights.items()}
    # What comes after the end is what came before it, in reverse.
    samples = np.concatenate([samples, samples[-2:-66:-1]]).astype(np.float64)
    values = np.empty((129, 4))
    for window in range(4):
        seen = samples[128 * window : 128 * window + 256]
        for frequency in range(129):
            real = kernels["stft_conv.weight"][frequency, 0] @ seen
            imaginary = kernels["stft_conv.weight"][129 + frequency, 0] @ seen
            values[frequency, window] = np.hypot(real, imaginary)
    for name, stride in (("conv1", 1), ("conv2", 2), ("conv3", 2), ("conv4", 1)):
        kernel, bias = kernels[f"{name}.weight"], kernels[f"{name}.bias"]
        if name != "conv1":
            values = np.maximum(values, 0)
        places = range(0, values.shape[1], stride)
        made = np.empty((len(kernel), len(places)))
        for channel in range(len(kernel)):
            for at, place in enumerate(places):
                made[channel, at] = bias[channel]
                for tap in (-1, 0, 1):
                    if 0 <= place + tap < values.shape[1]:
                        column = values[:, place + tap]
                        made[channel, at] += kernel[channel, :, tap + 1] @ column
        values = made
    return values[:, 0]


def test_preactivations_are_those_of_a_literal_loop(extract, weights):
    frames = torch.randn(3, 576)
    found = extract.preactivations(frames, weights).numpy()
    assert found.shape == (3, 128)
    assert (found < 0).any()
    for row, frame in zip(found, frames.numpy()):
        np.testing.assert_allclose(row, by_loops(frame, weights), rtol=1e-4, atol=1e-4)


def test_frames_follow_the_end_of_the_frame_before(extract):
    samples = np.arange(1, 1101, dtype=np.float32)
    frames = extract.frames_of(samples).numpy()
    assert frames.shape == (3, 576)
    assert not frames[0, :64].any()
    np.testing.assert_array_equal(frames[0, 64:], samples[:512])
    np.testing.assert_array_equal(frames[1], samples[448:1024])
    np.testing.assert_array_equal(frames[2, : 64 + 76], samples[960:])
    assert not frames[2, 64 + 76 :].any()
    assert extract.frames_of(samples[:0]).shape == (0, 576)


def test_sounds_of_any_rate_width_and_number_of_channels(extract, tmp_path: Path):
    rising = np.linspace(-0.5, 0.5, 4000)
    for name, scale, offset, kind in (
        ("8", 128, 128, np.uint8),
        ("16", 2**15, 0, np.int16),
        ("32", 2**31, 0, np.int32),
        ("float", 1, 0, np.float32),
    ):
        path = tmp_path / f"{name}.wav"
        wavfile.write(path, 16_000, (rising * scale + offset).astype(kind))
        np.testing.assert_allclose(extract.read_sound(path), rising, atol=1 / 120)
    stereo = write_sound(tmp_path / "stereo.wav", 0.1, channels=2)
    expected = stereo.mean(axis=1) / 2**15
    np.testing.assert_allclose(extract.read_sound(tmp_path / "stereo.wav"), expected, atol=1e-7)
    # A tone keeps its pitch, whatever its rate.
    for rate in (8_000, 44_100):
        tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
        wavfile.write(tmp_path / "tone.wav", rate, tone.astype(np.float32))
        found = extract.read_sound(tmp_path / "tone.wav")
        assert len(found) == 16_000
        at = np.arange(2_000, 14_000)
        np.testing.assert_allclose(found[at], np.sin(2 * np.pi * 440 * at / 16_000), atol=5e-3)


def test_whole_recordings_go_to_one_split(extract, weights, tmp_path: Path):
    seconds = {f"{kind}/{number}.wav": 0.2 + 0.05 * number for kind in "ab" for number in range(6)}
    for name, length in seconds.items():
        write_sound(tmp_path / "sounds" / name, length, rate=8_000)
    save_file(weights, tmp_path / "weights.safetensors")
    given = [tmp_path / "sounds", tmp_path / "weights.safetensors", tmp_path / "made"]
    extract.main([str(path) for path in given])
    rows, groups = (np.load(tmp_path / "made" / f"{name}.npy") for name in ("x", "groups"))
    assert (rows.dtype, rows.shape[1]) == (np.float32, 128)
    counts = {name: int(np.ceil(length * 16_000 / 512)) for name, length in seconds.items()}
    assert dict(zip(*np.unique(groups, return_counts=True))) == counts
    sound = extract.read_sound(tmp_path / "sounds" / "b" / "3.wav")
    expected = extract.preactivations(extract.frames_of(sound), weights)
    np.testing.assert_allclose(rows[groups == "b/3.wav"], expected, rtol=1e-5, atol=1e-5)
    data = Arrays(
        tmp_path / "made" / "x.npy",
        tmp_path / "cache",
        groups=tmp_path / "made" / "groups.npy",
        val_share=0.2,
        test_share=0.2,
        batch_size=20,
    )
    data.setup()
    names = [set(groups[data.splits[split].order]) for split in ("train", "val", "test")]
    assert all(names)
    assert sum(map(len, names)) == len(set.union(*names)) == 12


def test_what_cannot_be_read_is_told_in_a_sentence(extract, weights, tmp_path: Path, capsys):
    with pytest.raises(DataError, match=r"holds no \.wav file"):
        extract.extract(tmp_path, weights)
    write_sound(tmp_path / "whole.wav", 0.1)
    whole = (tmp_path / "whole.wav").read_bytes()
    for name, content in (("text", b"no sound"), ("empty", b""), ("cut", whole[:30])):
        (tmp_path / f"{name}.wav").write_bytes(content)
        with pytest.raises(DataError, match=f"{name}.wav cannot be read as WAV"):
            extract.read_sound(tmp_path / f"{name}.wav")
    del weights["conv3.bias"]
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(DataError, match=r"no tensor conv3\.bias of the shape \(64,\)"):
        extract.read_weights(tmp_path / "w.safetensors")
    with pytest.raises(SystemExit):
        extract.main([str(tmp_path), str(tmp_path / "text.wav"), str(tmp_path / "made")])
    assert "cannot be read as safetensors" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_scikit_learns_codes_are_the_best_that_have_no_signs(compare, monkeypatch):
    atoms = np.random.default_rng(0).normal(size=(12, 8))
    monkeypatch.setattr(compare, "fitted_dictionary", lambda *_, **__: atoms)
    train, test = np.random.default_rng(1).normal(size=(2, 30, 8)).astype(np.float32)
    weight = 0.05
    found = compare.dictionary_learning(train, test, 12, weight, passes=1)
    # Of a code without signs the l1 norm is linear in the code: as linear as a small ridge about a
    # point that lies far on the negative side.
    left, zeros = 0.0, 0
    ridge = 1e-5 * np.eye(12)
    for row in test:
        shift = np.linalg.solve(ridge, np.full(12, -weight * 8 / 2))
        code, _ = nnls(np.vstack([atoms.T, np.sqrt(ridge)]), np.append(row, np.sqrt(ridge) @ shift))
        left += np.square(row - code @ atoms).sum()
        zeros += int((code == 0).sum())
    assert found["zeros"] == pytest.approx(zeros / (len(test) * len(atoms)), abs=0.01)
    about = np.square(test - train.mean(axis=0)).sum()
    assert found["r2"] == pytest.approx(1 - left / about, abs=2e-3)


def test_the_figure_has_every_curve_in_its_panel(compare):
    table = pd.DataFrame(
        [
            {"family": family, "codes": codes, "sparsity_weight": weight, "seed": 0}
            | {"zeros": 1 - 0.4 / weight, "r2": 1 - 0.01 * weight, "code_dim": 8}
            for family in ("sdl", "vdl_nl")
            for codes in ("encoder", "inference")
            for weight in (1.0, 2.0, 4.0)
        ]
    )
    references = pd.DataFrame({"components": [0, 1, 4], "r2": [0.0, 0.5, 0.7]})
    learned = table[["zeros", "r2"]].head(3)
    figure = compare.draw(StudyResult(table, {"references": references}), learned, "title")
    shown = [set(axes.get_legend_handles_labels()[1]) for axes in figure.axes]
    curves = {"SDL", "VDL-NL", "PCA, as many components"}
    assert shown == [curves, curves | {"scikit-learn, codes without signs"}]
    points = figure.axes[0].containers[0].lines[0].get_xdata().astype(float)
    np.testing.assert_allclose(points, [60, 80, 90])
    # Of 1 and 4 components among 8, and the mean, one is where the curves are.
    lines = {line.get_label(): line.get_xdata() for line in figure.axes[1].lines}
    np.testing.assert_allclose(lines["PCA, as many components"], [87.5])
