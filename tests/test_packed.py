"""Runs trained together: each comes to what it comes to alone, leaves what it leaves alone, and fails alone."""

import json
import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from command import command, process
from conftest import TINY
from safetensors.torch import load_file
from torch.nn import functional as F

from aetrain import api
from aetrain.runs import entry
from aetrain.runs.training_run import Attempt
from aetrain.sweeps.launch import Asked
from aetrain.sweeps.packed import packed_training
from aetrain.sweeps.packed.random_replay import ReplayRandomCalls
from aetrain.views.tensorboard import event_files, events, key

# The last batch is smaller than the others.
SHARED = (*TINY, "dataset.subset=50", "batch_size=20", "epochs=2")

SEEN = "{_target_: aetrain.views.image_grids.Reconstructions, count: 4, columns: 2}"

CASES = {
    "vae": (
        ["model=vae", "model.hidden=[32]", "noise=gaussian", f"+views.seen={SEEN}"],
        ["model.penalties.kl.weight=1", "model.penalties.kl.weight=4 seed=3", "noise.std=0.1 optimizer.lr=1e-2"],
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
        ["likelihood.variance=0.5", "likelihood.variance=0.1 seed=1"],
    ),
    "wae": (
        ["model=wae", "model.hidden=[32]", "dataset.validation=20", "sparsity=topk", "optimizer=adamw"],
        ["seed=1", "seed=2 optimizer.weight_decay=0.1"],
    ),
}


def asked(folder: Path, common: Sequence[str], each: Sequence[str]) -> list[Asked]:
    """The runs of a sweep, in folders named by what differs."""
    found = []
    for text in each:
        where = f"hydra.run.dir='{folder / text.replace(' ', ',')}'"
        config, directory, said = api.compose_config([*SHARED, *common, *text.split(), where])
        found.append(Asked(config, directory, [word for word in said if not word.startswith("hydra.")]))
    return found


def packed(runs: Sequence[Asked], size: int = 32) -> list[int]:
    """Train the first pack of them in this process; which were dealt with."""
    taken, shares, _ = packed_training.plan(runs, size)
    for share in shares:
        packed_training.run([runs[i] for i in share])
    return taken


def alone(runs: Sequence[Asked]) -> None:
    for run in runs:
        train.run(run.config, run.directory, run.overrides)


def history(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


def metrics(run: Path) -> dict[str, object]:
    return dict(json.loads((run / "metrics.json").read_text()))


def same(mine: Path, theirs: Path) -> None:
    """Two directories hold the same run, figures and weights within what another order of sums makes."""
    for file in (".hydra/config.yaml", ".hydra/overrides.yaml"):
        assert (mine / file).read_text() == (theirs / file).read_text()
    files = [sorted(str(p.relative_to(at)) for p in at.rglob("*") if "tfevents" not in p.name) for at in (mine, theirs)]
    assert files[0] == files[1]
    for a, b in zip(history(mine), history(theirs), strict=True):
        assert {k: v for k, v in a.items() if k != "seconds"} == pytest.approx(
            {k: v for k, v in b.items() if k != "seconds"}, rel=2e-3, abs=1e-4
        )
    assert metrics(mine).keys() == metrics(theirs).keys()
    assert metrics(mine)["status"] == metrics(theirs)["status"]
    assert metrics(mine)["test/sse"] == pytest.approx(metrics(theirs)["test/sse"], rel=2e-3)
    weights = [load_file(at / "checkpoint" / "model.safetensors") for at in (mine, theirs)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-2, atol=2e-4)
    states = [torch.load(at / "checkpoint" / "training.pt", weights_only=True) for at in (mine, theirs)]
    assert len(states[0]["optimizers"]) == len(states[1]["optimizers"])
    for a, b in zip(states[0]["optimizers"], states[1]["optimizers"], strict=True):
        assert a["param_groups"] == b["param_groups"]
        assert a["state"].keys() == b["state"].keys()
        for number, known in a["state"].items():
            for name, value in known.items():
                assert float((value - b["state"][number][name]).norm()) <= 1e-2 * float(value.norm()) + 1e-5
    tags = [{key(event) for file in event_files(at) for event in events(file)} for at in (mine, theirs)]
    assert tags[0] == tags[1]
    assert len(event_files(mine)) == 1


@pytest.mark.parametrize("case", CASES)
def test_packed_runs_are_what_they_are_alone(case: str, tmp_path: Path) -> None:
    common, each = CASES[case]
    runs, single_unit_code = asked(tmp_path / "packed", common, each), asked(tmp_path / "alone", common, each)
    assert packed(runs) == list(range(len(each)))
    alone(single_unit_code)
    for run, other in zip(runs, single_unit_code, strict=True):
        same(run.directory, other.directory)
    assert len({json.dumps(history(run.directory)[-1]["train/loss"]) for run in runs}) == len(runs)


def test_run_that_diverges_leaves_and_the_others_go_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    common = ["model=linear", "likelihood=gaussian", "optimizer=sgd", "epochs=4"]
    runs = asked(tmp_path / "packed", common, ["optimizer.lr=1e-3", "optimizer.lr=1e9", "optimizer.lr=1e-4"])
    single_unit_code = asked(tmp_path / "alone", common, ["optimizer.lr=1e-3", "optimizer.lr=1e-4"])
    with caplog.at_level(logging.INFO):
        packed(runs)
        alone(single_unit_code)
    first, second, third = (run.directory for run in runs)
    assert metrics(second)["status"] == "failed"
    assert "training diverged in epoch" in str(metrics(second)["cause"])
    assert "training diverged in epoch" in (second / "aetrain.log").read_text()
    assert "epoch 4/4 | 2 runs" in caplog.text
    same(first, single_unit_code[0].directory)
    same(third, single_unit_code[1].directory)


def test_interrupted_pack_is_taken_up_together_or_by_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    common, each = ["model=vae", "model.hidden=[32]", "epochs=4"], ["seed=1", "seed=2", "seed=3"]
    runs, save = asked(tmp_path / "packed", common, each), Attempt.save

    def stopped(self: Attempt) -> None:
        if self.state.epoch == 3 and self.state.seed == 2:
            raise KeyboardInterrupt
        save(self)

    with monkeypatch.context() as patch:
        patch.setattr(Attempt, "save", stopped)
        with pytest.raises(KeyboardInterrupt):
            packed(runs)
    stood = [json.loads((run.directory / "checkpoint" / "state.json").read_text())["epoch"] for run in runs]
    assert stood == [3, 2, 3]
    assert {metrics(run.directory)["status"] for run in runs} == {"interrupted"}
    config, directory, overrides = api.compose_config([f"resume={runs[2].directory}"])
    entry.run(config, directory, overrides)
    written = (runs[2].directory / "metrics.json").read_text()
    assert packed(runs) == [2, 0, 1]
    assert (runs[2].directory / "metrics.json").read_text() == written, "the finished one is left as it is"
    single_unit_code = asked(tmp_path / "alone", common, each)
    alone(single_unit_code)
    for run, other in zip(runs, single_unit_code, strict=True):
        assert metrics(run.directory)["status"] == "finished"
        assert history(run.directory)[-1]["test/sse"] == pytest.approx(
            history(other.directory)[-1]["test/sse"], rel=2e-3
        )


def test_directory_that_somebody_writes_to_is_left_to_them(tmp_path: Path) -> None:
    runs = asked(tmp_path, ["model=linear"], ["seed=1", "seed=2", "seed=3"])
    from aetrain.storage.run_directory import RunDirectory

    theirs = RunDirectory(runs[1].directory)
    theirs.claim(runs[1].config, runs[1].overrides)
    try:
        packed(runs)
    finally:
        theirs.release()
    assert [metrics(run.directory)["status"] for run in runs] == ["finished", "running", "finished"]


@pytest.mark.parametrize(
    ("common", "each", "why"),
    [
        (["model=contractive"], ["seed=1", "seed=2"], "requires_grad_"),
        (["model=lstm"], ["seed=1", "seed=2"], "lstm"),
        (["model=vqvae"], ["seed=1", "seed=2"], "escaped"),
        (["model=linear", "optimizer=lbfgs"], ["seed=1", "seed=2"], "closure"),
        (["sparsity=wta"], ["sparsity.rate=0.1", "sparsity.rate=0.3"], "one by one"),
        (["sparsity=topk", "sparsity.start=20"], ["sparsity.anneal=0.4", "sparsity.anneal=0.5"], "differs in anneal"),
    ],
    ids=lambda value: str(value[-1]) if isinstance(value, list) else "",
)
def test_runs_that_cannot_be_packed_are_left_with_a_sentence(
    common: Sequence[str], each: Sequence[str], why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        taken = packed(asked(tmp_path, common, each))
    assert taken == [0, 1]
    assert "2 runs are not packed and go one by one" in caplog.text
    assert why in caplog.text
    assert not list(tmp_path.iterdir())


def test_setting_that_a_pack_would_overlook_is_noticed_by_trying(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PerRunScalars of a list are not put into the stack; were runs that differ in them tried together, it would show."""
    monkeypatch.setattr(packed_training, "_shared", lambda plain: {})
    with caplog.at_level(logging.INFO):
        packed(asked(tmp_path, ["model=wae"], ["model.penalties.mmd.scales=[1.0]", "model.penalties.mmd.scales=[2.0]"]))
    assert "a step together would not be the run's own (loss@0 differs)" in caplog.text


def test_what_differs_in_more_than_numbers_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runs = asked(
        tmp_path, ["model=linear"], ["seed=1", "seed=2", "model.code_dim=4", "dataset.subset=40 model.code_dim=8"]
    )
    with caplog.at_level(logging.INFO):
        assert sorted(packed(runs)) == [0, 1, 2, 3]
    assert "code_dim=4 goes by itself: no other run has its model.code_dim" in caplog.text
    assert "no other run has its dataset.subset, model.code_dim" in caplog.text
    assert [run.directory.exists() for run in runs] == [True, True, False, False]


def test_refused_runs_are_packed_with_their_equals(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runs = asked(
        tmp_path,
        ["model=linear", "sparsity=wta"],
        ["sparsity.rate=0.1 seed=1", "sparsity.rate=0.3 seed=1", "sparsity.rate=0.1 seed=2", "sparsity.rate=0.2"],
    )
    with caplog.at_level(logging.INFO):
        assert packed(runs) == [0, 1, 2, 3]
    assert "4 runs are not packed" in caplog.text
    assert "2 runs are packed: sparsity.rate=0.1,seed=1, sparsity.rate=0.1,seed=2" in caplog.text
    assert [run.directory.exists() for run in runs] == [True, False, True, False]


def test_pack_is_no_larger_than_it_may_be(tmp_path: Path) -> None:
    runs = asked(tmp_path, ["model=linear"], [f"seed={seed}" for seed in range(5)])
    assert packed(runs, size=3) == [0, 1, 2]


@pytest.mark.parametrize(
    ("runs", "threads", "size", "shares", "each"),
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
def test_a_pack_is_shared_out_among_the_cores(
    runs: int,
    threads: int,
    size: int,
    shares: list[list[int]],
    each: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    plan = packed_training.plan(asked(tmp_path, ["model=linear"], [f"seed={seed}" for seed in range(runs)]), size)
    assert plan == (sorted(i for share in shares for i in share) or [0], shares, each)


@pytest.mark.parametrize("name", ["linear", "linear without bias", "conv2d", "conv_transpose2d", "entropy"])
def test_rule_for_many_runs_is_torchs_own(name: str) -> None:
    """By value and by gradient, what `vmap` makes of the function without the rule."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.rand(3, *shape, generator=generator, dtype=torch.float64).requires_grad_()

    function, given = {
        "linear": (F.linear, [drawn(5, 4), drawn(2, 4), drawn(2)]),
        "linear without bias": (F.linear, [drawn(5, 4), drawn(2, 4)]),
        "conv2d": (F.conv2d, [drawn(5, 2, 6, 6), drawn(4, 2, 3, 3), drawn(4)]),
        "conv_transpose2d": (F.conv_transpose2d, [drawn(5, 4, 6, 6), drawn(4, 2, 3, 3), drawn(2)]),
        "entropy": (partial(F.binary_cross_entropy_with_logits, reduction="none"), [drawn(5, 4), drawn(5, 4)]),
    }[name]

    def ruled(*given: torch.Tensor) -> torch.Tensor:
        with ReplayRandomCalls([]):
            return function(*given)

    mine, theirs = torch.vmap(ruled)(*given), torch.vmap(function)(*given)
    torch.testing.assert_close(mine, theirs)
    names = {node.name() for node in nodes(mine.grad_fn)}
    assert any(name in " ".join(names) for name in ("Baddbmm", "Bmm", "Stack", "CrossEntropy")), names
    weights = torch.rand(mine.shape, generator=generator, dtype=torch.float64)
    gradients = [torch.autograd.grad((value * weights).sum(), given) for value in (mine, theirs)]
    torch.testing.assert_close(*gradients)


def nodes(node: torch.autograd.graph.Node | None) -> list[torch.autograd.graph.Node]:
    """All of a graph."""
    return [] if node is None else [node, *(n for child, _ in node.next_functions for n in nodes(child))]


MODULE = '''
import os, signal, sys
from aetrain.data.noise import NoNoise


class Deadly(Clean):
    """Kills a process that packs runs."""

    def __call__(self, x, generator=None):
        if "aetrain.sweeps.packed.packed_training" in sys.modules:
            os.kill(os.getpid(), signal.SIGKILL)
        return x
'''


@pytest.mark.slow
def test_sweep_of_packs(tmp_path: Path) -> None:
    """The command: a pack, and one whose process is killed, whose runs then go one by one."""
    (tmp_path / "deadly.py").write_text(MODULE)
    (tmp_path / "mine" / "noise").mkdir(parents=True)
    (tmp_path / "mine" / "noise" / "deadly.yaml").write_text("# Deadly.\n_target_: deadly.Deadly\n")
    said = ["--config-dir", "mine", "-m", *TINY, "hydra/launcher=packed", "hydra.sweep.dir=sweep", "model=linear"]
    swept = ["seed=0,1", "noise=none,deadly"]
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    outcome = process([*said, *swept], tmp_path, PYTHONPATH=paths)
    assert outcome.code == 0, outcome.err
    assert "2 runs are packed: seed=0,noise=none, seed=1,noise=none" in outcome.out
    assert "a pack is no more: its process was killed by SIGKILL" in outcome.out
    ended = [metrics(run)["status"] for run in (tmp_path / "sweep").iterdir() if run.is_dir()]
    assert ended == ["finished"] * 4
    again = process([*said, *swept], tmp_path, PYTHONPATH=paths)
    assert again.out.count("is finished: nothing to do") == 4


@pytest.mark.slow
def test_packs_side_by_side(tmp_path: Path) -> None:
    said = ["-m", *TINY, "hydra/launcher=packed", "hydra.sweep.dir=sweep", "model=linear", "seed=0,1,2,3"]
    outcome = process(said, tmp_path, OMP_NUM_THREADS="2")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("2 runs are packed") == 2
    ended = [metrics(run)["status"] for run in (tmp_path / "sweep").iterdir() if run.is_dir()]
    assert ended == ["finished"] * 4


def test_pack_of_one_is_refused(tmp_path: Path) -> None:
    wrong = command(["-m", *TINY, "hydra/launcher=packed", "hydra.launcher.size=1", "seed=0,1"], tmp_path)
    assert wrong.code == 1
    assert "hydra.launcher.size=1 packs nothing: use 2 or more" in wrong.err
    assert not list(tmp_path.iterdir())
