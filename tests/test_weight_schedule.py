"""The schedule of a penalty's weight, free bits and capacity: by formula, in a run, compiled, resumed, extended."""

import json
import logging
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from command import command
from conftest import TINY
from torch import Tensor
from torch import distributions as D

from aetrain import api
from aetrain.config.paths import groups, option_config
from aetrain.config.validate import locate, parameter_names
from aetrain.objective.weight_schedule import WeightSchedule
from aetrain.runs import entry
from aetrain.runs.build import Components, build
from aetrain.runs.training_run import TrainingRun
from aetrain.selfcheck.fingerprint import differences, fingerprint
from aetrain.training.backend import compile
from aetrain.training.backend.compile import compile_steps


def components_of(*overrides: str) -> Components:
    config, _, full_overrides = api.compose_config([*TINY, *overrides])
    return build(entry.check(config, full_overrides))


def images(count: int = 8) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def history(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


# --- The factor -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("warmup", "cycles"), [(0.3, None), (1.0, None), (None, 4), (0.25, 5), (1.0, 2)])
def test_factor_is_that_of_the_formula(warmup: float | None, cycles: int | None) -> None:
    """beta = tau / R for tau <= R, else 1, with tau = mod(t, T / M) / (T / M), in fractions (Fu et al., eq. 6)."""
    schedule = WeightSchedule(warmup, cycles)
    steps, count = 80, cycles or 1
    share = Fraction(warmup or 0.5).limit_denominator(100)
    for step in range(steps):
        tau = Fraction(step % (steps // count), steps // count)
        schedule.set_progress(step / steps)
        assert float(schedule.factor) == pytest.approx(float(min(Fraction(1), tau / share)), abs=1e-6), step


def test_every_penalty_with_a_weight_takes_a_schedule() -> None:
    nodes = [node for option in groups()["penalty"] for node in option_config("penalty", option).values()]
    nodes += [
        node for option in groups()["model"] for node in option_config("model", option).get("penalties", {}).values()
    ]
    nodes += [option_config("sparsity", option) for option in ("kl", "l1")]
    weighted = [node for node in nodes if "weight" in node]
    assert len(weighted) == len(nodes) - 1, "iwae alone has none"
    for node in weighted:
        assert {"warmup", "cycles"} <= set(node)
        assert {"warmup", "cycles"} <= set(parameter_names(locate(node["_target_"]))[0])


PENALTIES = ("penalty=[decorrelate,l2]", "sparsity=l1", "model=vae", "likelihood=gaussian", "penalty.l2.weight=3")
SCHEDULES = ("penalty.decorrelate.cycles=2", "sparsity.warmup=0.8", "model.penalties.kl.warmup=0.4")


def test_loss_has_the_present_weights_in_training_and_the_full_ones_in_evaluation() -> None:
    components = components_of(*PENALTIES, *SCHEDULES)
    model, objective = components.model.train(), components.objective
    components.optimizer_steps[0].set_progress(0.1)
    out = model(images())
    losses = objective(model, out)
    weighted = {"kl": 1, "decorrelate": 0.1, "l2": 3, "sparsity": 0.1}
    factors = {"kl": 0.1 / 0.4, "decorrelate": 0.1 * 2 / 0.5, "l2": 1, "sparsity": 0.1 / 0.8}
    terms = [weight * losses[name] for name, weight in weighted.items()]
    present = [factors[name] * weight * losses[name] for name, weight in weighted.items()]
    torch.testing.assert_close(losses["loss"], losses["nll"] + sum(present))
    model.eval()
    torch.testing.assert_close(objective(model, out)["loss"], losses["nll"] + sum(terms))


def test_without_a_schedule_the_loss_is_the_same_to_the_last_bit_and_nothing_is_stored() -> None:
    components = components_of(*PENALTIES)
    assert all(penalty.schedule is None for penalty in components.objective.penalties.values())
    assert not components.objective.state_dict()
    assert not list(components.objective.buffers())
    out = components.model.train()(images())
    losses = components.objective(components.model, out)
    total = losses["nll"]
    for name, weight in (("kl", 1.0), ("decorrelate", 0.1), ("l2", 3), ("sparsity", 0.1)):
        total = total + weight * losses[name]
    assert torch.equal(losses["loss"], total)
    assert set(losses) == {"loss", "nll", "kl", "decorrelate", "l2", "sparsity"}


def test_curves_have_the_loss_that_is_descended_and_the_held_out_loss_with_the_full_weight(
    tiny: Callable[..., Path],
) -> None:
    """With one batch an epoch the factor is that of the beginning of the epoch: 0, 1/2, 1, 1."""
    run = tiny("model=vae", "model.penalties.kl.warmup=0.5", "batch_size=64", "epochs=4")
    _, *epochs = history(run)
    for line, factor in zip(epochs, (0, 0.5, 1, 1), strict=True):
        assert line["train/loss"] == pytest.approx(line["train/nll"] + factor * line["train/kl"], rel=1e-6)
        assert line["test/loss"] == pytest.approx(line["test/neg_elbo"], rel=1e-6)
        assert line["train/kl"] > 0.1


def test_critic_trains_with_a_schedule(tiny: Callable[..., Path]) -> None:
    run = tiny("model=aae", "model.penalties.critic.warmup=0.5", "batch_size=64", "epochs=2")
    first, second = history(run)[1:]
    assert first["train/loss"] == first["train/nll"]
    assert second["train/loss"] == pytest.approx(second["train/nll"] + 3 * second["train/critic"], rel=1e-6)


# --- Free bits and capacity -------------------------------------------------------------------------------------------


def kl_by_unit(out: Any) -> Tensor:
    """Return the KL divergence by unit [B, D], from torch.distributions."""
    posterior = D.Normal(out.code.mean, (0.5 * out.code.log_var).exp())
    return D.kl_divergence(posterior, D.Normal(torch.zeros_like(out.code.mean), 1.0))


@pytest.mark.parametrize("free_bits", [0.0, 0.1, 3.0])
def test_free_bits_are_a_least_cost_of_each_unit(free_bits: float) -> None:
    components = components_of("model=vae", f"model.penalties.kl.free_bits={free_bits}", "model.penalties.kl.weight=2")
    model = components.model.train()
    out = model(images())
    losses = components.objective(model, out)
    by_unit = kl_by_unit(out).detach()
    expected = sum(max(free_bits, float(unit)) for unit in by_unit.mean(0))
    torch.testing.assert_close(losses["kl"], by_unit.sum(1).mean())
    assert losses["kl_term"].item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(losses["loss"], losses["nll"] + 2 * losses["kl_term"])
    (gradient,) = torch.autograd.grad(losses["kl_term"], model.bottleneck.project.weight)
    assert bool((gradient != 0).any()) == (free_bits < float(by_unit.mean(0).max()))


def test_capacity_pulls_the_kl_to_a_number_that_rises() -> None:
    settings = ("model.penalties.kl.capacity=25", "model.penalties.kl.weight=7", "model.penalties.kl.warmup=0.5")
    components = components_of("model=vae", *settings)
    model = components.model.train()
    components.optimizer_steps[0].set_progress(0.2)
    out = model(images())
    kl = kl_by_unit(out).sum(1).mean()
    losses = components.objective(model, out)
    torch.testing.assert_close(losses["kl"], kl)
    torch.testing.assert_close(losses["loss"], losses["nll"] + 7 * (kl - 25 * 0.2 / 0.5).abs())
    model.eval()
    losses = components.objective(model, out)
    torch.testing.assert_close(losses["loss"], losses["nll"] + 7 * (kl - 25).abs())


def test_terms_in_place_of_the_kl_are_recorded_beside_it(tiny: Callable[..., Path]) -> None:
    run = tiny("model=vae", "model.penalties.kl.capacity=25")
    last = history(run)[-1]
    assert last["test/kl_term"] == pytest.approx(25 - last["test/kl"], rel=1e-5)
    assert last["train/loss"] == pytest.approx(last["train/nll"] + last["train/kl_term"], rel=1e-6)
    assert last["test/loss"] != pytest.approx(last["test/neg_elbo"], rel=1e-3)
    descriptions = json.loads((run / "descriptions.json").read_text())
    assert "in place of the KL" in descriptions["kl_term"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.penalties.kl.warmup=0"], "model.penalties.kl.warmup=0 is no share of training"),
        (["model.penalties.kl.warmup=1.5"], "model.penalties.kl.warmup=1.5 is no share of training"),
        (["model.penalties.kl.warmup=half"], "model.penalties.kl.warmup=half is not a number or null"),
        (["model.penalties.kl.cycles=0"], "model.penalties.kl.cycles=0 is too small"),
        (["model.penalties.kl.cycles=1.5"], "model.penalties.kl.cycles=1.5 is not a whole number or null"),
        (["model.penalties.kl.free_bits=-1"], "model.penalties.kl.free_bits=-1 is no number of nats"),
        (["model.penalties.kl.capacity=inf"], "model.penalties.kl.capacity=inf is no number of nats"),
        (["model.penalties.kl.capacity=1", "model.penalties.kl.free_bits=1"], "set one of them to null"),
        (["model=iwae", "+model.penalties.iwae.warmup=0.5"], "no setting 'model.penalties.iwae.warmup'"),
        (["penalty=l2", "penalty.l2.warm=0.5"], "did you mean 'penalty.l2.warmup'"),
    ],
)
def test_mistake_is_refused_with_one_message(overrides: Sequence[str], message: str, tmp_path: Path) -> None:
    model = [] if "model=iwae" in overrides else ["model=vae"]
    outcome = command([*TINY, *model, *overrides], tmp_path)
    assert outcome.code == 1
    assert message in outcome.err
    assert "Traceback" not in outcome.err


# --- Compiled, resumed, extended --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("settings", ["weight=4", "capacity=25"])
def test_compiled_step_reads_the_present_factor(
    settings: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compile, "_compile_graph", lambda graph, cuda: graph)
    overrides = ["model=vae", f"model.penalties.kl.{settings}", "model.penalties.kl.warmup=0.5"]
    results = []
    for compiled in (False, True):
        components = components_of(*overrides)
        (step,), x = components.optimizer_steps, images()
        if compiled:
            with caplog.at_level(logging.INFO):
                compile_steps([step], (components.model, components.objective), [x])
            assert "compiled in" in caplog.text
        components.model.train()
        torch.manual_seed(0)
        losses = []
        for progress in (0.1, 0.3, 0.7):
            step.set_progress(progress)
            losses.append(step(x)["loss"].item())
        results.append(losses)
    assert results[1] == pytest.approx(results[0], rel=1e-5)


def test_run_with_schedules_resumes_exactly(tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is interrupted after an epoch reaches the weights and metrics of one that is not."""
    overrides = ("model=vae", "model.penalties.kl.cycles=2", "penalty=l2", "penalty.l2.warmup=1", "epochs=3")
    uninterrupted = fingerprint(tiny(*overrides, name="uninterrupted"))
    record = TrainingRun.record

    def interrupt(self: TrainingRun, state: Any) -> None:
        record(self, state)
        if state.epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "record", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tiny(*overrides, name="resumed")
    assert not differences(uninterrupted, fingerprint(tiny(*overrides, name="resumed")))


@pytest.mark.parametrize(
    ("overrides", "jump"),
    [
        (["model=linear", "schedule=cosine"], "the learning rate continues at 0.0005, not at 0"),
        (["model=linear", "schedule=linear"], "the learning rate continues at 0.0005, not at 0"),
        (["model=vae", "model.penalties.kl.warmup=0.8"], "kl.schedule.factor continues at 0.625, not at 1"),
        (
            ["model=categorical", "model.bottleneck.anneal=1"],
            "Categorical.training_temperature continues at 0.707, not at 0.5",
        ),
        (
            ["sparsity=topk", "sparsity.start=32", "sparsity.anneal=1"],
            "TopK.training_k continues at 21, not at 10",
        ),
        (["model=linear", "accumulate_grad_batches=2"], ""),
        (["model=vae"], ""),
    ],
)
def test_longer_training_names_the_numbers_that_jump(
    overrides: Sequence[str], jump: str, tiny: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    tiny(*overrides, "epochs=1", name="run")
    with caplog.at_level(logging.INFO):
        tiny(*overrides, "epochs=2", name="run")
    lines = [line for line in caplog.messages if line.startswith("epochs=")]
    assert lines == ([f"epochs=2 was 1, and schedules depend on it: {jump}"] if jump else [])
