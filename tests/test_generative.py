"""Codes with a prior or a book: critics and MMD, quantised codes, beta and L2, each recomputed another way."""

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY
from torch import Tensor, nn

from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.data.images import Images, Prepare
from aetrain.data.noise import NoNoise
from aetrain.evaluation.evaluator import Evaluator
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.bottlenecks import DeterministicWithPrior, Quantized
from aetrain.model.dense import dense
from aetrain.model.likelihoods import Bernoulli
from aetrain.model.records import Code, Forward, QuantizedCode
from aetrain.objective.adversaries import MMD, CodeCritic
from aetrain.objective.objective import Objective
from aetrain.objective.penalties import L2, Codebook, Commitment
from aetrain.runs import train
from aetrain.runs.build import Components, build

SHAPE = (1, 6, 5)


def small(**settings: object) -> Autoencoder:
    given = {"hidden": [12], "code_dim": 4} | settings
    torch.manual_seed(0)
    return dense(SHAPE, Bernoulli(), nn.Identity(), (0.0, 1.0), **given)  # type: ignore[arg-type]


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def parts_of(*overrides: str) -> Components:
    config, _, said = api.composed([*TINY, *overrides])
    return build(train.checked(config, said))


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


# --- a distance of samples ---


def test_mmd_is_the_sum_over_all_pairs() -> None:
    a, b = normal(7, 3).double(), normal(7, 3, seed=1).double() + 0.5
    scales = (0.5, 2.0)

    def k(x: Tensor, y: Tensor) -> float:
        return sum(6 * s / (6 * s + float((x - y).square().sum())) for s in scales)

    pairs = list(itertools.product(range(7), repeat=2))
    within = sum(k(a[i], a[j]) + k(b[i], b[j]) for i, j in pairs if i != j) / (7 * 6)
    across = sum(k(a[i], b[j]) for i, j in pairs) / 49
    assert float(MMD(scales=scales).between(a, b)) == pytest.approx(within - 2 * across, abs=1e-9)


def test_mmd_is_without_bias_zero_for_equal_distributions_and_grows_with_their_distance() -> None:
    mmd = MMD()
    values = torch.stack([mmd.between(normal(20, 4, seed=i), normal(20, 4, seed=1000 + i)) for i in range(400)])
    assert abs(values.mean()) < 4 * values.std() / math.sqrt(len(values))
    apart = [float(mmd.between(normal(500, 4), normal(500, 4, seed=1) + shift)) for shift in (0.0, 0.5, 1.0, 2.0)]
    assert apart == sorted(apart)


def test_mmd_of_one_code_is_a_number() -> None:
    assert MMD().between(normal(1, 3), normal(1, 3, seed=1)).isfinite()


def test_mmd_draws_anew_in_training_and_the_same_in_evaluation() -> None:
    model, mmd = small(bottleneck=DeterministicWithPrior), MMD()
    with torch.no_grad():
        out = model(images(8))
    model.train()
    assert float(mmd(model, out)) != float(mmd(model, out))
    model.eval()
    before = torch.get_rng_state()
    assert float(mmd(model, out)) == float(mmd(model, out))
    assert torch.equal(torch.get_rng_state(), before), "measuring leaves the generator of training alone"


@pytest.mark.parametrize("model", ["model=wae", "model=aae"])
def test_a_model_without_prior_is_refused_by_name(model: str) -> None:
    bottleneck = "model.bottleneck._target_=aetrain.model.bottlenecks.Deterministic"
    with pytest.raises(ConfigError, match=r"model\.bottleneck=Deterministic has none.*DeterministicWithPrior"):
        parts_of(model, bottleneck)


# --- a critic ---


def test_critic_is_the_cross_entropy_of_telling_codes_from_draws() -> None:
    model, critic = small(bottleneck=DeterministicWithPrior), CodeCritic(code_dim=4, units=[5])
    model.train()
    x = images(6)
    torch.manual_seed(3)
    terms = critic.losses(model, x)
    torch.manual_seed(3)
    drawn = torch.randn(6, 4)
    chance = [torch.sigmoid(critic.logit(z)) for z in (drawn, model.encode(x).z)]  # that it is of the prior
    torch.testing.assert_close(terms["loss"], -(chance[0].log().mean() + (1 - chance[1]).log().mean()))
    right = ((chance[0] > 0.5).float().mean() + (chance[1] < 0.5).float().mean()) / 2
    torch.testing.assert_close(terms["accuracy"], right)
    torch.testing.assert_close(critic(model, model(x)), -chance[1].log().squeeze(1))


def test_each_update_changes_only_its_own_weights() -> None:
    parts = parts_of("model=aae", "noise=masking")
    critic = parts.objective.critics["critic"]
    main, critics = parts.updates
    x = torch.rand(8, 1, 8, 8)
    parts.model.train()
    for update, own, other in (
        (main, parts.model, critic),
        (critics, critic, parts.model),
        (main, parts.model, critic),
    ):
        kept, changing = state(other), state(own)
        update.step(x)
        assert same(kept, state(other))
        assert not same(changing, state(own))


def test_critic_learns_from_its_own_loss_alone() -> None:
    """The model's update leaves gradients in the critic; none of them may reach the critic's step."""
    alone, after = parts_of("model=aae"), parts_of("model=aae")
    x = torch.rand(8, 1, 8, 8)
    alone.model.train(), after.model.train()
    after.objective(after.model, after.model(x))["loss"].backward()
    for parts in (alone, after):
        torch.manual_seed(0)
        parts.updates[1].step(x)
    assert same(state(alone.objective), state(after.objective))


def test_critic_tells_codes_from_the_prior_and_the_encoder_learns_to_fool_it() -> None:
    parts = parts_of("model=aae", "model.hidden=[16]", "model.code_dim=2")
    critic, model = parts.objective.critics["critic"], parts.model.train()
    x = torch.rand(64, 1, 8, 8)
    torch.manual_seed(0)
    for _ in range(100):
        terms = parts.updates[1].step(x)
    assert float(terms["critic_accuracy"]) > 0.9
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        critic(model, model(x)).mean().backward()
        optimizer.step()
    assert float(torch.sigmoid(critic.logit(model.encode(x).z)).detach().mean()) > 0.9


def test_terms_of_the_critic_do_not_hide_the_models(tiny: Callable[..., Path]) -> None:
    lines = (tiny("model=aae") / "history.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    assert last["train/loss"] == pytest.approx(last["train/nll"] + 3 * last["train/critic"], rel=1e-4)
    assert 0 <= last["train/critic_accuracy"] <= 1
    assert "train/critic_loss" in last


@pytest.mark.parametrize("model", ["aae", "vqvae", "wae"])
def test_resuming_is_exact(model: str, tiny: Callable[..., Path]) -> None:
    from safetensors.torch import load_file

    whole = tiny(f"model={model}", "epochs=3", name="whole")
    tiny(f"model={model}", "epochs=1", name="parts")
    parts = tiny(f"model={model}", "epochs=3", name="parts")
    assert same(*(load_file(run / "checkpoint" / "model.safetensors") for run in (whole, parts)))
    rest = [torch.load(run / "checkpoint" / "training.pt", weights_only=True) for run in (whole, parts)]
    assert same(*(each["objective"] for each in rest))
    assert len(rest[0]["optimizers"]) == (2 if model == "aae" else 1)
    for one, other in zip(rest[0]["optimizers"], rest[1]["optimizers"], strict=True):
        assert all(same(one["state"][key], other["state"][key]) for key in one["state"])


@pytest.mark.parametrize("sparsity", ["kl", "topk", "l1"])
def test_codes_and_draws_of_the_prior_pass_the_same_sparsifier(sparsity: str) -> None:
    parts = parts_of("model=aae", f"sparsity={sparsity}", "noise=salt", "likelihood=gaussian")
    z = parts.model.prior(50, torch.Generator().manual_seed(0))
    assert z is not None
    assert torch.equal(z, parts.model.code_transform(torch.randn(50, 16, generator=torch.Generator().manual_seed(0))))
    parts.model.train()
    for update in parts.updates:
        assert all(value.isfinite() for value in update.step(torch.rand(8, 1, 8, 8)).values())


# --- quantised codes ---


def book(**settings: int) -> Quantized:
    torch.manual_seed(0)
    return Quantized(6, 4, **({"groups": 2, "num_codewords": 5} | settings))


def test_every_group_is_the_codeword_nearest_to_it() -> None:
    neck, features = book(), normal(20, 6)
    code = neck(features)
    assert torch.equal(code.z.unflatten(1, (2, 2)), neck.codebook.weight[code.index]), "to the last bit"
    distances = torch.cdist(code.continuous.flatten(0, 1), neck.codebook.weight)
    assert torch.equal(distances.argmin(1), code.index.flatten())
    torch.testing.assert_close(code.continuous.flatten(1), neck.project(features))


def test_the_gradient_passes_straight_through() -> None:
    neck, features, slope = book(), normal(3, 6), normal(3, 4, seed=1)
    (neck(features).z * slope).sum().backward()
    torch.testing.assert_close(neck.project.weight.grad, slope.t() @ features)
    assert neck.codebook.weight.grad is None


def test_codebook_and_commitment_pull_on_one_side_each() -> None:
    model = small(bottleneck=lambda i, d: Quantized(i, d, groups=2, num_codewords=5))
    x = images(6)
    for penalty, moved, still in (
        (Codebook(), model.bottleneck.codebook.weight, model.bottleneck.project.weight),
        (Commitment(), model.bottleneck.project.weight, model.bottleneck.codebook.weight),
    ):
        model.zero_grad()
        out = model(x)
        value = penalty(model, out)
        expected = (model.bottleneck.project(model.encoder(x).features) - out.code.z).square().sum(1)
        torch.testing.assert_close(value, expected)
        value.sum().backward()
        assert moved.grad is not None
        assert still.grad is None


def test_idle_codewords_begin_anew_among_the_codes_and_busy_ones_stay() -> None:
    neck = book(reset_after=2).train()
    neck.steps_unused.zero_()
    with torch.no_grad():
        neck.codebook.weight[:] = torch.tensor([[0.0, 0.0], [1e3, 0], [0, 1e3], [1e3, 1e3], [-1e3, 0]])
    before = neck.codebook.weight.clone()
    for step in range(3):
        assert torch.equal(neck.codebook.weight, before), f"nobody has waited long enough at step {step}"
        code = neck(normal(9, 6, seed=step))
        neck.after_optimizer_step()
    assert torch.equal(neck.codebook.weight[0], before[0])
    candidates = code.continuous.flatten(0, 1)
    assert all((candidates == word).all(1).any() for word in neck.codebook.weight[1:])
    after = neck.codebook.weight.clone()
    neck.after_optimizer_step()
    assert torch.equal(neck.codebook.weight, after), "nothing passed since"


def test_evaluation_does_not_count_as_use() -> None:
    neck = book().eval()
    before = state(neck)
    neck(normal(9, 6))
    neck.after_optimizer_step()
    assert same(before, state(neck))


def test_draws_of_the_prior_are_codewords() -> None:
    neck = book()
    drawn = neck.prior(30, torch.Generator().manual_seed(0)).unflatten(1, (2, 2)).flatten(0, 1)
    assert all((neck.codebook.weight == word).all(1).any() for word in drawn)


def test_groups_that_do_not_divide_the_code_are_refused_with_both_settings() -> None:
    with pytest.raises(ConfigError, match=r"model\.code_dim=30 .* model\.bottleneck\.groups=16"):
        parts_of("model=vqvae", "model.code_dim=30")


def test_penalties_of_a_book_need_one_and_say_where_it_is_to_be_had() -> None:
    with pytest.raises(ConfigError, match=r"QuantizedCode.*model=vqvae"):
        parts_of("+model.penalties.commitment={_target_: aetrain.objective.penalties.Commitment}")


def test_perplexity_and_used_codewords_are_those_of_the_counts() -> None:
    torch.manual_seed(0)
    model = small(bottleneck=lambda i, d: Quantized(i, d, groups=2, num_codewords=5)).eval()
    pixels = (images(50) * 255).to(torch.uint8)
    figures = Evaluator(Images(pixels), Prepare(), NoNoise(), batch_size=20).evaluate_full(model, Objective({}))
    counts = model.encode(pixels / 255).index.flatten().bincount(minlength=5)
    share = counts[counts > 0] / counts.sum()
    assert figures["used_codewords"] == (counts > 0).sum()
    assert figures["perplexity"] == pytest.approx(math.exp(-float((share * share.log()).sum())), rel=1e-5)


# --- the weights of a code ---


def test_l2_is_the_squared_length_of_the_code() -> None:
    z = normal(5, 3)
    out = Forward(x=z, x_in=z, hidden=(), code=Code(z=z), decoded=z)
    torch.testing.assert_close(L2()(small(), out), torch.linalg.vector_norm(z, dim=1) ** 2)


def test_quantized_record_is_kept_through_the_model() -> None:
    model = small(bottleneck=lambda i, d: Quantized(i, d, groups=2, num_codewords=5))
    assert isinstance(model.encode(images(2)), QuantizedCode)
