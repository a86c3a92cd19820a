"""Pretraining in stages: CD-k against its outer products, stages against the layers of the model, refusals, resume."""

import itertools
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
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
from aetrain.model.likelihoods import Gaussian as SquaredError
from aetrain.objective.objective import Objective
from aetrain.objective.penalties import KL, KLSparsity
from aetrain.objective.regularizers import WeightDecay
from aetrain.training.pretraining.layer_pairs import layer_pairs, units_below
from aetrain.training.pretraining.layerwise import HiddenNoise, Layerwise, hidden_likelihood, make_stage
from aetrain.training.pretraining.pretrain import PretrainContext
from aetrain.training.pretraining.rbm import RBM, HiddenRates, StackedRBMs

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


@pytest.mark.parametrize(
    "settings",
    [
        {"lr": -1.0}, {"linear_lr": 0.0}, {"momentum": (0.5, 1.0)}, {"momentum": (-0.1, 0.5)}, {"weight_decay": -1.0},
        {"init_std": -1.0}, {"batch_size": 0}, {"k": 0}, {"epochs": 0}, {"sparsity_cost": -1.0},
    ],
    ids=str,
)  # fmt: skip
def test_settings_of_rbms_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=f"^{name}="):
        StackedRBMs(**settings)


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


def rbm_with_rates(damping: float, cost: float = 0.3) -> RBM:
    torch.manual_seed(3)
    rates = HiddenRates(4, 0.1, cost, damping)
    return RBM(nn.Linear(6, 4), nn.Parameter(torch.randn(6)), hidden_rates=rates).to(torch.float64)


def gradients_of_rates(rbm: RBM, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the pull adds to the gradients of the weights and of the hidden biases."""
    gradients = []
    for rates in (rbm.hidden_rates, None):
        without = RBM(rbm.layer, rbm.visible_bias, hidden_rates=rates)
        torch.manual_seed(5)
        loss = without.losses(data)["loss"]
        gradients.append(torch.autograd.grad(loss, [rbm.layer.weight, rbm.layer.bias]))
    (weight, bias), (plain_weight, plain_bias) = gradients
    return weight - plain_weight, bias - plain_bias


def test_pull_of_one_example_is_the_gradient_of_the_cross_entropy() -> None:
    """Without damping, autograd of -(p log q + (1 - p) log(1 - q)) for the only example of a batch."""
    rbm, data = rbm_with_rates(damping=0.0), torch.rand(1, 6, dtype=torch.float64)
    q = torch.sigmoid(rbm.layer(data[0]))
    cross_entropy = -(0.1 * q.log() + 0.9 * (1 - q).log()).sum()
    expected = torch.autograd.grad(0.3 * cross_entropy, [rbm.layer.weight, rbm.layer.bias])
    torch.testing.assert_close(gradients_of_rates(rbm, data), tuple(expected))


def test_pull_of_a_batch_follows_the_damped_mean_activation() -> None:
    """Three batches by hand, unit by unit: q is damped, and cost * (q - p) reaches the bias and the weights."""
    rbm = rbm_with_rates(damping=0.9)
    w, c = rbm.layer.weight.detach(), rbm.layer.bias.detach()
    rates = [0.1] * 4
    for seed in range(3):
        data = torch.rand(10, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        weight, bias = gradients_of_rates(rbm, data)
        for unit in range(4):
            mean = sum(1 / (1 + math.exp(-float(w[unit] @ v + c[unit]))) for v in data) / 10
            rates[unit] = 0.9 * rates[unit] + 0.1 * mean
            pull = 0.3 * (rates[unit] - 0.1)
            assert float(bias[unit]) == pytest.approx(pull)
            torch.testing.assert_close(weight[unit], pull * data.mean(0))


def test_sparsity_cost_lowers_the_mean_activation() -> None:
    activations = []
    for cost in (0.0, 1.0):
        model = small_model(hidden=[], code_activation="sigmoid")
        context = pretrain_context([])
        StackedRBMs(epochs=30, batch_size=20, sparsity_cost=cost)(model, context)
        activations.append(model.mean_code(context.batches.prepare(context.batches.values)).mean())
    assert abs(activations[1] - 0.1) < 0.05 < abs(activations[0] - 0.1)


def test_visible_biases_begin_at_the_log_odds_of_the_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the pixels, and of the hidden units of the machine below."""
    model, context = small_model(hidden=[12], code_activation="sigmoid"), pretrain_context([])
    values = context.batches.values
    assert isinstance(values, torch.Tensor)
    values[:, 0, 0, 0] = 0  # a pixel that is never on
    biases: list[torch.Tensor] = []
    monkeypatch.setattr(
        "aetrain.training.pretraining.rbm.train_stage", lambda rbm, *_: biases.append(rbm.visible_bias.detach().clone())
    )
    StackedRBMs(visible_bias="data", batch_size=7)(model, context)
    pixels = values.double().flatten(1) / 255
    hidden = torch.sigmoid(model.encoder.layers[0](pixels.float())).detach().double()
    for bias, units in zip(biases, (pixels, hidden), strict=True):
        means = [sum(column) / len(column) for column in units.t().tolist()]
        clamped = [min(max(mean, 1e-7), 1 - 1e-7) for mean in means]
        expected = torch.tensor([math.log(mean / (1 - mean)) for mean in clamped])
        torch.testing.assert_close(bias, expected, atol=1e-4, rtol=1e-4)


def test_linear_hidden_units_have_no_pull() -> None:
    model = small_model(hidden=[12])
    first, second = layer_pairs(model)
    settings = StackedRBMs(sparsity_cost=0.1)
    assert settings.make_rbm(first, linear=False).hidden_rates is not None
    assert settings.make_rbm(second, linear=True).hidden_rates is None


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


def test_each_layer_has_its_own_level_of_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The share of values that are masked in the input of each stage."""
    model = small_model()
    shares = {}

    def measure_stage(stage: Any, optimizer_step: Any, loader: Any, epochs: int, number: int, *_: Any) -> None:
        shape = (4000, *stage.image_shape)
        x = torch.rand(shape).clamp(0.01, 1)
        x[0] = 0.0  # the smallest value of the batch, which hidden units are masked to
        shares[number] = float((optimizer_step.losses.noise(x)[1:] == 0).float().mean())

    monkeypatch.setattr("aetrain.training.pretraining.layerwise.train_stage", measure_stage)
    context = pretrain_context([], noise=Replace(p=0.9, white=0.0))
    Layerwise(noise_levels=[0.1, 0.0, 0.3])(model, context)
    assert shares == pytest.approx({1: 0.1, 2: 0.0, 3: 0.3}, abs=0.02)


def test_all_stages_have_the_penalties_that_read_any_code() -> None:
    model = small_model(bottleneck=bottlenecks.Gaussian)
    penalties = {"kl": KL(), "sparsity": KLSparsity(0.1, 3.0), "decay": WeightDecay(3e-3)}
    curves: Curves = []
    Layerwise(epochs=1, penalties="all")(model, pretrain_context(curves, objective=Objective(penalties)))
    names = [{name.rpartition("/")[2] for name in metrics} for metrics in curves]
    assert names == [{"loss", "nll", "sparsity", "decay"}] * 2 + [{"loss", "nll", "sparsity", "decay", "kl"}]


def test_loss_of_a_stage_equals_that_of_the_sparse_autoencoder_of_the_course() -> None:
    """1/2 squared error, beta KL(rho || mean activation) and lambda / 2 squared weights: Ng (2011), section 3."""
    model = small_model(hidden=[12], code_activation="sigmoid", tied=False)
    objective = Objective({"sparsity": KLSparsity(0.1, 3.0), "weight_decay": WeightDecay(3e-3)})
    likelihood = SquaredError(variance=1.0, output="sigmoid")
    stages = Layerwise(penalties="all", hidden_likelihood=likelihood)
    for pair in layer_pairs(model)[1:]:
        stage = make_stage(model, pair, likelihood).train()
        x = torch.rand(40, *pair.input_shape)
        losses = Objective(stages.penalties_of(pair, objective))(stage, stage(x))
        w1, b1 = pair.encoder_layer.weight.detach().numpy(), pair.encoder_layer.bias.detach().numpy()
        decoder: Any = pair.decoder_layer
        w2, b2 = decoder.weight.detach().numpy(), decoder.bias.detach().numpy()
        cost, rates = 0.0, 0.0
        for row in x.flatten(1).numpy():
            a2 = 1 / (1 + np.exp(-(w1 @ row + b1)))
            a3 = 1 / (1 + np.exp(-(w2 @ a2 + b2)))
            cost += 0.5 * ((a3 - row) ** 2).sum() / 40
            rates = rates + a2 / 40
        divergence = (0.1 * np.log(0.1 / rates) + 0.9 * np.log(0.9 / (1 - rates))).sum()
        cost += 3.0 * divergence + 3e-3 / 2 * ((w1**2).sum() + (w2**2).sum())
        assert losses["loss"].item() == pytest.approx(cost, rel=1e-5)


def test_weight_decay_counts_tied_weights_once_and_no_biases() -> None:
    x = torch.rand(2, *SHAPE)
    for tied in (False, True):
        model = small_model(tied=tied)
        weights = [weight for weight in model.parameters() if weight.dim() == 2]
        assert len(weights) == (3 if tied else 6)
        expected = sum(value**2 for weight in weights for value in weight.flatten().tolist()) / 2
        assert WeightDecay()(model, model(x)).item() == pytest.approx(expected, rel=1e-5)


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
        (["pretrain=rbm", "pretrain.sparsity_target=1"], ("pretrain.sparsity_target=1",)),
        (["pretrain=rbm", "pretrain.sparsity_cost=-1"], ("pretrain.sparsity_cost=-1",)),
        (["pretrain=rbm", "pretrain.sparsity_damping=1"], ("pretrain.sparsity_damping=1",)),
        (["pretrain=layerwise", "noise=masking", "pretrain.noise_levels=[0.1]"], ("noise_levels=[0.1]", "3 layers")),
        (["pretrain=layerwise", "noise=masking", "pretrain.noise_levels=[0,1,2]"], ("noise_levels=[0, 1, 2]",)),
        (["pretrain=layerwise", "pretrain.noise_levels=[0,0.1,0.2]"], ("noise_levels=[0, 0.1, 0.2]", "NoNoise")),
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
