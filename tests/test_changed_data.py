"""Data that changed under a run: resume refuses them, and modes that read them say in what they differ."""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command import everything_in
from conftest import TINY
from PIL import Image
from sklearn.datasets import load_digits
from test_packed import make_requests, train_packed

from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.data.digests import DataDigests, digest_data
from aetrain.data.examples import Examples, Splits
from aetrain.runs import entry, run_data
from aetrain.runs.build import build
from aetrain.selfcheck.fingerprint import differences, fingerprint
from aetrain.storage.checkpoint_state import CHECKPOINT, PREVIOUS, STATE_FILE, latest_state, read_state

SMALL = ("model=linear", "model.code_dim=2", "epochs=1", "batch_size=8", "views=none", "device=cpu")
NUM_IMAGES = 20


def write_image(file: Path, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(100, 256, (8, 8), np.uint8)).save(file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of images in two classes."""
    for number in range(NUM_IMAGES):
        write_image(tmp_path / "images" / "ab"[number % 2] / f"{number:02}.png", number)
    return tmp_path / "images"


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    """An .npz file of images with labels."""
    file = tmp_path / "images.npz"
    write_npz(file)
    return file


def write_npz(file: Path, seed: int = 0, labels: int = 2, count: int = NUM_IMAGES) -> None:
    pixels = np.random.default_rng(seed).integers(100, 256, (count, 8, 8), np.uint8)
    np.savez(file, x=pixels, y=np.arange(count) % labels)


def data_set(path: Path) -> list[str]:
    size = ["dataset.size=8"] if path.is_dir() else []
    return [f"dataset={'folder' if path.is_dir() else 'npz'}", f"dataset.path='{path}'", *size]


def resume(directory: Path, *overrides: str) -> Path:
    return api.run([f"resume={directory}", "epochs=2", *overrides]).directory


def test_changed_files_of_a_folder_are_named_and_nothing_is_written(run: Callable[..., Path], folder: Path) -> None:
    directory = run(*SMALL, *data_set(folder))
    shutil.copytree(folder, folder.with_name("copy"))
    whole = fingerprint(run(*SMALL, *data_set(folder), "epochs=2", name="whole"))
    for number in range(5):
        write_image(folder / "a" / f"new{number}.png", 100 + number)
    write_image(folder / "b" / "01.png", 200)
    (folder / "b" / "03.png").unlink()
    before = everything_in(directory)
    with pytest.raises(ConfigError) as refusal:
        resume(directory)
    assert (
        str(refusal.value)
        .splitlines()[0]
        .endswith(
            "was trained on other data: 5 files were added (a/new0.png, a/new1.png, a/new2.png, ...), "
            "1 file was removed (b/03.png), 1 file was changed (b/01.png)"
        )
    )
    assert "hydra.run.dir=" in str(refusal.value)
    assert everything_in(directory) == before
    resume(directory, f"dataset.path='{folder.with_name('copy')}'")  # the same data in another folder
    assert not differences(whole, fingerprint(directory))


def test_replaced_npz_is_refused_by_resume_and_evaluated_apart(
    run: Callable[..., Path], npz: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = run(*SMALL, *data_set(npz))
    metrics = json.loads((directory / "metrics.json").read_text())
    write_npz(npz, seed=1)
    with pytest.raises(
        ConfigError, match="trained on other data: other pixels of the 18 training images, other pixels"
    ):
        resume(directory)
    before = everything_in(directory)
    for mode in ("eval", "encode"):
        caplog.clear()
        api.run([f"run={directory}", f"mode={mode}"])
        (warning,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert "was trained on: other pixels of the 18 training images" in warning
    after = everything_in(directory)
    assert {name: content for name, content in after.items() if not name.startswith("eval")} == before
    (separate,) = directory.glob("eval/data=*")
    evaluated = json.loads((separate / "metrics.json").read_text())
    assert evaluated["status"] == "finished"
    assert evaluated["test/sse"] != metrics["test/sse"]
    assert (separate / "codes.npz").is_file()


def test_only_the_data_of_the_training_are_evaluated_in_the_directory_of_the_run(
    run: Callable[..., Path], npz: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = run(*SMALL, *data_set(npz))
    metrics = json.loads((directory / "metrics.json").read_text())
    shutil.copy(npz, npz.with_name("same.npz"))
    write_npz(npz.with_name("other.npz"), seed=1)
    caplog.clear()
    for other in ([], [f"dataset.path='{npz.with_name('same.npz')}'"], ["dataset=digits"]):
        api.run([f"run={directory}", "mode=eval", *other])
    assert not [record for record in caplog.records if record.levelno == logging.WARNING]
    assert not [*directory.glob("eval/data=*")]
    api.run([f"run={directory}", "mode=eval", f"dataset.path='{npz.with_name('other.npz')}'"])
    assert len([*directory.glob("eval/data=*")]) == 1
    assert json.loads((directory / "metrics.json").read_text())["test/sse"] == pytest.approx(metrics["test/sse"])


def test_run_without_digests_resumes_and_gets_them(run: Callable[..., Path], npz: Path) -> None:
    directory = run(*SMALL, *data_set(npz))
    for name in (CHECKPOINT, PREVIOUS):
        state = replace(read_state(directory / name), data={})
        (directory / name / STATE_FILE).write_bytes(state.to_json())
    before = (directory / "metrics.json").read_text()
    write_npz(npz.with_name("other.npz"), seed=3)
    api.run([f"run={directory}", "mode=eval", f"dataset.path='{npz.with_name('other.npz')}'"])
    assert len([*directory.glob("eval/data=*/metrics.json")]) == 1
    assert (directory / "metrics.json").read_text() == before
    write_npz(npz, seed=1)
    resume(directory)
    state_after = latest_state(directory)
    assert state_after is not None
    assert state_after.data["test"]["images"] == 2
    write_npz(npz, seed=2)
    with pytest.raises(ConfigError, match="trained on other data"):
        resume(directory, "epochs=3")


def test_a_damaged_list_of_files_leaves_a_message_with_the_counts(run: Callable[..., Path], folder: Path) -> None:
    directory = run(*SMALL, *data_set(folder))
    assert len(json.loads((directory / "data.json").read_text())["files"]) == NUM_IMAGES
    (directory / "data.json").write_text('{"files": {"a/00')
    for number in range(10):
        write_image(folder / "a" / f"new{number}.png", 100 + number)
    with pytest.raises(ConfigError, match="data: 18 training images then, 27 now, 2 test images then, 3 now"):
        resume(directory)


def splits_of(count: int = 4, *, labels: bool = True, names: bool = True, value: int = 1) -> Splits:
    pixels = torch.full((count, 1, 2, 2), value, dtype=torch.uint8)
    files = tuple(f"{number}.png" for number in range(count)) if names else ()
    images = Examples(pixels, torch.zeros(count).long() if labels else None, rows=torch.arange(count), file_names=files)
    return Splits(images[: count - 1], images[:0], images[count - 1 :])


def test_changes_are_described() -> None:
    def describe(before: Splits, now: Splits) -> str:
        return digest_data(now).describe_change(digest_data(before))

    unnamed = splits_of(names=False)
    assert describe(splits_of(), splits_of()) == ""
    assert describe(splits_of(), splits_of(5)) == "1 file was added (4.png)"
    assert describe(splits_of(5), splits_of()) == "1 file was removed (4.png)"
    assert describe(splits_of(), splits_of(value=2)) == "4 files were changed (0.png, 1.png, 2.png, ...)"
    assert describe(unnamed, splits_of(5, names=False)) == "3 training images then, 4 now"
    assert describe(unnamed, splits_of(names=False, labels=False)).startswith("other classes of the 3 training images")
    held_out = replace(unnamed, validation=unnamed.test)
    assert describe(unnamed, held_out) == "0 validation images then, 1 now"
    wide = replace(unnamed, test=Examples(torch.ones(1, 1, 2, 3, dtype=torch.uint8), torch.zeros(1).long()))
    assert describe(unnamed, wide) == "test images of shape [1, 2, 2] then, [1, 2, 3] now"


def test_files_of_a_large_folder_have_no_digests_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aetrain.data.digests.MAX_FILES", 3)
    assert digest_data(splits_of(3)).files
    assert not digest_data(splits_of(4)).files


def test_unused_files_are_compared_by_name(tmp_path: Path) -> None:
    whole = splits_of(6)
    cut = replace(whole, train=whole.train[:2])
    digests = digest_data(cut)
    assert digests.files == {**digest_data(whole).files, "2.png": None, "3.png": None, "4.png": None}
    run_data.write_files(tmp_path, digests)
    assert run_data.read_files(tmp_path) == digests.files
    assert digest_data(splits_of(7)).describe_change(DataDigests({}, digests.files)) == "1 file was added (6.png)"


def test_a_pack_refuses_changed_data(tmp_path: Path, npz: Path, caplog: pytest.LogCaptureFixture) -> None:
    common = [*SMALL, *data_set(npz), "dataset.subset=null"]
    train_packed(make_requests(tmp_path, common, ["seed=0", "seed=1"]))
    write_npz(npz, seed=1)
    requests = make_requests(tmp_path, [*common, "epochs=2"], ["seed=0", "seed=1"])
    train_packed(requests)
    assert caplog.text.count("is dropped from its pack") == 2
    for request in requests:
        assert "trained on other data: other pixels" in request.run_dir.outcome_file.read_text()
        assert request.run_dir.metrics()["epochs"] == 1


def test_digits_have_the_rows_of_scikit_learn() -> None:
    config, _, overrides = api.compose_config([*TINY, "dataset.classes=[3,8]", "dataset.validation=9"])
    splits = build(entry.check(config, overrides)).dataset.load()
    target = load_digits().target
    for images in (splits.train, splits.validation, splits.test):
        assert images.rows is not None
        assert [3 if label == 0 else 8 for label in images.classes.tolist()] == target[images.rows.numpy()].tolist()
