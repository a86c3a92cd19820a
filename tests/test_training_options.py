"""Gradient clipping, the moving average of the weights, accumulated gradients: by hand, resumed, and refused."""

import copy
import itertools
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file
from torch import Tensor, nn

from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.data.examples import Batches
from aetrain.evaluation.evaluator import Evaluator
from aetrain.runs import entry
from aetrain.runs.build import Components, build
from aetrain.runs.request import RunRequest
from aetrain.runs.training_run import TrainingRun
from aetrain.selfcheck.fingerprint import differences, fingerprint
from aetrain.storage.run_directory import RunDirectory
from aetrain.sweeps.packed import packed_training
from aetrain.sweeps.packed.plan import plan
from aetrain.training.loop import TrainState, fit
from aetrain.training.weight_average import WeightAverage

LR = 0.5
SGD = ("model=linear", "likelihood=gaussian", "optimizer=sgd", f"optimizer.lr={LR}", "optimizer.momentum=0")

# A run of several epochs whose last batch, of 10 images, is smaller than the others.
UNEVEN = ("dataset.subset=50", "batch_size=20", "epochs=3")


def build_components(*overrides: str) -> Components:
    config, _, full_overrides = api.compose_config([*TINY, *overrides])
    return build(entry.check(config, full_overrides))


def random_images(components: Components, count: int = 16, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, *components.model.image_shape, generator=generator)


def copy_weights(module: nn.Module) -> list[Tensor]:
    return [weight.detach().clone() for weight in module.parameters()]


def norm_of_change(before: list[Tensor], after: list[Tensor]) -> float:
    """Return the norm of the difference of two lists of weights, in the units of a gradient of SGD."""
    squares = [(a - b).double().square().sum() for a, b in zip(after, before, strict=True)]
    return float(torch.stack(squares).sum().sqrt()) / LR


def saved_weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "checkpoint" / "model.safetensors")


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def assert_resumes_exactly(tiny: Callable[..., Path], *overrides: str) -> None:
    """Check that a run of one epoch that is continued to three equals a run of three."""
    uninterrupted = fingerprint(tiny(*overrides, "epochs=3", name="uninterrupted"))
    tiny(*overrides, "epochs=1", name="resumed")
    assert not differences(uninterrupted, fingerprint(tiny(*overrides, "epochs=3", name="resumed")))


# --- clip_grad_norm ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("bound", [0.01, 1.0])
def test_step_of_sgd_has_at_most_the_stated_gradient_norm(bound: float) -> None:
    free, clipped = build_components(*SGD), build_components(*SGD, f"clip_grad_norm={bound}")
    x = random_images(free)
    norms = []
    for components in (free, clipped):
        before = copy_weights(components.model)
        components.optimizer_steps[0](x)
        norms.append(norm_of_change(before, copy_weights(components.model)))
    assert norms[0] > 2 * bound, "the gradient must exceed the bound, or the test shows nothing"
    assert norms[1] <= bound * (1 + 1e-4)
    assert norms[1] == pytest.approx(bound, rel=1e-3)


def test_gradient_below_the_bound_is_not_changed() -> None:
    free, clipped = build_components(*SGD), build_components(*SGD, "clip_grad_norm=1e6")
    x = random_images(free)
    for components in (free, clipped):
        components.optimizer_steps[0](x)
    assert all(map(torch.equal, copy_weights(free.model), copy_weights(clipped.model)))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_clipping_equals_that_of_torch_by_hand(optimizer: str) -> None:
    overrides = ("model=deep", f"optimizer={optimizer}", "optimizer.lr=0.01")
    clipped, by_hand = build_components(*overrides, "clip_grad_norm=0.5"), build_components(*overrides)
    model, optimizer_by_hand = by_hand.model.train(), by_hand.optimizers[0]
    clipped.model.train()
    for seed in range(3):
        x = random_images(clipped, seed=seed)
        clipped.optimizer_steps[0](x)
        optimizer_by_hand.zero_grad()
        by_hand.objective(model, model(x))["loss"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer_by_hand.step()
    assert all(map(torch.equal, copy_weights(clipped.model), copy_weights(model)))


def test_each_optimizer_step_clips_its_own_parameters() -> None:
    """Of an adversarial autoencoder: the gradients of the critic do not count in the norm of the model's."""
    components = build_components(
        "model=aae", "clip_grad_norm=0.01", "optimizer=sgd", f"optimizer.lr={LR}", "optimizer.momentum=0"
    )
    components.model.train()
    modules: list[nn.Module] = [components.model, components.objective.critics["critic"]]
    for step, module in zip(components.optimizer_steps, modules, strict=True):
        before = copy_weights(module)
        step(random_images(components))
        assert norm_of_change(before, copy_weights(module)) == pytest.approx(0.01, rel=1e-2)


def test_without_a_bound_no_gradient_is_clipped(tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    default = tiny("model=vae", name="default")

    def raise_error(*_: object, **__: object) -> None:
        raise AssertionError("clip_grad_norm_ was called")

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", raise_error)
    unclipped = tiny("model=vae", "clip_grad_norm=null", name="unclipped")
    assert equal(saved_weights(default), saved_weights(unclipped))
    with pytest.raises(AssertionError, match="was called"):
        tiny("model=vae", "clip_grad_norm=1", name="clipped")


def test_steps_without_a_bound_equal_a_loop_by_hand() -> None:
    """Bit for bit: losses, zero_grad, backward, step."""
    components, by_hand = build_components("model=deep"), build_components("model=deep")
    components.model.train()
    model, optimizer = by_hand.model.train(), by_hand.optimizers[0]
    for seed in range(3):
        x = random_images(components, seed=seed)
        components.optimizer_steps[0](x)
        optimizer.zero_grad()
        by_hand.objective(model, model(x))["loss"].backward()
        optimizer.step()
    assert all(map(torch.equal, copy_weights(components.model), copy_weights(model)))


def test_clipped_run_resumes_exactly(tiny: Callable[..., Path]) -> None:
    assert_resumes_exactly(tiny, "model=vae", "clip_grad_norm=5", "dataset.subset=50", "batch_size=20")


# --- ema --------------------------------------------------------------------------------------------------------------


def test_average_is_the_moving_average_of_the_weights() -> None:
    """average <- 0.9 average + 0.1 weights after every step, from the weights before training."""
    components = build_components("model=deep", "ema=0.9")
    average = components.weight_average
    assert average is not None
    expected = copy_weights(components.model)
    for seed in range(5):
        components.optimizer_steps[0](random_images(components, seed=seed))
        weights = copy_weights(components.model)
        expected = [0.9 * a + 0.1 * w for a, w in zip(expected, weights, strict=True)]
    torch.testing.assert_close(average.averages, expected)
    weights = copy_weights(components.model)
    with average.applied():
        torch.testing.assert_close(copy_weights(components.model), expected)
    assert all(map(torch.equal, copy_weights(components.model), weights))


def test_tied_weights_are_averaged_once() -> None:
    components = build_components("model=tied", "ema=0.5")
    average = components.weight_average
    assert average is not None
    assert len(average.averages) == len(list(components.model.parameters()))
    components.optimizer_steps[0](random_images(components))
    first = cast(Any, components.model.decoder).layers[0]
    with average.applied():
        assert torch.equal(first.source.weight, components.model.bottleneck.project.weight)


def test_steps_of_a_critic_do_not_update_the_average() -> None:
    components = build_components("model=aae", "ema=0.5")
    average = components.weight_average
    assert average is not None
    model_step, critic_step = components.optimizer_steps
    model_step(random_images(components))
    before = [tensor.clone() for tensor in average.averages]
    critic_step(random_images(components))
    assert all(map(torch.equal, before, average.averages))


def test_average_does_not_change_the_weights_of_training() -> None:
    plain, averaged = build_components("model=deep"), build_components("model=deep", "ema=0.9")
    for seed in range(3):
        for components in (plain, averaged):
            components.optimizer_steps[0](random_images(components, seed=seed))
    assert all(map(torch.equal, copy_weights(plain.model), copy_weights(averaged.model)))


def test_checkpoint_and_metrics_are_those_of_the_average(tiny: Callable[..., Path]) -> None:
    """The average of every step of a run, computed by hand from the same batches."""
    overrides = ("model=deep", "model.activation=relu", "model.init=default", *UNEVEN)
    run = tiny(*overrides, "ema=0.8", name="averaged")
    components = build_components(*overrides)
    expected = copy.deepcopy(components.model)
    step = components.optimizer_steps[0]

    @torch.no_grad()
    def average() -> None:
        for a, w in zip(expected.parameters(), components.model.parameters(), strict=True):
            a.copy_(0.8 * a + 0.2 * w)

    step.after_step.append(average)
    splits, prepare = components.dataset.load(), components.dataset.prepare
    batches = Batches(splits.train, 20, prepare)
    metrics = json.loads((run / "metrics.json").read_text())
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    evaluator = Evaluator(splits.test, prepare, components.noise)

    def compare_epoch(state: TrainState) -> None:
        by_hand = evaluator.evaluate_epoch(expected.eval(), components.objective)
        for name, value in by_hand.items():
            assert history[state.epoch][f"test/{name}"] == pytest.approx(value, rel=1e-5)

    fit(TrainState(components.model, 0, 3), [step], batches, [compare_epoch])
    trained = saved_weights(run)
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(trained[name], tensor)
    sse = evaluator.evaluate_full(expected.eval(), components.objective)["sse"]
    assert metrics["test/sse"] == pytest.approx(sse, rel=1e-5)
    assert api.load(run).metrics["test/sse"] == metrics["test/sse"]
    plain = evaluator.evaluate_full(components.model.eval(), components.objective)["sse"]
    assert abs(plain - sse) > 1e-3 * sse, "the average must differ from the weights, or the test shows nothing"


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vae", "aae"])
def test_averaged_run_resumes_exactly(model: str, tiny: Callable[..., Path]) -> None:
    assert_resumes_exactly(tiny, f"model={model}", "ema=0.9", "dataset.subset=50", "batch_size=20")


def test_resumed_run_has_the_same_average_of_training(tiny: Callable[..., Path]) -> None:
    """The saved state holds the weights of training beside the average in model.safetensors."""
    run = tiny("model=linear", "ema=0.9", *UNEVEN)
    state = torch.load(run / "checkpoint" / "training.pt", weights_only=True)["weight_average"]
    plain = saved_weights(tiny("model=linear", *UNEVEN, name="plain"))
    components = build_components("model=linear")
    for number, (name, _) in enumerate(components.model.named_parameters()):
        assert torch.equal(state[f"weight{number}"], plain[name])
    assert not equal(saved_weights(run), plain)


class Killed(Exception):
    """Stands for a kill of the process."""


@pytest.mark.slow
@pytest.mark.parametrize("saves", [1, 2, 3])
def test_averaged_run_that_is_killed_resumes_exactly(
    saves: int, tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ("model=deep", "ema=0.9", *UNEVEN)
    uninterrupted = fingerprint(tiny(*overrides, name="uninterrupted"))
    save, calls = TrainingRun.save, itertools.count(1)

    def save_and_kill(training_run: TrainingRun) -> None:
        save(training_run)
        if next(calls) == saves:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "save", save_and_kill)
        with pytest.raises(Killed):
            tiny(*overrides, name="resumed")
    assert not differences(uninterrupted, fingerprint(tiny(*overrides, name="resumed")))


def test_average_begins_after_pretraining(tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run without epochs, the checkpoint holds the pretrained weights."""
    resets: list[list[Tensor]] = []
    reset = WeightAverage.store

    def record_reset(average: WeightAverage) -> None:
        reset(average)
        resets.append([tensor.clone() for tensor in average.averages])

    monkeypatch.setattr(WeightAverage, "store", record_reset)
    overrides = ("model=deep", "model.hidden=[10]", "pretrain=layerwise", "pretrain.epochs=2")
    pretrained = saved_weights(tiny(*overrides, "epochs=0", name="pretrained"))
    averaged = saved_weights(tiny(*overrides, "epochs=0", "ema=0.9", name="averaged"))
    assert equal(pretrained, averaged)
    tiny(*overrides, "epochs=1", "ema=0.9", name="trained")
    names = [name for name, _ in build_components(*overrides).model.named_parameters()]
    assert len(resets) == 2
    for averages in resets:
        assert all(torch.equal(pretrained[name], tensor) for name, tensor in zip(names, averages, strict=True))


def test_averaged_run_with_pretraining_resumes_exactly(tiny: Callable[..., Path]) -> None:
    pretraining = ("model.hidden=[10]", "pretrain=layerwise", "pretrain.epochs=1")
    assert_resumes_exactly(tiny, "model=deep", "ema=0.9", *pretraining)


@pytest.mark.parametrize("decay", ["0", "1", "-0.5", "1.5", "nan"])
def test_decay_outside_of_0_and_1_is_refused(decay: str) -> None:
    with pytest.raises(ConfigError, match=rf"ema={decay} is out of range: use a decay between 0 and 1"):
        build_components(f"ema={decay}")


# --- accumulate_grad_batches ------------------------------------------------------------------------------------------


def train(*overrides: str, batch_size: int, accumulate: int, drop: int = 0) -> list[Tensor]:
    """Return the weights after two epochs of batches in the order of the data."""
    components = build_components(*overrides)
    pixels = components.dataset.load().train.pixels
    x = pixels[: len(pixels) - drop].to(torch.float32) / 255
    state = TrainState(components.model, 0, 2)
    fit(state, components.optimizer_steps, x.split(batch_size), accumulate=accumulate)
    return copy_weights(components.model)


@pytest.mark.slow
@pytest.mark.parametrize("subset", [48, 44, 50, 17], ids="{} images".format)
@pytest.mark.parametrize("model", ["linear", "deep"])
def test_accumulated_batches_equal_one_large_batch(model: str, subset: int) -> None:
    """Of 4 batches of 4: 48 images are whole groups; 44, 50 and 17 end with a smaller group, or a smaller batch."""
    overrides = (f"model={model}", f"dataset.subset={subset}", "optimizer=sgd", "optimizer.lr=1e-3")
    accumulated = train(*overrides, batch_size=4, accumulate=4)
    at_once = train(*overrides, batch_size=16, accumulate=1)
    torch.testing.assert_close(accumulated, at_once, rtol=1e-4, atol=1e-6)
    smaller = train(*overrides, batch_size=4, accumulate=1)
    assert any(not torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(accumulated, smaller, strict=True))


@pytest.mark.parametrize("option", ["clip_grad_norm=0.5", "ema=0.9"])
def test_other_options_apply_once_to_a_group_of_batches(option: str) -> None:
    steps = []
    for accumulate in (True, False):
        components = build_components(*SGD, option, "optimizer.lr=0.01")
        x = random_images(components, 16)
        components.optimizer_steps[0](*(x.split(4) if accumulate else [x]))
        average = components.weight_average
        steps.append([*copy_weights(components.model), *(average.averages if average else [])])
    torch.testing.assert_close(steps[0], steps[1], rtol=1e-4, atol=1e-6)


def test_losses_of_a_group_are_means_over_its_images() -> None:
    accumulated, at_once = build_components("model=deep"), build_components("model=deep")
    x = random_images(accumulated, 10)
    losses, expected = accumulated.optimizer_steps[0](*x.split(4)), at_once.optimizer_steps[0](x)
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value.detach(), rtol=1e-5, atol=1e-5)


def test_epoch_has_one_optimizer_step_for_each_group(tiny: Callable[..., Path]) -> None:
    """50 images in batches of 10 by groups of 2 are 3 steps an epoch, counted by Adam."""
    run = tiny("model=linear", "dataset.subset=50", "batch_size=10", "epochs=2", "accumulate_grad_batches=2")
    state = torch.load(run / "checkpoint" / "training.pt", weights_only=True)["optimizers"][0]["state"]
    assert {int(weight_state["step"]) for weight_state in state.values()} == {6}


def test_schedule_reads_the_progress_of_the_first_batch_of_a_group() -> None:
    components = build_components("model=linear")
    progress: list[float] = []
    step = components.optimizer_steps[0]
    step.before_step = [progress.append]
    x = random_images(components, 5)
    fit(TrainState(components.model, 0, 2), [step], x.split(1), accumulate=2)
    assert progress == pytest.approx([0, 0.2, 0.4, 0.5, 0.7, 0.9])


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [("model=vae",), ("model=aae", "noise=masking")], ids=" ".join)
def test_run_with_accumulated_gradients_resumes_exactly(overrides: tuple[str, ...], tiny: Callable[..., Path]) -> None:
    assert_resumes_exactly(tiny, *overrides, "accumulate_grad_batches=2", "dataset.subset=50", "batch_size=10")


def test_run_with_all_options_resumes_exactly(tiny: Callable[..., Path]) -> None:
    options = ("clip_grad_norm=5", "ema=0.9", "accumulate_grad_batches=2")
    assert_resumes_exactly(tiny, "model=vae", *options, "dataset.subset=50", "batch_size=10")


# --- Settings that do not fit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["clip_grad_norm=1.0", "accumulate_grad_batches=2"])
def test_lbfgs_refuses_clipping_and_accumulation_with_one_message(option: str) -> None:
    with pytest.raises(ConfigError) as error:
        build_components("optimizer=lbfgs", option)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"{option} does not fit optimizer=lbfgs")
    assert "use optimizer=adam" in message


def test_lbfgs_accepts_an_average(tiny: Callable[..., Path]) -> None:
    assert_resumes_exactly(tiny, "model=linear", "optimizer=lbfgs", "optimizer.max_iter=2", "ema=0.5")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("clip_grad_norm=0", "clip_grad_norm=0 is not positive: use a norm above 0, or null"),
        ("clip_grad_norm=-1", "clip_grad_norm=-1 is not positive"),
        ("clip_grad_norm=nan", "clip_grad_norm=nan is not positive"),
        ("accumulate_grad_batches=0", "accumulate_grad_batches=0 is too small: use 1 or more"),
        ("accumulate_grad_batches=1.5", "accumulate_grad_batches"),
    ],
)
def test_bad_values_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        build_components(override)
    assert message in str(error.value), str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["clip_grad_norm=1", "ema=0.9", "accumulate_grad_batches=2"])
def test_pack_with_an_option_runs_individually(option: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    requests = []
    for seed in (0, 1):
        run_dir = f"hydra.run.dir='{tmp_path / str(seed)}'"
        config, directory, overrides = api.compose_config([*TINY, "model=linear", option, f"seed={seed}", run_dir])
        requests.append(RunRequest(config, RunDirectory(directory), overrides, single=False))
    covered, shares, _ = plan(requests, size=32)
    assert covered == [0, 1]
    assert shares == [[0, 1]]
    with caplog.at_level(logging.INFO):
        packed_training.train_requests(requests)
    name = option.partition("=")[0]
    assert f"run individually: 2 runs: a pack does not support {name}" in caplog.text
    assert not any(tmp_path.iterdir())
    entry.run_request(replace(requests[0], single=True))
    assert requests[0].run_dir.status == "finished"
