"""Descriptions of metrics and views: classes state them; the terminal, files, TensorBoard and pages show them."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import run as run_process
from typing import Any

import pytest
from command import Outcome, command
from conftest import ROOT, TINY

from aetrain import api
from aetrain.config.paths import groups, option_config
from aetrain.config.validate import locate
from aetrain.evaluation.console import metrics_table
from aetrain.evaluation.metric_descriptions import collect_descriptions, describe_metrics, metrics_page
from aetrain.evaluation.metric_names import find_pattern, name_of
from aetrain.report.groups import RunGroup
from aetrain.report.metrics import describe_metric, sort_metrics
from aetrain.report.page import write_report
from aetrain.report.runs import RunSummary
from aetrain.storage.descriptions import MAX_FILE_BYTES, read_descriptions
from aetrain.views.tensorboard import event_files, read_events

# Settings that an option needs for a short run.
NEEDS = {
    "penalty=dip": ("model=vae",),
    "penalty=tc": ("model=vae",),
    "penalty=mmd": ("model=vae",),
    "measures=few_labels": ("measures.few_labels.labels=[20]", "measures.few_labels.steps=2"),
    "measures=likelihood": ("model=vae", "measures.likelihood.samples=[1,2]"),
    "measures=retrieval": ("measures.retrieval.at=[5]",),
    "measures=robustness": ("measures.robustness.levels=[0.3]",),
    "measures=imputation": ("dataset=wine", "likelihood=gaussian", "dataset.missing=0.3"),
    "measures=anomaly": ("dataset.train_classes=[0,1]",),
}

# Measures that need a folder of their own, or ratings, of which other tests run them.
NEED_FILES = ("measures=frechet", "measures=factorization", "measures=recommendation")

OPTIONS = [f"{group}={option}" for group in ("model", "penalty", "sparsity", "measures") for option in groups()[group]]


def descriptions_of(directory: Path) -> dict[str, str]:
    """Return the descriptions of a run; fail where a metric of the run has none."""
    descriptions = read_descriptions(directory)
    tags = {tag for tag in json.loads((directory / "metrics.json").read_text()) if "/" in tag}
    for line in (directory / "history.jsonl").read_text().splitlines():
        tags |= {tag for tag in json.loads(line) if "/" in tag}
    assert {name_of(tag) for tag in tags} == descriptions.keys()
    assert not [name for name, text in descriptions.items() if not text]
    return descriptions


@pytest.mark.slow
@pytest.mark.parametrize("option", [option for option in OPTIONS if option not in NEED_FILES])
def test_every_metric_of_a_run_has_a_description(option: str, tiny: Callable[..., Path]) -> None:
    descriptions_of(tiny(option, *NEEDS.get(option, ()), "noise=masking"))


@pytest.mark.slow
def test_frechet_distances_have_descriptions(tiny: Callable[..., Path], tmp_path: Path) -> None:
    directory = tiny("measures=frechet", "model=vae", f"measures.frechet.path={tmp_path}")
    assert {"frechet_floor", "frechet_samples", "frechet_reconstructions"} <= descriptions_of(directory).keys()


def views() -> Iterator[tuple[str, Any]]:
    for option in groups()["views"]:
        for name, node in option_config("views", option).items():
            if "_target_" in node:
                yield name, locate(node["_target_"])


def test_every_view_has_a_description_of_one_sentence() -> None:
    for name, view in views():
        assert re.fullmatch(r"[A-Z][^.]+\.", view.description), name


# --- The order --------------------------------------------------------------------------------------------------------


def test_table_and_file_have_the_order_of_the_page(tmp_path: Path) -> None:
    options = ["model=aae", "penalty=[l2,orthogonal]", "sparsity=l1", "measures=retrieval", "hydra.run.dir=run"]
    assert command([*TINY, *options, *NEEDS["measures=retrieval"]], tmp_path).code == 0
    directory = tmp_path / "run"
    names = [*descriptions_of(directory)]
    tail = ["critic", "critic_loss", "critic_accuracy", "l2", "orthogonal", "sparsity"]
    tail += ["precision_5", "precision_5_pixels", "precision_5_pca", "seconds_per_epoch"]
    assert names[-len(tail) :] == tail
    rows = re.findall(r"^\| `(\w+)` \|", metrics_page(), re.M)
    standard = names[: -len(tail)]
    assert standard == [name for name in rows[: rows.index("critic")] if name in standard]
    table = [name_of(tag) for tag in table_lines((directory / "metrics.txt").read_text())]
    assert table == [name for name in names if name not in ("critic_loss", "critic_accuracy")]


def test_names_match_patterns() -> None:
    patterns = ["finetuned_N", "finetuned_N_random", "precision_K", "MEASURE_pca", "noisy_sse_NOISE_LEVEL", "sse"]
    for name, pattern in (
        ("finetuned_100", "finetuned_N"),
        ("finetuned_100_random", "finetuned_N_random"),
        ("precision_10", "precision_K"),
        ("precision_10_pca", "MEASURE_pca"),
        ("noisy_sse_salt_and_pepper_0.3", "noisy_sse_NOISE_LEVEL"),
        ("sse", "sse"),
        ("sseX", ""),
        ("precision_all", ""),
    ):
        assert find_pattern(name, patterns) == pattern
    assert name_of("test/sse") == "sse"
    assert name_of("epochs") == "epochs"


def test_a_metric_without_a_description_comes_last() -> None:
    descriptions = describe_metrics(["test/own", "test/nll", "test/loss"], collect_descriptions({}, []))
    assert [*descriptions] == ["loss", "nll", "own"]
    table = metrics_table({"test/own": 1.0, "test/nll": 2.0, "test/loss": 3.0}, descriptions)
    assert [line.split()[0] for line in table.splitlines()] == ["test/loss", "test/nll", "test/own"]
    assert table.splitlines()[-1].endswith("1.0000")


# --- Classes of a user ------------------------------------------------------------------------------------------------

MODULE = """
from dataclasses import dataclass
from typing import ClassVar

from aetrain.evaluation.measures.measure import Measure
from aetrain.objective.penalties import Penalty
from aetrain.views.render import grid
from aetrain.views.view import Picture


class Length(Penalty):
    description = "length of the code <of the user>, in pixels"

    def forward(self, model, out):
        return out.code.z.norm(dim=1)


class Silent(Penalty):
    def forward(self, model, out):
        return out.code.z.square().sum(1)


@dataclass(frozen=True)
class Widths(Measure):
    descriptions: ClassVar = {"width": "width of the code", "width_K": "width of K units"}

    def __call__(self, inputs):
        return {"width_3": 3.0, "width": 4.0, "undescribed": 5.0}


@dataclass(frozen=True)
class Inputs:
    description: ClassVar = "The images as they are."

    def __call__(self, context):
        return Picture(grid(context.x[:4], 2))
"""
OPTION_FILES = {
    "penalty/length.yaml": "length:\n  _target_: usermetrics.Length\n  weight: 0.1\n",
    "penalty/silent.yaml": "silent:\n  _target_: usermetrics.Silent\n  weight: 0.1\n",
    "measures/widths.yaml": "widths:\n  _target_: usermetrics.Widths\n",
    "views/inputs.yaml": "inputs:\n  _target_: usermetrics.Inputs\n",
}
TEXTS = ("length of the code <of the user>, in pixels", "width of the code", "width of K units")


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "usermetrics.py").write_text(MODULE)
    for name, text in OPTION_FILES.items():
        file = tmp_path / "mine" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"# An option of the user.\n{text}")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("usermetrics", None)


def run_user_options(folder: Path) -> Outcome:
    options = ["penalty=[length,silent]", "measures=widths", "views=inputs", "hydra.run.dir=run"]
    tiny = [override for override in TINY if not override.startswith("views=")]
    outcome = command(["--config-dir", "mine", *tiny, *options], folder)
    assert outcome.code == 0, outcome.err
    return outcome


def table_lines(log: str) -> dict[str, str]:
    """Return the descriptions in a table of metrics in a log, by tag, in its order."""
    return dict(re.findall(r"^(?:.* INFO )?  (\w+/\w+) +[-\d.]+ *(.*)$", log, re.M))


def test_classes_of_a_user_are_described_everywhere(user_folder: Path) -> None:
    run_user_options(user_folder)
    directory = user_folder / "run"
    lines = table_lines((directory / "metrics.txt").read_text())
    described = [lines[f"test/{name}"] for name in ("length", "width", "width_3")]
    assert described == [*TEXTS]
    assert lines["test/silent"] == lines["test/undescribed"] == ""

    evaluated = command(["mode=eval", "run=run", "trust=true", "verbose=true"], user_folder)
    assert table_lines(evaluated.out + evaluated.err)["test/width_3"] == "width of K units"

    write_report(directory, user_folder)
    page = (user_folder / "report.html").read_text()
    for text in TEXTS:
        assert text.replace("<", "&lt;").replace(">", "&gt;") in page

    page = metrics_page(user_folder / "mine")
    assert f"| `length` | {TEXTS[0]} | `penalty=length` |" in page
    assert "| `silent` |  | `penalty=silent` |" in page
    assert "| `width_K` | width of K units | `measures=widths` |" in page


def test_tensorboard_has_the_descriptions_also_of_a_resumed_run(user_folder: Path) -> None:
    run_user_options(user_folder)
    expected = {"views/inputs": "The images as they are.", "test/length": TEXTS[0], "train/length": TEXTS[0]}
    first = first_descriptions(user_folder / "run")
    assert expected.items() <= first.items()
    assert first["test/sse"].startswith("squared error")
    outcome = command(["--config-dir", "mine", "resume=run", "epochs=2", "trust=true"], user_folder)
    assert outcome.code == 0, outcome.err
    assert first_descriptions(user_folder / "run") == first


def first_descriptions(directory: Path) -> dict[str, str]:
    """Return the description of each scalar and picture, which TensorBoard reads from the first value of its tag."""
    (file,) = event_files(directory)
    descriptions: dict[str, str] = {}
    for event in read_events(file):
        for value in event.summary.value:
            descriptions.setdefault(value.tag, value.metadata.summary_description)
    return descriptions


def test_evaluation_keeps_the_descriptions_of_the_run(tiny: Callable[..., Path]) -> None:
    directory = tiny("model=aae")
    before = read_descriptions(directory)
    assert "critic_accuracy" in before  # a metric of training only
    (directory / "descriptions.json").write_text(json.dumps({**before, "sse": "an old text"}))
    api.run([f"run={directory}", "mode=eval"])
    assert read_descriptions(directory) == before
    assert [*read_descriptions(directory)] == [*before]


# --- The page and the report ------------------------------------------------------------------------------------------


def test_page_of_metrics_is_up_to_date() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == metrics_page()


def test_every_option_on_the_page_has_descriptions() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|(?: (.*) \|)?$", metrics_page(), re.M)
    assert not [name for name, text, _ in rows if not text.strip()]
    options = {option for _, _, names in rows for option in re.findall(r"`(.*?)`", names)}
    for group in ("penalty", "measures"):
        assert options >= {f"{group}={option}" for option in groups()[group] if option != "none"}


def test_report_does_not_import_torch(tiny: Callable[..., Path], tmp_path: Path) -> None:
    directory = tiny("model=vae", "penalty=l2")
    program = (
        "import sys; from pathlib import Path; from aetrain.report.page import write_report;"
        f"write_report(Path({str(directory)!r}), Path({str(tmp_path)!r})); assert 'torch' not in sys.modules"
    )
    run_process([sys.executable, "-c", program], check=True, timeout=60)
    assert "squared length of the code" in (tmp_path / "report.html").read_text()


def groups_of(*runs: dict[str, str]) -> list[RunGroup]:
    summaries = [
        RunSummary(Path(str(i)), str(i), "finished", metrics={f"test/{name}": 1.0 for name in run}, descriptions=run)
        for i, run in enumerate(runs)
    ]
    return [RunGroup(i, {}, [summary]) for i, summary in enumerate(summaries)]


def test_report_merges_the_orders_and_texts_of_runs() -> None:
    deep = {"loss": "a", "sse": "b", "sparsity": "first penalty", "precision_10": "p"}
    vae = {"loss": "a", "kl": "k", "sse": "b", "sparsity": "second penalty", "is_nll_5": "i"}
    runs = groups_of(deep, vae)
    tags = [f"test/{name}" for name in {**deep, **vae}]
    order = ["loss", "kl", "sse", "sparsity", "is_nll_5", "precision_10"]
    assert sort_metrics(tags, runs) == [f"test/{name}" for name in order]
    assert describe_metric("test/kl", runs) == "k"
    assert describe_metric("test/sse", runs) == "b"
    assert describe_metric("test/sparsity", runs) == "first penalty; in other runs: second penalty"


def test_report_of_runs_without_descriptions_keeps_the_order_of_their_metrics() -> None:
    metrics = {"test/sse": 1.0, "test/bce": 2.0}
    runs = [RunGroup(0, {}, [RunSummary(Path("a"), "a", "finished", metrics=metrics)])]
    assert sort_metrics(metrics, runs) == ["test/sse", "test/bce"]
    assert describe_metric("test/sse", runs) == ""


@pytest.mark.parametrize("content", [b"", b"\xff", b"[1]", b"{", b"[" * 100_000, b" " * MAX_FILE_BYTES + b"{}"])
def test_damaged_descriptions_are_empty(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "descriptions.json").write_bytes(content)
    assert read_descriptions(tmp_path) == {}


def test_only_texts_are_descriptions(tmp_path: Path) -> None:
    (tmp_path / "descriptions.json").write_text('{"a": "text", "b": 3, "c": null, "d": ["e"]}')
    assert read_descriptions(tmp_path) == {"a": "text"}
