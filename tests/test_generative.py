"""Codes with a prior or a codebook: critics and MMD, quantised codes, beta and L2, each formula a second way."""

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from torch import Tensor, nn

from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.data.examples import Examples, Prepare
from aetrain.data.noise import NoNoise
from aetrain.evaluation.evaluator import Evaluator
from aetrain.model.bottlenecks import DeterministicWithPrior, Quantized
from aetrain.model.codes import Code, QuantizedCode
from aetrain.model.dense import dense
from aetrain.model.likelihoods import Bernoulli
from aetrain.model.records import Forward
from aetrain.objective.adversaries import MMD, CodeCritic
from aetrain.objective.objective import Objective
from aetrain.objective.penalties import L2, Codebook, Commitment
from aetrain.runs import entry
from aetrain.runs.build import Components, build

SHAPE = (1, 6, 5)


def small_model(**settings: Any) -> Any:
    arguments: dict[str, Any] = {"hidden": [12], "code_dim": 4} | settings
    torch.manual_seed(0)
    return dense(SHAPE, Bernoulli(), nn.Identity(), (0.0, 1.0), **arguments)


def random_images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def random_normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build_components(*overrides: str) -> Components:
    config, _, full_overrides = api.compose_config([*TINY, *overrides])
    return build(entry.check(config, full_overrides))


def copy_state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal_states(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


# --- MMD ---


def test_mmd_equals_the_sum_over_all_pairs() -> None:
    a, b = random_normal(7, 3).double(), random_normal(7, 3, seed=1).double() + 0.5
    scales = (0.5, 2.0)

    def k(x: Tensor, y: Tensor) -> float:
        return sum(6 * s / (6 * s + float((x - y).square().sum())) for s in scales)

    pairs = list(itertools.product(range(7), repeat=2))
    within = sum(k(a[i], a[j]) + k(b[i], b[j]) for i, j in pairs if i != j) / (7 * 6)
    between = sum(k(a[i], b[j]) for i, j in pairs) / 49
    assert float(MMD(scales=scales).estimate(a, b)) == pytest.approx(within - 2 * between, abs=1e-9)


def test_mmd_is_unbiased_and_grows_with_the_distance_of_the_distributions() -> None:
    mmd = MMD()
    values = torch.stack(
        [mmd.estimate(random_normal(20, 4, seed=i), random_normal(20, 4, seed=1000 + i)) for i in range(400)]
    )
    assert abs(values.mean()) < 4 * values.std() / math.sqrt(len(values))
    distances = [
        float(mmd.estimate(random_normal(500, 4), random_normal(500, 4, seed=1) + shift))
        for shift in (0.0, 0.5, 1.0, 2.0)
    ]
    assert distances == sorted(distances)


def test_mmd_of_one_code_is_zero_and_moves_nothing() -> None:
    code = random_normal(1, 3).requires_grad_()
    estimate = MMD().estimate(code, random_normal(1, 3, seed=1))
    estimate.backward()
    assert code.grad is not None
    assert float(estimate.detach()) == 0
    assert torch.equal(code.grad, torch.zeros(1, 3))


def test_mmd_draws_other_numbers_in_training_and_the_same_in_evaluation() -> None:
    model, mmd = small_model(bottleneck=DeterministicWithPrior), MMD()
    with torch.no_grad():
        out = model(random_images(8))
    model.train()
    assert float(mmd(model, out)) != float(mmd(model, out))
    model.eval()
    before = torch.get_rng_state()
    assert float(mmd(model, out)) == float(mmd(model, out))
    assert torch.equal(torch.get_rng_state(), before), "evaluation must not use the generator of training"


@pytest.mark.parametrize("model", ["model=wae", "model=aae"])
def test_model_without_prior_is_named_in_the_message(model: str) -> None:
    bottleneck = "model.bottleneck._target_=aetrain.model.bottlenecks.Deterministic"
    with pytest.raises(ConfigError, match=r"model\.bottleneck=Deterministic has none.*DeterministicWithPrior"):
        build_components(model, bottleneck)


# --- critics ---


def test_critic_loss_is_the_cross_entropy_of_codes_and_draws_from_the_prior() -> None:
    model, critic = small_model(bottleneck=DeterministicWithPrior), CodeCritic(code_dim=4, units=[5])
    model.train()
    x = random_images(6)
    torch.manual_seed(3)
    losses = critic.losses(model, x)
    torch.manual_seed(3)
    draws = torch.randn(6, 4)
    from_prior = [torch.sigmoid(critic.logit(z)) for z in (draws, model.encode(x).z)]  # probabilities
    torch.testing.assert_close(losses["loss"], -(from_prior[0].log().mean() + (1 - from_prior[1]).log().mean()))
    accuracy = ((from_prior[0] > 0.5).float().mean() + (from_prior[1] < 0.5).float().mean()) / 2
    torch.testing.assert_close(losses["accuracy"], accuracy)
    torch.testing.assert_close(critic(model, model(x)), -from_prior[1].log().squeeze(1))


def test_each_optimizer_step_changes_only_its_own_weights() -> None:
    components = build_components("model=aae", "noise=masking")
    critic = components.objective.critics["critic"]
    model_step, critic_step = components.optimizer_steps
    x = torch.rand(8, 1, 8, 8)
    components.model.train()
    for step, trained, fixed in (
        (model_step, components.model, critic),
        (critic_step, critic, components.model),
        (model_step, components.model, critic),
    ):
        fixed_before, trained_before = copy_state(fixed), copy_state(trained)
        step(x)
        assert equal_states(fixed_before, copy_state(fixed))
        assert not equal_states(trained_before, copy_state(trained))


def test_critic_learns_only_from_its_own_loss() -> None:
    """The model's step leaves gradients in the critic, which must not reach the critic's step."""
    separate, after = build_components("model=aae"), build_components("model=aae")
    x = torch.rand(8, 1, 8, 8)
    separate.model.train()
    after.model.train()
    after.objective(after.model, after.model(x))["loss"].backward()
    for components in (separate, after):
        torch.manual_seed(0)
        components.optimizer_steps[1](x)
    assert equal_states(copy_state(separate.objective), copy_state(after.objective))


def test_critic_separates_codes_from_the_prior_and_the_encoder_learns_to_prevent_it() -> None:
    components = build_components(
        "model=aae", "model.hidden=[16]", "model.code_dim=2", "model.activation=relu", "model.init=default"
    )
    critic: Any = components.objective.critics["critic"]
    model = components.model.train()
    x = torch.rand(64, 1, 8, 8)
    torch.manual_seed(0)
    for _ in range(100):
        losses = components.optimizer_steps[1](x)
    assert float(losses["critic_accuracy"]) > 0.9
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        critic(model, model(x)).mean().backward()
        optimizer.step()
    assert float(torch.sigmoid(critic.logit(model.encode(x).z)).detach().mean()) > 0.9


def test_losses_of_the_critic_have_names_of_their_own(tiny: Callable[..., Path]) -> None:
    lines = (tiny("model=aae") / "history.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    assert last["train/loss"] == pytest.approx(last["train/nll"] + 3 * last["train/critic"], rel=1e-4)
    assert 0 <= last["train/critic_accuracy"] <= 1
    assert "train/critic_loss" in last


@pytest.mark.slow
@pytest.mark.parametrize("model", ["aae", "vqvae", "wae"])
def test_resume_is_exact(model: str, tiny: Callable[..., Path]) -> None:
    from safetensors.torch import load_file

    uninterrupted = tiny(f"model={model}", "epochs=3", name="uninterrupted")
    tiny(f"model={model}", "epochs=1", name="resumed")
    resumed = tiny(f"model={model}", "epochs=3", name="resumed")
    assert equal_states(*(load_file(run / "checkpoint" / "model.safetensors") for run in (uninterrupted, resumed)))
    states = [torch.load(run / "checkpoint" / "training.pt", weights_only=True) for run in (uninterrupted, resumed)]
    assert equal_states(*(state["objective"] for state in states))
    assert len(states[0]["optimizers"]) == (2 if model == "aae" else 1)
    for one, other in zip(states[0]["optimizers"], states[1]["optimizers"], strict=True):
        assert all(equal_states(one["state"][key], other["state"][key]) for key in one["state"])


@pytest.mark.parametrize("sparsity", ["kl", "topk", "l1"])
def test_codes_and_draws_from_the_prior_have_the_same_sparsifier(sparsity: str) -> None:
    components = build_components("model=aae", f"sparsity={sparsity}", "noise=salt", "likelihood=gaussian")
    z = components.model.prior(50, torch.Generator().manual_seed(0))
    assert z is not None
    assert torch.equal(
        z, components.model.code_transform(torch.randn(50, 16, generator=torch.Generator().manual_seed(0)))
    )
    components.model.train()
    for step in components.optimizer_steps:
        assert all(value.isfinite() for value in step(torch.rand(8, 1, 8, 8)).values())


# --- quantised codes ---


def quantized(**settings: int) -> Quantized:
    torch.manual_seed(0)
    return Quantized(6, 4, **({"groups": 2, "num_codewords": 5} | settings))


def test_every_group_is_rounded_to_the_nearest_codeword() -> None:
    bottleneck, features = quantized(), random_normal(20, 6)
    code = bottleneck(features)
    assert torch.equal(code.z.unflatten(1, (2, 2)), bottleneck.codebook.weight[code.index]), "to the last bit"
    distances = torch.cdist(code.continuous.flatten(0, 1), bottleneck.codebook.weight)
    assert torch.equal(distances.argmin(1), code.index.flatten())
    torch.testing.assert_close(code.continuous.flatten(1), bottleneck.project(features))


def test_gradient_passes_straight_through_the_rounding() -> None:
    bottleneck, features, gradient = quantized(), random_normal(3, 6), random_normal(3, 4, seed=1)
    (bottleneck(features).z * gradient).sum().backward()
    torch.testing.assert_close(bottleneck.project.weight.grad, gradient.t() @ features)
    assert bottleneck.codebook.weight.grad is None


def test_codebook_and_commitment_have_gradients_on_one_side_each() -> None:
    model = small_model(bottleneck=lambda i, d: Quantized(i, d, groups=2, num_codewords=5))
    x = random_images(6)
    for penalty, trained, fixed in (
        (Codebook(), model.bottleneck.codebook.weight, model.bottleneck.project.weight),
        (Commitment(), model.bottleneck.project.weight, model.bottleneck.codebook.weight),
    ):
        model.zero_grad()
        out = model(x)
        value = penalty(model, out)
        expected = (model.bottleneck.project(model.encoder(x).features) - out.code.z).square().sum(1)
        torch.testing.assert_close(value, expected)
        value.sum().backward()
        assert trained.grad is not None
        assert fixed.grad is None


def test_unused_codewords_are_reset_to_codes_and_used_ones_stay() -> None:
    bottleneck = quantized(reset_after=2).train()
    bottleneck.steps_unused.zero_()
    with torch.no_grad():
        bottleneck.codebook.weight[:] = torch.tensor([[0.0, 0.0], [1e3, 0], [0, 1e3], [1e3, 1e3], [-1e3, 0]])
    before = bottleneck.codebook.weight.clone()
    for step in range(3):
        assert torch.equal(bottleneck.codebook.weight, before), (
            f"no codeword is unused for more than 2 steps at step {step}"
        )
        code = bottleneck(random_normal(9, 6, seed=step))
        bottleneck.after_optimizer_step()
    assert torch.equal(bottleneck.codebook.weight[0], before[0])
    candidates = code.continuous.flatten(0, 1)
    assert all((candidates == word).all(1).any() for word in bottleneck.codebook.weight[1:])
    after = bottleneck.codebook.weight.clone()
    bottleneck.after_optimizer_step()
    assert torch.equal(bottleneck.codebook.weight, after), "no batch has passed since the last step"


def test_evaluation_counts_no_codeword_as_used() -> None:
    bottleneck = quantized().eval()
    before = copy_state(bottleneck)
    bottleneck(random_normal(9, 6))
    bottleneck.after_optimizer_step()
    assert equal_states(before, copy_state(bottleneck))


def test_draws_from_the_prior_are_codewords() -> None:
    bottleneck = quantized()
    draws = bottleneck.prior(30, torch.Generator().manual_seed(0)).unflatten(1, (2, 2)).flatten(0, 1)
    assert all((bottleneck.codebook.weight == word).all(1).any() for word in draws)


def test_groups_that_do_not_divide_the_code_are_refused_naming_both_settings() -> None:
    with pytest.raises(ConfigError, match=r"model\.code_dim=30 .* model\.bottleneck\.groups=16"):
        build_components("model=vqvae", "model.code_dim=30")


def test_penalties_of_a_codebook_name_the_model_that_has_one() -> None:
    with pytest.raises(ConfigError, match=r"QuantizedCode.*model=vqvae"):
        build_components("+model.penalties.commitment={_target_: aetrain.objective.penalties.Commitment}")


def test_perplexity_and_used_codewords_equal_those_of_the_counts() -> None:
    torch.manual_seed(0)
    model = small_model(bottleneck=lambda i, d: Quantized(i, d, groups=2, num_codewords=5)).eval()
    pixels = (random_images(50) * 255).to(torch.uint8)
    metrics = Evaluator(Examples(pixels), Prepare(), NoNoise(), batch_size=20).evaluate_full(model, Objective({}))
    counts = model.encode(pixels / 255).index.flatten().bincount(minlength=5)
    share = counts[counts > 0] / counts.sum()
    assert metrics["used_codewords"] == (counts > 0).sum()
    assert metrics["perplexity"] == pytest.approx(math.exp(-float((share * share.log()).sum())), rel=1e-5)


# --- L2, records ---


def test_l2_is_the_squared_norm_of_the_code() -> None:
    z = random_normal(5, 3)
    out = Forward(x=z, x_in=z, hidden=(), code=Code(z=z), decoded=z)
    torch.testing.assert_close(L2()(small_model(), out), torch.linalg.vector_norm(z, dim=1) ** 2)


def test_encode_returns_the_record_of_a_quantized_code() -> None:
    model = small_model(bottleneck=lambda i, d: Quantized(i, d, groups=2, num_codewords=5))
    assert isinstance(model.encode(random_images(2)), QuantizedCode)
