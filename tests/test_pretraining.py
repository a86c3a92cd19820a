"""Pretraining in stages: CD-k against its outer products, stages against the model's own layers, refusals, resuming."""

import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import aetrain
from aetrain.config.errors import ConfigError
from aetrain.data.images import Batches, Images, Prepare
from aetrain.data.noise import Gaussian, Noise, NoNoise, Replace
from aetrain.model import bottlenecks
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.dense import dense
from aetrain.model.layers import TiedLinear
from aetrain.model.likelihoods import Bernoulli
from aetrain.objective.objective import Objective
from aetrain.objective.penalties import GaussianKL
from aetrain.training.pretraining.layer_pairs import pairs, units_below
from aetrain.training.pretraining.layerwise import HiddenNoise, Layerwise, likelihood_of, stage_of
from aetrain.training.pretraining.pretrain import PretrainContext
from aetrain.training.pretraining.rbm import RBM, StackedRBMs

SHAPE = (1, 6, 5)


def small(**settings: object) -> Autoencoder:
    torch.manual_seed(0)
    given = {"hidden": [12, 7], "code_dim": 4, "activation": "sigmoid"} | settings
    return dense(SHAPE, Bernoulli(), nn.Identity(), (0.0, 1.0), **given)  # type: ignore[arg-type]


def supplies(
    recorded: list[Mapping[str, float]], noise: Noise | None = None, objective: Objective | None = None, seed: int = 0
) -> PretrainContext:
    pixels = torch.randint(0, 256, (60, *SHAPE), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    return PretrainContext(
        Batches(Images(pixels), 20, Prepare()),
        noise or NoNoise(),
        objective or Objective({}),
        lambda parameters: torch.optim.Adam(parameters, lr=0.01),
        seed,
        lambda epoch, figures: recorded.append(figures),
    )


def machine(linear: bool, k: int = 1) -> RBM:
    torch.manual_seed(3)
    return RBM(nn.Linear(6, 4), nn.Parameter(torch.randn(6)), linear, k).to(torch.float64)


def states(linear: bool) -> torch.Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=4)), dtype=torch.float64)


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("k", [1, 3])
def test_gradient_of_contrastive_divergence_is_the_outer_products(linear: bool, k: int) -> None:
    """<v h>_0 - <v h>_k in the notation of `rbm.m` and `rbmhidlinear.m`, sampled once more from the same seed."""
    rbm = machine(linear, k)
    data = torch.rand(10, 6, dtype=torch.float64)
    w, c, b = rbm.up.weight.detach(), rbm.up.bias.detach(), rbm.visible_bias.detach()
    torch.manual_seed(5)
    rbm.losses(data)["loss"].backward()

    def mean_hidden(v: torch.Tensor) -> torch.Tensor:
        drive = v @ w.t() + c
        return drive if linear else 1 / (1 + torch.exp(-drive))

    torch.manual_seed(5)
    negative = data
    for _ in range(k):
        hidden = mean_hidden(negative)
        drawn = hidden + torch.randn_like(hidden) if linear else torch.bernoulli(hidden)
        negative = 1 / (1 + torch.exp(-(drawn @ w + b)))
    products = mean_hidden(data).t() @ data - mean_hidden(negative).t() @ negative
    torch.testing.assert_close(rbm.up.weight.grad, -products / 10)
    torch.testing.assert_close(rbm.visible_bias.grad, -(data - negative).mean(0))
    torch.testing.assert_close(rbm.up.bias.grad, -(mean_hidden(data) - mean_hidden(negative)).mean(0))


def test_free_energy_is_the_sum_over_all_hidden_states() -> None:
    rbm, v = machine(linear=False), torch.rand(5, 6, dtype=torch.float64)
    h = states(linear=False)  # [16, 4]
    energy = -(v @ rbm.visible_bias)[:, None] - h @ rbm.up.bias - v @ rbm.up.weight.t() @ h.t()  # [5, 16]
    torch.testing.assert_close(rbm.free_energy(v), -torch.logsumexp(-energy, 1))


def test_free_energy_of_linear_units_is_the_integral() -> None:
    rbm = RBM(nn.Linear(6, 1), nn.Parameter(torch.randn(6)), linear=True).to(torch.float64)
    v = torch.rand(5, 6, dtype=torch.float64)
    h = torch.linspace(-30, 30, 20_001, dtype=torch.float64)
    energy = -(v @ rbm.visible_bias)[:, None] + (h - rbm.up.bias) ** 2 / 2 - (v @ rbm.up.weight.t()) * h
    expected = -torch.log(torch.trapezoid(torch.exp(-energy), h, dim=1) / math.sqrt(2 * math.pi))
    torch.testing.assert_close(rbm.free_energy(v), expected)


def test_hidden_states_are_drawn_with_the_probabilities_they_should_have() -> None:
    for linear in (False, True):
        rbm, v = machine(linear), torch.rand(1, 6, dtype=torch.float64).expand(50_000, 6)
        h = rbm.sample(v)
        drive = rbm.up(v[:1])[0]
        torch.testing.assert_close(h.mean(0), drive if linear else drive.sigmoid(), atol=0.02, rtol=0)
        assert linear or set(h.unique().tolist()) == {0.0, 1.0}
        assert not linear or abs(h.var() - drive.var(correction=0) - 1) < 0.02


def test_contrastive_divergence_steps_are_those_of_the_program() -> None:
    """inc = momentum * inc + lr * (products / N - cost * w), with the momentum raised after `switch` epochs."""
    settings = StackedRBMs(epochs=3, momentum_switch_epoch=1, weight_decay=0.01)
    rbm, data = machine(linear=False), torch.rand(10, 6, dtype=torch.float64)
    update, w = settings.update(rbm), rbm.up.weight.detach().clone()
    inc = torch.zeros_like(w)
    for step, momentum in enumerate((0.5, 0.5, 0.9, 0.9, 0.9, 0.9)):  # two steps an epoch
        for hook in update.before_step:
            hook((step // 2 + step % 2 / 2) / 3)
        torch.manual_seed(step)
        update.step(data)
        gradient = rbm.up.weight.grad
        assert gradient is not None
        inc = momentum * inc - 0.1 * (gradient + 0.01 * w)
        w = w + inc
        torch.testing.assert_close(rbm.up.weight.detach(), w)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("code_activation", [None, "sigmoid"])
def test_machines_are_unrolled(tied: bool, code_activation: str | None) -> None:
    model, recorded = small(tied=tied, code_activation=code_activation), []
    before = [p.clone() for p in model.parameters()]
    settings = StackedRBMs(epochs=2, batch_size=20)
    settings.check(model)
    settings(model, supplies(recorded))
    for pair in pairs(model):
        down = pair.down
        weight = down.source.weight.t() if isinstance(down, TiedLinear) else down.weight
        assert torch.equal(weight, pair.up.weight.t())
        assert (down.bias != 0).any()
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert [sorted(figures) for figures in recorded] == [
        [f"pretrain/{n}/loss", f"pretrain/{n}/sse"] for n in (1, 1, 2, 2, 3, 3)
    ]


def test_stages_put_together_are_the_model() -> None:
    """The codes of the stages, one upon the other, are the model's; and so are their decoders' paintings."""
    model = small(activation="tanh").eval()
    x = torch.rand(5, *SHAPE)
    stages = [stage_of(model, pair).eval() for pair in pairs(model)]
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
    ours = {id(p) for p in model.parameters()}
    assert ours == {id(p) for stage in stages for p in stage.parameters()}


@pytest.mark.parametrize("activation", ["sigmoid", "relu", "silu"])
@pytest.mark.parametrize("tied", [False, True])
def test_every_stage_learns_and_leaves_those_below_alone(activation: str, tied: bool) -> None:
    model, recorded = small(activation=activation, tied=tied), []
    first = model.encoder.layers[0].weight.clone()  # type: ignore[union-attr,operator,attr-defined]
    Layerwise(epochs=1)(model, supplies([]))
    lower = small(activation=activation, tied=tied)
    Layerwise(epochs=1)(lower, supplies(recorded))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), lower.parameters(), strict=True)), "not repeatable"
    assert not torch.equal(first, model.encoder.layers[0].weight)  # type: ignore[union-attr,attr-defined]
    Layerwise(epochs=20)(model, supplies(recorded := []))
    for number in (1, 2, 3):
        curve = [figures[f"pretrain/{number}/nll"] for figures in recorded if f"pretrain/{number}/nll" in figures]
        assert len(curve) == 20
        assert curve[-1] < curve[0]


def test_another_seed_pretrains_otherwise_and_stages_draw_apart() -> None:
    one, two = small(), small()
    Layerwise(epochs=1)(one, supplies([], seed=0))
    Layerwise(epochs=1)(two, supplies([], seed=1))
    assert not torch.equal(one.bottleneck.project.weight, two.bottleneck.project.weight)


def test_the_stage_of_the_code_has_the_penalties_and_its_own_rate() -> None:
    model, recorded = small(bottleneck=bottlenecks.Gaussian), []
    objective = Objective({"kl": GaussianKL()})
    made: list[torch.optim.Optimizer] = []
    given = supplies(recorded, objective=objective)

    def make(parameters: object) -> torch.optim.Optimizer:
        made.append(given.make_optimizer(parameters))  # type: ignore[arg-type]
        return made[-1]

    Layerwise(epochs=1, lr=0.003)(model, PretrainContext(**{**vars(given), "make_optimizer": make}))
    assert [sorted(figures) for figures in recorded] == [
        ["pretrain/1/loss", "pretrain/1/nll"],
        ["pretrain/2/loss", "pretrain/2/nll"],
        ["pretrain/3/kl", "pretrain/3/loss", "pretrain/3/nll"],
    ]
    assert [group["lr"] for optimizer in made for group in optimizer.param_groups] == [0.003] * 3


def test_distance_of_units_is_cross_entropy_of_sigmoids_and_squared_error_of_others() -> None:
    raw, h = torch.randn(4, 7, 1, 1), torch.rand(4, 7, 1, 1)
    bernoulli = -torch.distributions.Bernoulli(logits=raw).log_prob(h.round()).sum((1, 2, 3))
    torch.testing.assert_close(likelihood_of(nn.Sigmoid()).nll(raw, h.round()), bernoulli)
    squares = ((raw.relu() - h) ** 2).sum((1, 2, 3))
    torch.testing.assert_close(likelihood_of(nn.ReLU()).nll(raw, h), squares)


def test_noise_on_units_keeps_their_range() -> None:
    h = 5 * torch.randn(50, 7, 1, 1)
    assert HiddenNoise(NoNoise())(h) is h
    seen = HiddenNoise(Replace(p=0.5, white=0.0))(h)
    hit = (seen - h).abs() > 1e-4
    assert 0.4 < hit.float().mean() < 0.6
    torch.testing.assert_close(seen[hit], h.min().expand(int(hit.sum())))
    loud = HiddenNoise(Gaussian(3.0))(h)
    assert loud.min() >= h.min() - 1e-4
    assert loud.max() <= h.max() + 1e-4


@pytest.mark.parametrize(
    ("overrides", "named"),
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
def test_what_cannot_be_pretrained_is_refused_before_any_data_is_read(
    overrides: list[str], named: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        aetrain.run([f"hydra.run.dir={tmp_path / 'run'}", "dataset=mnist", "data_dir=/nowhere", *overrides])
    assert all(name in str(refused.value) for name in named), str(refused.value)


@pytest.mark.parametrize("model", ["deep", "tied", "vae", "linear"])
def test_layers_of_every_dense_model_can_be_pretrained(model: str, tiny: Callable[..., Path]) -> None:
    for noise in ("none", "gaussian", "masking"):
        tiny(f"model={model}", f"noise={noise}", "pretrain=layerwise", "pretrain.epochs=1", name=noise)
    tiny(f"model={model}", "model.activation=sigmoid", "pretrain=rbm", "pretrain.epochs=1", name="machines")


def test_divergence_names_the_layer(tiny: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="pretrain: layer 1 diverged in epoch"):
        tiny("pretrain=layerwise", "optimizer=sgd", "pretrain.lr=1e8", "likelihood=gaussian")


class Killed(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("option", ["pretrain=layerwise", "pretrain=rbm"])
def test_a_run_killed_while_pretraining_or_after_comes_to_the_same_weights(
    option: str, run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [*TINY, option, "pretrain.epochs=2", "epochs=2", "model.activation=sigmoid", "model.hidden=[10]"]
    whole = aetrain.load(run(*said, name="whole"))

    def interrupted(after: int, name: str) -> None:
        from aetrain.training.pretraining import layer_pairs

        calls = itertools.count()
        kept = layer_pairs.log.info

        def count(*args: object) -> None:
            kept(*args)  # type: ignore[arg-type]
            if next(calls) == after:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(layer_pairs.log, "info", count)
            with pytest.raises(Killed):
                run(*said, name=name)

    # Log lines: the run's, two of each stage, one an epoch from 0, each before that epoch's checkpoint.
    for after, name in ((2, "first"), (4, "second"), (6, "epoch 1"), (7, "epoch 2")):
        interrupted(after, name)
        again = run(*said, name=name)
        ours, theirs = aetrain.load(again).model.state_dict(), whole.model.state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), after
        (file,) = again.glob("events.out.tfevents.*")
        log = EventAccumulator(str(file)).Reload()
        for layer in (1, 2):
            assert [event.step for event in log.Scalars(f"pretrain/{layer}/loss")] == [1, 2], after


def test_tied_weights_are_one_storage_after_training_saving_and_loading(tiny: Callable[..., Path]) -> None:
    directory = tiny("model=tied", "pretrain=layerwise", "pretrain.epochs=1")
    model = aetrain.load(directory).model
    for layer, source in zip(reversed(model.decoder.layers), [*model.encoder.layers, model.bottleneck.project]):  # type: ignore[attr-defined]  # noqa: B905
        assert layer.source is source
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model.bottleneck.project.weight.clone()
    model(torch.rand(4, *model.image_shape)).decoded.sum().backward()
    optimizer.step()
    first = model.decoder.layers[0]  # type: ignore[attr-defined]
    assert torch.equal(first.source.weight, model.bottleneck.project.weight)
    assert not torch.equal(before, first.source.weight)
    names = load_file(directory / "checkpoint" / "model.safetensors")
    assert not [name for name in names if name.startswith("decoder") and name.endswith("weight")]
