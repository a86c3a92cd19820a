"""Scores of single examples, the areas under their curves, thresholds, windows of a series: computed a second way."""

import csv
import itertools
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import command
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import aetrain
from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.data.series import CLASSES, Series, draw_series
from aetrain.data.table import Table
from aetrain.data.table_content import TableContent
from aetrain.data.user_files import Array
from aetrain.data.windows import make_windows
from aetrain.evaluation.comparability import ranking_obstacles
from aetrain.evaluation.evaluator import known_sse
from aetrain.evaluation.example_scores import NUM_NEIGHBOURS, SCORES, ExampleScorer, score_names
from aetrain.evaluation.measures.anomaly import Anomaly
from aetrain.evaluation.metric_direction import better_direction
from aetrain.modes.evaluate import load_trained
from aetrain.modes.score import choose_threshold
from aetrain.views.scored_examples import image_errors_picture

WINE = ("dataset=wine", "batch_size=32", "views=none", "device=cpu", "model.hidden=[16]", "model.code_dim=2")
NORMAL = "dataset.train_classes=[class 0]"


def area_by_pairs(is_anomaly: Array, scores: Array) -> float:
    """Return the share of pairs of an anomaly and a normal example in which the anomaly has the higher score."""
    higher = scores[is_anomaly][:, None] - scores[~is_anomaly][None]
    return float(((higher > 0) + 0.5 * (higher == 0)).mean())


def precision_by_thresholds(is_anomaly: Array, scores: Array) -> float:
    """Return the sum of precision x growth of recall over all thresholds, the highest first."""
    total, recall = 0.0, 0.0
    for threshold in sorted({*scores.tolist()}, reverse=True):
        is_found = scores >= threshold
        new_recall = float(is_anomaly[is_found].sum() / is_anomaly.sum())
        total += float(is_anomaly[is_found].mean()) * (new_recall - recall)
        recall = new_recall
    return total


# --- Scores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["deep", "vae"])
def test_scores_of_examples_are_those_of_the_metrics_and_of_brute_force(model: str, run: Callable[..., Path]) -> None:
    trained = aetrain.load(run(*WINE, f"model={model}", "epochs=2"))
    splits, prepare = trained.data, trained.dataset.prepare
    scorer = ExampleScorer.fit(trained.model, splits.train, prepare)
    scores = scorer.score(splits.test, prepare)
    assert tuple(scores) == score_names(trained.model)
    assert set(scores) <= set(SCORES)
    _, nll, _ = scores
    assert nll == ("nll_kl" if model == "vae" else "nll")
    expected = trained.metrics["test/nll"] + trained.metrics.get("test/kl", 0.0)
    assert scores["sse"].mean() == pytest.approx(trained.metrics["test/sse"], rel=1e-5)
    assert scores[nll].mean() == pytest.approx(expected, rel=1e-5)
    with torch.no_grad():
        train, test = (trained.model.encode(part.pixels).z for part in (splits.train, splits.test))
    sorted_distances = torch.cdist(test, train).sort(dim=1).values
    np.testing.assert_allclose(scores["code_distance"], sorted_distances[:, NUM_NEIGHBOURS - 1], rtol=1e-3, atol=1e-4)
    own = torch.cdist(train, train).fill_diagonal_(torch.inf).sort(dim=1).values
    of_training = scorer.score(splits.train, prepare, are_training=True)
    np.testing.assert_allclose(of_training["code_distance"], own[:, NUM_NEIGHBOURS - 1], rtol=1e-3, atol=1e-4)


def test_the_score_of_an_example_does_not_depend_on_the_others(run: Callable[..., Path]) -> None:
    trained = aetrain.load(run(*WINE, "model=vae", "epochs=1"))
    splits, prepare = trained.data, trained.dataset.prepare
    scorer = ExampleScorer.fit(trained.model, splits.train, prepare)
    together, alone = scorer.score(splits.test, prepare), scorer.score(splits.test[3:4], prepare)
    for name, values in together.items():
        assert alone[name][0] == pytest.approx(values[3], rel=1e-5)
    assert all(len(values) == 0 for values in scorer.score(splits.test[:0], prepare).values())


def test_scores_leave_missing_values_out(run: Callable[..., Path]) -> None:
    trained = aetrain.load(run(*WINE, "model=deep", "dataset.missing=0.3", "epochs=1"))
    splits, prepare = trained.data, trained.dataset.prepare
    scores = ExampleScorer.fit(trained.model, splits.train, prepare).score(splits.test, prepare)
    x = splits.test.pixels
    with torch.no_grad():
        errors = (trained.model.reconstruct(x) - x).square().flatten(1).nansum(1)
    np.testing.assert_allclose(scores["sse"], errors, rtol=1e-5)


def test_scores_of_a_model_that_is_not_finite_are_not_finite(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tiny("model=deep", "epochs=0")

    def load_damaged(*arguments: Any) -> Any:
        source, components, epoch = load_trained(*arguments)
        for parameter in components.model.decoder.parameters():
            parameter.data.fill_(torch.nan)
        return source, components, epoch

    monkeypatch.setattr("aetrain.modes.score.load_trained", load_damaged)
    with pytest.raises(ConfigError, match=r"the scores of .* are not finite"):
        api.run([f"run={directory}", "mode=score"])


def test_only_missing_values_are_left_out_of_an_error() -> None:
    x, expected = torch.tensor([[1.0, torch.nan], [1.0, 2.0]]), torch.tensor([[3.0, 5.0], [torch.nan, 2.0]])
    assert known_sse(expected, x).tolist() == pytest.approx([4.0, torch.nan], nan_ok=True)


# --- The measure ------------------------------------------------------------------------------------------------------


def test_areas_of_each_held_out_class_and_of_all(run: Callable[..., Path]) -> None:
    directory = run(*WINE, "model=vae", NORMAL, "epochs=3", "measures=anomaly")
    trained = aetrain.load(directory)
    splits, metrics, prepare = trained.data, trained.metrics, trained.dataset.prepare
    assert splits.train.classes.unique().tolist() == [0]
    scores = ExampleScorer.fit(trained.model, splits.train, prepare).score(splits.test, prepare)
    rows = splits.test.pixels.flatten(1).double().numpy()
    train = splits.train.pixels.flatten(1).double().numpy()
    mean = train.mean(0)
    components = np.linalg.svd(train - mean, full_matrices=False)[2][:2]
    scores["pca"] = np.square((rows - mean) - (rows - mean) @ components.T @ components).sum(1)
    classes = splits.test.classes.numpy()
    for score, ending in {"sse": "", "nll_kl": "_nll_kl", "code_distance": "_code_distance", "pca": "_pca"}.items():
        for name, numbers in {"": [1, 2], "_class_1": [1], "_class_2": [2]}.items():
            kept = np.isin(classes, [0, *numbers])
            pair = np.isin(classes, numbers)[kept], scores[score][kept]
            assert metrics[f"test/roc_auc{name}{ending}"] == pytest.approx(area_by_pairs(*pair), abs=2e-3)
            expected = precision_by_thresholds(*pair)
            assert metrics[f"test/average_precision{name}{ending}"] == pytest.approx(expected, abs=2e-3)
    assert 0.5 < metrics["test/roc_auc_class_2_forest"] <= 1
    assert better_direction("test/roc_auc") == better_direction("test/average_precision_class_2") == "higher"
    table = (directory / "metrics.txt").read_text()
    assert "score: Euclidean distance from the code" in table


def test_areas_are_ranked_between_runs_of_the_same_usual_classes() -> None:
    first: dict[str, Any] = {"dataset.train_classes": "[0]", "model.code_dim": 2}
    others = [first | {"model.code_dim": 4}, first | {"dataset.train_classes": "[1]"}]
    for tag in ("test/roc_auc", "test/average_precision_3_pca", "test/roc_auc_forest"):
        assert ranking_obstacles(tag, [first, others[0]]) == []
        assert ranking_obstacles(tag, [first, others[1]]) == ["dataset.train_classes"]
    assert ranking_obstacles("test/sse", [first, others[1]]) == []


def test_a_measure_of_anomalies_needs_a_class_that_is_held_out(run: Callable[..., Path]) -> None:
    with pytest.raises(
        ConfigError, match=r"normal=null leaves no anomaly .* such as dataset.train_classes=\[class 0\]"
    ):
        run(*WINE, "model=deep", "measures=anomaly", name="all")
    with pytest.raises(ConfigError, match=r"measures\.anomaly: this measure needs the classes"):
        run("dataset=diabetes", "views=none", "model=deep", "measures=anomaly", name="none")
    splits = api.load(run(*WINE, "model=deep", "epochs=0", NORMAL, name="one")).data
    only_others = splits.test[(splits.test.classes != 0).nonzero().flatten()]
    with pytest.raises(ValueError, match="normal=null leaves no normal example"):
        Anomaly().check_images(type(splits)(splits.train, splits.validation, only_others))


# --- Thresholds and mode=score ----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.floats(0.001, 0.999))
def test_at_most_the_rate_of_the_reference_is_above_the_threshold(values: list[float], rate: float) -> None:
    reference = np.array(values)
    threshold = choose_threshold(reference, rate)
    assert (reference > threshold).mean() <= rate
    lower = reference[reference < threshold]
    if len(lower):  # no lower score would do
        assert (reference > lower.max()).mean() > rate - 1e-9


def read_csv(file: Path) -> list[dict[str, str]]:
    """Return the rows of a table with a header."""
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_mode_score_writes_a_table_and_pictures(tiny: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    directory = tiny("model=vae", "dataset.train_classes=[0,1]", "dataset.subset=200", "dataset.validation=40")
    with caplog.at_level("INFO", "aetrain"):
        api.run([f"run={directory}", "mode=score", "mode.false_positive_rate=0.1"])
    assert "exceeded by at most 10% of 40 validation images" in caplog.text
    assert "flagged by class: 0 " in caplog.text
    trained = aetrain.load(directory)
    splits, prepare = trained.data, trained.dataset.prepare
    scorer = ExampleScorer.fit(trained.model, splits.train, prepare)
    scores, reference = scorer.score(splits.test, prepare), scorer.score(splits.validation, prepare)["sse"]
    rows = read_csv(directory / "score" / "scores.csv")
    assert [*rows[0]] == ["row", "class", "sse", "nll_kl", "code_distance", "flagged"]
    written = np.array([float(row["sse"]) for row in rows])
    assert (np.diff(written) <= 0).all(), "the most unusual comes first"
    np.testing.assert_allclose(written, np.sort(scores["sse"])[::-1], rtol=1e-5)
    threshold = np.sort(reference)[-5]  # four of 40 are above it
    assert [int(row["flagged"]) for row in rows] == [*(written > threshold).astype(int)]
    assert splits.test.rows is not None
    labels = map(splits.test.class_name, splits.test.classes.tolist())
    by_row = dict(zip(splits.test.rows.tolist(), labels, strict=True))
    assert all(by_row[int(row["row"])] == row["class"] for row in rows)
    assert not (directory / "score" / "feature_errors.csv").exists()
    for name in ("most_unusual", "least_unusual"):
        with Image.open(directory / "score" / f"{name}.png") as picture:
            assert picture.width > 800


@pytest.mark.parametrize("words", [["dataset.binarize=dynamic"], ["dataset.random_crop=6"]])
def test_pictures_show_the_draws_that_were_scored(
    words: list[str], tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tiny("model=linear", "model.code_dim=3", *words)
    pictures: list[tuple[torch.Tensor, torch.Tensor]] = []

    def record(title: str, x: torch.Tensor, reconstructed: torch.Tensor, labels: Any) -> Any:
        pictures.append((x, reconstructed))
        return image_errors_picture(title, x, reconstructed, labels)

    monkeypatch.setattr("aetrain.modes.score.image_errors_picture", record)
    monkeypatch.setattr("aetrain.evaluation.example_scores.BATCH_SIZE", 10)
    api.run([f"run={directory}", "mode=score", "mode.count=5"])
    scores = [float(row["sse"]) for row in read_csv(directory / "score" / "scores.csv")]
    model = aetrain.load(directory).model
    for (x, reconstructed), expected in zip(pictures, (scores[:5], scores[:-6:-1]), strict=True):
        with torch.no_grad():
            errors = (model.likelihood.mean(model(x).decoded) - x).square().flatten(1).sum(1)
        assert errors.tolist() == pytest.approx(expected, rel=1e-4)
        assert reconstructed.shape == x.shape


def test_other_images_are_scored_against_the_data_of_the_run(tiny: Callable[..., Path], tmp_path: Path) -> None:
    directory = tiny("model=deep", "dataset.validation=20")
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
        (tmp_path / "mine" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "mine" / "ab"[number % 2] / f"{number}.png")
    words = [
        f"run={directory}",
        "mode=score",
        "dataset=folder",
        "dataset.size=8",
        f"dataset.path='{tmp_path / 'mine'}'",
    ]
    api.run([*words, "mode.score=code_distance", "mode.count=3"])
    (file,) = directory.glob("eval/*/score/scores.csv")
    rows = read_csv(file)
    assert {row["file"] for row in rows} == {f"{'ab'[number % 2]}/{number}.png" for number in range(12)}
    assert all(row["class"] == row["file"][0] for row in rows)
    trained = aetrain.load(directory)
    splits, prepare = trained.data, trained.dataset.prepare
    scorer = ExampleScorer.fit(trained.model, splits.train, prepare)
    threshold = scorer.score(splits.validation, prepare)["code_distance"].max()  # 1% of 20 is none
    assert all(int(row["flagged"]) == (float(row["code_distance"]) > threshold) for row in rows)
    with Image.open(tmp_path / "mine" / rows[0]["file"]) as picture:
        image = np.asarray(picture)[None, None]
    error = np.square(trained.reconstruct(image) - image / 255).sum()
    assert float(rows[0]["sse"]) == pytest.approx(error, rel=1e-4)
    assert not (directory / "score").exists()


def test_another_table_is_scored_by_feature(tmp_path: Path, run: Callable[..., Path], caplog: Any) -> None:
    rng = np.random.default_rng(0)
    for name, shift in (("train", 0.0), ("other", 8.0)):
        rows = rng.normal(0, 1, (60, 3)).round(4)
        rows[7, 1] += shift
        (tmp_path / f"{name}.csv").write_text("\n".join(["a,b,c", *(",".join(map(str, row)) for row in rows)]))
    words = ["dataset=table", f"dataset.path='{tmp_path / 'train.csv'}'", "model=linear", "model.code_dim=1"]
    directory = run(*words, "views=none", "device=cpu", "epochs=3")
    with caplog.at_level("INFO", "aetrain"):
        api.run([f"run={directory}", "mode=score", f"dataset.path='{tmp_path / 'other.csv'}'", "mode.count=2"])
    assert "there are no validation examples" in caplog.text
    (folder,) = directory.glob("eval/*/score")
    scores, errors = read_csv(folder / "scores.csv"), read_csv(folder / "feature_errors.csv")
    assert scores[0]["row"] == "7"
    assert scores[0]["flagged"] == "1"
    assert [*errors[0]] == ["row", "a", "b", "c"]
    for score, error in zip(scores, errors, strict=True):
        assert score["row"] == error["row"]
        assert sum(float(error[name]) for name in "abc") == pytest.approx(float(score["sse"]), rel=1e-3)
    assert max("abc", key=errors[0].__getitem__) == "b" or float(errors[0]["b"]) > 10


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mode.false_positive_rate=0"], "mode.false_positive_rate=0.* is out of range"),
        (["mode.count=0"], "mode.count=0 shows nothing"),
        (["mode.score=nll_kl"], "mode.score=nll_kl is no score of this model: use sse, nll or code_distance"),
        (["mode.rate=1"], "mode.rate"),
    ],
)
def test_settings_of_mode_score_are_checked(words: list[str], message: str, tiny: Callable[..., Path]) -> None:
    directory = tiny("model=linear", "epochs=0")
    with pytest.raises(ConfigError, match=message):
        api.run([f"run={directory}", "mode=score", *words])
    assert not (directory / "score").exists()
    with pytest.raises(ConfigError, match="mode=score needs a run"):
        api.run(["mode=score"])


# --- Windows of a series ----------------------------------------------------------------------------------------------


@settings(deadline=None)  # the first call imports pandas
@given(st.data())
def test_windows_are_rows_of_one_split_in_order(data: st.DataObject) -> None:
    import pandas as pd

    count = data.draw(st.integers(6, 40))
    window, stride = data.draw(st.integers(2, 5)), data.draw(st.integers(1, 4))
    boundary = data.draw(st.integers(5, count - 1)) if count > 5 else 5
    splits = np.array(["train"] * boundary + ["test"] * (count - boundary))
    values = np.arange(2.0 * count).reshape(count, 2)
    values[data.draw(st.integers(0, count - 1)), 1] = np.nan
    labels = np.array(data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)))
    content = TableContent(pd.DataFrame(values, columns=["a", "b"]), labels, ("x", "y", "z"), splits)
    if count - boundary < window:
        with pytest.raises(ValueError, match=f"window={window} is longer than all {count - boundary} test rows"):
            make_windows(content, window, stride, 0.1)
        return
    windows = make_windows(content, window, stride, 0.1)
    starts = [
        start for low, high in ((0, boundary), (boundary, count)) for start in range(low, high - window + 1, stride)
    ]
    expected = [[*values[start : start + window, 0], *values[start : start + window, 1]] for start in starts]
    np.testing.assert_array_equal(windows.frame.to_numpy(), np.array(expected))
    lags = [f"t-{lag}" if lag else "t" for lag in reversed(range(window))]
    assert [*windows.frame.columns] == [f"{name}[{lag}]" for name in "ab" for lag in lags]
    assert windows.places is not None
    assert windows.labels is not None
    assert windows.places.tolist() == [start + window - 1 for start in starts]
    frequency = [(labels == label).sum() for label in range(3)]
    for start, label in zip(starts, windows.labels, strict=True):
        part = labels[start : start + window]
        assert label in part
        assert frequency[label] == min(frequency[other] for other in part)


def write_series(file: Path, extra: str = "") -> None:
    """Write a table of 100 rows with two numbers, a missing value and a class."""
    lines = [f"{row},{'' if row == 50 else row**2},{'odd' if row == 95 else 'usual'}{extra}" for row in range(100)]
    file.write_text("\n".join([f"a,b,kind{',day' * bool(extra)}", *lines]))


def test_a_table_as_windows(tmp_path: Path, run: Callable[..., Path]) -> None:
    write_series(tmp_path / "series.csv")
    dataset = Table(
        path=str(tmp_path / "series.csv"), label="kind", window=4, stride=2, validation=5, test_fraction=0.2
    )
    splits = dataset.load()
    assert splits.test.rows is not None
    assert splits.test.rows.tolist() == [*range(83, 100, 2)], "the last fifth of the rows"
    assert splits.validation.rows is not None
    assert splits.validation.rows.tolist() == [71, 73, 75, 77, 79]
    assert splits.train.rows is not None
    assert splits.train.rows.tolist() == [*range(3, 68, 2)], "no row of a validation window"
    assert [splits.test.class_name(label) for label in splits.test.classes.tolist()] == ["usual"] * 6 + ["odd"] * 2 + [
        "usual"
    ]
    assert splits.train.feature_names[:4] == ("a[t-3]", "a[t-2]", "a[t-1]", "a[t]")
    is_missing = splits.train.pixels.flatten(1).isnan()
    assert is_missing.sum() == 2, "row 50 is in the windows that end in rows 51 and 53"
    words = ["dataset=table", f"dataset.path='{tmp_path / 'series.csv'}'", "dataset.label=kind", "dataset.window=4"]
    directory = run(*words, "model=linear", "model.code_dim=2", "epochs=1", "views=none", "device=cpu")
    api.run([f"run={directory}", "mode=score", f"dataset.path='{tmp_path / 'series.csv'}'"])
    (file,) = directory.glob("eval/*/score/scores.csv")
    rows = sorted(int(row["row"]) for row in read_csv(file))
    assert rows == [*range(3, 100)], "a file that the command line names has no split"


def test_mistakes_in_windows(tmp_path: Path) -> None:
    write_series(tmp_path / "series.csv", ",monday")
    path = str(tmp_path / "series.csv")
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"window": 1}, "window=1 is no window"),
        ({"window": 4, "stride": 0}, "stride=0 is too small"),
        ({"window": 4, "label": "kind"}, r"column 'day' has texts.*dataset.drop=\[day\]"),
        ({"window": 4, "categorical": ["a"]}, "window=4 is for numbers alone"),
        ({"window": 30, "label": "kind", "drop": ["day"]}, "window=30 is longer than all 10 test rows"),
        ({"window": 8, "label": "kind", "drop": ["day"], "validation": 80}, "leaves nothing to train on"),
    ]
    for arguments, message in mistakes:
        with pytest.raises(ValueError, match=message):
            Table(path=path, **arguments).load()


def test_an_array_as_windows(tmp_path: Path) -> None:
    x = np.sin(np.arange(300))[:, None]
    words = ["model=linear", "model.code_dim=2", "dataset.window=5", "epochs=1", "views=none", "device=cpu"]
    trained = aetrain.run(words, data=x, directory=tmp_path / "run")
    assert len(trained.data.train) == 270 - 4
    assert trained.encode(np.zeros((3, 5))).shape == (3, 2)


def test_the_generated_series_has_the_stated_anomalies() -> None:
    signal, labels = draw_series(60_000)
    again, _ = draw_series(60_000)
    np.testing.assert_array_equal(signal, again)
    runs = [(kind, len([*group])) for kind, group in itertools.groupby(labels.tolist()) if kind]
    assert [kind for kind, _ in runs] == [1 + number % 3 for number in range(150)]
    lengths = {CLASSES[kind]: [length for other, length in runs if other == kind] for kind in (1, 2, 3)}
    assert set(lengths["spike"]) == {1}
    assert 30 <= min(lengths["shift"]) <= max(lengths["shift"]) <= 90
    assert 90 <= min(lengths["frequency"]) <= max(lengths["frequency"]) <= 150
    beats = signal[labels == 0]
    peaks = np.flatnonzero((beats[1:-1] > 0.6) & (beats[1:-1] >= beats[:-2]) & (beats[1:-1] > beats[2:]))
    assert len(beats) / len(peaks) == pytest.approx(60, rel=0.05), "rows of a beat"
    splits = Series(length=6000).load()
    assert splits.train.rows is not None
    assert int(splits.train.rows.max()) < 3000
    assert splits.test.num_classes == 4
    with pytest.raises(ValueError, match="length=1000 is too short"):
        Series(length=1000)


def test_windows_of_the_series_are_found(run: Callable[..., Path]) -> None:
    words = ["experiment=series_outliers", "dataset.length=12000", "dataset.validation=100", "epochs=8", "views=none"]
    metrics = json.loads((run(*words, "device=cpu") / "metrics.json").read_text())
    assert metrics["test/roc_auc"] > metrics["test/roc_auc_pca"] > 0.5


# --- The document -----------------------------------------------------------------------------------------------------

DOCUMENT = (ROOT / "docs" / "anomalies.md").read_text()
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"^aetrain .*$", DOCUMENT, re.M)]
QUICK = ["epochs=1", "dataset.subset=128", "dataset.test_subset=256", "views=none", "device=cpu"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of a user, with a run, images and a series."""
    (training,) = [words for words in COMMANDS if "dataset=digits" in words]
    assert command([*training, *QUICK, "hydra.run.dir=RUN"], tmp_path).code == 0
    (tmp_path / "my" / "images").mkdir(parents=True)
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "my" / "images" / f"{number}.png")
    rows = [f"{np.sin(row / 5):.3f},{np.cos(row / 7):.3f}" for row in range(400)]
    (tmp_path / "my" / "series.csv").write_text("\n".join(["load,heat", *rows]))
    return tmp_path


def test_commands_of_the_document(folder: Path) -> None:
    assert len(COMMANDS) == 7
    for words in COMMANDS:
        extra = [] if "mode=score" in words else [*QUICK, f"hydra.run.dir=run-{len(words)}"]
        if "experiment=one_class" in words:
            continue  # it needs the archives of MNIST
        outcome = command([*words, *extra], folder)
        assert outcome.code == 0, outcome.err
    assert len([*folder.rglob("scores.csv")]) == 2


@pytest.mark.data
def test_experiment_one_class(run: Callable[..., Path], data_dir: Path) -> None:
    words = [*COMMANDS[-1], *QUICK, f"data_dir={data_dir}"]
    metrics = json.loads((run(*words) / "metrics.json").read_text())
    assert "test/roc_auc_9_code_distance" in metrics
    assert "test/roc_auc_3" not in metrics, "3 is the usual digit"


def test_tables_of_the_document_are_those_of_the_records() -> None:
    figures = json.loads((ROOT / "docs" / "experiments" / "series_outliers.json").read_text())["figures"]
    scores = ("distance of codes", "squared error", "PCA", "isolation forest")
    for row in {text.partition(",")[0] for text in figures}:
        cells = [f"{figures[f'{row}, {score}'][0]:.3f}" for score in scores]
        assert f"| {row} | {' | '.join(cells)} |" in DOCUMENT
    runs = json.loads((ROOT / "docs" / "reproductions" / "one_class.json").read_text())
    for digit in range(10):
        metrics = runs[f"digit{digit}"]["0"]
        cells = [f"{metrics[f'test/roc_auc{ending}']:.3f}" for ending in ("_code_distance", "", "_pca", "_forest")]
        assert f"| {digit} | {' | '.join(cells)} |" in DOCUMENT
