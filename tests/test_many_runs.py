"""Reports of many runs: the charts and wide tables of a thousand settings show the best, the other tables show all."""

import importlib
import json
import re
from pathlib import Path

import pytest
from conftest import ROOT
from omegaconf import OmegaConf
from written_runs import ParsedPage, write_run

from aetrain.report.charts import HEIGHT, LINE_HEIGHT, Scatter, draw_rate_distortion
from aetrain.report.groups import RunGroup, group_runs
from aetrain.report.page import page_text
from aetrain.report.ranking import MAX_DRAWN, select_groups
from aetrain.report.runs import RunSummary


def groups_of(count: int, *, with_errors: bool = True) -> list[RunGroup]:
    """Return groups of one run each; the errors of a test set fall with the number of the run."""
    runs = []
    for number in range(count):
        rate = 1e-4 * (number + 1)
        metrics = {"test/sse": 9.0 - rate, "epochs": 2.0} if with_errors else {}
        settings = {"optimizer.lr": rate, "seed": 0}
        history = [{"epoch": 0.0, "test/sse": 9.0}, {"epoch": 1.0, "test/sse": 9.0 - rate}]
        runs.append(
            RunSummary(
                Path(f"lr={rate:g}"),
                f"lr={rate:g}",
                "finished",
                settings=settings,
                overrides={"optimizer.lr": f"{rate:g}"},
                metrics=metrics,
                history=history,
            )
        )
    return group_runs(runs)


def page_of(groups: list[RunGroup]) -> str:
    return page_text("runs", groups, "report.csv", [], None, None)


def test_a_few_settings_are_all_drawn() -> None:
    groups = groups_of(MAX_DRAWN)
    assert select_groups(groups) == (groups, "")
    page = page_of(groups)
    assert page.count("data-toggle=") == MAX_DRAWN
    assert "Shown are" not in page
    assert 'class="many"' not in page


def test_of_many_settings_the_best_are_drawn_and_the_tables_have_all() -> None:
    count = MAX_DRAWN + 50
    groups = groups_of(count)
    drawn, sentence = select_groups(groups)
    best = sorted(groups, key=lambda group: group.runs[0].metrics["test/sse"])[:MAX_DRAWN]
    assert {group.number for group in drawn} == {group.number for group in best}
    assert [group.number for group in drawn] == sorted(group.number for group in drawn)
    assert sentence == f"Shown are the {MAX_DRAWN} best by sse of {count} settings; the table at the top has all."
    page = page_of(groups)
    assert page.count("data-toggle=") == MAX_DRAWN
    assert page.count(sentence) == 2
    assert '<main class="many">' in page
    parsed = ParsedPage(page)
    rows = [attributes for name, attributes in parsed.tags if name == "tr" and "data-group" in attributes]
    assert len([row for row in rows if "data-dataset" in row]) == count, "the table at the top"
    links = [attributes for name, attributes in parsed.tags if name == "a" and attributes["href"].startswith("./")]
    assert len(links) == count, "the table of runs"


def test_without_a_metric_the_first_are_drawn() -> None:
    groups = groups_of(MAX_DRAWN + 1, with_errors=False)
    drawn, sentence = select_groups(groups)
    assert drawn == groups[:MAX_DRAWN]
    assert f"the {MAX_DRAWN} first of" in sentence


@pytest.mark.parametrize(("count", "all_named"), [(5, True), (600, False)])
def test_names_beside_points_do_not_cover_each_other_and_end_with_the_chart(count: int, all_named: bool) -> None:
    scatters = [Scatter(f"run {i}", i, [(1.0 + i / count, 20.0, "")]) for i in range(count)]
    chart = draw_rate_distortion(scatters, "clip")
    names = [float(y) for y in re.findall(r'class="label[^"]*" x="[^"]*" y="([^"]*)"', chart)]
    assert chart.count("<circle") == count
    assert (len(names) == count) is all_named
    assert len(names) <= HEIGHT / LINE_HEIGHT + 1
    assert all(abs(one - other) >= LINE_HEIGHT - 0.2 for one in names for other in names if one != other)


def test_the_benchmark_writes_runs_as_the_command_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copies are runs of the swept settings, so that the same sweep finds them finished."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    many_runs = importlib.import_module("many_runs")
    template = write_run(tmp_path / "template", *many_runs.BASE, metrics={"test/sse": 10.0})
    settings = many_runs.write_sweep(template, tmp_path / "sweep", 4, 2)
    assert settings == ["optimizer.lr=0.0001,0.000101", "seed=0,1"]
    runs = {run.name: run for run in (tmp_path / "sweep").iterdir()}
    assert sorted(runs) == [f"optimizer.lr={rate},seed={seed}" for rate in ("0.0001", "0.000101") for seed in (0, 1)]
    config = OmegaConf.load(runs["optimizer.lr=0.000101,seed=1"] / ".hydra" / "config.yaml")
    assert (config.optimizer.lr, config.seed) == (0.000101, 1)
    errors = [json.loads((run / "metrics.json").read_text())["test/sse"] for run in runs.values()]
    assert len(set(errors)) == 4
    assert (template / "metrics.json").stat().st_nlink == 1, "the template does not change"
