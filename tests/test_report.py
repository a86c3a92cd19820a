"""The report: what it says is what the runs say, nothing in a run directory can break it, and it stands alone."""

import base64
import csv
import hashlib
import json
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from command import command
from conftest import ROOT
from omegaconf import OmegaConf

from aetrain import api
from aetrain.report.charts import number, ticks
from aetrain.report.groups import grouped
from aetrain.report.html import el, join
from aetrain.report.page import write_report
from aetrain.report.runs import entries
from aetrain.report.tables import best, main_figures
from aetrain.sweeps.sweep import Sweep

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x00"


class Reader(HTMLParser):
    """What a page holds, as a browser would take it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.inside = ""
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        (self.scripts if self.inside == "script" else self.words).append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@cache
def composed(overrides: tuple[str, ...]) -> str:
    """The config that overrides make."""
    return OmegaConf.to_yaml(api.composed(overrides)[0])


def a_run(folder: Path, *overrides: str, metrics: dict[str, Any] | None = None, epochs: int = 3, **more: Any) -> Path:
    """A run's directory as training leaves it, but for the training."""
    folder.mkdir(parents=True)
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text(composed(overrides))
    OmegaConf.save(OmegaConf.create(list(overrides)), folder / ".hydra" / "overrides.yaml")
    seen = {"status": "finished", "epochs": epochs, "weights": 1000, "train/seconds_per_epoch": 0.5} | (metrics or {})
    (folder / "metrics.json").write_text(json.dumps(seen))
    lines = [
        {"epoch": e, "test/loss": 9.0 - e, "test/sse": 8.0 - e, "seconds": 0.5} | ({"train/loss": 9.5 - e} if e else {})
        for e in range(epochs + 1)
    ]
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "findings.json").write_text(json.dumps(more.get("findings", [])))
    (folder / "aetrain.log").write_text("")
    return folder


FIGURES = {("vae", 0): 10.0, ("vae", 1): 10.4, ("vae", 2): 10.8, ("deep", 0): 8.0, ("deep", 1): 9.0}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five runs that finished, one that failed."""
    place = tmp_path_factory.mktemp("template") / "sweep"
    for (model, seed), sse in FIGURES.items():
        kl = {"test/kl": 4.0 + seed, "test/neg_elbo": 100.0 + seed} if model == "vae" else {}
        said = [f"model={model}", f"seed={seed}", "dataset=digits"]
        a_run(place / ",".join(said[:2]), *said, metrics={"test/sse": sse, "test/ssim": 0.5, **kl})
    failed = {"status": "failed", "cause": "RuntimeError: no\nmore memory"}
    a_run(place / "broken", "model=deep", "seed=2", "dataset=digits", metrics=failed, epochs=0)
    return place


@pytest.fixture
def sweep(template: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(template, tmp_path / "sweep"))


def page_of(place: Path) -> Reader:
    file, count = write_report(place, place)
    assert count
    return Reader(file.read_text())


def test_means_and_spreads_over_seeds(sweep: Path) -> None:
    groups = {group.label: group for group in grouped(entries(sweep, sweep))}
    assert set(groups) == {"vae", "deep"}
    spread = groups["vae"].figure("test/sse")
    assert spread is not None
    values = [FIGURES["vae", seed] for seed in range(3)]
    assert spread.mean == pytest.approx(sum(values) / 3)
    assert spread.deviation == pytest.approx(statistics.stdev(values))
    assert spread.count == 3
    assert groups["deep"].figure("test/kl") is None
    text = page_of(sweep).text
    assert "10.40 ± 0.40" in text
    assert re.search(r"8\.50 +± 0\.71", text)
    assert "2 of 3" in text, "runs of model=deep that finished"


def test_only_settings_that_vary_are_columns(sweep: Path) -> None:
    a_run(sweep / "more", "model=vae", "optimizer.lr=0.01", "dataset=digits", metrics={"test/sse": 1.0})
    groups = grouped(entries(sweep, sweep))
    assert {tuple(group.cells) for group in groups} == {("model", "optimizer.lr")}
    assert {tuple(group.cells.values()) for group in groups} == {("vae", "0.001"), ("deep", "0.001"), ("vae", "0.01")}


def test_runs_that_only_a_config_file_tells_apart_are_not_averaged(tmp_path: Path) -> None:
    for name in ("old", "new"):
        a_run(tmp_path / name, "model=vae", "dataset=digits", metrics={"test/sse": 1.0})
    file = tmp_path / "old" / ".hydra" / "config.yaml"
    file.write_text(file.read_text().replace("lr: 0.001", "lr: 0.002"))
    groups = grouped(entries(tmp_path, tmp_path))
    assert [group.cells for group in groups] == [{"optimizer.lr": "0.001"}, {"optimizer.lr": "0.002"}]


def test_the_table_holds_every_run(sweep: Path) -> None:
    page_of(sweep)
    rows = list(csv.DictReader((sweep / "report.csv").read_text().splitlines(keepends=True)))
    assert [row["run"] for row in rows] == sorted(path.name for path in sweep.iterdir() if path.is_dir())
    known = {(row["model"], int(row["seed"])): row for row in rows}
    assert {key: float(known[key]["test/sse"]) for key in FIGURES} == FIGURES
    assert known["deep", 2]["status"] == "failed"
    assert "no\nmore memory" in known["deep", 2]["cause"]


def test_the_page_says_what_failed_and_what_the_doctor_found(sweep: Path) -> None:
    finding = {"what": "posterior collapse", "evidence": "the code carries 0 nats", "remedy": "try less weight"}
    (sweep / "model=vae,seed=1" / "findings.json").write_text(json.dumps([finding]))
    text = page_of(sweep).text
    assert "RuntimeError: no" in text
    assert "posterior collapse - vae (1 of 3 runs) The code carries 0 nats. Try less weight." in text
    assert "1 of 6 runs did not finish" in text
    assert "Rate against distortion" in text
    assert "Learning curves" in text


def test_it_needs_nothing_from_elsewhere_and_runs_no_script_but_its_own(sweep: Path) -> None:
    page = page_of(sweep)
    (policy,) = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    for tag, attributes in page.tags:
        assert not [key for key in attributes if key.startswith("on")]
        assert not attributes.get("href", "").startswith(("http", "//", "javascript:")), (tag, attributes)
        assert attributes.get("src", "data:").startswith("data:")


def test_what_strangers_put_into_a_run_is_text(sweep: Path) -> None:
    bad = a_run(
        sweep / EVIL.replace("/", "").replace("\0", ""),
        *("model=vae", "dataset=digits"),
        metrics={"status": "failed", "cause": EVIL, EVIL: 1.0, f"test/{EVIL}": 2.0},
        findings=[{"what": EVIL, "evidence": EVIL, "remedy": EVIL}],
    )
    OmegaConf.save(OmegaConf.create([f"model={EVIL[:-1]}", f"x={EVIL[:-1]}"]), bad / ".hydra" / "overrides.yaml")
    (bad / "history.jsonl").write_text(json.dumps({"epoch": 1, f"test/{EVIL}": 1.0}) + "\n")
    (bad / "figures").mkdir()
    (bad / "figures" / "units<script>.png").write_bytes(b"\x89PNG no picture")
    page = page_of(sweep)
    assert len(page.scripts) == 1
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert not [a for _, a in page.tags if any(key.startswith("on") for key in a)]
    assert "<script>alert(1)</script>" in page.text, "it is told, as text"


HARM: dict[str, Callable[[Path], object]] = {
    "gone": lambda file: file.unlink(),
    "empty": lambda file: file.write_text(""),
    "cut off": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "not text": lambda file: file.write_bytes(bytes(range(256))),
    "a list": lambda file: file.write_text("[1, [2], {}]"),
    "deep": lambda file: file.write_text("[" * 100_000),
    "strange numbers": lambda file: file.write_text('{"test/sse": NaN, "test/kl": 1e400, "epochs": "x", "status": 3}'),
    "huge numbers": lambda file: file.write_text('{"test/sse": 1' + "0" * 5000 + ', "status": "finished"}'),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
}


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("name", [".hydra/config.yaml", ".hydra/overrides.yaml", "metrics.json", "history.jsonl"])
def test_damage_in_one_run_leaves_the_rest_as_it_is(name: str, harm: str, sweep: Path) -> None:
    HARM[harm](sweep / "model=vae,seed=1" / name)
    text = page_of(sweep).text
    assert "6 runs" in text
    assert "8.000" in text
    assert "RuntimeError: no" in text


def test_damaged_findings_and_pictures_are_left_out(sweep: Path) -> None:
    run = sweep / "model=vae,seed=0"
    (run / "findings.json").write_text('[1, {"what": 2}, {"what": "x"}]')
    (run / "figures").mkdir()
    for name in ("units", "strip"):
        (run / "figures" / f"{name}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 50)
    page = page_of(sweep)
    assert not [tag for tag, _ in page.tags if tag == "img"]


def test_pictures_are_side_by_side(run: Callable[..., Path], tmp_path: Path) -> None:
    from io import BytesIO

    from PIL import Image

    few = ("dataset=digits", "dataset.subset=64", "epochs=1", "device=cpu", "~views.code", "~views.activations")
    for noise in ("none", "masking"):
        run(*few, f"noise={noise}", name=f"all/{noise}")
    page = page_of(tmp_path / "all")
    images = {a["alt"]: a["src"] for tag, a in page.tags if tag == "img"}
    units = {f"units-hidden1 of {noise}" for noise in ("none", "masking")}
    assert {"test images", "with noise", "reconstructed by masking", *units} <= set(images)
    strip = Image.open(tmp_path / "all" / "masking" / "figures" / "strip.png")
    assert strip.size == (80, 24)
    clean = Image.open(BytesIO(base64.b64decode(images["test images"].partition(",")[2])))
    assert clean.tobytes() == strip.crop((0, 0, 80, 8)).tobytes()
    assert images["with noise"] != images["test images"]


def test_evaluations_of_a_run_are_not_runs_of_their_own(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", "model=vae", "dataset=digits", metrics={"test/sse": 1.0})
    a_run(run / "eval" / "noise=gaussian", "mode=eval", "model=vae", "dataset=digits", metrics={"test/sse": 2.0})
    a_run(run / "eval" / "codes", "mode=encode", "model=vae", "dataset=digits")
    assert [entry.path for entry in entries(tmp_path, tmp_path)] == [run]
    assert "1 run " in page_of(run).text, "a run alone is reported on, too"


def test_figures_of_different_images_are_not_ranked(tmp_path: Path) -> None:
    for name, error in (("digits", 1.0), ("toy", 2.0)):
        a_run(tmp_path / name, f"dataset={name}", metrics={"test/sse": error, "train/seconds_per_epoch": error})
    groups = grouped(entries(tmp_path, tmp_path))
    assert best("test/sse", groups) is None
    assert best("train/seconds_per_epoch", groups) is not None
    assert best("test/sse", groups[:1] * 2) is not None


def test_what_measures_found_is_compared(tmp_path: Path) -> None:
    for size, share in ((8, 90.0), (16, 95.0)):
        figures = {"sse": 1.0, "probe_linear": share, "probe_linear_pixels": 99.0, "is_nll_50": 90.0}
        metrics = {f"test/{name}": value for name, value in figures.items()}
        a_run(tmp_path / str(size), f"model.code_dim={size}", metrics=metrics)
    groups = grouped(entries(tmp_path, tmp_path))
    known = {tag for group in groups for run in group.finished for tag in run.figures}
    shown = ["test/sse", "test/probe_linear", "test/is_nll_50", "train/seconds_per_epoch"]
    assert main_figures(known) == shown
    leader = best("test/probe_linear", groups)
    assert leader is not None
    assert leader.cells["model.code_dim"] == "16"


def test_the_command(sweep: Path) -> None:
    outcome = command(["mode=report", f"run={sweep.name}"], sweep.parent)
    assert outcome.code == 0, outcome.err
    assert "report: sweep/report.html (6 runs)" in outcome.out
    elsewhere = command(["mode=report", f"run={sweep.name}", "mode.out=pages"], sweep.parent)
    assert elsewhere.code == 0, elsewhere.err
    page = Reader((sweep.parent / "pages" / "report.html").read_text())
    links = {a["href"] for tag, a in page.tags if tag == "a"}
    assert "../sweep/model%3Dvae%2Cseed%3D0/" in links
    assert not (sweep.parent / "outputs").exists(), "no directory of its own is left"


def test_a_sweep_ends_with_its_report(sweep: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "aetrain")
    Sweep(sweep).summarise()
    assert "6 runs" in Reader((sweep / "report.html").read_text()).text
    assert len((sweep / "sweep.csv").read_text().splitlines()) == 8, "a cause of two lines"
    (sweep / "report.html").unlink()
    (sweep / "report.html").mkdir()
    Sweep(sweep).summarise()
    assert "report.html could not be written" in caplog.text, "and the sweep goes on"
    assert caplog.text.count("table: ") == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
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
def test_mistakes(arguments: list[str], words: list[str], sweep: Path) -> None:
    (sweep.parent / "a_file").write_text("")
    outcome = command(["mode=report", *arguments], sweep.parent)
    assert outcome.code == 1
    assert all(word in outcome.err for word in words), outcome.err
    assert "Traceback" not in outcome.err


def test_torch_is_not_imported(sweep: Path) -> None:
    program = (
        "import sys; from aetrain.cli import main\n"
        f"sys.argv = ['aetrain', 'mode=report', 'run={sweep}']\n"
        "main(); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_text_is_escaped_wherever_it_enters() -> None:
    assert el("p", "<b>&", title='"<') == '<p title="&quot;&lt;">&lt;b&gt;&amp;</p>'
    assert el("p", el("b", "x"), ["<", el("i")]) == "<p><b>x</b>&lt;<i></i></p>"
    assert join("a\x00\x1b\ud800b") == "a?b"


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (12.3456, "12.35"), (0.012345, "0.01235"), (1234567.0, "1.23e+06"), (-3.0, "-3.000")]
)
def test_numbers_have_four_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 250), (1e-9, 2e-9), (5, 5), (99.7, 100.1)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    marks = ticks(low, high)
    assert 1 <= len(marks) <= 11
    assert all(low - 1e-9 * abs(low) <= mark <= high + 1e-9 * abs(high) for mark in marks)


@pytest.mark.slow
def test_in_a_browser_it_sorts_and_complains_of_nothing(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import browser

    if not browser.found():
        pytest.skip("no Chromium here")
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
