"""Mistakes that users make: one short message with the likely fix, exit code 1, no file written."""

import gzip
import shutil
import socket
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from command import command, everything_in, process
from conftest import TINY
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

import aetrain
from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.runs import entry

MAX_LINES = 8

# A command line, its arguments separated by two spaces, and texts that its message must contain.
MISTAKES: list[tuple[str, list[str]]] = [
    # Keys
    ("epoch=3", ["no setting or group 'epoch'", "did you mean 'epochs'?"]),
    ("modle=vae", ["'modle'", "did you mean 'model'?"]),
    ("data_set=digits", ["'data_set'", "did you mean 'dataset'?"]),
    ("mdoel.hidden=[1]", ["'mdoel'", "did you mean 'model'?"]),
    ("model.hiden=[1]", ["no setting 'model.hiden'", "did you mean 'model.hidden'?", "code_dim"]),
    ("lr=0.1", ["'lr'", "did you mean 'optimizer.lr'"]),
    ("model.lr=0.1", ["'model.lr'", "did you mean 'optimizer.lr'"]),
    ("hidden=[12]", ["'hidden'", "did you mean 'model.hidden'?"]),
    ("views.untis.count=4", ["'views.untis'", "did you mean 'views.units'?"]),
    ("noise.p=0.5", ["no setting 'noise.p'", "noise=masking", "noise=salt_and_pepper"]),
    ("optimizer.momentum=0.9", ["no setting 'optimizer.momentum'", "optimizer=sgd"]),
    ("schedule.warmup_fraction=0.1", ["'schedule.warmup_fraction'", "schedule=cosine"]),
    ("hydra.sweep.dri=x", ["'hydra.sweep.dri'", "did you mean 'hydra.sweep.dir'?"]),
    # Keys with a plus, which Hydra always accepts
    ("+foo=1", ["no setting or group 'foo'", "epochs"]),
    ("+epoch=3", ["'epoch'", "did you mean 'epochs'?"]),
    ("+model.foo=1", ["no setting 'model.foo'", "hidden"]),
    ("++model.foo=1", ["no setting 'model.foo'"]),
    ("+model.image_shape=[1,2,3]", ["no setting 'model.image_shape'"]),  # the builder sets it
    ("+optimizer.lrr=1", ["no setting 'optimizer.lrr'", "did you mean 'optimizer.lr'?"]),
    ("+optimizer.amsgrad=abc", ["optimizer.amsgrad=abc", "true or false"]),
    ("+epochs=3", ["write epochs="]),
    ("+model=vae", ["write model=vae"]),
    # Deletions
    ("~model", ["model is missing", "changed"]),
    ("~epochs", ["epochs is missing"]),
    ("~views.nothing", ["~views.nothing", "nothing to drop"]),
    ("~model.penalties.kl", ["~model.penalties.kl", "nothing to drop"]),
    # Options
    ("model=vea", ["no model named 'vea'", "did you mean 'vae'?", "deep"]),
    ("model=gaussian", ["no model named 'gaussian'", "noise=gaussian"]),
    ("dataset=MNIST", ["did you mean 'mnist'?"]),
    ("dataset=imagenet", ["no dataset named 'imagenet'", "fashion", "folder"]),
    ("mode=evaluate", ["did you mean 'eval'?"]),
    ("experiment=nonexistent", ["no experiment named 'nonexistent'", "choose from"]),
    ("experiment=a,b", ["experiment=a,b", "-m"]),
    ("views=[none,nope]", ["no views named 'nope'", "default"]),
    ("hydra/launcher=nonexistent", ["no hydra/launcher named 'nonexistent'", "basic"]),
    ("-m  model=vea,deep", ["no model named 'vea'", "did you mean 'vae'?"]),
    ("noise=3", ["noise=3", "masking"]),
    # Types
    ("model.hidden=abc", ["model.hidden=abc", "a list of whole numbers such as [512,256]"]),
    ("model.hidden=[12,x]", ["model.hidden=[12, 'x']", "a list of whole numbers"]),
    ("model.hidden=256", ["model.hidden=256", "a list of whole numbers"]),
    ("model.hidden=512,256", ["-m", "model.hidden=[512,256]"]),
    ("model.code_dim=abc", ["model.code_dim=abc", "a whole number"]),
    ("model.code_dim=2.5", ["model.code_dim=2.5", "a whole number"]),
    ("optimizer.lr=fast", ["optimizer.lr=fast", "a number"]),
    ("optimizer.betas=[0.9]", ["optimizer.betas=[0.9]", "a list of 2 numbers"]),
    ("model.activation=rleu", ["model.activation=rleu", "tanh", "did you mean 'relu'?"]),
    ("dataset=digits  dataset.binarize=yes", ["dataset.binarize=yes", "threshold"]),
    ("views.units.count=abc", ["views.units.count=abc", "a whole number"]),
    ("device=gpu", ["device=gpu", "auto, cpu, cuda, mps or xpu"]),
    ("epochs=", ["epochs=", "a whole number"]),
    ("epochs=1.5", ["epochs=1.5", "a whole number"]),
    ("epochs=1,2", ["epochs=1,2", "-m"]),
    ("seed=abc", ["seed=abc", "a whole number"]),
    ("seed=range(0,3)", ["seed=range(0,3)", "-m"]),
    ("model.bottleneck=gaussian", ["model.bottleneck=gaussian", "_target_"]),
    ("model.penalties=[kl]", ["model.penalties=[kl]", "section"]),
    ("epochs=ten  seed=abc", ["2 problems", "epochs=ten", "seed=abc"]),
    # Experiments with another option
    ("experiment=beta_vae  model=deep", ["model=deep", "add ~model.penalties.kl"]),
    ("experiment=vqvae  model=vae", ["add ~model.bottleneck.groups ~model.bottleneck.num_codewords"]),
    ("experiment=conv  model=deep", ["add model.code_dim=32"]),
    # Ranges
    ("model.code_dim=0", ["model.code_dim=0", "1 or more"]),
    ("model.code_dim=-3", ["model.code_dim=-3", "1 or more"]),
    ("model.hidden=[0]", ["model.hidden=[0]", "1 or more"]),
    ("optimizer.lr=-1", ["optimizer", "lr=-1"]),
    ("epochs=-1", ["epochs=-1", "0 or more"]),
    ("batch_size=0", ["batch_size=0", "1 or more"]),
    ("seed=-1", ["seed=-1", "0 or more"]),
    ("noise=masking  noise.p=1.5", ["noise.p=1.5", "from 0 to 1"]),
    ("noise=gaussian  noise.std=-1", ["noise.std=-1", "0 or more"]),
    ("sparsity=topk  sparsity.k=100", ["sparsity.k=100", "model.code_dim=32"]),
    ("sparsity=kl  sparsity.target=2", ["sparsity.target=2", "between 0 and 1"]),
    ("schedule=cosine  schedule.warmup_fraction=2", ["schedule.warmup_fraction=2", "from 0 to below 1"]),
    ("schedule=plateau  schedule.factor=1", ["schedule.factor=1", "between 0 and 1"]),
    ("schedule=plateau  schedule.patience=0", ["schedule.patience=0", "1 epoch or more"]),
    ("schedule=plateau  schedule.min_delta=-1", ["schedule.min_delta=-1", "0 or more"]),
    ("schedule=plateau  schedule.min_factor=2", ["schedule.min_factor=2", "from 0 to 1"]),
    ("dataset=digits  dataset.scale=[1,0]", ["dataset.scale=[1, 0]", "below the second"]),
    ("dataset=digits  dataset.scale=[-1,1]", ["likelihood=bernoulli", "dataset.scale", "likelihood=gaussian"]),
    ("dataset=digits  dataset.subset=0", ["dataset.subset=0", "at least 1"]),
    ("dataset=digits  dataset.validation=999999", ["dataset.validation=999999", "1438"]),
    ("dataset=digits  dataset.random_crop=50", ["dataset.random_crop=50", "8x8"]),
    # Syntax
    ("vae", ["'vae'", "no '='", "model=vae"]),
    ("epochs  3", ["'epochs'", "no '='", "epochs=..."]),
    ("=3", ["'=3'", "no name"]),
    ("model.hidden=[512,256", ["model.hidden=[512,256", "[ or ] is missing"]),
    ("model='vae", ["model='vae", "' is missing"]),
    ("epochs==3", ["epochs==3", "name=value"]),
    ("--foo", ["--foo", "--help"]),
    ("--cfg  jobb", ["jobb", "job"]),
    ("epochs=${foo}", ["foo", "not found"]),
    # Paths
    ("dataset=folder", ["dataset.path is required", "dataset.path=..."]),
    ("dataset=folder  dataset.path=nowhere", ["dataset.path='nowhere'", "does not exist"]),
    ("dataset=folder  dataset.path=Bücher, neu", ["dataset.path='Bücher, neu'", "does not exist"]),
    ("mode=eval  run=outputs/Lauf_für_é", ["run=outputs/Lauf_für_é", "no directory"]),
    ("dataset=folder  dataset.path=images/none", ["images/none", "no images"]),
    ("dataset=folder  dataset.path=images/corrupt", ["1 of 3 images", "bad.png", "remove it"]),
    ("dataset=npz  dataset.path=nowhere.npz", ["dataset.path='nowhere.npz'", "does not exist"]),
    ("dataset=npz  dataset.path=a_file", ["dataset.path='a_file'", "numpy.savez"]),
    ("dataset=npz  dataset.path=wrong.npz", ["wrong.npz", "pictures", "x_train"]),
    ("data_dir=", ["data_dir=", "empty"]),
    ("data_dir=a_file", ["a_file is a file", "MNIST/raw"]),
    ("data_dir=empty_data", ["MNIST", "train-images-idx3-ubyte.gz", "AETRAIN_DATA", "dataset=digits"]),
    ("data_dir=truncated", ["train-images-idx3-ubyte.gz", "damaged", "delete it"]),
    ("dataset=fashion  data_dir=altered", ["train-images-idx3-ubyte.gz", "damaged", "MD5"]),
    ("hydra.run.dir=", ["hydra.run.dir=", "empty"]),
    ("dataset=digits  hydra.run.dir=a_file", ["a_file", "exists", "hydra.run.dir"]),
    ("dataset=digits  hydra.run.dir=a_file/run", ["a_file/run", "hydra.run.dir"]),
    ("dataset=digits  hydra.run.dir=runs/good", ["runs/good", "another config", "model.code_dim: 5 there, 32 here"]),
    ("--config-dir  missing", ["missing", "no folder"]),
    # Configs of the user
    ("--config-dir  mine  model=broken", ["broken.yaml", "line 3", "not YAML"]),
    ("--config-dir  mine  model=slip", ["no setting 'model.code_dmi'", "did you mean 'model.code_dim'?"]),
    ("--config-dir  mine  model=absent", ["model._target_=nowhere.Net", "cannot be imported"]),
    ("--config-dir  mine  model=empty  likelihood=empty", ["model has no _target_", "likelihood has no _target_"]),
    ("--config-dir  mine  model=wdie", ["did you mean 'wide'?"]),
    # Runs
    ("mode=eval", ["mode=eval", "run=outputs/"]),
    ("run=", ["run=", "empty"]),
    ("run=runs/good", ["mode=eval", "resume=runs/good"]),
    ("mode=eval  run=nonexistent", ["run=nonexistent", "no directory"]),
    ("mode=eval  run=a_file", ["run=a_file", "no directory"]),
    ("mode=eval  run=runs/good,runs/flipped", ["one run"]),
    ("resume=nonexistent", ["resume=nonexistent", "no directory"]),
    ("resume=", ["resume=", "empty"]),
    ("resume=runs/good  mode=eval", ["resume=runs/good", "drop"]),
    ("resume=runs/good  model.code_dim=7", ["another config", "model.code_dim: 5 there, 7 here"]),
    ("retry=maybe", ["retry=maybe", "true or false"]),
    ("mode=eval  run=below", ["run=below is not the directory of a run", "did you mean run=below/this/run?"]),
    ("mode=eval  run=runs/good/checkpoint", ["did you mean run=runs/good?"]),
    ("mode=eval  run=runs/good  experiment=vae", ["experiment=", "run="]),
    ("mode=eval  run=runs/good  model.code_dim=7", ["another model's weights", "5", "7"]),
    ("mode=eval  run=runs/good  noise=gausian", ["no noise named 'gausian'", "did you mean 'gaussian'?"]),
    ("mode=eval  run=runs/broken_config", ["broken_config/.hydra/config.yaml", "cannot be read"]),
    ("mode=eval  run=runs/no_config", ["no_config/.hydra/config.yaml", "not the config of a run"]),
    ("mode=eval  run=runs/no_checkpoint", ["runs/no_checkpoint", "no checkpoint"]),
    ("mode=eval  run=runs/truncated", ["runs/truncated/checkpoint", "damaged"]),
    ("mode=eval  run=runs/flipped", ["runs/flipped/checkpoint", "damaged", "train the run again"]),
    ("mode=eval  run=runs/foreign", ["noise._target_=os.system", "trust=true"]),
    ("mode=eval  run=runs/listed", ["noise.hidden[0][0]._target_=os.system", "trust=true"]),
    ("mode=eval  run=runs/shell", ["noise._target_=torch.utils.collect_env.run", "trust=true"]),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with valid and broken runs, images and configs; tests share it, as no mistake may change it."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "outputs").mkdir()
    (folder / "a_file").write_text("a text")
    _write_data(folder)
    _write_configs(folder / "mine" / "model")
    _write_runs(folder)
    return folder


def _write_data(folder: Path) -> None:
    for name in ("empty_data", "images/none", "images/corrupt"):
        (folder / name).mkdir(parents=True)
    for name in ("one", "two"):
        Image.new("L", (9, 9)).save(folder / "images" / "corrupt" / f"{name}.png")
    (folder / "images" / "corrupt" / "bad.png").write_bytes(b"\x89PNG no more")
    np.savez(folder / "wrong.npz", pictures=np.zeros((3, 8, 8), np.uint8))
    complete = gzip.compress(bytes(16 + 60000 * 784), compresslevel=1)
    for damage, name, archive in (("truncated", "MNIST", complete[:5000]), ("altered", "FashionMNIST", complete)):
        raw = folder / damage / name / "raw"
        raw.mkdir(parents=True)
        (raw / "train-images-idx3-ubyte.gz").write_bytes(archive)


def _write_configs(models: Path) -> None:
    models.mkdir(parents=True)
    wide = "defaults: [deep, _self_]\nhidden: [64]\n"
    (models / "wide.yaml").write_text(wide)
    (models / "broken.yaml").write_text("defaults: [deep, _self_]\nhidden: [64\ncode_dim: 3\n")
    (models / "slip.yaml").write_text(wide + "code_dmi: 3\n")
    (models / "absent.yaml").write_text("_target_: nowhere.Net\ncode_dim: 3\n")
    for group in ("model", "likelihood"):
        (models.parent / group).mkdir(exist_ok=True)
        (models.parent / group / "empty.yaml").write_text("reduction: sum\n")


def _write_runs(folder: Path) -> None:
    good = folder / "runs" / "good"
    overrides = [*TINY, f"hydra.run.dir={good}", "model.hidden=[]", "model.code_dim=5"]
    entry.run(*api.compose_config(overrides))
    _write_runs_with_wrong_config(good)
    _write_runs_with_wrong_checkpoint(good)
    shutil.copytree(good, folder / "below" / "this" / "run")


def _write_runs_with_wrong_config(good: Path) -> None:
    config_file = Path(".hydra", "config.yaml")
    saved = (good / config_file).read_text()
    no_noise = "_target_: aetrain.data.noise.NoNoise"
    assert no_noise in saved
    for name, text in {
        "broken_config": "model: [",
        "no_config": "- 1\n- 2\n",
        "foreign": saved.replace(no_noise, "_target_: os.system\n  command: touch was_here"),
        "listed": saved.replace(
            no_noise, f"{no_noise}\n  hidden:\n  - - _target_: os.system\n      command: touch was_here"
        ),
        "shell": saved.replace(no_noise, "_target_: torch.utils.collect_env.run\n  command: touch was_here"),
    }.items():
        run = Path(shutil.copytree(good, good.with_name(name)))
        (run / config_file).write_text(text)
        if name in ("broken_config", "no_config"):  # the copy of the config in the checkpoint would be read instead
            _remove_checkpoints(run)


def _write_runs_with_wrong_checkpoint(good: Path) -> None:
    _remove_checkpoints(Path(shutil.copytree(good, good.with_name("no_checkpoint"))))
    for name in ("truncated", "flipped"):
        run = Path(shutil.copytree(good, good.with_name(name)))
        for weights in run.glob("checkpoint*/model.safetensors"):
            content = weights.read_bytes()
            flipped = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
            weights.write_bytes(content[: len(content) // 2] if name == "truncated" else flipped)


def _remove_checkpoints(run: Path) -> None:
    for checkpoint in run.glob("checkpoint*"):
        shutil.rmtree(checkpoint)


@pytest.fixture(autouse=True)
def _no_network_and_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.delenv("AETRAIN_DATA", raising=False)


def message_in(err: str) -> str:
    """Return the message without `aetrain: `, after a check that it is one short message."""
    assert err.startswith("aetrain: "), err
    assert "Traceback" not in err
    assert "To append" not in err, "Hydra's advice adds a setting that is refused later"
    assert "HYDRA_FULL_ERROR" not in err, "an error without a message of its own"
    assert len(err.splitlines()) <= MAX_LINES, err
    return err.removeprefix("aetrain: ").rstrip("\n")


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "texts"), MISTAKES, ids=[mistake[0] for mistake in MISTAKES])
def test_mistake_gets_one_short_message_and_no_file(arguments: str, texts: list[str], folder: Path) -> None:
    before = everything_in(folder)
    outcome = command(arguments.split("  "), folder)
    assert outcome.code == 1, outcome
    message = message_in(outcome.err)
    assert all(text in message for text in texts), message
    assert everything_in(folder) == before


def test_there_are_enough_mistakes() -> None:
    assert len({arguments for arguments, _ in MISTAKES}) >= 100


@pytest.mark.slow
@pytest.mark.parametrize("arguments", ["epoch=3", "dataset=digits  sparsity=topk  sparsity.k=100", "model=vea"])
def test_mistake_in_a_new_process(arguments: str, tmp_path: Path) -> None:
    outcome = process(arguments.split("  "), tmp_path)
    assert outcome.code == 1
    assert not outcome.out
    texts = next(texts for known, texts in MISTAKES if known in arguments)
    assert all(text in message_in(outcome.err) for text in texts), outcome.err
    assert not everything_in(tmp_path)


def test_missing_cuda_is_refused_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aetrain.training.backend.device.accelerator", lambda: None)
    before = everything_in(folder)
    assert "device=cpu" in message_in(command(["device=cuda"], folder).err)
    assert everything_in(folder) == before


@pytest.mark.slow
def test_full_traceback_on_request(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ConfigError, match="epochs=-1"):
        command(["epochs=-1"], folder)


def test_existing_folder_is_not_removed(tmp_path: Path) -> None:
    """This includes an empty one, such as an outputs/ that the user made."""
    (tmp_path / "outputs" / "mine").mkdir(parents=True)
    assert command(["epochs=-1", "hydra.run.dir=outputs/mine/new"], tmp_path).code == 1
    assert list(everything_in(tmp_path)) == ["outputs", "outputs/mine"]


def test_third_party_component_that_refuses_a_setting_is_named(folder: Path) -> None:
    assert "lr=-1, betas=[0.9, 0.999]" in command(["optimizer.lr=-1"], folder).err


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        "epoch=3",
        "model=vea",
        "+model.foo=1",
        "epochs=1,2",
        "model.hidden=[512,256",
        "dataset=digits  dataset.random_crop=50",
        "mode=eval  run=runs/flipped",
        "mode=eval  run=nonexistent",
        "epochs=${foo}",
        "~views.nothing",
    ],
)
def test_api_raises_the_message_that_the_command_prints(
    arguments: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = message_in(command(arguments.split("  "), folder).err)
    monkeypatch.chdir(folder)
    before = everything_in(folder)
    with pytest.raises(ConfigError) as refused:
        aetrain.run(arguments.split("  "))
    assert str(refused.value) == printed
    assert everything_in(folder) == before


@pytest.mark.parametrize(
    ("run", "text"), [("nonexistent", "no directory"), ("runs/flipped", "damaged"), ("runs/shell", "trust=true")]
)
def test_load_refuses_a_directory_that_is_no_valid_run(run: str, text: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=text):
        aetrain.load(folder / run)


def test_sections_of_an_earlier_run_are_forgotten(folder: Path) -> None:
    """The sections of a saved run are options of their groups only during the command that reads the run."""
    aetrain.load(folder / "runs" / "good")
    GlobalHydra.instance().clear()
    message = command(["noise=saved"], folder).err
    assert "no noise named 'saved'" in message
    assert message.count("saved") == 1
