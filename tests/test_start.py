"""`start=RUN`: a new run begins with the weights of another one, under settings of its own."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from command import command, everything_in
from conftest import ROOT, TINY
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from safetensors.torch import load_file

import aetrain
from aetrain import api
from aetrain.runs.request import RunRequest
from aetrain.runs.start_weights import list_modules
from aetrain.selfcheck.fingerprint import differences, fingerprint
from aetrain.storage.run_directory import RunDirectory
from aetrain.sweeps.launch import record_killed

VAE = (*TINY, "model=vae", "model.hidden=[16]", "model.code_dim=4", "optimizer.lr=0.01", "seed=5")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run in whose folder tests begin others."""
    folder = tmp_path_factory.mktemp("start")
    aetrain.run([*VAE, "epochs=2", f"hydra.run.dir={folder / 'base'}"])
    return folder / "base"


@pytest.fixture
def folder(tmp_path: Path, base: Path) -> Path:
    """Return a folder with a copy of the run `base`."""
    shutil.copytree(base, tmp_path / "base")
    return tmp_path


def start(folder: Path, *overrides: str, name: str = "run") -> str:
    """Begin a run from `base` in a folder; return the log."""
    outcome = command(["start=base", *overrides, f"hydra.run.dir={name}"], folder)
    assert outcome.code == 0, outcome.err
    return outcome.out


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoint" / "model.safetensors")


def test_new_run_begins_where_the_other_ended(folder: Path) -> None:
    out = start(folder, "optimizer.lr=1e-4", "epochs=1")
    ended, begun = RunDirectory(folder / "base").history()[-1], RunDirectory(folder / "run").history()[0]
    names = {tag for tag in ended if tag.startswith("test/")}
    assert names
    assert {tag: begun[tag] for tag in names} == {tag: ended[tag] for tag in names}
    assert "start: weights of base, epoch 2; taken: encoder, bottleneck, decoder" in out
    config = OmegaConf.load(folder / "run" / ".hydra" / "config.yaml")
    assert (config.optimizer.lr, config.epochs, config.seed, config.model.code_dim) == (1e-4, 1, 5, 4)
    assert RunDirectory(folder / "run").overrides()[-2:] == ["optimizer.lr=1e-4", "epochs=1"]
    assert {"model=vae", "seed=5", "start=base"} <= set(RunDirectory(folder / "run").overrides())
    origin = json.loads((folder / "run" / "start.json").read_text())
    assert (origin["run"], origin["epoch"], origin["new"], origin["unused"]) == (str(folder / "base"), 2, [], [])
    assert set(origin["taken"]) == set(weights(folder / "base"))


def test_setting_of_the_objective_changes(folder: Path) -> None:
    start(folder, "model.penalties.kl.weight=4", "epochs=0")
    before, after = RunDirectory(folder / "base").metrics(), RunDirectory(folder / "run").metrics()
    assert after["test/sse"] == before["test/sse"]
    assert after["test/loss"] == pytest.approx(before["test/loss"] + 3 * before["test/kl"])


def test_run_that_was_pretrained_is_a_start_without_pretraining(folder: Path) -> None:
    outcome = command([*VAE, "pretrain=mean", "epochs=1", "hydra.run.dir=pretrained"], folder)
    assert outcome.code == 0, outcome.err
    outcome = command(["start=pretrained", "epochs=0", "hydra.run.dir=run"], folder)
    assert outcome.code == 0, outcome.err
    ended, begun = (RunDirectory(folder / name).metrics()["test/sse"] for name in ("pretrained", "run"))
    assert begun == ended
    assert OmegaConf.load(folder / "run" / ".hydra" / "config.yaml").pretrain._target_.endswith("NoPretraining")
    assert "pretrain=mean" not in RunDirectory(folder / "run").overrides()


def test_deletion_of_a_setting_is_in_the_name_and_recorded(folder: Path) -> None:
    overrides = [f"start={folder / 'base'}", "epochs=0"]
    names = {api.compose_config([*overrides, *more])[1].parent.name for more in ([], ["~model.penalties.kl"])}
    assert len(names) == 2
    start(folder, "~model.penalties.kl", "epochs=0")
    assert "~model.penalties.kl" in RunDirectory(folder / "run").overrides()
    assert not OmegaConf.load(folder / "run" / ".hydra" / "config.yaml").model.penalties


def test_directory_has_the_name_of_both_commands(folder: Path) -> None:
    command(
        ["model=vae", "dataset=digits", "optimizer.lr=0.01", "epochs=0", "views=none", "hydra.run.dir=short"], folder
    )
    outcome = command(["start=short", "optimizer.lr=1e-4", "epochs=0"], folder)
    assert outcome.code == 0, outcome.err
    (path,) = (folder / "outputs").iterdir()
    assert path.name == "model=vae,dataset=digits,optimizer.lr=1e-4,epochs=0,start=short"


def test_what_does_not_fit_keeps_its_initial_values(folder: Path) -> None:
    out = start(folder, "model.code_dim=6", "epochs=0")
    assert "taken: encoder, decoder.layers.0.bias, decoder.layers.1" in out
    assert "new, with initial values: bottleneck, decoder.layers.0.weight" in out
    assert "not taken: bottleneck, decoder.layers.0.weight" in out
    unused = json.loads((folder / "run" / "start.json").read_text())["unused"]
    assert unused == sorted(unused)
    command([*VAE, "model.code_dim=6", "epochs=0", "hydra.run.dir=untrained"], folder)
    there, initial, here = (weights(folder / name) for name in ("base", "untrained", "run"))
    for name, tensor in here.items():
        fits = tensor.shape == there[name].shape
        assert torch.equal(tensor, there[name] if fits else initial[name]), name


def test_another_data_set_of_the_same_shape(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    run = aetrain.run(start="base", data=images, epochs=0, directory="run")
    there, here = weights(folder / "base"), weights(run.directory)
    assert all(torch.equal(tensor, there[name]) for name, tensor in here.items())
    assert run.config.dataset._target_ != OmegaConf.load("base/.hydra/config.yaml").dataset._target_


def test_critic_is_taken_and_its_schedule_starts_again(folder: Path) -> None:
    overrides = [*TINY, "model=aae", "model.hidden=[16]", "epochs=2", "model.penalties.critic.warmup=0.5"]
    command([*overrides, "hydra.run.dir=aae"], folder)
    outcome = command(["start=aae", "epochs=0", "hydra.run.dir=run"], folder)
    assert "taken: encoder, bottleneck, decoder, penalty" in outcome.out
    states = [torch.load(folder / name / "checkpoint" / "training.pt", weights_only=True) for name in ("aae", "run")]
    for name, tensor in states[0]["objective"].items():
        if "schedule" not in name:
            assert torch.equal(tensor, states[1]["objective"][name])


def test_kept_weights_are_the_ones_that_are_taken(folder: Path) -> None:
    overrides = [*VAE, "dataset.validation=64", "keep=best", "epochs=3", "optimizer.lr=0.3"]
    command([*overrides, "hydra.run.dir=best"], folder)
    metrics = RunDirectory(folder / "best").metrics()
    assert metrics["best_epoch"] < 3
    command(["start=best", "epochs=0", "hydra.run.dir=run"], folder)
    assert RunDirectory(folder / "run").metrics()["test/sse"] == metrics["test/sse"]
    assert json.loads((folder / "run" / "start.json").read_text())["epoch"] == metrics["kept_epoch"]


def test_average_begins_at_the_weights_that_are_taken(folder: Path) -> None:
    start(folder, "ema=0.9", "epochs=0")
    assert all(torch.equal(tensor, weights(folder / "base")[name]) for name, tensor in weights(folder / "run").items())


def test_run_resumes_without_the_one_that_it_began_with(folder: Path) -> None:
    start(folder, "optimizer.lr=1e-3", "epochs=3", "views=reconstructions", name="whole")
    start(folder, "optimizer.lr=1e-3", "epochs=1", "views=reconstructions")
    shutil.rmtree(folder / "base")
    outcome = command(["resume=run", "epochs=3"], folder)
    assert outcome.code == 0, outcome.err
    assert not differences(fingerprint(folder / "whole"), fingerprint(folder / "run"))


@pytest.mark.parametrize("file", ["model.safetensors", "state.json"])
def test_run_with_a_damaged_first_checkpoint_begins_with_the_weights_again(file: str, folder: Path) -> None:
    start(folder, "epochs=0")
    expected = {name: tensor.clone() for name, tensor in weights(folder / "run").items()}  # of no mapped file
    (folder / "run" / "metrics.json").unlink()
    (folder / "run" / "checkpoint" / file).write_bytes(b"{}")
    assert "start: weights of base" in start(folder, "epochs=0")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(folder / "run").items())


def test_run_of_an_earlier_version_is_a_start(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests" / "data" / "runs-0.1.0" / "deep", tmp_path / "base")
    out = start(tmp_path, "epochs=0", "views=none", "device=cpu")
    (sentence,) = [line for line in out.splitlines() if line.startswith("start: ")]
    assert sentence == "start: weights of base, epoch 2; taken: encoder, bottleneck, decoder"


NONE_FITS = "none of its weight matrices fits"
MISTAKES = [
    (
        "start=base model.hidden=[17] model.code_dim=5",
        [NONE_FITS, "[16, 64] there and [17, 64] here"],
    ),
    ("start=base model=conv", [NONE_FITS]),
    ("start=nowhere", ["start=nowhere is no directory"]),
    ("start=base resume=base", ["does not go with", "resume"]),
    ("start=base run=base mode=eval", ["does not go with", "run"]),
    ("start=base mode=check", ["does not go with mode=check"]),
    ("start=base pretrain=mean", ["pretrain= and start=base"]),
    ("start=base experiment=vae", ["drop one of them"]),
    ("-m start=base,other", ["takes one run"]),
    ("run=base", ["mode=eval", "resume=base", "start=base"]),
    ("resume=base ~model.penalties.kl epochs=3", ["another config", "model.penalties.kl.weight: 1.0 there, absent"]),
    ("-m resume=base epochs=3,4", ["resume=base continues one run", "leave out -m", "start="]),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKES)
def test_mistake_is_one_message_and_writes_nothing(arguments: str, words: list[str], folder: Path) -> None:
    shutil.copytree(folder / "base", folder / "other")
    before = everything_in(folder)
    outcome = command(arguments.split(), folder)
    assert outcome.code == 1
    assert all(word in outcome.err for word in words), outcome.err
    assert "Traceback" not in outcome.err
    assert everything_in(folder) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["resume=base", "optimizer.lr=1e-4"],
        ["resume=base", "optimizer.lr=1e-4", "hydra.run.dir=else"],
        [*VAE, "optimizer.lr=1e-4", "epochs=2", "hydra.run.dir=base"],
    ],
)
def test_every_message_about_other_settings_names_the_command_that_works(arguments: list[str], folder: Path) -> None:
    outcome = command(arguments, folder)
    assert outcome.code == 1
    assert "start=" in outcome.err
    assert "begins a new run" in outcome.err
    assert not (folder / "else").exists()
    start(folder, "optimizer.lr=1e-4", "epochs=0")


def test_config_from_elsewhere_may_not_name_other_code(folder: Path) -> None:
    file = folder / "base" / ".hydra" / "config.yaml"
    file.write_text(file.read_text().replace("aetrain.model.dense.dense", "os.system"))
    shutil.rmtree(folder / "base" / "checkpoint.previous")
    outcome = command(["start=base", "epochs=0", "hydra.run.dir=run"], folder)
    assert outcome.code == 1
    assert "trust=true" in outcome.err
    assert not (folder / "run").exists()


def test_sweep_from_one_run(folder: Path) -> None:
    outcome = command(["-m", "start=base", "seed=0,1", "epochs=1", "hydra.sweep.dir=sweep"], folder)
    assert outcome.code == 0, outcome.err
    for seed in (0, 1):
        run = folder / "sweep" / f"seed={seed}"
        assert RunDirectory(run).history()[0]["test/sse"] == RunDirectory(folder / "base").history()[-1]["test/sse"]
        assert f"seed={seed}" in RunDirectory(run).overrides()
        assert not [text for text in RunDirectory(run).overrides() if text.startswith(("trust=", "compile="))]


def test_run_that_fails_before_it_begins_keeps_the_overrides_of_both_commands(folder: Path) -> None:
    sweep = ["-m", "start=base", "batch_size=0,32", "epochs=0", "hydra.sweep.dir=sweep"]
    assert command(sweep, folder).code == 1
    failed, finished = (RunDirectory(folder / "sweep" / f"batch_size={size}") for size in (0, 32))
    assert (failed.status, finished.status) == ("failed", "finished")
    replaced = [text for text in finished.overrides() if text != "batch_size=32"]
    assert [text for text in failed.overrides() if text != "batch_size=0"] == replaced


def test_run_that_is_killed_before_it_begins_has_the_overrides_of_both_commands(folder: Path) -> None:
    run = RunDirectory(folder / "run")
    config, _, overrides = api.compose_config([f"start={folder / 'base'}", "epochs=0", f"hydra.run.dir={run.path}"])
    record_killed(RunRequest(config, run, overrides, single=False), "failed", "killed by SIGKILL")
    assert run.metrics()["cause"] == "killed by SIGKILL"
    assert {"model=vae", f"start={folder / 'base'}"} <= set(run.overrides())
    assert not [text for text in run.overrides() if text.endswith("=saved")]


def test_recorded_overrides_that_take_sections_of_a_run_are_replaced(folder: Path) -> None:
    """An earlier version recorded them where a run failed before it began."""
    run = RunDirectory(folder / "run")
    config, _, overrides = api.compose_config([f"start={folder / 'base'}", "epochs=0", f"hydra.run.dir={run.path}"])
    assert run.record_failure(config, overrides, "failed", "")
    run.release()
    assert "model=saved" in run.overrides()
    start(folder, "epochs=0")
    assert not [text for text in run.overrides() if text.endswith("=saved")]
    assert {"model=vae", "start=base"} <= set(run.overrides())


def test_packed_runs_begin_with_the_weights(folder: Path) -> None:
    arguments = [
        "-m",
        "start=base",
        "optimizer.lr=0,1e-3",
        "epochs=1",
        "hydra.sweep.dir=sweep",
        "hydra/launcher=packed",
    ]
    outcome = command(arguments, folder)
    assert outcome.code == 0, outcome.err
    unchanged, trained = (weights(folder / "sweep" / f"optimizer.lr={rate}") for rate in ("0", "0.001"))
    expected = weights(folder / "base")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in unchanged.items())
    assert not all(torch.equal(tensor, expected[name]) for name, tensor in trained.items())
    assert api.load(folder / "sweep" / "optimizer.lr=0").model is not None


NAMES = st.lists(st.lists(st.sampled_from("abc"), min_size=2, max_size=3).map(".".join), unique=True, max_size=9)


@given(NAMES, NAMES)
def test_list_of_modules_covers_its_tensors_and_no_other(names: list[str], others: list[str]) -> None:
    leaves = [name for name in (*names, *others) if not any(o.startswith(f"{name}.") for o in (*names, *others))]
    own = [name for name in names if name in leaves]
    rest = [name for name in others if name in leaves and name not in own]
    listed = list_modules(own, rest).split(", ") if own else []
    if listed and listed[-1].startswith("..."):
        return

    def covered(name: str) -> bool:
        return any(name == module or name.startswith(f"{module}.") for module in listed)

    assert all(map(covered, own))
    assert not any(map(covered, rest))
