"""The log of a run: no figure twice, a short table with baselines, findings last, all metrics in a file."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from command import command
from conftest import TINY

from aetrain import api
from aetrain.evaluation.console import HELD_OUT_METRICS, TRAINING_METRICS, repeated_metrics, summary_table
from aetrain.evaluation.measures.few_labels import FewLabels
from aetrain.evaluation.measures.probes import Probes
from aetrain.evaluation.measures.retrieval import Retrieval
from aetrain.evaluation.measures.robustness import Robustness
from aetrain.evaluation.metric_descriptions import collect_descriptions
from aetrain.runs import entry
from aetrain.runs.build import build

# The overrides of a run, and the metrics that its log leaves out because they are others under a second name.
REPEATED = [
    (["model=linear"], {"train/nll"}),
    (["model=linear", "noise=gaussian"], {"train/nll"}),
    (["model=linear", "sparsity=l1"], set()),
    (["model=linear", "likelihood.reduction=mean"], set()),
    (["model=vae"], {"test/loss"}),
    (["model=vae", "model.penalties.kl.warmup=0.5"], {"test/loss"}),
    (["model=vae", "model.penalties.kl.free_bits=0.1"], set()),
    (["model=vae", "model.penalties.kl.capacity=5"], set()),
    (["model=vae", "noise=masking"], set()),
    (["model=vae", "model.penalties.kl.weight=2"], set()),
    (["model=vae", "penalty=l2"], set()),
    (["model=vqvae"], set()),
    (["model=iwae"], set()),
]


@pytest.mark.slow
@pytest.mark.parametrize(("overrides", "expected"), REPEATED)
def test_line_of_an_epoch_has_no_figure_twice(
    overrides: list[str], expected: set[str], tiny: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """The metrics left out are those that equal another one, and no two of the others are equal."""
    with caplog.at_level(logging.INFO, "aetrain"):
        run = tiny(*overrides)
    config, _, full_overrides = api.compose_config([*TINY, *overrides])
    assert repeated_metrics(build(entry.check(config, full_overrides)), "test") == expected
    epoch = json.loads((run / "history.jsonl").read_text().splitlines()[-1])
    equal = {"train/nll": "train/loss", "test/loss": "test/neg_elbo"}
    for tag in expected:
        assert epoch[tag] == pytest.approx(epoch[equal[tag]], rel=1e-6)
    candidates = [*(f"train/{name}" for name in TRAINING_METRICS), *(f"test/{name}" for name in HELD_OUT_METRICS)]
    tags = [tag for tag in candidates if tag in epoch and tag not in expected]
    assert len({round(epoch[tag], 5) for tag in tags}) == len(tags), {tag: epoch[tag] for tag in tags}
    (line,) = (text for text in caplog.messages if text.startswith("epoch 1/1"))
    assert re.findall(r"([a-z_]+) -?\d+\.\d\d(?= )", line.rpartition(" | ")[0] + " ") == [
        tag.partition("/")[2] for tag in tags
    ]


def test_table_has_the_baselines_of_a_metric_beside_it() -> None:
    measures = (Probes(), Retrieval(), FewLabels(), Robustness())
    metrics = {
        **{"loss": 30.5, "nll": 30.25, "sse": 7.25, "mean_sse": 52.7, "pca_sse": 5.5, "psnr": 11.0, "dead_units": 3.0},
        **{"l0": 20.0, "probe_svm_pixels": 99.0, "probe_svm_pca": 98.0, "probe_svm": 97.0, "probe_nmi": 0.5},
        **{"precision_10": 60.0, "precision_10_pixels": 61.0, "precision_10_pca": 62.0, "own": 123456.0},
        **{"finetuned_100": 80.0, "finetuned_100_random": 70.0, "noisy_sse_blur_0.5": 9.0, "input_sse_blur_0.5": 8.0},
    }
    tags = {f"test/{name}": value for name, value in metrics.items()} | {"train/seconds_per_epoch": 1.0}
    rows = [line.split() for line in summary_table(tags, collect_descriptions({}, measures), code_dim=20).splitlines()]
    assert rows == [
        ["model", "PCA", "mean", "image"],
        ["test/loss", "30.50"],
        ["test/sse", "7.250", "5.500", "52.70"],
        ["test/psnr", "11.00", "dB"],
        ["test/dead_units", "3", "of", "20"],
        ["test/probe_nmi", "0.5000", "mutual", "information", "with", "k-means"],
        ["test/own", "123,456"],
        ["code", "PCA", "pixels"],
        ["test/probe_svm", "97.00", "98.00", "99.00", "%", "by", "a", "support", "vector", "machine"],
        ["test/precision_10", "60.00", "62.00", "61.00", "%", "of", "the", "nearest", "examples"],
        ["trained", "untrained"],
        ["test/finetuned_100", "80.00", "70.00", "%"],
        ["model", "noisy", "image"],
        ["test/noisy_sse_blur_0.5", "9.000", "8.000"],
    ]


def test_table_counts_the_active_units_of_a_sparse_code() -> None:
    assert "test/l0  5.000  of 20" in summary_table({"test/l0": 5.0}, {}, code_dim=20)
    assert "l0" not in summary_table({"test/l0": 20.0, "test/sse": 1.0}, {}, code_dim=20)


@pytest.mark.slow
def test_log_of_a_run(tmp_path: Path) -> None:
    """One line about the model, one for each epoch, the short table, the paths that exist, and the findings."""
    arguments = [*TINY, "model=vae", "measures=probes", "measures.probes.images=50", "hydra.run.dir=run"]
    outcome = command(arguments, tmp_path)
    lines = outcome.out.splitlines()
    metrics = {
        tag: value for tag, value in json.loads((tmp_path / "run/metrics.json").read_text()).items() if "/" in tag
    }
    assert f"run: {json.loads((tmp_path / 'run/metrics.json').read_text())['weights']:,} weights, cpu" in lines
    assert max(len(line) for line in lines if "http" not in line and "tensorboard" not in line) <= 110
    assert "pictures" not in outcome.out
    assert "metrics:  run/metrics.txt" in lines
    assert "test/bce_excess" not in outcome.out
    findings = json.loads((tmp_path / "run/findings.json").read_text())
    assert findings
    last = [line for finding in findings for line in (f"{finding['what']}: {finding['evidence']}", finding["remedy"])]
    assert [line.removeprefix("diagnostics: ").strip() for line in lines[-len(last) :]] == last
    table = [line.split() for line in (tmp_path / "run/metrics.txt").read_text().splitlines()]
    assert {row[0]: row[1] for row in table} == {tag: f"{value:.4f}" for tag, value in metrics.items()}
    probes = [row for row in table if row[0].startswith("test/probe")]
    assert len(probes) == 15
    assert sum(line.startswith("  test/probe") for line in lines) == 5


@pytest.mark.slow
def test_verbose_logs_all_metrics(tmp_path: Path) -> None:
    """The setting is that of a command: neither the run nor its evaluation keeps it."""
    linear = [*TINY, "model=linear", "hydra.run.dir=run"]
    trained = command([*linear, "verbose=true"], tmp_path).out
    assert (tmp_path / "run/metrics.txt").read_text() in trained
    evaluated = command(["mode=eval", "run=run"], tmp_path).out
    assert "test/sse" in evaluated
    assert "test/bce_excess" not in evaluated
    assert "test/bce_excess" in command(["mode=eval", "run=run", "verbose=true"], tmp_path).out
    assert not (tmp_path / "run/eval").exists()
    table = (tmp_path / "run/metrics.txt").read_text()
    assert "train/seconds_per_epoch" in table, "the metrics of the training are kept"
    assert all(re.search(r"\d  \S", line) for line in table.splitlines()), "each has its description"


@pytest.mark.slow
def test_pictures_are_named_where_this_run_has_drawn_them(tmp_path: Path) -> None:
    small = [text for text in TINY if not text.startswith("views=")]
    command([*small, "model=linear", "views=reconstructions", "hydra.run.dir=run"], tmp_path)
    drawn = command(["resume=run", "epochs=2"], tmp_path).out
    assert "pictures: run/figures" in drawn
    assert (tmp_path / "run/figures/reconstructions.png").is_file()
    assert "pictures:" not in command(["resume=run", "epochs=3", "views=none"], tmp_path).out
