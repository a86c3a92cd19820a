"""Several processes train one run to the weights of one process: by gloo on the CPU, with and without `torchrun`."""

import itertools
import json
import math
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command import command, everything_in
from conftest import ROOT, TINY
from distributed_tasks import TIMEOUT_S, Comparison, UnknownDraws, UnknownMean, compare, launch
from distributed_tasks import command as command_of_a_process
from generated_data import DATA_OF_LIKELIHOOD
from safetensors.torch import load_file
from test_grid import AXES, NEEDS, options_of, settings_of
from torch import Tensor

from aetrain import testing
from aetrain.config.errors import ConfigError
from aetrain.config.paths import groups, option_config
from aetrain.config.settings import Settings
from aetrain.model.bottlenecks import Hashing
from aetrain.model.codes import Code
from aetrain.runs.build import build
from aetrain.selfcheck.fingerprint import differences, fingerprint
from aetrain.storage.checkpoint_state import CheckpointState, latest_state
from aetrain.training.backend import threads
from aetrain.training.backend.device import select_device
from aetrain.training.backend.threads import choose_threads
from aetrain.utils import processes, shards
from aetrain.utils.cores import Limit, forget_default_of_torchrun
from aetrain.utils.processes import Group

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="torch for Windows has no gloo for several processes")

# Batches of 25 examples and one of 1: shards of 12 and 13, and a batch with fewer examples than processes.
BATCHES = ("dataset.subset=51", "batch_size=25", "epochs=1")

# Groups that the processes share by shards of batches. Process 0 alone has the options of the others.
SHARDED = ("model", "likelihood", "augment", "noise", "sparsity", "penalty", "optimizer", "schedule", "pretrain")
OF_ONE_PROCESS = ("mode", "stop", "views", "measures", "search")
COMPOSED = ("dataset", "experiment")  # options of other groups, and the examples that all processes read

REFUSED = {"optimizer=lbfgs": "line search"}

# Settings beside groups, and combinations in which random numbers or statistics of a batch meet.
OTHERS = {
    "accumulation": ("accumulate_grad_batches=2", "clip_grad_norm=0.5"),
    "average": ("ema=0.9",),
    "binarised": ("dataset.binarize=dynamic",),
    "crops": ("dataset.random_crop=5",),
    "free bits": ("model=vae", "model.penalties.kl.free_bits=0.1"),
    "capacity": ("model=vae", "model.penalties.kl.capacity=2"),
    "importance and winners": ("model=iwae", "sparsity=wta"),
    "codebook": ("model=vqvae", "model.bottleneck.reset_after=1"),
    "two draws": ("model=wae", "penalty=contractive", "noise=masking"),
    "exact Jacobian": ("model=contractive", "model.penalties.contractive.probes=null"),
    "missing values": ("dataset.missing=0.3", "model.observed=true", "noise=masking"),
    "noisy pretraining": ("pretrain=layerwise", "pretrain.epochs=1", "noise=gaussian", "sparsity=kl"),
}

MAX_ERROR = 1e-4  # of weights by gradient descent, relative to the largest of a tensor
MAX_ERROR_OF_ADAM = 1e-2  # Adam divides gradients by their own size, and thus amplifies the rounding of small ones


def options() -> dict[str, Settings]:
    """Return the settings of every option of the groups that processes share, and those of OTHERS."""
    descent = settings_of([*BATCHES, "optimizer=sgd"])
    cases = {}
    for group, option in options_of({group: AXES[group] for group in SHARDED}):
        name, section = f"{group}={option}", option_config(group, option)
        needed = [*NEEDS.get(name, ()), *(DATA_OF_LIKELIHOOD.get(option, ()) if group == "likelihood" else ())]
        settings = settings_of([*BATCHES, "optimizer=sgd", *needed]) if needed else descent
        changes: dict[str, Any] = {group: {**section, "epochs": 1} if "epochs" in section else section}
        cases[name] = replace(settings, **changes)
    return cases | {name: settings_of([*BATCHES, "optimizer=sgd", *overrides]) for name, overrides in OTHERS.items()}


def comparisons(count: int, cases: Mapping[str, Settings], folder: Path) -> dict[str, Comparison]:
    outcomes = launch(count, compare, cases, folder=folder)
    assert [outcome.code for outcome in outcomes] == [0] * count, [outcome.err for outcome in outcomes]
    return {
        name: Comparison(**results) for name, results in json.loads((folder / "comparisons.json").read_text()).items()
    }


def test_every_group_answers_for_several_processes() -> None:
    assert {*groups()} == {*SHARDED, *OF_ONE_PROCESS, *COMPOSED}


@pytest.mark.slow
def test_every_option_comes_to_the_weights_of_one_process(tmp_path: Path) -> None:
    """Two processes, each with a shard of every batch; an option that would differ is refused with the reason."""
    cases = options()
    results = comparisons(2, cases, tmp_path)
    assert {*results} == {*cases}
    refused = {name: comparison.refused for name, comparison in results.items() if comparison.refused}
    assert {*refused} == {*REFUSED}, refused
    assert all(REFUSED[name] in text for name, text in refused.items()), refused
    wrong = {name: text for name, comparison in results.items() if (text := problem(name, comparison))}
    assert not wrong, wrong


def problem(name: str, comparison: Comparison) -> str:
    limit = MAX_ERROR_OF_ADAM if name.startswith("optimizer=adam") else MAX_ERROR
    if max(comparison.weights, comparison.metrics) > limit:
        return f"weights differ by {comparison.weights:.1e}, metrics by {comparison.metrics:.1e}"
    return "" if comparison.same_in_all else "the processes have different weights"


@pytest.mark.slow
def test_four_processes_come_to_the_weights_of_one(tmp_path: Path) -> None:
    """The shards of 6 examples have 1 or 2, and each process computes the last 3 whole."""
    chosen = {"conv": "model=conv_vae", "winners": "sparsity=wta", "critic": "model=aae", "codebook": "model=vqvae"}
    small = ("optimizer=sgd", "batch_size=6", "dataset.subset=21", "epochs=2")
    results = comparisons(4, {name: settings_of([*small, text]) for name, text in chosen.items()}, tmp_path)
    assert not {name: text for name, comparison in results.items() if (text := problem(name, comparison))}


def test_component_that_would_differ_is_refused(tmp_path: Path) -> None:
    """It says nothing about several processes: its losses of shards do not add up to those of the whole batch."""
    cases = {}
    for name in ("UnknownDraws", "UnknownMean"):
        target = f"{{_target_: distributed_tasks.{name}}}"
        cases[name] = settings_of([*BATCHES, "model=deep", f"+model.penalties.own={target}"])
    results = comparisons(2, cases, tmp_path)
    for name, comparison in results.items():
        assert "2 processes cannot train this: the loss" in comparison.refused, (name, comparison)


# --- The command ------------------------------------------------------------------------------------------------------

RUN = (
    *("dataset=digits", "dataset.subset=103", "dataset.validation=40", "dataset.test_subset=40", "batch_size=25"),
    *("model=vae", "noise=masking", "pretrain=layerwise", "pretrain.epochs=1", "model.hidden=[20]", "epochs=5"),
    *("keep=best", "ema=0.9", "views=reconstructions", "device=cpu", "threads=1"),
    *("schedule=plateau", "schedule.factor=0.5", "schedule.patience=1", "schedule.min_delta=1e6"),  # lower every epoch
    *("augment._target_=distributed_tasks.Faulty", "+augment.after=12"),
)


@pytest.fixture(scope="module")
def run_of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that two processes have trained, `run`, and of their outputs."""
    folder = tmp_path_factory.mktemp("two")
    outcomes = launch(2, command_of_a_process, *RUN, "hydra.run.dir=run", folder=folder)
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert (outcomes[1].out, outcomes[1].err) == ("", "")
    assert "processes: 2 (gloo)" in outcomes[0].out
    return folder


def assert_same_values(one: Path, two: Path) -> None:
    """Expect equal metrics of the test images, within rounding."""
    metrics = [json.loads((run / "metrics.json").read_text()) for run in (one, two)]
    for name in (name for name in metrics[0] if name.startswith("test/")):
        assert math.isclose(metrics[0][name], metrics[1][name], rel_tol=1e-3, abs_tol=1e-3), name


@pytest.mark.slow
def test_run_of_two_processes_is_the_run_of_one(run_of_two: Path, tmp_path: Path) -> None:
    assert command([*RUN, "hydra.run.dir=run"], tmp_path).code == 0
    one, two = tmp_path / "run", run_of_two / "run"
    expected = load_file(one / "checkpoint" / "model.safetensors")
    for name, weights in load_file(two / "checkpoint" / "model.safetensors").items():
        assert float((weights - expected[name]).abs().max()) <= MAX_ERROR_OF_ADAM * float(expected[name].abs().max())
    assert_same_values(one, two)
    names = [{name for name in everything_in(run) if "tfevents" not in name} for run in (one, two)]
    assert names[0] == names[1]
    assert {path.name for path in run_of_two.iterdir()} == {"run", "out0", "out1", "err0", "err1", "code0", "code1"}
    logs = [(run / "aetrain.log").read_text() for run in (one, two)]
    assert [log.count("epoch 3/5") for log in logs] == [1, 1]


def messages(texts: list[str]) -> list[str]:
    """Return the lines of the console that tell the user why a command ends."""
    return [line for text in texts for line in text.splitlines() if line.startswith("aetrain: ")]


@pytest.mark.slow
def test_process_that_fails_ends_all_with_one_message_and_training_resumes(run_of_two: Path, tmp_path: Path) -> None:
    """Its error is the message; the run continues from its last epoch to the bits of a run without the failure."""
    fault = {"FAULTY_RANK": "1", "FAULT": "raise"}
    outcomes = launch(2, command_of_a_process, *RUN, "hydra.run.dir=run", folder=tmp_path, extra=fault)
    assert [outcome.code for outcome in outcomes] == [1, 1], outcomes
    (message,) = messages([outcome.err for outcome in outcomes])
    assert "process 1 on " in message
    assert "the memory is full" in message
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["status"] == "failed"
    state = latest_state(tmp_path / "run")
    assert state is not None
    assert (state.epoch, state.processes, state.threads) == (2, 2, 1)
    shutil.copytree(tmp_path / "run", tmp_path / "one")
    outcomes = launch(2, command_of_a_process, "resume=run", folder=tmp_path)
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert not differences(fingerprint(run_of_two / "run"), fingerprint(tmp_path / "run"))
    alone = command(["resume=one"], tmp_path)
    assert alone.code == 0
    assert "the run began with 2 processes: with another number, its results agree within rounding" in alone.out
    assert_same_values(tmp_path / "one", tmp_path / "run")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["model.code_dim=0"], "model.code_dim=0"),
        (["epochss=1"], "did you mean 'epochs'"),
        (["optimizer=lbfgs"], "optimizer=lbfgs does not fit 2 processes"),
        (["model=deep", "sparsity=kl", "compile=true"], "compile=true does not fit 2 processes with KLSparsity"),
        (["-m", "seed=0,1"], "leave out -m or torchrun"),
        (["mode=check"], "mode=check runs in one process"),
        (["dataset=folder", "dataset.path=absent"], "absent"),
    ],
)
def test_mistake_is_told_once(arguments: list[str], expected: str, tmp_path: Path) -> None:
    outcomes = launch(2, command_of_a_process, "dataset=digits", "device=cpu", *arguments, folder=tmp_path)
    assert outcomes[0].code == 1, outcomes
    (message,) = messages([outcome.err for outcome in outcomes])
    assert expected in message + outcomes[0].err
    assert "Traceback" not in "".join(outcome.err + outcome.out for outcome in outcomes)
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_early_stop_ends_all_and_process_0_alone_trains_classifiers(tmp_path: Path) -> None:
    short = ("epochs=50", "stop.patience=1", "select_on_test=true", "objective=test/loss", "optimizer.lr=1e-12")
    measures = ("measures=few_labels", "measures.few_labels={labels:[20],steps:5,epochs:1}")
    outcomes = launch(2, command_of_a_process, *TINY, *short, *measures, "hydra.run.dir=run", folder=tmp_path)
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["epochs"] < 50


@pytest.mark.slow
def test_compiled_step_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    run = (*TINY, "model=linear", "optimizer=sgd", "noise=masking")
    outcomes = launch(2, command_of_a_process, *run, "compile=true", "hydra.run.dir=two", folder=tmp_path)
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert "compiled in" in outcomes[0].out
    assert command([*run, "hydra.run.dir=one"], tmp_path).code == 0
    assert_same_values(tmp_path / "one", tmp_path / "two")


def test_divergence_is_told_once(tmp_path: Path) -> None:
    rate = ("optimizer=sgd", "optimizer.lr=1e9")
    outcomes = launch(2, command_of_a_process, *TINY, *rate, "hydra.run.dir=run", folder=tmp_path)
    assert outcomes[0].code == 1
    (message,) = messages([outcome.err for outcome in outcomes])
    assert "training diverged in epoch 1" in message
    assert (outcomes[1].out, outcomes[1].err) == ("", "")


def test_other_commands_of_torchrun_answer_once(tmp_path: Path) -> None:
    outcomes = launch(2, command_of_a_process, "--version", folder=tmp_path)
    assert [outcome.code for outcome in outcomes] == [0, 0]
    assert outcomes[0].out.startswith("aetrain ")
    assert (outcomes[1].out, outcomes[1].err) == ("", "")


def test_other_data_on_another_machine_are_refused(tmp_path: Path) -> None:
    """Both processes are the first ones of their machines."""
    data = "dataset._target_=distributed_tasks.DataOfMachine"
    arguments = ("dataset=digits", data, "device=cpu")
    outcomes = launch(2, command_of_a_process, *arguments, folder=tmp_path, local_ranks=[0, 0])
    assert outcomes[0].code == 1
    (message,) = messages([outcome.err for outcome in outcomes])
    assert "process 1 on " in message
    assert "other data than process 0: other pixels of the 20 training images" in message


# --- torchrun ---------------------------------------------------------------------------------------------------------


def torchrun(*arguments: str, folder: Path, **environment: str) -> subprocess.Popen[str]:
    """Start `torchrun arguments...` in a folder; its output is in a file there, `console` with a number."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    number = len([*folder.glob("console*")])
    with (folder / f"console{number}").open("w") as console:
        return subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *arguments],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path} | environment,
            stdout=console,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.mark.slow
def test_killed_process_of_torchrun_ends_all_with_one_message(run_of_two: Path, tmp_path: Path) -> None:
    run = [*RUN, "hydra.run.dir=run"]
    agent = torchrun(
        *("--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "-m", "aetrain", *run),
        folder=tmp_path,
        FAULTY_RANK="1",
        FAULT="kill",
    )
    assert agent.wait(TIMEOUT_S) == 1
    console = (tmp_path / "console0").read_text()
    (message,) = messages([console])
    resume = "torchrun --nproc-per-node=2 -m aetrain resume=run"
    assert "another process of this training has ended" in message or "interrupted" in message, message
    assert resume in console
    outcomes = launch(2, command_of_a_process, "resume=run", folder=tmp_path)
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert not differences(fingerprint(run_of_two / "run"), fingerprint(tmp_path / "run"))


@pytest.mark.slow
def test_two_nodes_train_and_resume_to_the_bits_of_two_processes(run_of_two: Path, tmp_path: Path) -> None:
    """Two agents of torchrun on this machine, which meet by c10d, then by the address of the first one."""
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}", "--rdzv-id=1"]
    two_nodes(meeting, [*RUN, "epochs=3", "hydra.run.dir=run"], tmp_path)
    (resumed,) = [folder for folder in (tmp_path / "node0", tmp_path / "node1") if (folder / "run").exists()]
    resumed.rename(tmp_path / "first")
    (tmp_path / "node0").mkdir(exist_ok=True)
    (tmp_path / "first" / "run").rename(tmp_path / "node0" / "run")
    two_nodes(["--master-addr=127.0.0.1", f"--master-port={free_port()}"], ["resume=run", "epochs=5"], tmp_path)
    assert not differences(fingerprint(run_of_two / "run"), fingerprint(tmp_path / "node0" / "run"))
    assert not (tmp_path / "node1" / "run").exists()


def two_nodes(meeting: list[str], arguments: list[str], folder: Path) -> None:
    """Run a command in two nodes of one process, each in a folder of its own."""
    agents = []
    for node in range(2):
        own = folder / f"node{node}"
        own.mkdir(exist_ok=True)
        flags = ["--nnodes=2", "--nproc-per-node=1", f"--node-rank={node}", "--local-addr=127.0.0.1", *meeting]
        agents.append(torchrun(*flags, "-m", "aetrain", *arguments, folder=own))
    codes = [agent.wait(TIMEOUT_S) for agent in agents]
    assert codes == [0, 0], [file.read_text() for file in folder.glob("node*/console*")]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


# --- Parts ------------------------------------------------------------------------------------------------------------


def test_shards_cover_a_batch_in_order_and_differ_by_one() -> None:
    for batch_size, world_size in [(25, 2), (7, 4), (4, 4), (128, 3)]:
        bounds = shards.split_batch(batch_size, world_size)
        sizes = [stop - start for start, stop in itertools.pairwise(bounds)]
        assert (bounds[0], sum(sizes), len(sizes)) == (0, batch_size, world_size)
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= 1


@pytest.mark.parametrize("copies", [1, 3])
def test_draws_of_a_shard_are_those_of_its_examples(copies: int) -> None:
    shard, x = shards.Shard(2, 5, 6, (2, 3, 1)), torch.zeros(copies * 6, 4)
    torch.manual_seed(0)
    whole = shards.draw_like(x, Tensor.normal_)
    torch.manual_seed(0)
    with shards.computing(shard):
        own = shards.draw_like(shard.take(x), Tensor.normal_)
        assert shards.batch_size_of(shard.take(x)) == copies * 6
    assert torch.equal(own, whole.view(copies, 6, 4)[:, 2:5].flatten(0, 1))
    p = torch.rand(6, 4)
    torch.manual_seed(1)
    binary = torch.bernoulli(p)
    torch.manual_seed(1)
    with shards.computing(shard):
        assert torch.equal(shards.draw_bernoulli(p[2:5]), binary[2:5])


def test_several_processes_share_cores_and_the_default_of_torchrun_is_no_choice() -> None:
    launched = {"LOCAL_WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "none"}
    for environment, kept in [
        (launched | {"OMP_NUM_THREADS": "1"}, False),
        (launched | {"OMP_NUM_THREADS": "2"}, True),
        (launched | {"LOCAL_WORLD_SIZE": "1", "OMP_NUM_THREADS": "1"}, True),
        ({"OMP_NUM_THREADS": "1"}, True),
    ]:
        forget_default_of_torchrun(environment)
        assert ("OMP_NUM_THREADS" in environment) == kept


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process be the second one of two, without connections."""
    monkeypatch.setattr(processes, "_groups", [Group(rank=1, world_size=2, store=None)])
    monkeypatch.setenv("LOCAL_RANK", "1")


@pytest.mark.usefixtures("second_of_two")
def test_each_process_has_its_own_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.accelerator, "set_device_index", chosen.append)
    for kind, backend in (("cuda", "nccl"), ("xpu", "xccl")):
        present = torch.device(kind)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda present=present, **_: present)
        assert processes.backends() == {"cpu": "gloo", kind: backend}
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
        assert select_device("auto") == torch.device(kind, 1)
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
        with pytest.raises(ConfigError, match=r"has 1 .* device, too few for 2 processes: .*--nproc-per-node=1"):
            select_device(kind)
        assert select_device("cpu") == torch.device("cpu")
    assert chosen == [1, 1]


@pytest.mark.usefixtures("second_of_two")
def test_resumed_run_keeps_its_threads_with_the_same_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "available_threads", lambda: Limit(1, "the cores"))
    settings = settings_of([])
    with processes.act_alone():
        model = build(settings).model
    for count, expected in [(2, 3), (1, 1)]:
        saved = CheckpointState(1, threads=3, processes=count)
        assert choose_threads(settings, model, saved).number == expected


def test_process_alone_joins_no_group(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("called in a run of one process")

    for name in ("join", "sum_over_processes", "gather_rows", "_connected"):
        monkeypatch.setattr(processes, name, fail)
    assert command([*RUN, "epochs=1", "sparsity=wta", "penalty=mmd", "hydra.run.dir=run"], tmp_path).code == 0
    state = latest_state(tmp_path / "run")
    assert state is not None
    assert state.processes == 1


class UnknownDrawsOfCode(Hashing):
    """A bottleneck whose random numbers are those of a shard, not of the batch."""

    def forward(self, features: Tensor) -> Code:
        z = self.project(features)
        return Code(z=z + torch.randn_like(z) if self.training else z)


def test_contract_finds_parts_that_differ_between_processes() -> None:
    for penalty in (UnknownDraws(), UnknownMean()):
        with pytest.raises(AssertionError, match=r"does not set reads_batch.*draw by aetrain\.utils\.shards"):
            testing.check_penalty(penalty)
    with pytest.raises(AssertionError, match=r"another code in one of several processes: draw by aetrain\.utils"):
        testing.check_bottleneck(UnknownDrawsOfCode)
