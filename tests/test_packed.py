"""Packs: each run of a pack equals the run trained individually, and its failure stops no other run."""

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from command import command, process
from conftest import TINY
from safetensors.torch import load_file
from torch.nn import functional as F

from aetrain import api
from aetrain.runs import entry
from aetrain.runs.build import build
from aetrain.runs.request import RunRequest
from aetrain.runs.training_run import TrainingRun
from aetrain.storage.run_directory import RunDirectory
from aetrain.sweeps.packed import packed_training
from aetrain.sweeps.packed import plan as planning
from aetrain.sweeps.packed.random_replay import ReplayRandomCalls
from aetrain.sweeps.packed.vectorized import Pack, PackedRun
from aetrain.utils.cores import Limit
from aetrain.views.tensorboard import event_files, event_key, read_events

# The last batch is smaller than the others.
SHARED = (*TINY, "dataset.subset=50", "batch_size=20", "epochs=2")

VIEW = "{_target_: aetrain.views.image_grids.Reconstructions, count: 4, columns: 2}"

CASES = {
    "vae": (
        ["model=vae", "model.hidden=[32]", "noise=gaussian", f"+views.reconstructed={VIEW}"],
        ["model.penalties.kl.weight=1", "model.penalties.kl.weight=4 seed=3", "noise.std=0.1 optimizer.lr=1e-2"],
    ),
    "warmup": (
        ["model=vae", "model.hidden=[32]", "model.penalties.kl.warmup=0.5", "penalty=l2", "penalty.l2.cycles=2"],
        ["seed=1", "model.penalties.kl.warmup=0.9 seed=2", "model.penalties.kl.weight=4 penalty.l2.weight=1"],
    ),
    "plateau": (
        [
            "model=linear",
            "dataset.validation=20",
            "schedule=plateau",
            "schedule.patience=1",
            "optimizer=sgd",
            "epochs=6",
        ],
        ["optimizer.lr=0.5", "optimizer.lr=0.3 seed=1", "optimizer.lr=1e-3 schedule.factor=0.5"],
    ),
    "augmented": (
        ["model=deep", "model.hidden=[32]", "augment=affine"],
        ["augment.degrees=1", "augment.degrees=20 seed=2", "augment.shift=2"],
    ),
    "aae": (
        ["model=aae", "model.hidden=[32]", "noise=masking", "schedule=cosine"],
        ["noise.p=0.1", "noise.p=0.5 seed=1", "schedule.warmup_fraction=0.3 model.penalties.critic.weight=1"],
    ),
    "tied": (
        ["model=tied", "model.hidden=[32]", "sparsity=kl", "dataset.random_crop=6", "dataset.binarize=dynamic"],
        ["sparsity.target=0.1", "sparsity.target=0.3 pretrain=mean seed=7", "optimizer=sgd optimizer.lr=1e-4"],
    ),
    "conv": (
        ["model=conv_vae", "model.channels=[4,8]", "likelihood=gaussian", "noise=salt_and_pepper"],
        ["likelihood.variance=0.5", "likelihood.variance=0.1 seed=1 noise.white=0.2"],
    ),
    "learned": (
        ["model=vae", "model.hidden=[32]", "likelihood=gaussian", "likelihood.variance=learned_per_feature"],
        ["seed=1", "seed=2 optimizer.lr=1e-2"],
    ),
    "wae": (
        ["model=wae", "model.hidden=[32]", "dataset.validation=20", "sparsity=topk", "optimizer=adamw"],
        ["seed=1", "seed=2 optimizer.weight_decay=0.1"],
    ),
}


def make_requests(folder: Path, common: Sequence[str], each: Sequence[str]) -> list[RunRequest]:
    """Return the requests of a sweep, in folders named by the overrides of `each`, in which the runs differ."""
    requests = []
    for text in each:
        run_dir = f"hydra.run.dir='{folder / text.replace(' ', ',')}'"
        config, directory, overrides = api.compose_config([*SHARED, *common, *text.split(), run_dir])
        own = [override for override in overrides if not override.startswith("hydra.")]
        requests.append(RunRequest(config, RunDirectory(directory), own, single=False))
    return requests


def train_packed(requests: Sequence[RunRequest], size: int = 32) -> list[int]:
    """Train the first pack of the runs in this process; return the numbers of the runs that its plan covers."""
    covered, shares, _ = planning.plan(requests, size)
    for share in shares:
        packed_training.train_requests([requests[i] for i in share])
    return covered


def train_individually(requests: Sequence[RunRequest]) -> None:
    for request in requests:
        entry.run_request(replace(request, single=True))


def path(request: RunRequest) -> Path:
    return request.run_dir.path


def history(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


def metrics(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "metrics.json").read_text()))


def without_seconds(line: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in line.items() if name != "seconds"}


def assert_same_run(one: Path, other: Path) -> None:
    """Check that two directories hold the same run, except for rounding errors of another order of sums."""
    for file in (".hydra/config.yaml", ".hydra/overrides.yaml"):
        assert (one / file).read_text() == (other / file).read_text()
    assert files_of(one) == files_of(other)
    for a, b in zip(history(one), history(other), strict=True):
        assert without_seconds(a) == pytest.approx(without_seconds(b), rel=2e-3, abs=1e-4)
    assert metrics(one).keys() == metrics(other).keys()
    assert metrics(one)["status"] == metrics(other)["status"]
    assert metrics(one)["test/sse"] == pytest.approx(metrics(other)["test/sse"], rel=2e-3)
    weights = [load_file(run / "checkpoint" / "model.safetensors") for run in (one, other)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-2, atol=2e-4)
    assert_same_optimizers(one, other)
    tags = [{event_key(event) for file in event_files(run) for event in read_events(file)} for run in (one, other)]
    assert tags[0] == tags[1]
    assert len(event_files(one)) == 1


def files_of(run: Path) -> list[str]:
    return sorted(str(path.relative_to(run)) for path in run.rglob("*") if "tfevents" not in path.name)


def assert_same_optimizers(one: Path, other: Path) -> None:
    states = [torch.load(run / "checkpoint" / "training.pt", weights_only=True) for run in (one, other)]
    assert len(states[0]["optimizers"]) == len(states[1]["optimizers"])
    for a, b in zip(states[0]["optimizers"], states[1]["optimizers"], strict=True):
        assert a["param_groups"] == b["param_groups"]
        assert a["state"].keys() == b["state"].keys()
        for number, expected in a["state"].items():
            for name, value in expected.items():
                assert float((value - b["state"][number][name]).norm()) <= 1e-2 * float(value.norm()) + 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case == "vae" else pytest.mark.slow) for case in CASES]
)
def test_packed_runs_equal_individual_runs(case: str, tmp_path: Path) -> None:
    common, each = CASES[case]
    runs, individual = (
        make_requests(tmp_path / "packed", common, each),
        make_requests(tmp_path / "individual", common, each),
    )
    assert train_packed(runs) == list(range(len(each)))
    train_individually(individual)
    for run, other in zip(runs, individual, strict=True):
        assert_same_run(path(run), path(other))
    last_losses = {json.dumps(history(path(run))[-1]["train/loss"]) for run in runs}
    assert len(last_losses) == len(runs)


@pytest.mark.slow
def test_diverging_run_is_dropped_and_the_others_continue(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    common = ["model=linear", "likelihood=gaussian", "optimizer=sgd", "epochs=4"]
    runs = make_requests(tmp_path / "packed", common, ["optimizer.lr=1e-3", "optimizer.lr=1e9", "optimizer.lr=1e-4"])
    individual = make_requests(tmp_path / "individual", common, ["optimizer.lr=1e-3", "optimizer.lr=1e-4"])
    with caplog.at_level(logging.INFO):
        train_packed(runs)
        train_individually(individual)
    first, second, third = (path(run) for run in runs)
    assert metrics(second)["status"] == "failed"
    assert "training diverged in epoch" in str(metrics(second)["cause"])
    assert "training diverged in epoch" in (second / "aetrain.log").read_text()
    assert "epoch 4/4 | 2 runs" in caplog.text
    assert_same_run(first, path(individual[0]))
    assert_same_run(third, path(individual[1]))


@pytest.mark.slow
def test_interrupted_pack_resumes_together_or_by_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    common, each = ["model=vae", "model.hidden=[32]", "epochs=4"], ["seed=1", "seed=2", "seed=3"]
    runs, save = make_requests(tmp_path / "packed", common, each), TrainingRun.save

    def interrupt(self: TrainingRun) -> None:
        if self.state.epoch == 3 and self.state.seed == 2:
            raise KeyboardInterrupt
        save(self)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_packed(runs)
    epochs = [json.loads((path(run) / "checkpoint" / "state.json").read_text())["epoch"] for run in runs]
    assert epochs == [3, 2, 3]
    assert {metrics(path(run))["status"] for run in runs} == {"interrupted"}
    config, directory, overrides = api.compose_config([f"resume={path(runs[2])}"])
    entry.run(config, directory, overrides)
    content = (path(runs[2]) / "metrics.json").read_text()
    assert train_packed(runs) == [2, 0, 1]
    assert (path(runs[2]) / "metrics.json").read_text() == content, "the finished run is unchanged"
    individual = make_requests(tmp_path / "individual", common, each)
    train_individually(individual)
    for run, other in zip(runs, individual, strict=True):
        assert metrics(path(run))["status"] == "finished"
        assert history(path(run))[-1]["test/sse"] == pytest.approx(history(path(other))[-1]["test/sse"], rel=2e-3)


@pytest.mark.slow
def test_run_whose_directory_is_locked_is_left_alone(tmp_path: Path) -> None:
    runs = make_requests(tmp_path, ["model=linear"], ["seed=1", "seed=2", "seed=3"])

    locked = RunDirectory(path(runs[1]))
    locked.claim(runs[1].config, runs[1].overrides)
    try:
        train_packed(runs)
    finally:
        locked.release()
    assert [metrics(path(run))["status"] for run in runs] == ["finished", "running", "finished"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("common", "each", "reason"),
    [
        (["model=contractive"], ["seed=1", "seed=2"], "requires_grad_"),
        (["model=lstm"], ["seed=1", "seed=2"], "lstm"),
        (["model=vqvae"], ["seed=1", "seed=2"], "escaped"),
        (["model=linear", "optimizer=lbfgs"], ["seed=1", "seed=2"], "closure"),
        (["sparsity=wta"], ["sparsity.rate=0.1", "sparsity.rate=0.3"], ".item()"),
        (["sparsity=topk", "sparsity.start=20"], ["sparsity.anneal=0.4", "sparsity.anneal=0.5"], "differs in anneal"),
    ],
    ids=lambda value: str(value[-1]) if isinstance(value, list) else "",
)
def test_runs_that_cannot_be_packed_are_left_with_the_reason(
    common: Sequence[str], each: Sequence[str], reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        covered = train_packed(make_requests(tmp_path, common, each))
    assert covered == [0, 1]
    assert "run individually: 2 runs: " in caplog.text
    assert reason in caplog.text
    assert not list(tmp_path.iterdir())


def test_each_run_of_a_pack_has_its_own_noise_of_known_values(tmp_path: Path) -> None:
    common = ["dataset=wine", "dataset.missing=0.2", "model=deep", "model.hidden=[16]", "noise=salt"]
    each = ["noise.p=0.3", "noise.p=0.301"]
    runs = [build(entry.check(one.config, one.overrides)) for one in make_requests(tmp_path, common, each)]
    pack = Pack([PackedRun(run.model, run.objective, run.augment, run.noise, run.optimizer_steps, 0) for run in runs])
    assert [tensor.tolist() for tensor in pack.scalars.values()] == [pytest.approx([0.3, 0.301])]


def test_difference_that_a_pack_cannot_represent_is_detected_by_trial_steps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers in a list are not vectorised: trial steps detect runs that differ in them."""
    monkeypatch.setattr(planning, "pack_settings", lambda settings: {})
    with caplog.at_level(logging.INFO):
        train_packed(
            make_requests(
                tmp_path, ["model=wae"], ["model.penalties.mmd.scales=[1.0]", "model.penalties.mmd.scales=[2.0]"]
            )
        )
    assert "a vectorised step differs from the run's own (loss@0 differs)" in caplog.text


@pytest.mark.slow
def test_differences_in_more_than_numbers_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runs = make_requests(
        tmp_path, ["model=linear"], ["seed=1", "seed=2", "model.code_dim=4", "dataset.subset=40 model.code_dim=8"]
    )
    with caplog.at_level(logging.INFO):
        assert sorted(train_packed(runs)) == [0, 1, 2, 3]
    assert "code_dim=4: no other run has its model.code_dim" in caplog.text
    assert "no other run has its dataset.subset, model.code_dim" in caplog.text
    assert [path(run).exists() for run in runs] == [True, True, False, False]


@pytest.mark.slow
def test_runs_that_cannot_be_vectorised_are_packed_with_equal_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runs = make_requests(
        tmp_path,
        ["model=linear", "sparsity=wta"],
        ["sparsity.rate=0.1 seed=1", "sparsity.rate=0.3 seed=1", "sparsity.rate=0.1 seed=2", "sparsity.rate=0.2"],
    )
    with caplog.at_level(logging.INFO):
        assert train_packed(runs) == [0, 1, 2, 3]
    assert "run individually: 4 runs: " in caplog.text
    assert "2 runs are trained as one pack: sparsity.rate=0.1,seed=1, sparsity.rate=0.1,seed=2" in caplog.text
    assert [path(run).exists() for run in runs] == [True, False, True, False]


@pytest.mark.slow
def test_pack_has_at_most_the_stated_size(tmp_path: Path) -> None:
    runs = make_requests(tmp_path, ["model=linear"], [f"seed={seed}" for seed in range(5)])
    assert train_packed(runs, size=3) == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runs", "cores", "size", "shares", "threads"),
    [
        (5, 2, 32, [[0, 2, 4], [1, 3]], 1),
        (3, 2, 32, [[0, 1, 2]], 2),
        (6, 4, 32, [[0, 3], [1, 4], [2, 5]], 1),
        (5, 2, 2, [[0, 2], [1, 3]], 1),
        (3, 2, 2, [[0, 1]], 2),
        (1, 2, 2, [], 2),
        (5, 1, 32, [[0, 1, 2, 3, 4]], 1),
    ],
)
def test_pack_is_divided_among_the_cores(
    runs: int,
    cores: int,
    size: int,
    shares: list[list[int]],
    threads: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(planning, "available_threads", lambda: Limit(cores, "a test"))
    requests = make_requests(tmp_path, ["model=linear"], [f"seed={seed}" for seed in range(runs)])
    covered = sorted(i for share in shares for i in share) or [0]
    assert planning.plan(requests, size) == (covered, shares, threads)


@pytest.mark.parametrize("name", ["linear", "linear without bias", "conv2d", "conv_transpose2d", "entropy"])
def test_batching_rules_equal_vmap_of_torch(name: str) -> None:
    """Values and gradients equal those of `vmap` without the rule."""
    generator = torch.Generator().manual_seed(0)

    def random_tensor(*shape: int) -> torch.Tensor:
        return torch.rand(3, *shape, generator=generator, dtype=torch.float64).requires_grad_()

    functions: dict[str, tuple[Callable[..., torch.Tensor], list[torch.Tensor]]] = {
        "linear": (F.linear, [random_tensor(5, 4), random_tensor(2, 4), random_tensor(2)]),
        "linear without bias": (F.linear, [random_tensor(5, 4), random_tensor(2, 4)]),
        "conv2d": (F.conv2d, [random_tensor(5, 2, 6, 6), random_tensor(4, 2, 3, 3), random_tensor(4)]),
        "conv_transpose2d": (
            F.conv_transpose2d,
            [random_tensor(5, 4, 6, 6), random_tensor(4, 2, 3, 3), random_tensor(2)],
        ),
        "entropy": (
            partial(F.binary_cross_entropy_with_logits, reduction="none"),
            [random_tensor(5, 4), random_tensor(5, 4)],
        ),
    }
    function, arguments = functions[name]

    def with_rule(*arguments: torch.Tensor) -> torch.Tensor:
        with ReplayRandomCalls([]):
            return function(*arguments)

    by_rule, by_vmap = torch.vmap(with_rule)(*arguments), torch.vmap(function)(*arguments)
    torch.testing.assert_close(by_rule, by_vmap)
    names = {node.name() for node in graph_nodes(by_rule.grad_fn)}
    assert any(expected in " ".join(names) for expected in ("Baddbmm", "Bmm", "Stack", "CrossEntropy")), names
    weights = torch.rand(by_rule.shape, generator=generator, dtype=torch.float64)
    gradients = [torch.autograd.grad((value * weights).sum(), arguments) for value in (by_rule, by_vmap)]
    torch.testing.assert_close(*gradients)


def graph_nodes(node: torch.autograd.graph.Node | None) -> list[torch.autograd.graph.Node]:
    """Return a node of the autograd graph and all nodes below it."""
    if node is None:
        return []
    return [node, *(below for child, _ in node.next_functions for below in graph_nodes(child))]


MODULE = '''
import os, signal, sys
from aetrain.data.noise import NoNoise


class Deadly(NoNoise):
    """Kill a process that trains packs."""

    def __call__(self, x, generator=None):
        if "aetrain.sweeps.packed.packed_training" in sys.modules:
            os.kill(os.getpid(), signal.SIGKILL)
        return x
'''


@pytest.mark.slow
def test_sweep_whose_pack_is_killed_trains_its_runs_individually(tmp_path: Path) -> None:
    """Two packs by the command; the process of one is killed."""
    (tmp_path / "deadly.py").write_text(MODULE)
    (tmp_path / "mine" / "noise").mkdir(parents=True)
    (tmp_path / "mine" / "noise" / "deadly.yaml").write_text("# Kills packs.\n_target_: deadly.Deadly\n")
    common = ["--config-dir", "mine", "-m", *TINY, "hydra/launcher=packed", "hydra.sweep.dir=sweep", "model=linear"]
    swept = ["seed=0,1", "noise=none,deadly"]
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    outcome = process([*common, *swept], tmp_path, PYTHONPATH=paths)
    assert outcome.code == 0, outcome.err
    assert "2 runs are trained as one pack: seed=0,noise=none, seed=1,noise=none" in outcome.out
    assert "a packed process ended (its process was killed by SIGKILL" in outcome.out
    statuses = [metrics(run)["status"] for run in (tmp_path / "sweep").iterdir() if run.is_dir()]
    assert statuses == ["finished"] * 4
    repeated = process([*common, *swept], tmp_path, PYTHONPATH=paths)
    assert repeated.out.count("is finished: nothing to do") == 4


@pytest.mark.slow
def test_pack_is_divided_into_processes(tmp_path: Path) -> None:
    arguments = ["-m", *TINY, "hydra/launcher=packed", "hydra.sweep.dir=sweep", "model=linear", "seed=0,1,2,3"]
    outcome = process(arguments, tmp_path, OMP_NUM_THREADS="2")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("2 runs are trained as one pack") == 2
    statuses = [metrics(run)["status"] for run in (tmp_path / "sweep").iterdir() if run.is_dir()]
    assert statuses == ["finished"] * 4


def test_pack_of_one_is_refused(tmp_path: Path) -> None:
    outcome = command(["-m", *TINY, "hydra/launcher=packed", "hydra.launcher.size=1", "seed=0,1"], tmp_path)
    assert outcome.code == 1
    assert "hydra.launcher.size=1 packs nothing: use 2 or more" in outcome.err
    assert not list(tmp_path.iterdir())


def test_run_that_stops_early_leaves_its_pack(tmp_path: Path) -> None:
    common = ["model=linear", "optimizer=sgd", "epochs=30", "dataset.validation=20", "stop.patience=3"]
    common += ["keep=best", f"+views.reconstructed={VIEW}"]
    each = ["optimizer.lr=0.5", "optimizer.lr=1e-3", "optimizer.lr=0.4"]
    packed, individual = (make_requests(tmp_path / name, common, each) for name in ("packed", "individual"))
    assert train_packed(packed) == [0, 1, 2]
    train_individually(individual)
    for one, other in zip(packed, individual, strict=True):
        assert metrics(path(one))["epochs"] == metrics(path(other))["epochs"]
        assert metrics(path(one))["kept_epoch"] == metrics(path(other))["kept_epoch"]
        assert metrics(path(one)).get("stop_reason") == metrics(path(other)).get("stop_reason")
        assert_same_run(path(one), path(other))
    epochs = [metrics(path(request))["epochs"] for request in packed]
    assert epochs[1] == 30
    assert max(epochs[0], epochs[2]) < 30
