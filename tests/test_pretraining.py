"""Pretraining in stages: CD-k against its outer products, stages against the layers of the model, refusals, resume."""

import itertools
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import aetrain
from aetrain.config.errors import ConfigError
from aetrain.data.examples import Batches, Examples, Prepare
from aetrain.data.noise import Gaussian, Noise, NoNoise, Replace
from aetrain.model import bottlenecks
from aetrain.model.dense import dense
from aetrain.model.layers import TiedLinear
from aetrain.model.likelihoods import Bernoulli
from aetrain.objective.objective import Objective
from aetrain.objective.penalties import KL
from aetrain.training.pretraining.layer_pairs import layer_pairs, units_below
from aetrain.training.pretraining.layerwise import HiddenNoise, Layerwise, hidden_likelihood, make_stage
from aetrain.training.pretraining.pretrain import PretrainContext
from aetrain.training.pretraining.rbm import RBM, StackedRBMs

Curves = list[Mapping[str, float]]  # the metrics of the epochs of all stages

SHAPE = (1, 6, 5)


def small_model(**settings: Any) -> Any:
    torch.manual_seed(0)
    arguments: dict[str, Any] = {"hidden": [12, 7], "code_dim": 4, "activation": "sigmoid"} | settings
    return dense(SHAPE, Bernoulli(), nn.Identity(), (0.0, 1.0), **arguments)


def pretrain_context(
    curves: Curves, noise: Noise | None = None, objective: Objective | None = None, seed: int = 0
) -> PretrainContext:
    pixels = torch.randint(0, 256, (60, *SHAPE), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    return PretrainContext(
        Batches(Examples(pixels), 20, Prepare()),
        noise or NoNoise(),
        objective or Objective({}),
        lambda parameters: torch.optim.Adam(parameters, lr=0.01),
        seed,
        lambda epoch, metrics: curves.append(metrics),
    )


def small_rbm(linear: bool, k: int = 1) -> RBM:
    torch.manual_seed(3)
    return RBM(nn.Linear(6, 4), nn.Parameter(torch.randn(6)), linear, k).to(torch.float64)


def hidden_states() -> torch.Tensor:
    """Return all states [16, 4] of 4 binary units."""
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=4)), dtype=torch.float64)


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("k", [1, 3])
def test_gradient_of_contrastive_divergence_equals_the_outer_products(linear: bool, k: int) -> None:
    """<v h>_0 - <v h>_k in the notation of `rbm.m` and `rbmhidlinear.m`, sampled again from the same seed."""
    rbm = small_rbm(linear, k)
    data = torch.rand(10, 6, dtype=torch.float64)
    w, c, b = rbm.layer.weight.detach(), rbm.layer.bias.detach(), rbm.visible_bias.detach()
    torch.manual_seed(5)
    rbm.losses(data)["loss"].backward()

    def mean_hidden(v: torch.Tensor) -> torch.Tensor:
        net_input = v @ w.t() + c
        return net_input if linear else 1 / (1 + torch.exp(-net_input))

    torch.manual_seed(5)
    negative = data
    for _ in range(k):
        hidden = mean_hidden(negative)
        sample = hidden + torch.randn_like(hidden) if linear else torch.bernoulli(hidden)
        negative = 1 / (1 + torch.exp(-(sample @ w + b)))
    products = mean_hidden(data).t() @ data - mean_hidden(negative).t() @ negative
    torch.testing.assert_close(rbm.layer.weight.grad, -products / 10)
    torch.testing.assert_close(rbm.visible_bias.grad, -(data - negative).mean(0))
    torch.testing.assert_close(rbm.layer.bias.grad, -(mean_hidden(data) - mean_hidden(negative)).mean(0))


def test_free_energy_equals_the_sum_over_all_hidden_states() -> None:
    rbm, v = small_rbm(linear=False), torch.rand(5, 6, dtype=torch.float64)
    h = hidden_states()
    energy = -(v @ rbm.visible_bias)[:, None] - h @ rbm.layer.bias - v @ rbm.layer.weight.t() @ h.t()  # [5, 16]
    torch.testing.assert_close(rbm.free_energy(v), -torch.logsumexp(-energy, 1))


def test_free_energy_of_linear_units_equals_the_integral() -> None:
    rbm = RBM(nn.Linear(6, 1), nn.Parameter(torch.randn(6)), linear=True).to(torch.float64)
    v = torch.rand(5, 6, dtype=torch.float64)
    h = torch.linspace(-30, 30, 20_001, dtype=torch.float64)
    energy = -(v @ rbm.visible_bias)[:, None] + (h - rbm.layer.bias) ** 2 / 2 - (v @ rbm.layer.weight.t()) * h
    expected = -torch.log(torch.trapezoid(torch.exp(-energy), h, dim=1) / math.sqrt(2 * math.pi))
    torch.testing.assert_close(rbm.free_energy(v), expected)


def test_hidden_states_are_sampled_with_the_stated_probabilities() -> None:
    for linear in (False, True):
        rbm, v = small_rbm(linear), torch.rand(1, 6, dtype=torch.float64).expand(50_000, 6)
        h = rbm.sample(v)
        net_input = rbm.layer(v[:1])[0]
        torch.testing.assert_close(h.mean(0), net_input if linear else net_input.sigmoid(), atol=0.02, rtol=0)
        assert linear or set(h.unique().tolist()) == {0.0, 1.0}
        assert not linear or abs(h.var() - net_input.var(correction=0) - 1) < 0.02


def test_contrastive_divergence_takes_the_steps_of_the_original_program() -> None:
    """inc = momentum * inc + lr * (products / N - cost * w), with the momentum raised after one epoch."""
    settings = StackedRBMs(epochs=3, momentum_switch_epoch=1, weight_decay=0.01)
    rbm, data = small_rbm(linear=False), torch.rand(10, 6, dtype=torch.float64)
    optimizer_step, w = settings.optimizer_step(rbm), rbm.layer.weight.detach().clone()
    inc = torch.zeros_like(w)
    for step, momentum in enumerate((0.5, 0.5, 0.9, 0.9, 0.9, 0.9)):  # two steps an epoch
        optimizer_step.set_progress((step // 2 + step % 2 / 2) / 3)
        torch.manual_seed(step)
        optimizer_step(data)
        gradient = rbm.layer.weight.grad
        assert gradient is not None
        inc = momentum * inc - 0.1 * (gradient + 0.01 * w)
        w = w + inc
        torch.testing.assert_close(rbm.layer.weight.detach(), w)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("code_activation", [None, "sigmoid"])
def test_stacked_rbms_are_unrolled_into_encoder_and_decoder(tied: bool, code_activation: str | None) -> None:
    model = small_model(tied=tied, code_activation=code_activation)
    curves: Curves = []
    before = [p.clone() for p in model.parameters()]
    settings = StackedRBMs(epochs=2, batch_size=20)
    settings.check(model)
    settings(model, pretrain_context(curves))
    for pair in layer_pairs(model):
        down: Any = pair.decoder_layer
        weight = down.source.weight.t() if isinstance(down, TiedLinear) else down.weight
        assert torch.equal(weight, pair.encoder_layer.weight.t())
        assert (down.bias != 0).any()
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert [sorted(metrics) for metrics in curves] == [
        [f"pretrain/{n}/loss", f"pretrain/{n}/sse"] for n in (1, 1, 2, 2, 3, 3)
    ]


def test_stages_in_sequence_equal_the_model() -> None:
    """The stages encode one after the other to the code of the model, and decode in reverse to its output."""
    model = small_model(activation="tanh").eval()
    x = torch.rand(5, *SHAPE)
    stages = [make_stage(model, pair).eval() for pair in layer_pairs(model)]
    h = x
    for number, stage in enumerate(stages, start=1):
        torch.testing.assert_close(units_below(model, number)(x), h)
        h = stage.encode(h).z
        h = h if number == len(stages) else h[:, :, None, None]
    torch.testing.assert_close(h, model.encode(x).z)
    for stage in reversed(stages):
        h = stage.decode(h.flatten(1))
        h = h if stage is stages[0] else stage.likelihood.mean(h)
    torch.testing.assert_close(h, model(x).decoded)
    assert {id(p) for p in model.parameters()} == {id(p) for stage in stages for p in stage.parameters()}


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["sigmoid", "relu", "silu"])
@pytest.mark.parametrize("tied", [False, True])
def test_every_stage_learns_and_pretraining_is_repeatable(activation: str, tied: bool) -> None:
    model = small_model(activation=activation, tied=tied)
    curves: Curves = []
    first = model.encoder.layers[0].weight.clone()
    Layerwise(epochs=1)(model, pretrain_context([]))
    repeated = small_model(activation=activation, tied=tied)
    Layerwise(epochs=1)(repeated, pretrain_context(curves))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), repeated.parameters(), strict=True)), (
        "not repeatable"
    )
    assert not torch.equal(first, model.encoder.layers[0].weight)
    curves.clear()
    Layerwise(epochs=20)(model, pretrain_context(curves))
    for number in (1, 2, 3):
        tag = f"pretrain/{number}/nll"
        curve = [metrics[tag] for metrics in curves if tag in metrics]
        assert len(curve) == 20
        assert curve[-1] < curve[0]


def test_another_seed_gives_other_weights() -> None:
    one, two = small_model(), small_model()
    Layerwise(epochs=1)(one, pretrain_context([], seed=0))
    Layerwise(epochs=1)(two, pretrain_context([], seed=1))
    assert not torch.equal(one.bottleneck.project.weight, two.bottleneck.project.weight)


def test_stage_of_the_code_has_the_penalties_and_its_own_learning_rate() -> None:
    model = small_model(bottleneck=bottlenecks.Gaussian)
    curves: Curves = []
    objective = Objective({"kl": KL()})
    optimizers: list[torch.optim.Optimizer] = []
    context = pretrain_context(curves, objective=objective)

    def make_optimizer(parameters: Any) -> torch.optim.Optimizer:
        optimizers.append(context.make_optimizer(parameters))
        return optimizers[-1]

    Layerwise(epochs=1, lr=0.003)(model, replace(context, make_optimizer=make_optimizer))
    assert [sorted(metrics) for metrics in curves] == [
        ["pretrain/1/loss", "pretrain/1/nll"],
        ["pretrain/2/loss", "pretrain/2/nll"],
        ["pretrain/3/kl", "pretrain/3/loss", "pretrain/3/nll"],
    ]
    assert [group["lr"] for optimizer in optimizers for group in optimizer.param_groups] == [0.003] * 3


def test_hidden_likelihood_is_bernoulli_for_sigmoids_and_gaussian_for_others() -> None:
    raw, h = torch.randn(4, 7, 1, 1), torch.rand(4, 7, 1, 1)
    bernoulli = -torch.distributions.Bernoulli(logits=raw).log_prob(h.round()).sum((1, 2, 3))
    torch.testing.assert_close(hidden_likelihood(nn.Sigmoid()).nll(raw, h.round()), bernoulli)
    squares = ((raw.relu() - h) ** 2).sum((1, 2, 3))
    torch.testing.assert_close(hidden_likelihood(nn.ReLU()).nll(raw, h), squares)


def test_noise_on_hidden_units_keeps_their_range() -> None:
    h = 5 * torch.randn(50, 7, 1, 1)
    assert HiddenNoise(NoNoise())(h) is h
    noisy = HiddenNoise(Replace(p=0.5, white=0.0))(h)
    changed = (noisy - h).abs() > 1e-4
    assert 0.4 < changed.float().mean() < 0.6
    torch.testing.assert_close(noisy[changed], h.min().expand(int(changed.sum())))
    clipped = HiddenNoise(Gaussian(3.0))(h)
    assert clipped.min() >= h.min() - 1e-4
    assert clipped.max() <= h.max() + 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["pretrain=rbm"], ("pretrain=rbm", "model.activation=sigmoid")),
        (["pretrain=rbm", "model=conv"], ("pretrain", "model=deep")),
        (["pretrain=layerwise", "model=conv"], ("pretrain", "model=deep")),
        (
            ["pretrain=rbm", "model.activation=sigmoid", "likelihood=gaussian"],
            ("pretrain=rbm", "likelihood.output"),
        ),
        (
            ["pretrain=rbm", "model.activation=sigmoid", "model.code_activation=tanh"],
            ("pretrain=rbm", "model.code_activation"),
        ),
        (
            [
                *("pretrain=rbm", "model.activation=sigmoid", "likelihood=gaussian", "likelihood.output=tanh"),
                "dataset.scale=[-1,1]",
            ],
            ("pretrain=rbm", "dataset.scale=[-1, 1]"),
        ),
        (["pretrain=layerwise", "pretrain.epochs=0"], ("pretrain.epochs=0",)),
        (["pretrain=layerwise", "pretrain.lr=0"], ("pretrain.lr=0",)),
        (["pretrain=rbm", "pretrain.k=0"], ("pretrain.k=0",)),
    ],
)
def test_unsuitable_pretraining_is_refused_before_any_data_is_read(
    overrides: list[str], parts: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        aetrain.run([f"hydra.run.dir={tmp_path / 'run'}", "dataset=mnist", "data_dir=/nowhere", *overrides])
    assert all(part in str(error.value) for part in parts), str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["deep", "tied", "vae", "linear"])
def test_every_dense_model_can_be_pretrained(model: str, tiny: Callable[..., Path]) -> None:
    for noise in ("none", "gaussian", "masking"):
        tiny(f"model={model}", f"noise={noise}", "pretrain=layerwise", "pretrain.epochs=1", name=noise)
    tiny(f"model={model}", "model.activation=sigmoid", "pretrain=rbm", "pretrain.epochs=1", name="rbm")


def test_divergence_in_pretraining_names_the_layer(tiny: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="pretrain: layer 1 diverged in epoch"):
        tiny("pretrain=layerwise", "optimizer=sgd", "pretrain.lr=1e8", "likelihood=gaussian")


class Killed(Exception):
    """Stands for a kill of the process."""


@pytest.mark.slow
@pytest.mark.parametrize("option", ["pretrain=layerwise", "pretrain=rbm"])
def test_run_killed_during_pretraining_or_later_resumes_exactly(
    option: str, run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [*TINY, option, "pretrain.epochs=2", "epochs=2", "model.activation=sigmoid", "model.hidden=[10]"]
    uninterrupted = aetrain.load(run(*overrides, name="uninterrupted"))

    def kill_after(lines: int, name: str) -> None:
        log = logging.getLogger("aetrain")
        calls, log_info = itertools.count(), log.info

        def count_line(*args: Any) -> None:
            log_info(*args)
            if next(calls) == lines:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(log, "info", count_line)
            with pytest.raises(Killed):
                run(*overrides, name=name)

    # Log lines: one of the run, two of each stage, then one an epoch from 0, before the checkpoint of that epoch.
    for lines, name in ((2, "first"), (4, "second"), (6, "epoch 1"), (7, "epoch 2")):
        kill_after(lines, name)
        resumed = run(*overrides, name=name)
        weights, expected = aetrain.load(resumed).model.state_dict(), uninterrupted.model.state_dict()
        assert all(torch.equal(weights[key], expected[key]) for key in expected), lines
        (file,) = resumed.glob("events.out.tfevents.*")
        events = EventAccumulator(str(file)).Reload()
        for layer in (1, 2):
            assert [event.step for event in events.Scalars(f"pretrain/{layer}/loss")] == [1, 2], lines


def test_tied_layers_share_their_weights_after_training_saving_and_loading(tiny: Callable[..., Path]) -> None:
    directory = tiny("model=tied", "pretrain=layerwise", "pretrain.epochs=1")
    model: Any = aetrain.load(directory).model
    sources = [*model.encoder.layers, model.bottleneck.project]
    for layer, source in zip(reversed(model.decoder.layers), sources, strict=True):
        assert layer.source is source
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model.bottleneck.project.weight.clone()
    model(torch.rand(4, *model.image_shape)).decoded.sum().backward()
    optimizer.step()
    first = model.decoder.layers[0]
    assert torch.equal(first.source.weight, model.bottleneck.project.weight)
    assert not torch.equal(before, first.source.weight)
    names = load_file(directory / "checkpoint" / "model.safetensors")
    assert not [name for name in names if name.startswith("decoder") and name.endswith("weight")]
