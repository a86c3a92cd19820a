"""Rows of published tables: their form, the page made from their records, and a short form of each on the real data."""

import importlib.util
import shlex
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import aetrain
from aetrain.config.paths import groups

ROOT = Path(__file__).resolve().parent.parent
ROWS = sorted(file.stem for file in (ROOT / "benchmarks" / "published").glob("*.py"))
FIELDS = ("PROTOCOL", "SOURCE", "CHOICES", "RUNS", "FIGURES", "SHORT")


@pytest.fixture
def reproductions(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Return the module benchmarks/reproductions.py."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("reproductions", ROOT / "benchmarks" / "reproductions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "reproductions", module)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("experiments", None)


@pytest.mark.parametrize("name", ROWS)
def test_row_has_all_fields_and_names_an_experiment(name: str, reproductions: ModuleType) -> None:
    row = reproductions.load_row(name)
    assert not [field for field in FIELDS if not getattr(row, field)]
    for overrides in row.RUNS.values():
        experiments = [word.partition("=")[2] for word in overrides if word.startswith("experiment=")]
        assert len(experiments) == 1
        assert experiments[0] in groups()["experiment"]
    assert any(figure.tolerance != "-" for figure in row.FIGURES)
    assert any(figure.short_low is not None or figure.short_high is not None for figure in row.FIGURES)


def test_verdict_is_that_of_the_mean_over_seeds(reproductions: ModuleType) -> None:
    figure = reproductions.Figure("error, %", "1.3", lambda runs: 0.0, high=1.45)
    assert reproductions.verdict(figure, []) == "not run"
    assert reproductions.verdict(figure, [1.4, 1.5]) == "within"
    assert reproductions.verdict(figure, [1.4, 1.6]) == "**missed**"
    assert figure.tolerance == "at most 1.45"


def test_page_is_made_from_the_records(
    reproductions: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "reproductions.md").read_text()
    monkeypatch.setattr(reproductions, "DOCS", tmp_path)
    reproductions.write_document()
    assert (tmp_path / "reproductions.md").read_text() == page


def test_readme_has_the_figures_of_the_records(reproductions: ModuleType) -> None:
    error, code, *_ = reproductions.figures_of("one_class").values()
    seeds = f"({len(error)} seed{'s' if len(error) > 1 else ''})"
    areas = f"{statistics.mean(error):.3f} by the error, {statistics.mean(code):.3f} by the code"
    (accuracy,) = reproductions.figures_of("fc_wta").values()
    expected = [
        f"| `experiment=one_class` | area under the ROC curve {areas}, mean of ten usual digits {seeds} |",
        f"| `experiment=fc_wta` | accuracy {min(accuracy):.2f} to {max(accuracy):.2f} % of a linear classifier of the "
        f"code ({len(accuracy)} seeds) |",
    ]
    lines = (ROOT / "README.md").read_text().splitlines()
    for text in expected:
        assert any(line.startswith(text) for line in lines), text


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_short_form_of_a_row(
    name: str, reproductions: ModuleType, run: Callable[..., Path], data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bounds of a figure are those that a broken implementation misses, not those of the full runs."""
    row = reproductions.load_row(name)
    names = getattr(row, "SHORT_RUNS", tuple(row.RUNS))
    overrides = (*row.SHORT, "seed=0", "views=none", f"data_dir={shlex.quote(str(data_dir))}", "device=cpu")
    trained = {one: aetrain.load(run(*row.RUNS[one], *overrides, name=one)) for one in names}
    metrics = {one: reproductions.metrics_of(loaded) for one, loaded in trained.items()}
    figures = [figure for figure in row.FIGURES if figure.short_low is not None or figure.short_high is not None]
    values = {figure.name: figure.compute(metrics) for figure in figures}
    with capsys.disabled():
        print(name, values)
    missed = [figure.name for figure in figures if not figure.is_within_short(values[figure.name])]
    assert not missed, values
