"""Every model without convolutions trains on tables, text and ratings with every option, resumes and is packed."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import command
from safetensors.torch import load_file
from test_grid import AXES, sections, settings_of
from test_packed import assert_same_run, path, train_individually, train_packed

import aetrain
from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.config.settings import Settings
from aetrain.runs.build import build
from aetrain.runs.request import RunRequest
from aetrain.storage.run_directory import RunDirectory

SMALL = ("epochs=1", "batch_size=8", "views=none", "device=cpu")
IMAGE_MODELS = (
    *("conv", "conv_dropout_vae", "conv_layers", "conv_layers_vae", "conv_unpool", "conv_upsample", "conv_vae"),
    "lstm",
)
OPTIONS = ("noise", "sparsity", "optimizer", "penalty", "schedule")
REFUSED = {"table": {"block", "blur", "poisson"}, "text": {"block", "blur"}, "ratings": {"block", "blur", "poisson"}}


@pytest.fixture(scope="module", autouse=True)
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Work in a folder with a table, documents and ratings."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    table = ["a,b,colour,kind"]
    table += [f"{rng.normal():.3f},{rng.normal():.3f},{'rgb'[n % 3]},{'uv'[n % 2]}" for n in range(40)]
    table[5] = ",0.5,,u"
    (folder / "table.csv").write_text("\n".join(table))
    words = ["sun", "moon", "star", "tree", "leaf", "root"]
    documents = [" ".join(rng.choice(words[3 * (n % 2) : 3 * (n % 2) + 3], 5)) for n in range(40)]
    text = [f"{document},{'uv'[n % 2]}" for n, document in enumerate(documents)]
    (folder / "text.csv").write_text("\n".join(["text,label", *text]))
    pairs = [(user, item) for user in range(30) for item in range(8) if rng.random() < 0.6]
    ratings = [f"{user},{item},{rng.integers(1, 6)}" for user, item in pairs]
    (folder / "ratings.csv").write_text("\n".join(["user,item,rating", *ratings]))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


def data_overrides(data: str) -> list[str]:
    """Return the overrides of a data set; the table's rows have classes."""
    return [f"dataset={data}", f"dataset.path={data}.csv", *(["dataset.label=kind"] if data == "table" else [])]


def step(settings: Settings) -> None:
    """Take an optimizer step on the first training examples, and check that the losses are finite."""
    components = build(settings)
    train = components.dataset.load().train
    x = components.dataset.prepare(train.values[:8])
    components.model.train()
    losses = {name: value.item() for name, value in components.optimizer_steps[0](x).items()}
    assert all(map(np.isfinite, losses.values())), losses


@cache
def fitting_options(model: str) -> dict[str, list[str]]:
    """Return the options of each group with which a model is built on images: others are refused for other reasons."""
    on_images, fitting = settings_of([f"model={model}"]), {}
    for group in OPTIONS:
        names = [*sections(group)]
        if group in ("sparsity", "penalty"):
            changes: list[Any] = [{group: section} for section in sections(group).values()]
            refusals = [refusal(replace(on_images, **change)) for change in changes]
            names = [name for name, message in zip(names, refusals, strict=True) if message is None]
        fitting[group] = names
    return fitting


@pytest.mark.slow
@pytest.mark.parametrize("data", REFUSED)
@pytest.mark.parametrize("model", sorted(set(AXES["model"]) - set(IMAGE_MODELS)))
def test_model_with_every_option(model: str, data: str) -> None:
    """Each step has another option of every group, until each option was taken."""
    settings = settings_of([f"model={model}", "batch_size=8", *data_overrides(data)])
    fitting = dict(fitting_options(model))
    fitting["noise"] = [name for name in fitting["noise"] if name not in REFUSED[data]]
    for number in range(max(map(len, fitting.values()))):
        chosen: Any = {group: sections(group)[names[number % len(names)]] for group, names in fitting.items()}
        step(replace(settings, **chosen))


@pytest.mark.parametrize("data", REFUSED)
def test_noise_of_images_is_refused(data: str) -> None:
    settings = settings_of(["model=deep", *data_overrides(data)])
    refused = set()
    for option, section in sections("noise").items():
        if (message := refusal(replace(settings, noise=section))) is not None:
            assert message.startswith(f"noise: {option} is noise of images, and the data set has "), message
            refused.add(option)
    assert refused == REFUSED[data]


def refusal(settings: Settings) -> str | None:
    """Return the message with which settings are refused; None where they are not."""
    try:
        build(settings)
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize("model", IMAGE_MODELS)
def test_models_of_images_are_refused(model: str) -> None:
    message = refusal(settings_of([f"model={model}", *data_overrides("table")]))
    assert message is not None
    assert "image" in message or "pixels" in message or "1x1x" in message, message


@pytest.mark.parametrize("data", REFUSED)
def test_a_resumed_run_is_the_uninterrupted_run(data: str, run: Callable[..., Path]) -> None:
    words = (*data_overrides(data), *SMALL, "model=vae", "model.hidden=[8]", "model.code_dim=2", "noise=masking")
    whole = run(*words, "epochs=3", "schedule=constant", name="whole")
    part = run(*words, "epochs=2", "schedule=constant", name="part")
    run(*words, "epochs=3", "schedule=constant", name="part")
    weights, resumed = (load_file(folder / "checkpoint" / "model.safetensors") for folder in (whole, part))
    assert all((weights[name] == resumed[name]).all() for name in weights)
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (whole, part)]
    for values in metrics:
        for name in [name for name in values if "seconds" in name]:
            del values[name]
    assert metrics[0] == metrics[1]


@pytest.mark.parametrize("data", REFUSED)
def test_a_pack_is_the_individual_runs(data: str, tmp_path: Path) -> None:
    words = [*data_overrides(data), *SMALL, "model=deep", "model.hidden=[8]", "model.code_dim=2", "noise=gaussian"]

    def requests(folder: Path) -> list[RunRequest]:
        made = []
        for own in ("noise.std=0.1", "noise.std=0.4"):
            config, directory, overrides = api.compose_config([*words, own, f"hydra.run.dir='{folder / own}'"])
            plain = [override for override in overrides if not override.startswith("hydra.")]
            made.append(RunRequest(config, RunDirectory(directory), plain, single=False))
        return made

    packed, individual = requests(tmp_path / "packed"), requests(tmp_path / "individual")
    assert train_packed(packed) == [0, 1]
    train_individually(individual)
    for one, other in zip(packed, individual, strict=True):
        assert_same_run(path(one), path(other))


@pytest.mark.parametrize("pretrain", ["mean", "layerwise", "pca", "rbm"])
def test_pretraining_on_a_table(pretrain: str, run: Callable[..., Path]) -> None:
    words = [*data_overrides("table"), *SMALL, f"pretrain={pretrain}", "model.code_dim=2"]
    if pretrain == "rbm":
        with pytest.raises(ConfigError, match=r"pretrain=rbm needs binary units.* the data set has vectors"):
            run(*words, "model=deep", "model.hidden=[8]", "model.activation=sigmoid")
    elif pretrain == "pca":
        with pytest.raises(ConfigError, match="pretrain: pca needs complete data"):
            run(*words, "model=linear")
        complete = run(*SMALL, "dataset=wine", "pretrain=pca", "model=linear", "model.code_dim=3", "epochs=0")
        metrics = json.loads((complete / "metrics.json").read_text())
        assert metrics["test/sse"] == pytest.approx(metrics["test/pca_sse"], rel=1e-4)
    else:
        scaled = ["dataset.scaling=none"] if pretrain == "mean" else []
        trained = aetrain.load(run(*words, *scaled, "model=deep", "model.hidden=[8]", "epochs=0"))
        assert np.isfinite(trained.metrics["test/sse"])
        bias = trained.model.decoder.output_bias
        assert bias is not None
        known_mean = torch.nanmean(trained.data.train.pixels, 0).flatten()
        assert torch.allclose(bias.detach(), known_mean, atol=1e-6) == (pretrain == "mean")


def test_no_word_about_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log, the tables, the findings, the modes and the report of a run on a table."""
    source = str(Path("table.csv").resolve())
    monkeypatch.chdir(tmp_path)
    words = ["dataset=table", f"dataset.path={source}", "dataset.label=kind", "model=deep", "model.hidden=[8]"]
    words += ["epochs=2", "device=cpu", "noise=gaussian", "measures=robustness", "optimizer.lr=1e-7", "verbose=true"]
    assert command([*words, "hydra.run.dir=run"], tmp_path).code == 0
    short = command([*words[:-1], "hydra.run.dir=short"], tmp_path)
    outputs = [short]
    outputs += [command([f"mode={mode}", "run=run", "device=cpu"], tmp_path) for mode in ("eval", "encode", "export")]
    assert [output.code for output in outputs] == [0] * 4, [output.err for output in outputs]
    log = (tmp_path / "run" / "aetrain.log").read_text()
    assert "no better than the mean" in log
    for text in [log, *(output.out + output.err for output in outputs)]:
        lines = [line for line in text.splitlines() if "image" in line and "samples_per_plugin" not in line]
        lines = [line for line in lines if "(pixels" not in line]
        assert not lines, lines
    assert command(["mode=report", "run=."], tmp_path).code == 0
    page = (tmp_path / "report.html").read_text()
    assert "on the test data" in page or "Metrics of the test data" in page


def test_measures_of_labels_on_a_table_with_missing_values(run: Callable[..., Path]) -> None:
    words = [*data_overrides("table"), *SMALL, "model=deep", "model.hidden=[8]", "model.code_dim=2"]
    directory = run(*words, "measures=[probes,retrieval]", "measures.retrieval.at=[3]")
    metrics = json.loads((directory / "metrics.json").read_text())
    assert {
        "test/probe_linear",
        "test/probe_linear_input",
        "test/precision_3",
        "test/precision_3_pca",
    } <= metrics.keys()
    with pytest.raises(
        ConfigError, match=r"measures.frechet: this measure compares images, and the data set has vectors"
    ):
        run(*words, "measures=frechet", name="frechet")
    trained = aetrain.load(directory)
    assert np.isfinite(trained.encode(np.full((2, 5), np.nan))).all()


def test_masking_noise_hides_values_from_an_encoder_that_reads_which_are_observed() -> None:
    """For another encoder a hidden value is 0, as without missing values."""
    words = ["model=deep", "noise=masking", "noise.p=0.5", *data_overrides("table"), "dataset.scaling=none"]
    x = torch.full((200, 1, 1, 6), 2.0)
    noisy = [build(settings_of([*words, *more])).noise for more in ([], ["model.observed=true"])]
    hidden = [noise(x, torch.Generator().manual_seed(0)) for noise in noisy]
    torch.testing.assert_close(hidden[0], hidden[1], rtol=0, atol=0, equal_nan=True)
    assert 0.4 < float(hidden[0].isnan().float().mean()) < 0.6
    complete = build(settings_of(["model=deep", "noise=masking", "noise.p=0.5", "dataset=wine"])).noise
    assert torch.equal(complete(x, torch.Generator().manual_seed(0)), hidden[0].nan_to_num(0.0))
