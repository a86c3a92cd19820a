"""The report of a mixed folder: names, order, ranking and charts of runs with other models, data sets and settings."""

import csv
import importlib
import json
import logging
import random
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from written_runs import ParsedPage, write_run

from aetrain.config.chosen_options import chosen_options
from aetrain.config.errors import ConfigError
from aetrain.config.overrides import register_resolvers
from aetrain.config.paths import CONFIG_DIR
from aetrain.evaluation.metric_direction import better_direction
from aetrain.evaluation.model_selection import objective_metrics
from aetrain.report.charts import Axes
from aetrain.report.curves import Line, draw_curves, find_marks
from aetrain.report.groups import RunGroup, group_runs
from aetrain.report.labels import MAX_SETTINGS_IN_LABEL, as_text
from aetrain.report.metrics import main_metrics, sort_metrics
from aetrain.report.natural_order import natural_key
from aetrain.report.numbers import log_tick_values, tick_label
from aetrain.report.page import write_report
from aetrain.report.ranking import best_groups, ranking_notes
from aetrain.report.run_folders import read_runs
from aetrain.report.runs import RunSummary
from aetrain.storage.saved_config import resolve_config
from aetrain.sweeps.sweep import Sweep

OLD_RUNS = ROOT / "tests" / "data" / "runs-0.1.0"


def groups_in(folder: Path) -> dict[str, RunGroup]:
    """Return the groups of the runs in a folder by their labels, in their order."""
    return {group.label: group for group in group_runs(read_runs(folder, folder))}


# --- Order ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "texts",
    [
        ["2", "8", "32"],
        ["1e-3", "0.01", "0.1", "1", "1e3"],
        ["-10", "-1", "0", "5", "null", "true", ""],
        ["[64]", "[512]", "[512,256]"],
        ["code_dim=2,seed=0", "code_dim=2,seed=10", "code_dim=8,seed=0", "code_dim=32,seed=0"],
        ["x-2", "x-10"],
        ["test/precision_2", "test/precision_10"],
    ],
)
def test_numbers_are_sorted_by_value(texts: list[str]) -> None:
    shuffled = texts[::-1]
    random.Random(0).shuffle(shuffled)
    assert sorted(shuffled, key=natural_key) == texts


def test_a_sweep_is_in_the_order_of_its_values_everywhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for code_dim in (32, 8, 2):
        overrides = (f"model.code_dim={code_dim}", "dataset=digits")
        metrics = {"test/sse": 1.0, "test/precision_10": 1.0, "test/precision_2": 1.0}
        write_run(tmp_path / overrides[0], *overrides, metrics=metrics)
    names = [f"model.code_dim={code_dim}" for code_dim in (2, 8, 32)]
    caplog.set_level(logging.INFO, "aetrain")
    Sweep(tmp_path).summarise()
    assert re.findall(r"^  (model\.code_dim=\d+) ", caplog.text, re.M) == names, "the table on the terminal"
    rows = list(csv.reader((tmp_path / "sweep.csv").read_text().splitlines()))
    assert [row[0] for row in rows[1:]] == names
    assert rows[0].index("test/precision_2") < rows[0].index("test/precision_10")
    labels = ["code_dim=2", "code_dim=8", "code_dim=32"]
    assert list(groups_in(tmp_path)) == labels
    page = (tmp_path / "report.html").read_text()
    legend = re.findall(r"<button[^>]*data-toggle[^>]*><i[^>]*></i>([^<]*)<", page)
    assert legend == labels
    assert main_metrics(["test/precision_10", "test/precision_2"]) == ["test/precision_2", "test/precision_10"]
    assert sort_metrics(["test/b_10", "test/b_9", "test/a"], []) == ["test/a", "test/b_9", "test/b_10"]


# --- Options and settings ---------------------------------------------------------------------------------------------


def test_options_of_experiments_are_those_that_hydra_chooses() -> None:
    GlobalHydra.instance().clear()
    register_resolvers()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        for experiment in ("hinton_best", "sparse_kl_crops", "iwae"):  # the first extends another one
            config = compose("config", [f"experiment={experiment}"], return_hydra_config=True)
            choices = config.hydra.runtime.choices
            options = chosen_options({}, {"experiment": experiment})
            assert options == {group: choices[group] for group in options}, experiment
            assert options.keys() >= {"dataset", "model"}


@pytest.mark.parametrize("model", ["deep", "vae", "conv_vae", "vqvae", "aae", "iwae"])
def test_a_model_is_recognised_without_its_command_line(model: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", f"model={model}", "dataset=digits", "model.code_dim=3")
    (run / ".hydra" / "overrides.yaml").write_text("[]\n")
    (summary,) = read_runs(tmp_path, tmp_path)
    assert summary.options["model"] == model
    assert summary.options["dataset"] == "digits"


def test_options_of_old_runs_and_of_own_classes() -> None:
    options = {run.name: run.options for run in read_runs(OLD_RUNS, OLD_RUNS)}
    models = {name: options[name]["model"] for name in options}
    expected = {name: name for name in ("aae", "conv", "conv_layers", "deep", "vae", "vqvae")}
    assert models == {**expected, "rbm": "deep", "sweep/seed=0": "vae", "sweep/seed=1": "vae"}
    assert {run["dataset"] for run in options.values()} == {"digits"}
    own = chosen_options({"model._target_": "mine.Net", "dataset._target_": "mine.Faces"}, {"model": "net"})
    assert (own["model"], own["dataset"]) == ("net", "Faces")


def test_references_are_resolved_and_the_environment_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET", "password")
    config = {"a": 3, "b": {"c": "${a}", "d": "${oc.env:SECRET}", "e": "${.c}"}, "f": ["${b.c}"]}
    resolved = resolve_config(config)
    assert resolved == {"a": 3, "b": {"c": 3, "d": "${oc.env:SECRET}", "e": 3}, "f": [3]}
    assert resolve_config({"a": "${missing}"}) == {"a": "${missing}"}
    assert resolve_config({"a": "${b}", "b": "${a}"}) == {"a": "${b}", "b": "${a}"}
    for name in ("here", "there"):
        run = write_run(tmp_path / name, "dataset=mnist", f"data_dir={name}", metrics={"test/sse": 1.0})
        file = run / ".hydra" / "config.yaml"
        file.write_text(file.read_text().replace("batch_size: 128", "batch_size: ${model.code_dim}"))
    (group,) = groups_in(tmp_path).values()
    assert [run.settings["batch_size"] for run in group.runs] == [32, 32]
    report = write_report(tmp_path, tmp_path)[0].read_text()
    assert "${" not in ParsedPage(report).text, "the folder of a known data set is no difference"


# --- Names ------------------------------------------------------------------------------------------------------------

MIXED = {
    "a": ("experiment=vae", "dataset.test_subset=100"),
    "b": ("experiment=denoising_masking", "dataset.test_subset=100"),
    "c": ("experiment=tied", "dataset.test_subset=100"),
    "d": ("model=vae", "dataset=digits", "optimizer.lr=1e-3", "batch_size=64", "epochs=2", "model.code_dim=8"),
    "e": ("model=vae", "dataset=digits", "optimizer.lr=0.01", "batch_size=32", "epochs=3", "model.code_dim=4"),
    "f": ("model=vae", "dataset=digits", "likelihood=gaussian", "optimizer.lr=0.1", "model.hidden=[16,8]"),
    "g": ("model=deep", "dataset=digits", "noise=masking"),
    "h": ("model=deep", "dataset=toy"),
    "i": ("model=vae", "dataset=mnist"),
}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of runs with other models, data sets, experiments and settings."""
    folder = tmp_path_factory.mktemp("mixed")
    for i, (name, overrides) in enumerate(MIXED.items()):
        metrics = {"test/sse": 9.0 - i, "test/nll": 1.0 + i, "test/neg_elbo": 2.0 + i, "test/kl": 1.0}
        metrics["nll_constant"] = 0.0  # this version's `nll` includes it
        write_run(folder / name, *overrides, metrics=metrics)
    return folder


def test_labels_are_short_and_tell_the_runs_apart(mixed: Path) -> None:
    labels = groups_in(mixed)
    assert list(labels) == [
        *("deep (digits)", "vae, gaussian, lr=0.1 (digits)", "vae, lr=0.001 (digits)", "vae, lr=0.01 (digits)"),
        *("vae (mnist)", "tied, denoising_masking (mnist, test_subset=100)", "tied, tied (mnist, test_subset=100)"),
        *("vae (mnist, test_subset=100)", "deep (toy)"),
    ]
    assert all(label.count(",") <= MAX_SETTINGS_IN_LABEL + 1 for label in labels)
    assert [(group.dataset, group.model) for group in labels.values()][5:8] == [
        ("mnist", "tied"),
        ("mnist", "tied"),
        ("mnist", "vae"),
    ]
    assert "model.hidden=[16,8]" in labels["vae, gaussian, lr=0.1 (digits)"].description


def test_other_numbers_of_training_images_are_named_and_ranked(tmp_path: Path) -> None:
    write_run(tmp_path / "few", "model=vae", "dataset=digits", "dataset.subset=50", metrics={"test/sse": 2.0})
    write_run(tmp_path / "all", "model=deep", "dataset=digits", metrics={"test/sse": 1.0})
    groups = groups_in(tmp_path)
    assert list(groups) == ["deep, subset=null", "vae, subset=50"]
    assert [group.label for group in best_groups("test/sse", list(groups.values()))] == ["deep, subset=null"]


def test_more_differences_than_a_label_holds_are_followed_by_the_run_name() -> None:
    keys = ("model.code_dim", "batch_size", "optimizer.lr", "epochs")
    runs = []
    for i in range(16):
        settings = {key: 1 + (i >> place & 1) for place, key in enumerate(keys)}
        overrides = {key: str(value) for key, value in settings.items()}
        runs.append(RunSummary(Path(str(i)), f"run{i}", "finished", settings=settings, overrides=overrides))
    labels = [group.label for group in group_runs(runs)]
    assert len(set(labels)) == 16
    assert all(re.fullmatch(r"code_dim=\d, batch_size=\d, lr=\d, run\d+", label) for label in labels)


# --- Ranking ----------------------------------------------------------------------------------------------------------


def test_only_comparable_values_are_ranked(mixed: Path) -> None:
    groups = list(groups_in(mixed).values())
    best = {tag: [group.label for group in best_groups(tag, groups)] for tag in ("test/sse", "test/nll", "test/kl")}
    assert best["test/sse"] == ["deep (digits)", "tied, tied (mnist, test_subset=100)"]
    assert best["test/nll"] == ["vae, lr=0.001 (digits)", "vae (mnist, test_subset=100)"], "not the Gaussian likelihood"
    assert best["test/kl"] == []
    notes = ranking_notes(["test/sse", "test/nll", "test/kl"], groups)
    assert notes == [
        "sse is ranked only among runs with equal dataset and dataset.test_subset.",
        "nll is ranked only among runs with equal dataset, dataset.test_subset and likelihood.",
        "kl has no better direction.",
    ]
    page = ParsedPage(write_report(mixed, mixed)[0].read_text())
    for note in ("sse is ranked only among runs with equal dataset and dataset.test_subset.", "and likelihood."):
        assert note in page.text
    bold = [attributes for tag, attributes in page.tags if tag == "td" and "best" in attributes.get("class", "")]
    assert len(bold) >= 4


def test_comparisons_on_equal_test_images_have_the_name_of_their_likelihood(tmp_path: Path) -> None:
    for i, likelihood in enumerate(("gaussian", "bernoulli")):
        for lr in (0.001, 0.01):
            metrics = {"test/neg_elbo": 5.0 + i + lr, "test/kl": 1.0, "nll_constant": 0.0}
            overrides = ("model=vae", "dataset=digits", f"likelihood={likelihood}", f"optimizer.lr={lr}")
            write_run(tmp_path / f"{likelihood}-{lr}", *overrides, metrics=metrics)
    page = write_report(tmp_path, tmp_path)[0].read_text()
    for likelihood in ("gaussian", "bernoulli"):
        assert f"Lowest -ELBO on digits, likelihood={likelihood}: " in page
        assert f"<h3>digits, likelihood={likelihood}</h3>" in page


def test_legend_names_the_split_of_the_curves(tmp_path: Path) -> None:
    for name, split in (("a", "test"), ("b", "validation")):
        run = write_run(tmp_path / name / "run", "dataset=digits", metrics={"test/sse": 1.0})
        file = run / "history.jsonl"
        file.write_text(file.read_text().replace("test/", f"{split}/"))
        page = write_report(tmp_path / name, tmp_path / name)[0].read_text()
        assert re.search(rf"</svg> {split} <svg.*?</svg> train<", page)


def curves_of(page: str, name: str) -> dict[str, list[list[float]]]:
    """Return the points of the curves of a metric, by the label of their group."""
    chart = next(part for part in page.split("<figure>")[1:] if part.startswith(f"<figcaption><b>{name}</b>"))
    curves = re.findall(r'data-name="([^"]*)" data-points="([^"]*)"', chart.partition("</figure>")[0])
    return {label: json.loads(points) for label, points in curves}


def test_curves_of_runs_without_validation_images_are_beside_those_of_others(tmp_path: Path) -> None:
    for count in (0, 200):
        run = write_run(tmp_path / str(count), "dataset=digits", f"dataset.validation={count}")
        if count:
            file = run / "history.jsonl"
            file.write_text(file.read_text().replace("test/", "validation/"))
    page = write_report(tmp_path, tmp_path)[0].read_text()
    curves = curves_of(page, "sse")
    assert len(curves) == 2
    assert [*curves.values()] == [[[1, 7], [2, 6], [3, 5]]] * 2
    assert re.search(r"</svg> validation, or else test <svg.*?</svg> train<", page)


def test_means_over_seeds_end_with_the_first_seed(tmp_path: Path) -> None:
    """Seeds differ in length by `stop.patience`; one that failed at once ends no curve."""
    for seed, epochs in enumerate((3, 6, 0)):
        status = {} if epochs else {"status": "failed", "cause": "killed"}
        run = write_run(tmp_path / str(seed), "dataset=digits", f"seed={seed}", metrics=status, epochs=epochs)
        lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
        for line in lines:
            line["test/sse"] += seed
        (run / "history.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    page = write_report(tmp_path, tmp_path)[0].read_text()
    assert [*curves_of(page, "sse").values()] == [[[1, 7.5], [2, 6.5], [3, 5.5]]]
    assert "both end where the first seed ends" in page
    assert "Seeds that did not finish are left out" in page


@pytest.mark.parametrize(
    ("value", "text"),
    [("1000000000.0", "1e+09"), ("0.001", "0.001"), ("0.1234567", "0.1234567"), ("60000", "60000"), ("vae", "vae")],
)
def test_a_setting_in_a_label_keeps_its_digits(value: str, text: str) -> None:
    assert as_text(value) == text


def test_labels_of_large_and_small_ticks_differ() -> None:
    for step in (5e5, 5e-6):
        labels = [tick_label(i * step) for i in range(1, 6)]
        assert [float(label.replace(",", "")) for label in labels] == pytest.approx([i * step for i in range(1, 6)])


@pytest.mark.parametrize(
    ("tag", "direction"),
    [
        ("test/sse", "lower"),
        ("test/noisy_sse_blur_0.5", "lower"),
        ("test/input_sse_blur_0.5", None),
        ("test/probe_linear", "higher"),
        ("test/kl", None),
        ("test/pca_sse", None),
        ("test/roc_auc_class_1", "higher"),
        ("test/roc_auc_9_nll", "higher"),
        ("test/roc_auc_forest", None),
        ("test/average_precision_9_pca", None),
    ],
)
def test_each_metric_has_one_direction(tag: str, direction: str | None) -> None:
    assert better_direction(tag) == direction


def test_baselines_of_a_class_are_no_results() -> None:
    results = ["test/roc_auc", "test/roc_auc_9", "test/roc_auc_9_nll"]
    assert main_metrics([*results, "test/roc_auc_forest", "test/roc_auc_9_pca"]) == results
    with pytest.raises(ConfigError, match="objective=test/roc_auc_9_forest: neither"):
        objective_metrics("test/roc_auc_9_forest")


# --- Charts -----------------------------------------------------------------------------------------------------------


def line_of(name: str, *values: float, **attributes: Any) -> Line:
    return Line(name, 0, list(enumerate(values, 1)), **attributes)


def test_a_chart_with_curves_far_apart_is_logarithmic() -> None:
    lines = [line_of("0.01", 20.0, 40.0), line_of("1", 2.0, 3.0), line_of("4", 0.2, 0.3)]
    svg = draw_curves("kl", lines, "clip")
    axes = json.loads(re.search(r'data-axes="([^"]*)"', svg)[1].replace("&quot;", '"'))  # type: ignore[index]
    assert axes["log"] is True
    assert axes["y"][0] < 0.2
    assert axes["y"][1] > 40
    assert "logarithmic axis" in svg
    assert 'class="mark"' not in svg
    assert log_tick_values(0.2, 40) == pytest.approx([0.2, 0.5, 1, 2, 5, 10, 20])
    assert log_tick_values(0.02, 40) == pytest.approx([0.03, 0.1, 0.3, 1, 3, 10, 30])
    assert Axes((0, 1), (1, 100), "x", log_y=True).position(0, 10)[1] == pytest.approx(
        Axes((0, 1), (0, 2), "x").position(0, 1)[1]
    )


def test_a_curve_that_leaves_its_chart_has_a_mark_with_its_value() -> None:
    diverged = line_of("diverged", 5.0, 6.0, 3e9)
    svg = draw_curves("loss", [line_of("a", 5.0, 4.0, 3.0), line_of("b", 5.0, 4.0, 3.5), diverged], "clip")
    assert svg.count('class="mark"') == 1
    assert "diverged, epoch 3: 3.00e+09, outside the chart" in svg
    assert "[3.0,3000000000.0]" in svg, "the pointer finds the value"
    axes = Axes((1, 5), (0.0, 10.0), "epoch")
    marks = find_marks(axes, line_of("x", 20.0, 30.0, 5.0, -3.0, 5.0))
    assert [(mark.x, mark.y, mark.is_above) for mark in marks] == [(2, 30.0, True), (4, -3.0, False)]
    ends_outside = find_marks(axes, line_of("x", 5.0, 30.0, 20.0))
    assert [(mark.x, mark.y) for mark in ends_outside] == [(3, 20.0)]
    band = line_of("x", 5.0, 5.0, band=[(1, 4.0, 6.0), (2, 4.0, 16.0)])
    assert [(mark.x, mark.y) for mark in find_marks(axes, band)] == [(2, 16.0)]
    assert not find_marks(axes, line_of("x", 0.0, 10.0))


# --- The page ---------------------------------------------------------------------------------------------------------


def test_numbers_come_before_settings_and_tables_scroll_in_their_own_container(mixed: Path) -> None:
    text = write_report(mixed, mixed)[0].read_text()
    head = text[text.index("<thead>") : text.index("</thead>")]
    columns = re.findall(r"<th([^>]*)><button[^>]*>([^<]*)<", head)
    names = [name for _, name in columns]
    assert names[:3] == ["run", "runs", "sse"]
    first_setting = next(i for i, (attributes, _) in enumerate(columns) if 'class="setting"' in attributes)
    assert first_setting > names.index("s/epoch")
    assert all('class="setting"' in attributes for attributes, _ in columns[first_setting:])
    assert re.search(r"^\.setting \{ display: none; \}", text, re.M)
    assert re.search(r"^\.wide \{ overflow: auto; \}", text, re.M)
    assert text.count("<table") == len(re.findall(r'<div class="wide[^>]*><table', text))
    page = ParsedPage(text)
    options = [attributes["value"] for tag, attributes in page.tags if tag == "option"]
    assert options == ["", "digits", "mnist", "toy", "", "deep", "tied", "vae", "", "dataset", "model", "none"]


@pytest.mark.slow
def test_page_fits_a_laptop_and_a_phone_and_filters_in_a_browser(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    browser = importlib.import_module("browser")  # of benchmarks/
    if not browser.find_browser():
        pytest.skip("Chromium is not installed")
    file, _ = write_report(mixed, mixed)
    models = "[...document.querySelectorAll('#glance tbody tr[data-group]:not(.off)')].map(r => r.dataset.model)"
    widest = (
        "[...document.querySelectorAll('section, header, .wide')].filter(e => e.getBoundingClientRect().right > "
        "innerWidth + 1).length"
    )
    choose = "(m => { m.value = 'tied'; m.dispatchEvent(new Event('change')); })"
    with browser.browser() as page:
        for width in (1366, 390):
            page.open(file.as_uri(), width, 844)
            assert page.run("document.documentElement.scrollWidth") <= width
            page.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
            page.run("document.querySelectorAll('[data-more]').forEach(b => b.click())")
            assert page.run("document.documentElement.scrollWidth") <= width, "with all settings"
            assert page.run(widest) == 0
        page.run(f"{choose}(document.querySelector('[data-filter=model]'))")
        assert page.run(models) == ["tied", "tied"]
        assert page.run("location.hash") == "#model=tied"
        assert page.run("document.querySelectorAll('#curves [data-block]:not(.off)').length") == 1
        page.open(f"{file.as_uri()}#dataset=digits&group=model", 1366, 844)
        assert page.run(models) == ["deep", "vae", "vae", "vae"]
        assert page.run("[...document.querySelectorAll('#glance .title span')].map(s => s.textContent)") == [
            *("deep", "tied", "vae"),
        ]
        chart = "document.querySelector('#curves svg[data-axes]')"
        page.run(f"{chart}.dispatchEvent(new KeyboardEvent('keydown', {{key: 'ArrowRight'}}))")
        assert page.run("document.getElementById('tip').textContent") == "deep: epoch 3, loss 6"
        page.run(f"{chart}.dispatchEvent(new KeyboardEvent('keydown', {{key: 'ArrowLeft'}}))")
        assert page.run("document.getElementById('tip').textContent") == "deep: epoch 2, loss 7"
        box = page.run(f"(b => [b.left, b.top, b.width, b.height])({chart}.getBoundingClientRect())")
        x, y = box[0] + box[2] * 0.9, box[1] + box[3] * 0.8
        page.run(f"{chart}.dispatchEvent(new PointerEvent('pointermove', {{clientX: {x}, clientY: {y}}}))")
        assert "epoch 3" in page.run("document.getElementById('tip').textContent")
        assert not page.run("document.getElementById('tip').hidden")
