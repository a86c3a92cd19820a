"""Comparing runs: paired differences against brute force, the runs of a report, the plots of a numeric setting."""

import csv
import json
import math
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command import command
from conftest import ROOT, TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from written_runs import ParsedPage, write_run

from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.config.overrides import normalize, parse
from aetrain.data.examples import with_targets
from aetrain.evaluation.paired_difference import paired_difference
from aetrain.modes.example_errors import evaluate_run
from aetrain.modes.report import report
from aetrain.report.comparison import signed
from aetrain.report.groups import group_runs
from aetrain.report.numeric_axis import NumericAxis, is_geometric
from aetrain.report.page import write_report
from aetrain.report.pca_losses import loses_to_pca
from aetrain.report.run_folders import read_runs
from aetrain.report.sweep_plots import Panel, SweepPlot, make_sweep_plots
from aetrain.sweeps.sweep import Sweep
from aetrain.views.differing_examples import choose_differing_examples

DOCUMENT = (ROOT / "docs" / "comparing.md").read_text()

# --- The bootstrap ----------------------------------------------------------------------------------------------------


def test_the_interval_holds_the_mean_of_the_population_in_95_percent_of_samples() -> None:
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        first = generator.gamma(2.0, 1.0, 60)  # errors are skewed; their difference has mean -0.3
        second = first * generator.gamma(4.0, 0.25, 60) - 0.3
        pair = paired_difference(first, second)
        held += pair.low <= -0.3 <= pair.high
    assert 0.9 <= held / 200 <= 0.985


def test_the_interval_is_that_of_numpy_and_of_the_normal_distribution() -> None:
    generator = np.random.default_rng(1)
    first, second = generator.normal(3, 1, 400), generator.normal(3.2, 1, 400)
    pair = paired_difference(first, second)
    differences = second - first
    means = differences[generator.integers(400, size=(20_000, 400))].mean(1)
    half = 1.96 * differences.std() / math.sqrt(400)
    assert (pair.low, pair.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.08 * half)
    expected = differences.mean() - half, differences.mean() + half
    assert (pair.low, pair.high) == pytest.approx(expected, abs=0.08 * half)


def test_errors_are_paired() -> None:
    """Two models whose errors differ by a constant have an exact difference, however much examples differ."""
    errors = np.random.default_rng(2).gamma(1.0, 100.0, 50)
    pair = paired_difference(errors, errors + 0.5)
    assert (pair.difference, pair.low, pair.high) == pytest.approx((0.5, 0.5, 0.5))
    assert pair.is_clear
    assert not paired_difference(errors, errors).is_clear


values = st.lists(st.floats(0, 1e3), min_size=1, max_size=30)


@settings(max_examples=40, deadline=None)
@given(first=values, shift=values)
def test_differences_are_antisymmetric_and_the_same_at_every_call(first: list[float], shift: list[float]) -> None:
    count = min(len(first), len(shift))
    a, b = np.array(first[:count]), np.array(shift[:count])
    pair, reverse = paired_difference(a, b), paired_difference(b, a)
    assert pair == paired_difference(a, b)
    assert pair.difference == pytest.approx(math.fsum(b - a) / count, abs=1e-6)
    assert (pair.low, pair.high) == pytest.approx((-reverse.high, -reverse.low), abs=1e-6)
    assert (b - a).min() - 1e-6 <= pair.low <= pair.high <= (b - a).max() + 1e-6


@pytest.mark.parametrize("shapes", [((3,), (4,)), ((0,), (0,)), ((2, 2), (2, 2))])
def test_errors_of_other_examples_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="not paired"):
        paired_difference(np.zeros(shapes[0]), np.zeros(shapes[1]))


@settings(max_examples=60, deadline=None)
@given(errors=st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9)), max_size=20), count=st.integers(1, 5))
def test_the_examples_on_which_models_differ_most(errors: list[tuple[float, float]], count: int) -> None:
    first, second = torch.tensor(errors, dtype=torch.float64).view(-1, 2).unbind(1)
    chosen = choose_differing_examples(first, second, count).tolist()
    half = min(count, len(errors) // 2)
    assert len(set(chosen)) == len(chosen) == 2 * half
    gaps = [b - a for a, b in errors]
    assert [gaps[place] for place in chosen[:half]] == sorted(gaps, reverse=True)[:half]
    assert [gaps[place] for place in chosen[half:]] == sorted(gaps)[:half]


# --- The errors of saved runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [
        ("model=vae", "noise=masking", "dataset.binarize=dynamic"),
        ("model=linear", "likelihood=gaussian"),
        ("dataset=wine", "model=vae"),
    ],
    ids=["noise", "gaussian", "table"],
)
def test_the_means_of_the_errors_are_the_metrics_of_the_run(overrides: tuple[str, ...], tmp_path: Path) -> None:
    api.run([*TINY[1:], "dataset=digits", *overrides], directory=tmp_path / "run")
    (summary,) = read_runs(tmp_path, tmp_path)
    evaluated = evaluate_run(summary)
    names = {"sse", "nll"} | {name for name in ("neg_elbo", "noisy_sse") if f"test/{name}" in summary.metrics}
    assert names <= evaluated.errors.keys()
    for name in names:
        assert evaluated.errors[name].mean() == pytest.approx(summary.metrics[f"test/{name}"], rel=1e-5), name


def test_reconstructions_are_of_the_examples_that_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aetrain.modes.example_errors.BATCH_SIZE", 10)
    api.run([*TINY, "model=deep"], directory=tmp_path / "run")
    (summary,) = read_runs(tmp_path, tmp_path)
    evaluated = evaluate_run(summary)
    index = torch.tensor([33, 2, 63, 21, 20])
    x, reconstructions = evaluated.reconstruct(index)
    every = torch.cat([x for x, _ in with_targets(evaluated.test, 64, evaluated.components.dataset.prepare)])
    torch.testing.assert_close(x, every[index])
    errors = (reconstructions - x).square().flatten(1).sum(1)
    torch.testing.assert_close(errors, torch.from_numpy(evaluated.errors["sse"])[index].float())


# --- Reports on named runs --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two deep runs, a variational one, one of binarized images, and one on a table."""
    folder = tmp_path_factory.mktemp("trained")
    for name, words in {
        "deep/model=deep,seed=0": ["model=deep"],
        "deep/model=deep,seed=1": ["model=deep", "seed=1"],
        "vae": ["model=vae"],
        "gaussian": ["model=linear", "likelihood=gaussian"],
        "dynamic": ["model=deep", "dataset.binarize=dynamic"],
        "wine": ["dataset=wine", "model=linear"],
    }.items():
        api.run([*TINY, *words], directory=folder / name)
    return folder


def read_differences(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Return the rows of differences.csv by run and metric."""
    with (folder / "differences.csv").open(newline="") as stream:
        return {(row["run"], row["metric"]): row for row in csv.DictReader(stream)}


def test_the_differences_of_named_runs(trained: Path, tmp_path: Path) -> None:
    outcome = command(["mode=report", f"run=[{trained}/deep/model=deep,seed=0,{trained}/vae]"], tmp_path)
    assert outcome.code == 0, outcome.err
    (folder,) = (tmp_path / "outputs" / "reports").iterdir()
    assert f"report: outputs/reports/{folder.name}/report.html (2 runs)" in outcome.out, "the log says where it is"
    metrics = [json.loads((trained / name / "metrics.json").read_text()) for name in ("deep/model=deep,seed=0", "vae")]
    rows = read_differences(folder)
    assert [metric for _, metric in rows] == ["test/sse", "test/nll"], "a deep run has no -ELBO"
    for (name, tag), row in rows.items():
        assert (name, row["reference"]) == ("vae", "deep")
        assert float(row["difference"]) == pytest.approx(metrics[1][tag] - metrics[0][tag], rel=1e-4)
        assert float(row["low"]) < float(row["difference"]) < float(row["high"])
        assert row["examples"] == "64"
    text = ParsedPage((folder / "report.html").read_text()).text
    assert "Paired differences" in text
    assert signed(float(rows["vae", "test/sse"]["difference"])) in text
    assert (folder / "differences.png").read_bytes().startswith(b"\x89PNG")


def test_groups_of_seeds_are_compared_by_the_means_of_their_errors(trained: Path, tmp_path: Path) -> None:
    page = report([trained / "deep", trained / "vae"], out=tmp_path)
    row = read_differences(tmp_path)["vae", "test/sse"]
    seeds = [evaluate_run(run).errors["sse"] for run in read_runs(trained / "deep", tmp_path)]
    (vae,) = read_runs(trained / "vae", tmp_path)
    pair = paired_difference(np.mean(seeds, axis=0), evaluate_run(vae).errors["sse"])
    assert [float(row[end]) for end in ("low", "high")] == pytest.approx([pair.low, pair.high])
    assert "3 runs" in ParsedPage(page.read_text()).text


def test_losses_of_other_likelihoods_are_not_compared(trained: Path, tmp_path: Path) -> None:
    report([trained / "vae", trained / "gaussian"], out=tmp_path)
    assert [metric for _, metric in read_differences(tmp_path)] == ["test/sse"]


def test_runs_of_one_config_are_compared_one_by_one(trained: Path, tmp_path: Path) -> None:
    report([trained / "deep" / f"model=deep,seed={seed}" for seed in (1, 0)], out=tmp_path)
    (row, _) = read_differences(tmp_path).values()
    assert (row["reference"], row["run"]) == ("model=deep,seed=1", "model=deep,seed=0"), "the first is the reference"


def test_test_data_are_equal_by_their_values(trained: Path, tmp_path: Path) -> None:
    """Grey images and their random binarisation are one file, and not the same test data."""
    page = report([trained / "vae", trained / "dynamic"], out=tmp_path)
    assert not read_differences(tmp_path)
    assert "is left out: its test data are not those of" in ParsedPage(page.read_text()).text


def test_data_that_changed_after_training_are_not_compared(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (80, 8, 8), np.uint8)
    for name in ("one", "two"):
        np.savez(tmp_path / "images.npz", x_train=images[:60], x_test=images[60:])
        words = [word for word in TINY if not word.startswith("dataset")]
        data = [*words, "dataset=npz", f"dataset.path={tmp_path / 'images.npz'}", "model=linear"]
        api.run(data, directory=tmp_path / name)
        images = np.flip(images, 1).copy()
    with pytest.raises(ConfigError, match="no test data in common"):
        report([tmp_path / "one", tmp_path / "two"], out=tmp_path / "out")
    shutil.copytree(tmp_path / "two", tmp_path / "three")
    np.savez(tmp_path / "images.npz", x_train=images[:60], x_test=images[60:])
    page = report([tmp_path / "two", tmp_path / "three"], out=tmp_path / "out")
    assert "its data are not those of its training: other pixels" in ParsedPage(page.read_text()).text


def test_examples_of_a_table_are_bars(trained: Path, tmp_path: Path) -> None:
    api.run([*TINY, "dataset=wine", "model=linear", "model.code_dim=4"], directory=tmp_path / "small")
    report([trained / "wine", tmp_path / "small"], out=tmp_path)
    assert (tmp_path / "differences.png").stat().st_size > 10_000


def test_links_to_runs_are_followed_once(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "picked"
    folder.mkdir()
    (folder / "good").symlink_to(trained / "vae")
    (folder / "seeds").symlink_to(trained / "deep")
    (folder / "again").symlink_to(folder / "good")
    (folder / "circle").symlink_to(folder)
    names = [run.name for run in read_runs(folder, folder)]
    assert len(names) == 3
    assert {name.split("/")[0] for name in names} <= {"again", "good", "seeds"}
    assert "3 runs" in ParsedPage(write_report(folder, folder)[0].read_text()).text
    report([folder / "good", folder / "seeds"], out=tmp_path / "out", paired=False)
    text = ParsedPage((tmp_path / "out" / "report.html").read_text()).text
    assert "seeds/model=deep,seed=0" in text
    assert "Paired differences" not in text


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("[vae,nowhere]", ["run=nowhere holds no runs"]),
        ("[vae,vae]", ["names vae twice"]),
        ("[deep,deep/model=deep,seed=0]", ["model=deep,seed=0 twice, by deep and by deep/model=deep,seed=0"]),
        ("[vae,wine]", ["no test data in common"]),
        ("[vae]", ["two or more"]),
        ("[vae,,wine]", ["an empty place"]),
        ("vae,wine", ["one folder", "run=[A,B]"]),
    ],
)
def test_mistakes_in_the_named_runs(value: str, texts: list[str], trained: Path) -> None:
    outcome = command(["mode=report", f"run={value}", "mode.out=out"], trained)
    assert outcome.code == 1
    assert all(text in outcome.err for text in texts), outcome.err
    assert "Traceback" not in outcome.err
    assert not (trained / "out").exists()


@pytest.mark.parametrize("mode", ["eval", "board"])
def test_only_reports_take_several_runs(mode: str, trained: Path) -> None:
    outcome = command([f"mode={mode}", "run=[vae,deep]"], trained)
    assert outcome.code == 1
    assert "run=[...] is for mode=report" in outcome.err


def test_a_named_run_that_failed_is_left_out(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "vae", tmp_path / "failed")
    (tmp_path / "failed" / "metrics.json").write_text('{"status": "failed", "cause": "no memory"}')
    page = report([trained / "deep", tmp_path / "failed"], out=tmp_path / "out")
    assert "is left out" in ParsedPage(page.read_text()).text


names = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(names=st.lists(names, min_size=1, max_size=4, unique=True))
def test_named_paths_are_read_as_they_are(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("names")
    used = [name for name in names if name not in (".", "..") and "${" not in name]
    for name in used:
        (folder / name).mkdir(exist_ok=True)
    paths = [f"{folder}/{name}" for name in used]
    if paths:
        (override,) = parse(normalize([f"run=[{','.join(paths)}]"]))
        assert override.value() == paths


# --- The axis of a setting --------------------------------------------------------------------------------------------

steps = st.floats(1e-3, 1e3)
counts = st.integers(3, 12)


@given(start=steps, ratio=st.floats(1.5, 20), count=counts)
def test_geometric_values_have_a_logarithmic_axis(start: float, ratio: float, count: int) -> None:
    values = [start * ratio**i for i in range(count)]
    assert NumericAxis.of(values).is_log == (values[-1] / values[0] >= 4)
    assert NumericAxis.of([0.0, *values]).is_log == (values[-1] / values[0] >= 4), "zero does not forbid it"


@given(start=st.floats(0, 1e3), step=steps, count=counts)
def test_evenly_spaced_values_have_a_linear_axis(start: float, step: float, count: int) -> None:
    assert not NumericAxis.of([start + step * i for i in range(count)]).is_log


@given(values=st.lists(st.floats(1e-6, 1e6), min_size=3, max_size=9, unique=True), scale=st.sampled_from([0.25, 8.0]))
def test_the_axis_knows_no_unit_and_no_order(values: list[float], scale: float) -> None:
    axis = NumericAxis.of(values)
    assert NumericAxis.of([scale * value for value in values]).is_log == axis.is_log
    assert NumericAxis.of(values[::-1]) == axis
    places = [axis.position(value) for value in axis.values]
    assert places == sorted(places)
    assert all(axis.ends[0] <= place <= axis.ends[1] for place, _ in axis.ticks)


@pytest.mark.parametrize(
    ("values", "is_log"),
    [
        ([1e-4, 3e-4, 1e-3, 3e-3], True),
        ([2, 8, 32], True),
        ([1, 2, 5, 10, 20], True),
        ([0, 0.5, 1, 2, 4], True),
        ([0.1, 0.2, 0.3, 0.5], False),
        ([1, 2, 3], False),
        ([-1, 0.1, 1, 10], False),
        ([1, 10], False),
    ],
)
def test_axes_of_common_sweeps(values: list[float], is_log: bool) -> None:
    assert is_geometric(values) == is_log


def test_zero_is_left_of_the_logarithms() -> None:
    axis = NumericAxis.of([0, 0.01, 0.1, 1])
    assert [axis.position(value) for value in axis.values] == pytest.approx([-3, -2, -1, 0])
    assert [label for _, label in axis.ticks] == ["0", "0.01", "0.1", "1"]


# --- The plots of a sweep ---------------------------------------------------------------------------------------------

SIZES = (2, 4, 8, 16)


def sweep_metrics(model: str, size: int, seed: int) -> dict[str, float]:
    error = 40 / size + (model == "vae") + 0.5 * seed
    return {"test/sse": error, "test/pca_sse": 50 / size, "test/probe_linear": 80.0 + size, "test/active_units": size}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a sweep over the size of the code, two models and two seeds."""
    folder = tmp_path_factory.mktemp("template") / "sweep"
    for model in ("deep", "vae"):
        for size in SIZES:
            for seed in (0, 1):
                overrides = [f"model={model}", f"model.code_dim={size}", f"seed={seed}"]
                metrics = sweep_metrics(model, size, seed)
                write_run(folder / ",".join(overrides), *overrides, "dataset=digits", metrics=metrics)
    return folder


@pytest.fixture
def sweep(template: Path, tmp_path: Path) -> Path:
    """Return a copy of the sweep that a test may change."""
    return Path(shutil.copytree(template, tmp_path / "sweep"))


def plots_of(folder: Path) -> list[SweepPlot]:
    return make_sweep_plots(group_runs(read_runs(folder, folder)))


def panel_of(plot: SweepPlot, tag: str) -> Panel:
    return next(panel for panel in plot.panels if panel.tag == tag)


def test_metrics_over_a_numeric_setting(sweep: Path) -> None:
    (plot,) = plots_of(sweep)
    assert (plot.key, plot.axis.values, plot.axis.is_log) == ("model.code_dim", SIZES, True)
    assert plot.labels == [("deep", 0), ("vae", 1)]
    lines = panel_of(plot, "test/sse").lines
    assert [(line.label, line.is_pca) for line in lines] == [("deep", False), ("vae", False), ("", True)]
    for line, model in zip(lines, ("deep", "vae"), strict=False):
        for point, size in zip(line.points, SIZES, strict=True):
            errors = [sweep_metrics(model, size, seed)["test/sse"] for seed in (0, 1)]
            assert (point.x, point.mean) == pytest.approx((size, sum(errors) / 2))
            assert (point.low, point.high) == pytest.approx((min(errors), max(errors)))
    assert [point.mean for point in lines[2].points] == pytest.approx([50 / size for size in SIZES])
    assert not [panel.tag for panel in plot.panels if panel.tag in ("test/pca_sse", "train/seconds_per_epoch")]


def test_plots_are_on_the_page_and_in_files(sweep: Path) -> None:
    Sweep(sweep).summarise()
    assert (sweep / "sweep.png").read_bytes().startswith(b"\x89PNG")
    svg = (sweep / "sweep.svg").read_text()
    assert "probe_linear" in svg
    assert "code_dim" in svg
    page = ParsedPage((sweep / "report.html").read_text())
    assert "Metrics over model.code_dim" in page.text
    assert {"sweep.png", "sweep.svg"} <= {attributes.get("href") for tag, attributes in page.tags if tag == "a"}
    labels = [
        attributes["aria-label"] for _, attributes in page.tags if "over code_dim" in attributes.get("aria-label", "")
    ]
    assert len(labels) == len(plots_of(sweep)[0].panels)
    before = svg
    Sweep(sweep).summarise()
    assert (sweep / "sweep.svg").read_text() == before, "the same runs have the same file"


def test_pca_of_several_sizes_has_several_lines(tmp_path: Path) -> None:
    for size in (4, 8):
        for beta in (0.5, 1, 2, 4):
            overrides = ["model=vae", f"model.code_dim={size}", f"model.penalties.kl.weight={beta}"]
            metrics = {"test/sse": beta + size, "test/pca_sse": 1.0 * size, "test/kl": 9 / beta}
            write_run(tmp_path / f"{size},{beta}", *overrides, "dataset=digits", metrics=metrics)
    (plot,) = plots_of(tmp_path)
    assert plot.key == "model.penalties.kl.weight", "the setting with more values"
    assert [label for label, _ in plot.labels] == ["code_dim=4", "code_dim=8"]
    pca = [line for line in panel_of(plot, "test/sse").lines if line.is_pca]
    assert [{point.mean for point in line.points} for line in pca] == [{4.0}, {8.0}]
    assert panel_of(plot, "test/kl")


@pytest.mark.parametrize("sizes", [(4,), (4, 8)])
def test_a_sweep_over_few_values_has_no_plot(sizes: tuple[int, ...], tmp_path: Path) -> None:
    for model in ("deep", "vae", "linear"):
        for size in sizes:
            overrides = [f"model={model}", f"model.code_dim={size}"]
            write_run(tmp_path / f"{model},{size}", *overrides, "dataset=digits", metrics={"test/sse": 1.0})
    assert plots_of(tmp_path) == []
    write_report(tmp_path, tmp_path)
    assert not (tmp_path / "report.png").exists()


def test_failed_runs_and_values_that_are_no_number_are_left_out(sweep: Path) -> None:
    (failed,) = sweep.glob("model=deep,model.code_dim=2,seed=1")
    (failed / "metrics.json").write_text(json.dumps({"status": "failed", "cause": "x"}))
    (plot,) = plots_of(sweep)
    first = panel_of(plot, "test/sse").lines[0].points[0]
    assert first.low == first.high == pytest.approx(sweep_metrics("deep", 2, 0)["test/sse"])
    write_run(sweep / "null", "model=deep", "dataset=digits", "clip_grad_norm=1", metrics={"test/sse": 1.0})
    assert plots_of(sweep)[0].key == "model.code_dim"


@pytest.mark.slow
def test_the_report_of_a_numeric_sweep_needs_no_torch(sweep: Path) -> None:
    program = (
        f"import sys; from aetrain.modes.report import report\nreport({str(sweep)!r}); sys.exit('torch' in sys.modules)"
    )
    completed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr


# --- PCA --------------------------------------------------------------------------------------------------------------


def test_the_report_names_the_runs_that_lose_to_pca(tmp_path: Path) -> None:
    finding = {"what": "no better than PCA", "evidence": "e", "remedy": "r"}
    cases = {"vae": (21.2, 12.0, [finding]), "deep": (8.0, 12.0, []), "vqvae": (20.0, 12.0, [])}
    for model, (error, pca, findings) in cases.items():
        metrics = {"test/sse": error, "test/pca_sse": pca}
        write_run(tmp_path / model, f"model={model}", "dataset=digits", metrics=metrics, findings=findings)
    groups = group_runs(read_runs(tmp_path, tmp_path))
    assert [group.label for group in groups if loses_to_pca(group)] == ["vae"]
    text = ParsedPage(write_report(tmp_path, tmp_path)[0].read_text()).text
    assert re.search(r"Squared error above that of PCA with as many units: +vae +\(21\.20, PCA 12\.00\) ?\.", text), (
        text
    )


# --- The document -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_commands_and_the_code_of_the_document_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", DOCUMENT, re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("aetrain ")]
    assert len(lines) >= 4
    few = ["epochs=1", "dataset.subset=64", "dataset.test_subset=64", "batch_size=32", "device=cpu"]
    for line in lines:
        words = shlex.split(line)[1:]
        if "-m" in words:  # three values of each setting, and no pictures: all take minutes
            words = [re.sub(r"=([^,\[]+,[^,]+,[^,]+),.*", r"=\1", word) for word in words] + ["views=none"]
        outcome = command(words if "mode=report" in words else [*words, *few], tmp_path)
        assert outcome.code == 0, f"{line}: {outcome.err}"
    (code,) = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.M | re.S)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert (tmp_path / "outputs" / "pair" / "differences.png").is_file()
