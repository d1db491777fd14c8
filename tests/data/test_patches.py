"""Patches of photographs: what is in them, on what they depend, and how building them can fail."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from PIL import Image

from sparse_lightning.data import cache
from sparse_lightning.data.image_folder import ImageFolder
from sparse_lightning.data.patch_pipeline import build, crops, decode, shards
from sparse_lightning.data.patch_pipeline import photographs as photographs_module
from sparse_lightning.data.patch_pipeline.contrast import local_contrast_normalize
from sparse_lightning.data.patch_pipeline.decode import (
    UnusableImage,
    read_grey,
    without_decoder_warnings,
)
from sparse_lightning.data.patch_pipeline.photographs import (
    copies,
    find_photographs,
    in_seeded_order,
    sample_photographs,
)
from sparse_lightning.data.patch_pipeline.recipe import SPLITS, Recipe
from sparse_lightning.data.patches import SAMPLE_TITLE, ImagePatches
from sparse_lightning.errors import DataError, SettingError


@pytest.fixture(autouse=True)
def quiet():
    with without_decoder_warnings():
        yield


SMALL = {"num_train": 90, "num_val": 20, "num_test": 20, "shorter_side": 64}


def textured(seed: int, size: tuple[int, int] = (64, 80)) -> Image.Image:
    """A colour image (height, width) with contrast everywhere, unlike every other seed's."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[0] // 4, size[1] // 4, 3), np.uint8)
    return Image.fromarray(noise).resize(size[::-1], Image.Resampling.BICUBIC)


def write_images(root: Path, count: int = 9) -> Path:
    for index in range(count):
        folder = root / f"class{index % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        textured(index).save(folder / f"{index}.{'jpg' if index % 2 else 'PNG'}", quality=95)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images") / "root")


def prepared(root: Path | None, cache_dir: Path, **settings) -> ImagePatches:
    data = ImagePatches(root, cache_dir, **(SMALL | settings))
    data.prepare_data()
    data.setup()
    return data


def contents(cache_dir: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for folder in cache_dir.iterdir()
        if folder.is_dir() and not folder.name.startswith(".")
        for path in folder.iterdir()
    }


# What is in a batch.


def test_batches_have_the_shape_and_statistics_of_the_definition(root, tmp_path):
    data = prepared(root, tmp_path, batch_size=25, drop_last=True)
    assert data.input_dim == 784
    assert data.image_shape == (28, 28)
    sizes = {"train": [25] * 3, "val": [20], "test": [20]}
    for split, expected in sizes.items():
        batches = list(getattr(data, f"{split}_dataloader")())
        assert [len(batch.inputs) for batch in batches] == expected
        for batch in batches:
            assert batch.inputs.dtype is torch.float32
            assert batch.inputs.shape == batch.scale.shape == batch.shift.shape
            # The threshold, up to the rounding of the statistics on disk.
            assert batch.inputs.std(1).min() > 0.499
            assert batch.inputs.isfinite().all()


def test_pixels_are_the_grey_crop_and_inputs_its_normalisation(root, tmp_path):
    data = prepared(root, tmp_path)
    records = data.splits["train"]
    names = data.images("train")
    places = {photo.name: photo.path for photo in find_photographs(root)}
    recipe = data.recipe
    for index in (0, 17, 89):
        batch = records[index]
        pixels = batch.to_pixels(batch.inputs).mul(255)
        grey = read_grey(places[names[index]], recipe.shorter_side, recipe.crop_size)
        torch.testing.assert_close(pixels, pixels.round(), atol=1e-3, rtol=0)
        windows = crops.all_crops(grey, 52)
        middles = windows[:, :, 12:40, 12:40].reshape(-1, 784)
        matches = np.flatnonzero((middles == pixels.round().byte().numpy()).all(1))
        assert len(matches) == 1
        crop = torch.from_numpy(windows.reshape(-1, 52, 52)[matches].copy())
        floor = (batch.scale / recipe.grey_std).min()
        expected, _, _ = local_contrast_normalize(crops.standardise(crop, recipe), floor=floor)
        torch.testing.assert_close(batch.inputs, expected.flatten(1), atol=5e-3, rtol=5e-3)


def test_one_sample_equals_its_row_of_a_batch(root, tmp_path):
    data = prepared(root, tmp_path).splits["val"]
    batch = data.__getitems__([3, 0, 5])
    torch.testing.assert_close(batch.inputs[2:], data[5].inputs)


def test_splits_share_no_image_and_no_patch(root, tmp_path):
    data = prepared(root, tmp_path)
    images = {split: set(data.images(split)) for split in SPLITS}
    assert all(images.values())
    assert sum(map(len, images.values())) == len(set.union(*images.values())) == 9
    rows = {split: set(map(bytes, data.splits[split].records["pixels"])) for split in SPLITS}
    assert sum(map(len, rows.values())) == len(set.union(*rows.values()))


def test_an_image_under_two_names_is_used_once(root, tmp_path):
    copy = tmp_path / "root"
    shutil.copytree(root, copy)
    (copy / "again").symlink_to(copy / "class0")
    (copy / "class1" / "same.jpg").symlink_to(copy / "class2" / "5.jpg")
    os.link(copy / "class2" / "2.PNG", copy / "class2" / "3.PNG")
    assert len(find_photographs(copy)) == 9


@pytest.mark.parametrize("small", [1000, 2])
@pytest.mark.parametrize("seed", range(3))
def test_copies_of_a_file_share_a_split(tmp_path, monkeypatch, small, seed):
    monkeypatch.setattr(build, "SMALL_COLLECTION", small)
    copy = write_images(tmp_path / "root", 30)
    for index in range(5):
        shutil.copy(copy / "class0" / "3.jpg", copy / f"copy{index}.jpg")
    data = prepared(copy, tmp_path / "cache", split_seed=seed)
    contents_of = {photo.name: photo.path.read_bytes() for photo in find_photographs(copy)}
    pictures = {split: {contents_of[name] for name in data.images(split)} for split in SPLITS}
    assert all(pictures.values())
    assert sum(map(len, pictures.values())) == len(set.union(*pictures.values()))
    skipped = json.loads((data._folder / "images.json").read_text())["skipped"]
    assert all("is a copy of" in reason for reason in skipped.values())
    assert len(skipped) == 5 or small == 2


def test_copies_alone_are_too_few_images(root, tmp_path):
    (tmp_path / "root").mkdir()
    for index in range(9):
        shutil.copy(root / "class0" / "3.jpg", tmp_path / "root" / f"{index}.jpg")
    with pytest.raises(
        DataError, match=r"has 1 usable images \(8 files skipped: .* copy of .*at least 3 are"
    ):
        prepared(tmp_path / "root", tmp_path / "cache")


def test_only_files_of_one_size_on_both_sides_are_read_for_copies(root, monkeypatch):
    photographs = in_seeded_order(find_photographs(root), 0)
    opened = []
    monkeypatch.setattr(photographs_module, "_digest", lambda p: opened.append(p.name) or b"")
    assert copies(photographs[4:], photographs[:4]) == {}
    assert opened == []
    twins = [photographs[0]._replace(name="twin"), photographs[1]._replace(name="other", size=1)]
    assert copies(twins, photographs[:4]) == {"twin": photographs[0].name}
    assert set(opened) == {"twin", photographs[0].name}


# On what the result depends.


def test_equal_settings_give_equal_bytes_whatever_the_workers(root, tmp_path):
    folders = [tmp_path / str(workers) for workers in (1, 2, 5)]
    for folder, workers in zip(folders, (1, 2, 5)):
        prepared(root, folder, num_workers=workers, num_train=3000, patch_size=8)
    first, *others = map(contents, folders)
    assert set(first) == {"train.npy", "val.npy", "test.npy", "images.json"}
    assert all(first == other for other in others)


def test_order_of_the_listing_and_place_of_the_folder_do_not_matter(root, tmp_path, monkeypatch):
    prepared(root, tmp_path / "a")
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: listdir(folder)[::-1])
    prepared(moved, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_large_collections_are_not_decoded_ahead(root, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "SMALL_COLLECTION", 2)
    prepared(root, tmp_path / "a", num_workers=1)
    prepared(root, tmp_path / "b", num_workers=3)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("small", [1000, 2])
def test_each_image_is_decoded_once(root, tmp_path, monkeypatch, small):
    opened = []

    def counting(path, *arguments):
        opened.append(path)
        return read_grey(path, *arguments)

    monkeypatch.setattr(build, "SMALL_COLLECTION", small)
    for module in (build, shards):
        monkeypatch.setattr(module, "read_grey", counting)
    prepared(root, tmp_path)
    assert len(opened) == len(set(opened)) == 9


def test_one_crop_of_each_image_opens_no_more_images_than_needed(root, tmp_path):
    data = prepared(root, tmp_path, num_train=5, num_val=2, num_test=2, crops_per_image=1)
    for split, number in (("train", 5), ("val", 2), ("test", 2)):
        assert len(set(data.images(split))) == number


CHANGES = {
    "num_train": 91,
    "patch_size": 20,
    "crops_per_image": 30,
    "threshold": 0.6,
    "shorter_side": 70,
    "grey_mean": 0.4,
    "kernel_size": 11,
    "kernel_sigma": 4.0,
    "split_seed": 1,
}


def test_the_cache_is_used_again_and_every_setting_renews_it(root, tmp_path, monkeypatch):
    first = prepared(root, tmp_path)
    keys = {
        ImagePatches(root, tmp_path, **(SMALL | {name: value})).key(find_photographs(root))
        for name, value in CHANGES.items()
    }
    assert len(keys | {first.key(find_photographs(root))}) == len(CHANGES) + 1
    monkeypatch.setattr(build, "make", None)
    # What does not shape the patches does not renew them.
    again = prepared(root, tmp_path, batch_size=10, num_workers=3, shuffle_seed=5)
    torch.testing.assert_close(first.splits["val"][0].inputs, again.splits["val"][0].inputs)


def test_changed_files_renew_the_cache(root, tmp_path):
    copy = tmp_path / "root"
    shutil.copytree(root, copy)
    data = ImagePatches(copy, tmp_path / "cache", **SMALL)
    keys = [data.key(find_photographs(copy))]
    os.utime(copy / "class0" / "0.PNG", ns=(1, 1))
    keys.append(data.key(find_photographs(copy)))
    (copy / "class0" / "0.PNG").rename(copy / "class0" / "zero.PNG")
    keys.append(data.key(find_photographs(copy)))
    assert len(set(keys)) == 3


def with_equal_listings(tmp_path: Path) -> list[Path]:
    """Two folders whose files differ, and have equal names, sizes and times."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for number, folder in enumerate(folders):
        folder.mkdir()
        for index in range(9):
            path = folder / f"{index}.bmp"
            textured(10 * number + index).save(path)
            os.utime(path, (1, 1))
    listings = [[(p.name, p.size, p.changed) for p in find_photographs(f)] for f in folders]
    assert listings[0] == listings[1]
    return folders


def test_folders_with_equal_listings_have_caches_of_their_own(tmp_path):
    one, two = with_equal_listings(tmp_path)
    first, second = (prepared(folder, tmp_path / "cache") for folder in (one, two))
    assert first.fingerprint() != second.fingerprint()
    # A folder that has moved holds what it held.
    one.rename(tmp_path / "moved")
    assert prepared(tmp_path / "moved", tmp_path / "cache").fingerprint() == first.fingerprint()


def test_images_of_folders_with_equal_listings_are_kept_apart(tmp_path):
    def fingerprint(root: Path) -> str:
        data = ImageFolder(root, tmp_path / "cache", size=8, batch_size=4)
        data.setup()
        return data.fingerprint()

    one, two = with_equal_listings(tmp_path)
    first = fingerprint(one)
    assert fingerprint(two) != first
    one.rename(tmp_path / "moved")
    assert fingerprint(tmp_path / "moved") == first


def test_folders_that_begin_with_a_dot_are_left_out(root, tmp_path):
    copy = tmp_path / "root"
    shutil.copytree(root, copy)
    for name in (".Trash-1000", "class0/.thumbnails"):
        shutil.copytree(root / "class1", copy / name)
    assert [p.name for p in find_photographs(copy)] == [p.name for p in find_photographs(root)]


# Interruptions and company.


def test_an_interrupted_build_resumes_without_redoing_shards(root, tmp_path, monkeypatch):
    settings = {"num_train": 20_000, "patch_size": 8}
    prepared(root, tmp_path / "whole", **settings)
    draw, calls = shards.draw_patches, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return draw(*arguments)

    monkeypatch.setattr(shards, "draw_patches", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepared(root, tmp_path / "cut", num_workers=1, **settings)
    assert contents(tmp_path / "cut") == {}
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut").rglob("train-*.npy")}
    assert len(done) >= 3
    total = len(calls)
    unfinished = {path.name for path in done}

    remade = []
    monkeypatch.setattr(
        shards, "draw_patches", lambda *arguments: remade.append(1) or draw(*arguments)
    )
    prepared(root, tmp_path / "cut", **settings)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert len(unfinished) + len(remade) == 7
    assert total < 7
    assert [path.name for path in (tmp_path / "cut").glob("*.partial")] == []


HOLDER = """
import fcntl, os, sys

folder = sys.argv[1]
with open(os.path.join(folder, ".key.lock"), "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    print("building", flush=True)
    sys.stdin.read()
    os.mkdir(os.path.join(folder, "key"))
"""


@pytest.mark.parametrize("end", ["well", "killed"])
def test_a_second_process_waits_and_a_killed_one_lets_go(tmp_path, end, monkeypatch):
    told = threading.Event()
    monkeypatch.setattr(cache, "print", lambda *words, **_: told.set(), raising=False)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout.readline() == b"building\n"
    built, finished = [], []

    def ours():
        cache.built_once(tmp_path, "key", lambda progress, result: built.append(1))
        finished.append(1)

    thread = threading.Thread(target=ours)
    thread.start()
    assert told.wait(20), "it says that it waits"
    assert not finished
    if end == "killed":
        other.kill()
    other.communicate()
    thread.join(timeout=20)
    assert finished
    assert len(built) == (1 if end == "killed" else 0)


def test_a_full_disk_is_one_sentence_and_leaves_no_cache(root, tmp_path, monkeypatch):
    def full(*arguments, **settings):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(shards.np, "save", full)
        with pytest.raises(DataError, match=r"data.cache_dir=.*No space left on device.*make room"):
            prepared(root, tmp_path)
    assert contents(tmp_path) == {}
    usage = type("Usage", (), {"free": 1000})
    with monkeypatch.context() as patch:
        patch.setattr(cache.shutil, "disk_usage", lambda path: usage)
        with pytest.raises(DataError, match="1 kB of room, and what is built there needs"):
            prepared(root, tmp_path)
    assert contents(tmp_path) == {}
    prepared(root, tmp_path)


def test_a_cache_that_cannot_be_written_is_one_sentence(root, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"data.cache_dir=.*cannot be written"):
        prepared(root, tmp_path / "file" / "cache")


def test_a_damaged_cache_is_named(root, tmp_path):
    data = prepared(root, tmp_path)
    path = data._folder / "val.npy"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="delete that folder"):
        prepared(root, tmp_path)
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="delete that folder"):
        prepared(root, tmp_path)


# Files of every kind.


def greys_of(path: Path) -> np.ndarray:
    return read_grey(path, 64, 52).numpy().astype(int)


KINDS = {
    "grey.jpg": lambda image: (image.convert("L"), {"quality": 98}),
    "cmyk.jpg": lambda image: (image.convert("CMYK"), {"quality": 98}),
    "rgba.png": lambda image: (image.convert("RGBA"), {}),
    "grey_alpha.png": lambda image: (image.convert("LA"), {}),
    "palette.png": lambda image: (image.convert("L").quantize(256), {}),
    "palette_transparent.png": lambda image: (
        image.convert("L").quantize(256),
        {"transparency": bytes(range(256))},
    ),
    "deep.png": lambda image: (
        Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257),
        {},
    ),
    "deep.tif": lambda image: (
        Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257),
        {},
    ),
    "animated.gif": lambda image: (
        image.convert("L"),
        {"save_all": True, "append_images": [textured(77).convert("L")] * 2},
    ),
    "animated.png": lambda image: (
        image,
        {"save_all": True, "append_images": [textured(77)]},
    ),
    "colour.webp": lambda image: (image, {"lossless": True}),
    "colour.bmp": lambda image: (image, {}),
    "colour.tiff": lambda image: (image, {}),
    "png_by_another_name.JPEG": lambda image: (image, {"format": "PNG"}),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_gives_the_same_grey(tmp_path, name):
    image = textured(5)
    converted, options = KINDS[name](image)
    converted.save(tmp_path / name, **options)
    expected = np.asarray(image.convert("L")).astype(int)
    difference = np.abs(greys_of(tmp_path / name) - expected)
    assert difference.mean() < 2.5
    assert difference.max() < 16


@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
def test_rotated_images_are_turned_upright(tmp_path, extension):
    exif = Image.Exif()
    exif[0x112] = 6
    textured(5).rotate(90, expand=True).save(tmp_path / f"turned.{extension}", exif=exif)
    expected = np.asarray(textured(5).convert("L")).astype(int)
    assert np.abs(greys_of(tmp_path / f"turned.{extension}") - expected).mean() < 16


def test_a_large_jpeg_is_decoded_smaller_and_resized_to_nearly_the_same(tmp_path, monkeypatch):
    path = tmp_path / "large.jpg"
    textured(3, (128, 160)).resize((640, 512), Image.Resampling.BICUBIC).save(path, quality=95)
    content = path.read_bytes()
    assert decode._decoded(content, 64, 52, "L").shape == (1, 128, 160)
    assert decode._decoded(content, 129, 52, "L").shape == (1, 512, 640)
    reduced = read_grey(path, 64, 52).int()
    monkeypatch.setattr(decode, "FINEST", 100)
    whole = read_grey(path, 64, 52).int()
    assert whole.shape == reduced.shape == (64, 80)
    assert (whole - reduced).abs().float().mean() < 1
    assert (whole - reduced).abs().max() < 10


def write_unusable(root: Path) -> None:
    good = textured(3)
    good.save(root / "short.jpg", quality=95)
    good.save(root / "short.png")
    for name in ("short.jpg", "short.png"):
        whole = (root / name).read_bytes()
        (root / name).write_bytes(whole[: len(whole) // 2])
    (root / "empty.jpg").write_bytes(b"")
    (root / "text.jpg").write_text("not an image")
    textured(4, (20, 80)).save(root / "tiny.png")
    Image.new("RGB", (64, 64), "black").save(root / "black.png")
    Image.fromarray(np.random.default_rng(0).random((64, 64)).astype(np.float32)).save(
        root / "floating.tif"
    )
    twelve = np.asarray(good.convert("L")).astype(np.uint16) * 16
    Image.fromarray(twelve).save(root / "[bold]twelve.png")


UNUSABLE = {
    "short.jpg": "damaged",
    "short.png": "damaged",
    "empty.jpg": "damaged",
    "text.jpg": "damaged",
    "tiny.png": "too few",
    "black.png": "one colour",
    "floating.tif": "floating-point",
    "[bold]twelve.png": "uses 12",
}


@pytest.mark.parametrize("small", [1000, 2])
def test_unusable_files_are_skipped_counted_and_named(tmp_path, monkeypatch, capsys, small):
    monkeypatch.setattr(build, "SMALL_COLLECTION", small)
    root = write_images(tmp_path / "root")
    write_unusable(root)
    (root / "notes.txt").write_text("not even by name")
    (root / "._0.jpg").write_text("what another system leaves")
    data = prepared(root, tmp_path / "cache", num_val=200, num_test=200, patch_size=8)
    for split in SPLITS:
        assert len(data.splits[split]) == data.recipe.number(split)
        assert not set(data.images(split)) & set(UNUSABLE)
    skipped = json.loads((data._folder / "images.json").read_text())["skipped"]
    assert set(skipped) == set(UNUSABLE)
    assert all(UNUSABLE[name] in reason for name, reason in skipped.items())
    shown = " ".join(capsys.readouterr().err.split())
    assert "8 files skipped: [bold]twelve.png uses 12" in shown
    assert "black.png is all of one colour;" in shown
    assert "and 5 more" in shown


def test_decompression_bombs_are_refused(tmp_path, monkeypatch):
    textured(1).save(tmp_path / "bomb.png")
    monkeypatch.setattr(decode, "MOST_PIXELS", 64 * 80 - 1)
    with pytest.raises(UnusableImage, match=r"80×64 pixels, too many"):
        read_grey(tmp_path / "bomb.png", 64, 52)
    monkeypatch.setattr(decode, "MOST_PIXELS", 64 * 80)
    with pytest.raises(UnusableImage, match="too long a strip"):
        read_grey(tmp_path / "bomb.png", 256, 52)


def test_a_real_bomb_is_refused_before_it_unfolds(tmp_path):
    root = write_images(tmp_path / "root")
    with Image.new("1", (10_000, 10_000)) as image:
        image.save(root / "bomb.png")
    data = prepared(root, tmp_path / "cache")
    skipped = json.loads((data._folder / "images.json").read_text())["skipped"]
    assert list(skipped) == ["bomb.png"]


def test_patches_without_contrast_are_drawn_again(tmp_path):
    for index in range(6):
        image = textured(index, (64, 256))
        image.paste((90, 90, 90), (64, 0, 256, 64))
        (tmp_path / "root").mkdir(exist_ok=True)
        image.save(tmp_path / "root" / f"{index}.png")
    data = prepared(tmp_path / "root", tmp_path / "cache")
    for split in SPLITS:
        inputs = data.splits[split].__getitems__(list(range(20))).inputs
        assert inputs.std(1).min() > 0.499


# Folders that cannot work.


def test_too_few_images_says_how_many_are_needed(tmp_path):
    root = write_images(tmp_path / "root", 2)
    (root / "text.jpg").write_text("not an image")
    with pytest.raises(DataError, match=r"2 usable images \(1 file skipped: text.jpg.*least 3"):
        prepared(root, tmp_path / "cache")
    assert contents(tmp_path / "cache") == {}


@pytest.mark.parametrize("small", [1000, 2])
def test_too_few_images_for_a_number_of_crops(root, tmp_path, monkeypatch, small):
    monkeypatch.setattr(build, "SMALL_COLLECTION", small)
    with pytest.raises(DataError, match=r"least 130 are needed with data.crops_per_image=1"):
        prepared(root, tmp_path, crops_per_image=1)


def test_images_without_contrast_are_too_few_patches(tmp_path):
    (tmp_path / "root").mkdir()
    for index in range(4):
        image = Image.new("L", (64, 64), 100 + index)
        image.putpixel((0, 0), 0)
        image.save(tmp_path / "root" / f"{index}.png")
    expected = r"0 of data.num_train=90 patches.*data.threshold=0.5.*at most\. Lower data.threshold"
    with pytest.raises(DataError, match=expected):
        prepared(tmp_path / "root", tmp_path / "cache")


@pytest.mark.parametrize("small", [1000, 2])
def test_an_impossible_threshold_is_what_is_at_fault(root, tmp_path, monkeypatch, small):
    monkeypatch.setattr(build, "SMALL_COLLECTION", small)
    with pytest.raises(DataError, match=r"gives 0 of .*at most\. Lower data.threshold") as error:
        prepared(root, tmp_path, threshold=4.0)
    assert "add images" not in str(error.value)
    largest = float(re.search(r"and ([\d.]+) at most", str(error.value)).group(1))
    assert 0.5 < largest < 4
    assert contents(tmp_path) == {}


def test_no_patch_is_above_the_largest_deviation():
    recipe = Recipe(patch_size=4, kernel_size=5, kernel_sigma=1.0, shorter_side=12)
    # A single bright pixel under each place of a patch comes nearest to the bound.
    spikes = torch.zeros(16, 12, 12)
    for place in range(16):
        spikes[place, 4 + place // 4, 4 + place % 4] = 1e6
    noise = torch.randn(200, 12, 12)
    for images in (spikes, noise, noise.sign()):
        normalized, _, _ = local_contrast_normalize(images, 5, 1.0, floor=0.0)
        assert normalized.flatten(1).std(1).max() <= recipe.largest_deviation
    with pytest.raises(SettingError, match=r"data\.threshold=50 is more than the .* any patch"):
        Recipe(threshold=50)


def test_folders_that_are_missing_empty_or_loops_are_one_sentence(root, tmp_path):
    with pytest.raises(DataError, match=r"data.root=.*No such file or directory"):
        prepared(tmp_path / "nowhere", tmp_path / "cache")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"data.root=.*holds no image files"):
        prepared(tmp_path / "empty", tmp_path / "cache")
    with pytest.raises(DataError, match="is a file"):
        prepared(next(root.rglob("*.jpg")), tmp_path / "cache")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DataError, match=r"data.root=.*symbolic links"):
        prepared(tmp_path / "loop", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_what_is_passed_over_is_counted_and_named(root, tmp_path, capsys, monkeypatch):
    copy = tmp_path / "root"
    shutil.copytree(root, copy)
    for name in ("b.HEIC", "a.heic", "deep.CR2", "more.tar.gz", "noname", "labels.csv", ".hidden"):
        (copy / name).write_text("")
    (copy / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (copy / "locked").mkdir()
    listed = os.listdir

    def refused(folder):
        if str(folder).endswith("locked"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
        return listed(folder)

    monkeypatch.setattr(os, "listdir", refused)
    assert len(find_photographs(copy)) == len(find_photographs(root))
    said = capsys.readouterr().err
    for expected in (
        "2 folders or files cannot be read, and nothing of them is used: "
        "gone.jpg (No such file or directory), locked (Permission denied); allow reading",
        "1 .cr2 file (the first deep.CR2), 2 .heic files (the first a.heic) passed over: convert",
        "1 extensionless file (the first noname)",
        "1 .gz file (the first more.tar.gz) passed over: unpack",
    ):
        assert expected in said
    assert "labels" not in said
    assert "hidden" not in said


def test_a_folder_of_other_kinds_says_which(tmp_path):
    for name in ("a.heic", "b.heic", "c.txt"):
        (tmp_path / name).write_text("")
    told = r"no image files .*: 2 \.heic files .*1 \.txt file.* With data=imagenet_patches"
    with pytest.raises(DataError, match=told):
        find_photographs(tmp_path)


def test_links_that_lead_round_in_circles_end(root, tmp_path):
    copy = tmp_path / "root"
    shutil.copytree(root, copy)
    (copy / "class0" / "up").symlink_to(copy)
    (copy / "class1" / "self.jpg").symlink_to(copy / "class1" / "self.jpg")
    assert find_photographs(copy)[0].name == "class0/0.PNG"
    assert len(find_photographs(copy)) == 9


@pytest.mark.parametrize("small", [1000, 2])
def test_a_folder_that_vanishes_leaves_no_cache(tmp_path, monkeypatch, small):
    monkeypatch.setattr(build, "SMALL_COLLECTION", small)
    root = write_images(tmp_path / "root")
    found = find_photographs(root)
    shutil.rmtree(root)
    data = ImagePatches(root, tmp_path / "cache", **SMALL)
    monkeypatch.setattr(data, "_photographs", lambda: found)
    with pytest.raises(DataError, match="has vanished"):
        data.prepare_data()
    assert contents(tmp_path / "cache") == {}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("batch_size", 0),
        ("num_workers", 0),
        ("num_val", 0),
        ("num_train", 2.5),
        ("crops_per_image", 0),
        ("patch_size", 1),
        ("kernel_size", 4),
        ("kernel_sigma", 0.0),
        ("grey_std", float("nan")),
        ("threshold", -1.0),
        ("shorter_side", 51),
    ],
)
def test_settings_that_cannot_work_are_named(setting, value):
    with pytest.raises(SettingError, match=f"data.{setting}={value}"):
        ImagePatches(None, "unused", **{setting: value})


def test_a_batch_of_one_sample_is_refused_where_variance_matters(root):
    with pytest.raises(SettingError, match=r"data.num_train=91 with data.batch_size=10"):
        ImagePatches(
            root, "unused", **(SMALL | {"num_train": 91, "batch_size": 10})
        ).require_variance()
    ImagePatches(root, "unused", **SMALL, batch_size=10).require_variance()


# Without a folder.


def test_sample_photographs_stand_in_and_say_so(tmp_path, capsys):
    assert len(sample_photographs()) == 12
    data = prepared(None, tmp_path, shorter_side=256)
    data.prepare_data()
    shown = " ".join(capsys.readouterr().err.split())
    assert shown.count("WARNING") == 1
    assert "NOT from ImageNet" in shown
    assert data.title == SAMPLE_TITLE == "sample photographs (not ImageNet)"
    assert data.tags == ["sample photographs"]
    assert [len(data.splits[split]) for split in SPLITS] == [90, 20, 20]
    assert {len(set(data.images(split))) for split in ("val", "test")} == {2}


def test_the_environment_names_the_folder(root, compose, monkeypatch):
    monkeypatch.setenv("IMAGENET_DIR", str(root))
    data = instantiate(compose("data=imagenet_patches").data)
    assert data.root == root
    assert data.tags == []
    assert "sample" not in data.title
    # A run on sample photographs stays one, whatever the environment says later.
    assert ImagePatches(None, "unused").root is None
    monkeypatch.setenv("IMAGENET_DIR", "")
    assert instantiate(compose("data=imagenet_patches").data).root is None


def test_the_configuration_composes_for_every_family(compose):
    config = compose("model=vdl_nl", "data=imagenet_patches")
    assert config.data.root is None
    assert config.model.decoder.code_dim == 256
    assert config.model.energy.encoder_weight == 40
    for level, weight in ((0, 20), (2, 20), (3, 40), (6, 40)):
        config = compose("model=vdl_nl", "data=imagenet_patches", f"sparsity_level={level}")
        assert config.model.energy.encoder_weight == weight
    for by_hand, weight in ((0.002, 20), (0.0099, 20), (0.01, 40), (0.05, 40)):
        config = compose(
            "model=vdl_nl", "data=imagenet_patches", f"model.energy.sparsity_weight={by_hand}"
        )
        assert config.model.energy.encoder_weight == weight
    names = set(Recipe.__dataclass_fields__)
    assert names <= set(config.data)
    assert all(config.data[name] == getattr(Recipe(), name) for name in names)
