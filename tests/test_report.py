"""The report: its numbers are those of the runs, no damaged run breaks it, and it needs no other file."""

import base64
import csv
import hashlib
import importlib
import json
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command import command
from conftest import ROOT
from omegaconf import OmegaConf
from written_runs import ParsedPage, write_run

from aetrain.report.groups import group_runs
from aetrain.report.html import el, join
from aetrain.report.metrics import main_metrics
from aetrain.report.numbers import format_number, tick_values
from aetrain.report.page import write_report
from aetrain.report.ranking import best_groups
from aetrain.report.run_folders import read_runs
from aetrain.sweeps.sweep import Sweep

HOSTILE_TEXT = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x00"


TEST_SSE = {("vae", 0): 10.0, ("vae", 1): 10.4, ("vae", 2): 10.8, ("deep", 0): 8.0, ("deep", 1): 9.0}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a sweep of five finished runs and one failed run."""
    folder = tmp_path_factory.mktemp("template") / "sweep"
    for (model, seed), sse in TEST_SSE.items():
        kl = {"test/kl": 4.0 + seed, "test/neg_elbo": 100.0 + seed} if model == "vae" else {}
        overrides = [f"model={model}", f"seed={seed}", "dataset=digits"]
        write_run(folder / ",".join(overrides[:2]), *overrides, metrics={"test/sse": sse, "test/ssim": 0.5, **kl})
    failed = {"status": "failed", "cause": "RuntimeError: no\nmore memory"}
    write_run(folder / "broken", "model=deep", "seed=2", "dataset=digits", metrics=failed, epochs=0)
    return folder


@pytest.fixture
def sweep(template: Path, tmp_path: Path) -> Path:
    """Return a copy of the template that a test may change."""
    return Path(shutil.copytree(template, tmp_path / "sweep"))


def report_on(folder: Path) -> ParsedPage:
    """Write the report on a folder and return its page."""
    file, num_runs = write_report(folder, folder)
    assert num_runs
    return ParsedPage(file.read_text())


@pytest.mark.slow
def test_means_and_spreads_over_seeds(sweep: Path) -> None:
    groups = {group.label: group for group in group_runs(read_runs(sweep, sweep))}
    assert set(groups) == {"vae", "deep"}
    spread = groups["vae"].metric("test/sse")
    assert spread is not None
    values = [TEST_SSE["vae", seed] for seed in range(3)]
    assert spread.mean == pytest.approx(sum(values) / 3)
    assert spread.deviation == pytest.approx(statistics.stdev(values))
    assert spread.count == 3
    assert groups["deep"].metric("test/kl") is None
    text = report_on(sweep).text
    assert "10.40 ± 0.40" in text
    assert re.search(r"8\.50 +± 0\.71", text)
    assert "2 of 3" in text, "finished runs of model=deep"


def test_only_settings_that_vary_are_columns(sweep: Path) -> None:
    write_run(sweep / "more", "model=vae", "optimizer.lr=0.01", "dataset=digits", metrics={"test/sse": 1.0})
    groups = group_runs(read_runs(sweep, sweep))
    assert {tuple(group.differences) for group in groups} == {("model", "optimizer.lr")}
    assert {tuple(group.differences.values()) for group in groups} == {
        ("vae", "0.001"),
        ("deep", "0.001"),
        ("vae", "0.01"),
    }


def test_runs_that_differ_only_in_the_saved_config_are_not_averaged(tmp_path: Path) -> None:
    for name in ("old", "new"):
        write_run(tmp_path / name, "model=vae", "dataset=digits", metrics={"test/sse": 1.0})
    file = tmp_path / "old" / ".hydra" / "config.yaml"
    file.write_text(file.read_text().replace("lr: 0.001", "lr: 0.002"))
    groups = group_runs(read_runs(tmp_path, tmp_path))
    assert [group.differences for group in groups] == [{"optimizer.lr": "0.001"}, {"optimizer.lr": "0.002"}]


def test_table_has_every_run(sweep: Path) -> None:
    report_on(sweep)
    rows = list(csv.DictReader((sweep / "report.csv").read_text().splitlines(keepends=True)))
    assert [row["run"] for row in rows] == sorted(path.name for path in sweep.iterdir() if path.is_dir())
    row_of = {(row["model"], int(row["seed"])): row for row in rows}
    assert {key: float(row_of[key]["test/sse"]) for key in TEST_SSE} == TEST_SSE
    assert row_of["deep", 2]["status"] == "failed"
    assert "no\nmore memory" in row_of["deep", 2]["cause"]


def test_page_shows_failures_and_findings(sweep: Path) -> None:
    finding = {"what": "posterior collapse", "evidence": "the code carries 0 nats", "remedy": "try less weight"}
    (sweep / "model=vae,seed=1" / "findings.json").write_text(json.dumps([finding]))
    text = report_on(sweep).text
    assert "RuntimeError: no" in text
    assert "posterior collapse - vae (1 of 3 runs) The code carries 0 nats. Try less weight." in text
    assert "1 of 6 runs did not finish" in text
    assert "Rate against distortion" in text
    assert "Learning curves" in text


def test_page_loads_no_other_file_and_runs_only_its_own_script(sweep: Path) -> None:
    page = report_on(sweep)
    (policy,) = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    for tag, attributes in page.tags:
        assert not [key for key in attributes if key.startswith("on")]
        assert not attributes.get("href", "").startswith(("http", "//", "javascript:")), (tag, attributes)
        assert attributes.get("src", "data:").startswith("data:")


def test_hostile_text_in_a_run_is_shown_as_text(sweep: Path) -> None:
    hostile_run = write_run(
        sweep / HOSTILE_TEXT.replace("/", "").replace("\0", ""),
        *("model=vae", "dataset=digits"),
        metrics={"status": "failed", "cause": HOSTILE_TEXT, HOSTILE_TEXT: 1.0, f"test/{HOSTILE_TEXT}": 2.0},
        findings=[{"what": HOSTILE_TEXT, "evidence": HOSTILE_TEXT, "remedy": HOSTILE_TEXT}],
    )
    OmegaConf.save(
        OmegaConf.create([f"model={HOSTILE_TEXT[:-1]}", f"x={HOSTILE_TEXT[:-1]}"]),
        hostile_run / ".hydra" / "overrides.yaml",
    )
    (hostile_run / "history.jsonl").write_text(json.dumps({"epoch": 1, f"test/{HOSTILE_TEXT}": 1.0}) + "\n")
    (hostile_run / "figures").mkdir()
    (hostile_run / "figures" / "units<script>.png").write_bytes(b"\x89PNG no picture")
    page = report_on(sweep)
    assert len(page.scripts) == 1
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert not [a for _, a in page.tags if any(key.startswith("on") for key in a)]
    assert "<script>alert(1)</script>" in page.text, "the text is shown"


def _replace_by_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": lambda file: file.unlink(),
    "empty": lambda file: file.write_text(""),
    "cut off": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "not text": lambda file: file.write_bytes(bytes(range(256))),
    "a list": lambda file: file.write_text("[1, [2], {}]"),
    "deep": lambda file: file.write_text("[" * 100_000),
    "invalid numbers": lambda file: file.write_text('{"test/sse": NaN, "test/kl": 1e400, "epochs": "x", "status": 3}'),
    "huge numbers": lambda file: file.write_text('{"test/sse": 1' + "0" * 5000 + ', "status": "finished"}'),
    "a folder": _replace_by_folder,
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [".hydra/config.yaml", ".hydra/overrides.yaml", "metrics.json", "history.jsonl"])
def test_damage_in_one_run_does_not_change_the_rest(name: str, damage: str, sweep: Path) -> None:
    DAMAGES[damage](sweep / "model=vae,seed=1" / name)
    text = report_on(sweep).text
    assert "6 runs" in text
    assert "8.000" in text
    assert "RuntimeError: no" in text


def test_damaged_findings_and_pictures_are_left_out(sweep: Path) -> None:
    run = sweep / "model=vae,seed=0"
    (run / "findings.json").write_text('[1, {"what": 2}, {"what": "x"}]')
    (run / "figures").mkdir()
    for name in ("units", "strip"):
        (run / "figures" / f"{name}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 50)
    page = report_on(sweep)
    assert not [tag for tag, _ in page.tags if tag == "img"]


@pytest.mark.slow
def test_pictures_are_side_by_side(run: Callable[..., Path], tmp_path: Path) -> None:
    from io import BytesIO

    from PIL import Image

    few = ("dataset=digits", "dataset.subset=64", "dataset.test_subset=64")
    tiny = (*few, "epochs=1", "device=cpu", "~views.code", "~views.activations")
    for noise in ("none", "masking"):
        run(*tiny, f"noise={noise}", name=f"all/{noise}")
    page = report_on(tmp_path / "all")
    images = {a["alt"]: a["src"] for tag, a in page.tags if tag == "img"}
    units = {f"units-hidden1 of {noise}" for noise in ("none", "masking")}
    assert {"test images", "with noise", "reconstructed by masking", *units} <= set(images)
    strip = Image.open(tmp_path / "all" / "masking" / "figures" / "strip.png")
    assert strip.size == (80, 24)
    clean = Image.open(BytesIO(base64.b64decode(images["test images"].partition(",")[2])))
    assert clean.tobytes() == strip.crop((0, 0, 80, 8)).tobytes()
    assert images["with noise"] != images["test images"]


def test_evaluations_of_a_run_are_not_counted_as_runs(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "model=vae", "dataset=digits", metrics={"test/sse": 1.0})
    write_run(run / "eval" / "noise=gaussian", "mode=eval", "model=vae", "dataset=digits", metrics={"test/sse": 2.0})
    write_run(run / "eval" / "codes", "mode=encode", "model=vae", "dataset=digits")
    assert [summary.path for summary in read_runs(tmp_path, tmp_path)] == [run]
    assert "1 run " in report_on(run).text, "the folder may be that of a single run"


def test_metrics_on_different_images_are_not_ranked(tmp_path: Path) -> None:
    for name, error in (("digits", 1.0), ("toy", 2.0)):
        write_run(tmp_path / name, f"dataset={name}", metrics={"test/sse": error, "train/seconds_per_epoch": error})
    groups = group_runs(read_runs(tmp_path, tmp_path))
    assert not best_groups("test/sse", groups)
    assert len(best_groups("train/seconds_per_epoch", groups)) == 1
    assert len(best_groups("test/sse", groups[:1] * 2)) == 1


def test_metrics_of_measures_are_compared(tmp_path: Path) -> None:
    for size, share in ((8, 90.0), (16, 95.0)):
        values = {"sse": 1.0, "probe_linear": share, "probe_linear_pixels": 99.0, "is_nll_50": 90.0}
        metrics = {f"test/{name}": value for name, value in values.items()}
        write_run(tmp_path / str(size), f"model.code_dim={size}", metrics=metrics)
    groups = group_runs(read_runs(tmp_path, tmp_path))
    finished = [run for group in groups for run in group.finished]
    tags = {tag for run in finished for tag in run.metrics}
    assert main_metrics(tags) == ["test/sse", "test/probe_linear", "test/is_nll_50", "train/seconds_per_epoch"]
    (leader,) = best_groups("test/probe_linear", groups)
    assert leader.differences["model.code_dim"] == "16"


@pytest.mark.slow
def test_command(sweep: Path) -> None:
    outcome = command(["mode=report", f"run={sweep.name}"], sweep.parent)
    assert outcome.code == 0, outcome.err
    assert "report: sweep/report.html (6 runs)" in outcome.out
    with_out = command(["mode=report", f"run={sweep.name}", "mode.out=pages"], sweep.parent)
    assert with_out.code == 0, with_out.err
    page = ParsedPage((sweep.parent / "pages" / "report.html").read_text())
    links = {a["href"] for tag, a in page.tags if tag == "a"}
    assert "../sweep/model%3Dvae%2Cseed%3D0/" in links
    assert not (sweep.parent / "outputs").exists(), "a report creates no run directory"


def test_sweep_ends_with_its_report(sweep: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "aetrain")
    Sweep(sweep).summarise()
    assert "6 runs" in ParsedPage((sweep / "report.html").read_text()).text
    assert len((sweep / "sweep.csv").read_text().splitlines()) == 8, "the cause of the failed run has two lines"
    (sweep / "report.html").unlink()
    (sweep / "report.html").mkdir()
    Sweep(sweep).summarise()
    assert "report.html could not be written" in caplog.text, "the sweep continues"
    assert caplog.text.count("table: ") == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["run=nowhere"], ["run=nowhere holds no runs"]),
        ([], ["run=outputs holds no runs"]),
        (["run=sweep", "model=vae"], ["mode=report", "drop model="]),
        (["run=sweep,sweep"], ["one folder"]),
        (["run=sweep", "mode.outt=x"], ["mode.outt"]),
        (["-m", "run=sweep"], ["-m"]),
        (["run=sweep", "mode.out=a_file/x"], ["a_file", "mode.out="]),
    ],
)
def test_mistakes(arguments: list[str], texts: list[str], sweep: Path) -> None:
    (sweep.parent / "a_file").write_text("")
    outcome = command(["mode=report", *arguments], sweep.parent)
    assert outcome.code == 1
    assert all(text in outcome.err for text in texts), outcome.err
    assert "Traceback" not in outcome.err


def test_torch_is_not_imported(sweep: Path) -> None:
    program = (
        "import sys; from aetrain.cli import main\n"
        f"sys.argv = ['aetrain', 'mode=report', 'run={sweep}']\n"
        "main(); sys.exit('torch' in sys.modules)"
    )
    completed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr


def test_text_is_escaped_everywhere() -> None:
    assert el("p", "<b>&", title='"<') == '<p title="&quot;&lt;">&lt;b&gt;&amp;</p>'
    assert el("p", el("b", "x"), ["<", el("i")]) == "<p><b>x</b>&lt;<i></i></p>"
    assert join("a\x00\x1b\ud800b") == "a?b"


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (12.3456, "12.35"), (0.012345, "0.01235"), (1234567.0, "1.23e+06"), (-3.0, "-3.000")]
)
def test_numbers_have_four_significant_digits(value: float, text: str) -> None:
    assert format_number(value) == text


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 250), (1e-9, 2e-9), (5, 5), (99.7, 100.1)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    values = tick_values(low, high)
    assert 1 <= len(values) <= 11
    assert all(low - 1e-9 * abs(low) <= value <= high + 1e-9 * abs(high) for value in values)


@pytest.mark.slow
def test_page_sorts_and_filters_in_a_browser(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    browser = importlib.import_module("browser")  # of benchmarks/
    if not browser.find_browser():
        pytest.skip("Chromium is not installed")
    file, _ = write_report(sweep, sweep)
    with browser.browser() as page:
        page.open(file.as_uri())
        column = "[...document.querySelectorAll('#glance tbody tr')].map(r => r.cells[0].textContent)"
        page.run("document.querySelectorAll('#glance thead button')[2].click()")
        assert page.run(column) == ["deep", "vae"]
        page.run("document.querySelectorAll('#glance thead button')[2].click()")
        assert page.run(column) == ["vae", "deep"]
        page.run("document.querySelector('[data-toggle]').click()")
        assert page.run("document.querySelectorAll('#glance tr.off').length") == 1
        assert page.run("document.documentElement.scrollWidth <= innerWidth"), "it fits a laptop"
