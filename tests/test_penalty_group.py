"""The group `penalty`: its penalties computed a second way; composition with models, sweeps and saved runs."""

import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from command import command
from conftest import TINY
from torch import distributions as D

from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.config.paths import CONFIG_DIR, groups, option_config
from aetrain.config.validate import locate, parameter_names
from aetrain.model.codes import Code, GaussianCode
from aetrain.model.records import Forward
from aetrain.objective import regularizers
from aetrain.objective.regularizers import (
    DIP,
    DecoderJacobian,
    Decorrelation,
    Orthogonality,
    TotalCorrelation,
    covariance,
)
from aetrain.report.page import write_report
from aetrain.runs import entry
from aetrain.runs.build import Components, build
from aetrain.selfcheck.fingerprint import differences, fingerprint
from aetrain.storage.saved_config import saved_config
from aetrain.sweeps.packed.plan import pack_settings

OPTIONS = [option for option in groups()["penalty"] if option != "none"]
MODELS = groups()["model"]
OLD_RUN = Path(__file__).parent / "data" / "runs-0.1.0" / "deep"

NEED_GAUSSIAN_CODE = {"dip", "tc"}
NEED_PRIOR = {"mmd"}
OPTIONS_FOR_ALL = [option for option in OPTIONS if option not in NEED_GAUSSIAN_CODE | NEED_PRIOR]


def settings_of(*overrides: str) -> Any:
    config, _, full_overrides = api.compose_config([*TINY, *overrides])
    return entry.check(config, full_overrides)


def components_of(*overrides: str) -> Components:
    return build(settings_of(*overrides))


def images(count: int = 8) -> torch.Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def forward_of(code: Code) -> Forward:
    """Return a forward pass of which only the code is read."""
    nothing = torch.empty(0)
    return Forward(x=nothing, x_in=nothing, hidden=(), code=code, decoded=nothing)


def gaussian_code(mean: torch.Tensor, variance: torch.Tensor) -> GaussianCode:
    return GaussianCode(z=mean, mean=mean, log_var=variance.log().expand_as(mean))


# --- Formulas ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("model", ["deep", "conv", "lstm", "vae", "vqvae", "sparse_coding"])
def test_orthogonality_equals_that_of_the_singular_values(model: str) -> None:
    """||W W^T - I||_F^2 = sum (s^2 - 1)^2 over the singular values s of W, of the smaller of its sides."""
    autoencoder: Any = components_of(f"model={model}", "model.init=xavier").model
    matrices: list[torch.Tensor] = []
    for name, weight in [*autoencoder.encoder.named_parameters(), *autoencoder.bottleneck.project.named_parameters()]:
        if weight.dim() > 1:
            matrices += weight.detach().flatten(1).chunk(4 if "_l0" in name else 1)
    expected = sum(float((torch.linalg.svdvals(w.double()).square() - 1).square().sum()) for w in matrices)
    assert expected > 1
    assert float(Orthogonality()(autoencoder, autoencoder(images())).detach()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("model", ["deep", "tied", "conv", "lstm"])
def test_orthogonality_of_orthogonal_weights_is_0(model: str) -> None:
    autoencoder = components_of(f"model={model}", "model.init=orthogonal").model
    assert float(Orthogonality()(autoencoder, autoencoder(images())).detach()) == pytest.approx(0, abs=1e-6)


def test_orthogonality_without_weight_matrices_is_refused() -> None:
    autoencoder = components_of("model=linear").model
    autoencoder.bottleneck.register_module("project", torch.nn.Identity())
    with pytest.raises(ValueError, match="no weight matrix"):
        Orthogonality()(autoencoder, forward_of(Code(z=normal(2, 2))))


def test_decorrelation_equals_torch_cov() -> None:
    z = normal(50, 6) @ normal(6, 6, seed=1)
    c = torch.cov(z.t(), correction=0)
    expected = sum(float(c[i, j] ** 2) for i, j in itertools.permutations(range(6), 2)) / 2
    model = components_of().model
    assert float(Decorrelation()(model, forward_of(Code(z=z)))) == pytest.approx(expected, rel=1e-9)
    assert float(Decorrelation()(model, forward_of(Code(z=z[:1])))) == 0


def test_decorrelation_of_a_whitened_code_is_0() -> None:
    z = normal(50, 6)
    whitened = torch.linalg.qr(z - z.mean(0)).Q * math.sqrt(50)
    torch.testing.assert_close(covariance(whitened), torch.eye(6, dtype=torch.float64))
    assert float(Decorrelation()(components_of().model, forward_of(Code(z=whitened)))) == pytest.approx(0, abs=1e-20)


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("model", ["deep", "conv_unpool", "vae", "lstm"])
def test_decoder_jacobian_equals_the_jacobian_of_autograd(model: str, likelihood: str) -> None:
    autoencoder = components_of(f"model={model}", f"likelihood={likelihood}", "model.code_dim=4").model.eval()
    out = autoencoder(images(3))
    norms = DecoderJacobian(probes=None)(autoencoder, out).detach()
    for i, norm in enumerate(norms):
        indices = tuple(pooled[i : i + 1] for pooled in out.code.pool_indices)

        def pixels(z: torch.Tensor, indices: tuple[torch.Tensor, ...] = indices) -> torch.Tensor:
            return autoencoder.likelihood.mean(autoencoder.decode(Code(z=z[None], pool_indices=indices)))

        jacobian = torch.autograd.functional.jacobian(pixels, out.code.z[i].detach())
        assert float(norm) == pytest.approx(float(jacobian.square().sum()), rel=1e-4)


def test_decoder_jacobian_of_a_linear_decoder_is_the_norm_of_its_weights() -> None:
    autoencoder = components_of("model=linear", "likelihood=gaussian").model
    weight = next(iter(autoencoder.decoder.parameters()))
    expected = float(weight.detach().square().sum())
    norms = DecoderJacobian(probes=None)(autoencoder, autoencoder(images()))
    torch.testing.assert_close(norms, torch.full((8,), expected))


def test_decoder_jacobian_estimate_converges_to_the_exact_norm() -> None:
    torch.manual_seed(0)
    autoencoder = components_of("model=deep", "model.code_dim=4").model
    out = autoencoder(images(2))
    estimate = DecoderJacobian(probes=5000)(autoencoder, out)
    torch.testing.assert_close(estimate, DecoderJacobian(probes=None)(autoencoder, out), rtol=0.1, atol=0)


def test_decoder_jacobian_trains_both_halves_and_needs_no_gradient_in_evaluation() -> None:
    autoencoder = components_of("model=deep", "model.activation=tanh").model
    DecoderJacobian()(autoencoder, autoencoder(images())).sum().backward()
    for half in (autoencoder.encoder, autoencoder.decoder):
        first = next(iter(half.parameters()))
        assert first.grad is not None
        assert first.grad.abs().sum() > 0
    autoencoder.eval()
    with torch.no_grad():
        first_value, second_value = (DecoderJacobian()(autoencoder, autoencoder(images())) for _ in range(2))
    assert torch.equal(first_value, second_value)
    assert not first_value.requires_grad


def test_penalties_in_parts_equal_penalties_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    autoencoder = components_of("model=vae").model.eval()
    out = autoencoder(images())
    penalties = (DecoderJacobian(probes=3), TotalCorrelation())
    at_once = [penalty(autoencoder, out).detach() for penalty in penalties]
    monkeypatch.setattr("aetrain.objective.jacobian.MAX_JACOBIAN_ELEMENTS", 1)
    monkeypatch.setattr(regularizers, "MAX_DENSITIES", 1)
    for penalty, value in zip(penalties, at_once, strict=True):
        torch.testing.assert_close(penalty(autoencoder, out).detach(), value)


@pytest.mark.slow
@pytest.mark.parametrize("diagonal", [0.0, 1.0, 10.0])
def test_dip_equals_a_sum_over_the_covariance_matrix(diagonal: float) -> None:
    means, variances = normal(40, 5) @ normal(5, 5, seed=1), normal(40, 5, seed=2).exp()
    code = GaussianCode(z=means, mean=means, log_var=variances.log())
    of_means = torch.cov(means.t(), correction=0)
    matrices = {"mean": of_means, "sample": of_means + torch.diag(variances.mean(0))}
    for covariance_of, matrix in matrices.items():
        difference = (matrix - torch.eye(5)).square()
        expected = difference.sum() - (1 - diagonal) * difference.diagonal().sum()
        penalty = DIP(diagonal=diagonal, covariance_of=covariance_of)  # type: ignore[arg-type]
        assert float(penalty(components_of().model, forward_of(code))) == pytest.approx(float(expected), rel=1e-9)


def test_dip_of_samples_is_0_for_the_standard_normal() -> None:
    """DIP-VAE-II accepts a code whose samples have the identity as covariance, from means and variances together."""
    z = normal(50, 3)
    means = torch.linalg.qr(z - z.mean(0)).Q * math.sqrt(50 * 0.4)
    code = gaussian_code(means, torch.tensor(0.6, dtype=torch.float64))
    model = components_of().model
    assert float(DIP(covariance_of="sample")(model, forward_of(code))) == pytest.approx(0, abs=1e-20)
    assert float(DIP(covariance_of="mean", diagonal=1)(model, forward_of(code))) == pytest.approx(3 * 0.6**2)


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.95])
def test_total_correlation_of_a_correlated_gaussian_is_exact(correlation: float) -> None:
    """The mixture of N(m, s I) with m ~ N(0, S - s I) is N(0, S), whose total correlation is -1/2 log |S|."""
    torch.manual_seed(0)
    target = torch.tensor([[1.0, correlation], [correlation, 1.0]], dtype=torch.float64)
    variance = 0.02
    means = normal(3000, 2) @ torch.linalg.cholesky(target - variance * torch.eye(2)).t()
    code = gaussian_code(means, torch.tensor(variance, dtype=torch.float64))
    estimate = TotalCorrelation()(components_of().model, forward_of(code))
    assert float(estimate) == pytest.approx(float(-0.5 * target.logdet()), abs=0.06)


def test_total_correlation_equals_torch_distributions() -> None:
    """The estimate is the mean log-ratio of a mixture of normal distributions to the product of its marginals."""
    mean, variance = 2 * normal(12, 3), normal(12, 3, seed=1).exp()
    code, z = gaussian_code(mean, variance), 2 * normal(30, 3, seed=2)
    weights = D.Categorical(logits=torch.zeros(12, dtype=torch.float64))
    joint = D.MixtureSameFamily(weights, D.Independent(D.Normal(mean, variance.sqrt()), 1)).log_prob(z)
    marginals = [
        D.MixtureSameFamily(weights, D.Normal(mean[:, j], variance[:, j].sqrt())).log_prob(z[:, j]) for j in range(3)
    ]
    expected = (joint - torch.stack(marginals).sum(0)).mean()
    torch.testing.assert_close(TotalCorrelation().estimate(z, code), expected)


def test_total_correlation_of_independent_and_of_equal_units() -> None:
    """A grid of means has independent units: 0. Two far clusters on a diagonal make two units one bit: log 2."""
    model = components_of().model
    grid = torch.cartesian_prod(normal(5), normal(4, seed=1))  # [20, 2]
    independent = gaussian_code(grid, torch.tensor(0.1, dtype=torch.float64))
    assert float(TotalCorrelation()(model, forward_of(independent))) == pytest.approx(0, abs=1e-12)
    clusters = torch.tensor([[-50.0, -50.0], [50.0, 50.0]], dtype=torch.float64).repeat(10, 1)
    dependent = gaussian_code(clusters, torch.tensor(1.0, dtype=torch.float64))
    assert float(TotalCorrelation()(model, forward_of(dependent))) == pytest.approx(math.log(2))


def test_total_correlation_is_at_most_the_stated_bound() -> None:
    corners = torch.arange(16, dtype=torch.float64)[:, None].expand(-1, 5)
    far = gaussian_code(100 * corners, torch.tensor(1.0, dtype=torch.float64))
    value = float(TotalCorrelation()(components_of().model, forward_of(far)))
    assert value == pytest.approx(4 * math.log(16))


def test_total_correlation_is_drawn_in_training_and_fixed_in_evaluation() -> None:
    autoencoder = components_of("model=vae").model
    code = autoencoder(images()).code
    values = [float(TotalCorrelation()(autoencoder, forward_of(code)).detach()) for _ in range(2)]
    assert values[0] != values[1]
    autoencoder.eval()
    values = [float(TotalCorrelation()(autoencoder, forward_of(code)).detach()) for _ in range(2)]
    assert values[0] == values[1]


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
def test_penalty_falls_when_it_alone_is_minimised(option: str) -> None:
    overrides = ["model=vae", "model.hidden=[32]", f"penalty={option}", "optimizer.lr=0.01"]
    components = components_of(*overrides, f"penalty.{option}.weight=1000")
    optimizer_step = components.optimizer_steps[0]
    torch.manual_seed(0)
    x = images(32)
    losses = [optimizer_step(x)[option].item() for _ in range(60)]
    assert sum(losses[-10:]) < sum(losses[:10])


# --- Composition ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", groups()["penalty"])
def test_yaml_names_every_setting_of_every_penalty(option: str) -> None:
    assert (CONFIG_DIR / "penalty" / f"{option}.yaml").read_text().startswith("# ")
    for node in option_config("penalty", option).values():
        settings = set(parameter_names(locate(node["_target_"]))[0]) - {"code_dim"}
        assert settings == set(node) - {"_target_"}


def test_option_is_named_like_its_metric_and_describes_it() -> None:
    for option in OPTIONS:
        nodes = option_config("penalty", option)
        assert list(nodes) == [option]
        penalty: Any = locate(nodes[option]["_target_"])
        assert penalty.description


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("model", MODELS)
def test_option_trains_with_the_models_that_it_fits_and_is_refused_with_the_others(model: str, option: str) -> None:
    plain = components_of(f"model={model}")
    own = set(plain.objective.penalties)
    emits, has_prior = plain.model.bottleneck.emits, plain.model.prior(1) is not None
    fits = option not in own
    fits &= option not in NEED_GAUSSIAN_CODE or issubclass(emits, GaussianCode)
    fits &= option not in NEED_PRIOR or has_prior
    if not fits:
        with pytest.raises(ConfigError) as refused:
            components_of(f"model={model}", f"penalty={option}")
        assert f"penalty.{option}" in str(refused.value)
        assert f"~penalty.{option}" in str(refused.value)
        return
    components = components_of(f"model={model}", f"penalty={option}")
    assert set(components.objective.penalties) == own | {option}
    optimizer_step = components.optimizer_steps[0]
    for _ in range(2):
        losses = optimizer_step(images())
        assert all(math.isfinite(value.item()) for value in losses.values()), losses
        assert option in losses


def test_loss_is_the_weighted_sum_of_all_terms() -> None:
    overrides = ("model=vae", "penalty=[decorrelate,l2]", "penalty.l2.weight=3", "sparsity=l1")
    components = components_of(*overrides, "model.penalties.kl.weight=2")
    assert list(components.objective.penalties) == ["kl", "decorrelate", "l2", "sparsity"]
    losses = components.objective(components.model, components.model(images()))
    expected = losses["nll"] + 2 * losses["kl"] + 0.1 * losses["decorrelate"] + 3 * losses["l2"]
    torch.testing.assert_close(losses["loss"], expected + 0.1 * losses["sparsity"])


@pytest.mark.parametrize("pretrain", ["layerwise", "mean"])
def test_penalties_take_part_in_pretraining(pretrain: str, tiny: Callable[..., Path]) -> None:
    directory = tiny(f"pretrain={pretrain}", f"penalty=[{','.join(OPTIONS_FOR_ALL)}]", "model.hidden=[16]")
    assert metrics_of(directory)["status"] == "finished"


def test_penalty_that_asks_for_code_dim_gets_it() -> None:
    critic = "+penalty.critic={_target_: aetrain.objective.adversaries.CodeCritic, units: [7]}"
    components = components_of("model=vae", "model.code_dim=5", critic)
    first_layer = next(iter(components.objective.critics["critic"].parameters()))
    assert first_layer.shape == (7, 5)
    assert len(components.optimizer_steps) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "texts"),
    [
        (["model=wae", "penalty=mmd"], ["penalty.mmd", "model.penalties.mmd", "~penalty.mmd"]),
        (["model=contractive", "penalty=[l2,contractive]"], ["penalty.contractive and model.penalties.contractive"]),
        (["penalty=tc"], ["penalty.tc", "GaussianCode", "~penalty.tc", "model=vae"]),
        (["penalty=[l2,dip]"], ["penalty.dip", "GaussianCode", "~penalty.dip", "model=vae"]),
        (["penalty=mmd"], ["penalty.mmd", "prior", "~penalty.mmd"]),
        (["penalty.dip.weight=10"], ["penalty.dip", "penalty=dip"]),
        (["+penalty.dip.weight=10"], ["penalty.dip has no _target_"]),
        (["+penalty.dip=3"], ["penalty.dip has no _target_"]),
        (["+penalty.nll={_target_: aetrain.objective.penalties.L2}"], ["penalty.nll", "another name"]),
        (["sparsity=l1", "+penalty.sparsity={_target_: aetrain.objective.penalties.L2}"], ["penalty.sparsity"]),
        (["penalty=l3"], ["no penalty named 'l3'", "l2"]),
        (["penalty=jacobian_decoder", "penalty.jacobian_decoder.probes=0"], ["penalty.jacobian_decoder.probes=0"]),
        (["model=vae", "penalty=dip", "penalty.dip.diagonal=-1"], ["penalty.dip.diagonal=-1"]),
        (["model=vae", "penalty=dip", "penalty.dip.covariance_of=median"], ["covariance_of=median", "mean or sample"]),
        (["penalty=l2", "penalty.l2.weight=much"], ["penalty.l2.weight=much is not a number"]),
    ],
)
def test_mistake_is_refused_with_one_message(overrides: Sequence[str], texts: Sequence[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        components_of(*overrides)
    assert all(text in str(refused.value) for text in texts), str(refused.value)


def test_penalty_is_dropped_from_a_list() -> None:
    assert list(components_of("penalty=[l2,decorrelate]", "~penalty.l2").objective.penalties) == ["decorrelate"]


@pytest.fixture
def experiments(tmp_path: Path) -> Path:
    """A folder with an experiment that chooses DIP and changes its weight."""
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "disentangle.yaml").write_text(
        "# @package _global_\n"
        "defaults: [override /dataset: digits, override /model: vae, override /penalty: dip]\n"
        "penalty: {dip: {weight: 5.0}}\n"
    )
    return tmp_path


@pytest.mark.slow
def test_experiment_chooses_a_penalty_and_the_command_line_another(experiments: Path) -> None:
    common = ["--config-dir", "mine", "experiment=disentangle", *TINY[1:]]
    for number, (choice, penalties) in enumerate(
        {"": {"dip": 5.0}, "penalty=l2": {"l2": 0.01}, "penalty=none": {}}.items()
    ):
        outcome = command([*common, *choice.split(), f"hydra.run.dir=run{number}"], experiments)
        assert outcome.code == 0, outcome.err
        saved = saved_config(experiments / f"run{number}")["penalty"]
        assert {name: node["weight"] for name, node in saved.items()} == penalties
    outcome = command([*common, "penalty=l2", "penalty.dip.weight=3"], experiments)
    assert outcome.code != 0
    assert "penalty.dip" in outcome.err


# --- Runs -------------------------------------------------------------------------------------------------------------


def metrics_of(run: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return metrics


def test_metrics_have_the_names_of_the_penalties(tiny: Callable[..., Path]) -> None:
    directory = tiny("model=vae", "penalty=[dip,tc]")
    assert {"test/dip", "test/tc", "test/kl"} <= metrics_of(directory).keys()
    last = json.loads((directory / "history.jsonl").read_text().splitlines()[-1])
    assert {"train/dip", "train/tc", "train/kl", "test/dip", "test/tc"} <= last.keys()


@pytest.mark.slow
def test_run_is_resumed_exactly_and_evaluated(tmp_path: Path) -> None:
    common = [*TINY, "model=vae", "penalty=[tc,dip,jacobian_decoder,orthogonal]", "penalty.dip.weight=2"]
    outcome = command([*common, "epochs=3", "hydra.run.dir=whole"], tmp_path)
    assert outcome.code == 0, outcome.err
    for arguments in ([*common, "hydra.run.dir=parts"], ["resume=parts", "epochs=3"]):
        outcome = command(arguments, tmp_path)
        assert outcome.code == 0, outcome.err
    changed = differences(fingerprint(tmp_path / "whole"), fingerprint(tmp_path / "parts"))
    assert not changed, changed
    before = metrics_of(tmp_path / "whole")
    outcome = command(["mode=eval", "run=whole"], tmp_path)
    assert outcome.code == 0, outcome.err
    after = metrics_of(tmp_path / "whole")
    for name in ("test/loss", "test/tc", "test/dip", "test/jacobian_decoder", "test/orthogonal"):
        assert after[name] == pytest.approx(before[name], rel=1e-5)


def test_other_penalty_is_evaluated_under_its_own_name(tmp_path: Path) -> None:
    for arguments in (
        [*TINY, "model=vae", "penalty=l2", "hydra.run.dir=run"],
        ["mode=eval", "run=run", "penalty=[l2,tc]"],
    ):
        outcome = command(arguments, tmp_path)
        assert outcome.code == 0, outcome.err
    (file,) = (tmp_path / "run" / "eval").glob("*/metrics.json")
    assert {"test/tc", "test/l2"} <= metrics_of(file.parent).keys()
    assert "test/tc" not in metrics_of(tmp_path / "run")


def test_run_of_another_penalty_does_not_share_a_directory(tmp_path: Path) -> None:
    run = ["hydra.run.dir=run", *TINY]
    for arguments in (run, run):
        assert command(arguments, tmp_path).code == 0
    outcome = command([*run, "penalty=l2"], tmp_path)
    assert outcome.code != 0
    assert "penalty.l2.weight: absent there, 0.01 here" in outcome.err


@pytest.mark.slow
def test_saved_config_without_the_group_has_no_penalties(tmp_path: Path) -> None:
    assert saved_config(OLD_RUN)["penalty"] == {}
    run = ["hydra.run.dir=run", *TINY]
    assert command(run, tmp_path).code == 0
    file = tmp_path / "run" / ".hydra" / "config.yaml"
    lines = file.read_text().splitlines()
    assert "penalty: {}" in lines
    file.write_text("\n".join(line for line in lines if line != "penalty: {}"))
    for arguments in (run, ["mode=eval", "run=run"], ["resume=run", "epochs=2"]):
        outcome = command(arguments, tmp_path)
        assert outcome.code == 0, outcome.err


@pytest.mark.slow
def test_sweep_over_penalties_is_reported_with_a_column(tmp_path: Path) -> None:
    sweep = ["-m", *TINY, "model=vae", "hydra.sweep.dir=sweep", "penalty=none,l2,[tc,l2]"]
    outcome = command(sweep, tmp_path)
    assert outcome.code == 0, outcome.err
    runs = sorted(file.parent for file in (tmp_path / "sweep").rglob("metrics.json"))
    penalties = [set(saved_config(run)["penalty"]) for run in runs]
    assert sorted(map(sorted, penalties)) == [[], ["l2"], ["l2", "tc"]]
    page, count = write_report(tmp_path / "sweep", tmp_path / "sweep")
    assert count == 3
    header, *rows = page.with_suffix(".csv").read_text().splitlines()
    assert "penalty" in header.split(",")
    assert any("[tc,l2]" in row for row in rows)


def test_penalty_is_a_hyper_parameter(tiny: Callable[..., Path]) -> None:
    from aetrain.config.hparams import hparams
    from aetrain.config.settings import flatten

    overrides = ["model=vae", "penalty=[tc,l2]", "penalty.l2.weight=3"]
    config = saved_config(tiny(*overrides))
    values = hparams(flatten(config), overrides)
    assert values["penalty"] == "[tc,l2]"
    assert (values["penalty.l2.weight"], values["penalty.tc.weight"]) == (3.0, 5.0)
    assert hparams({"epochs": 1}, [])["penalty"] == "none", "the default option"


def test_weights_may_differ_in_a_pack_and_penalties_may_not() -> None:
    def key(*overrides: str) -> dict[str, Any]:
        return dict(pack_settings(settings_of("model=vae", *overrides)))

    assert key("penalty=[dip,l2]") == key("penalty=[dip,l2]", "penalty.l2.weight=3", "penalty.dip.diagonal=1")
    assert key("penalty=dip") != key("penalty=dip", "penalty.dip.covariance_of=sample")
    assert key("penalty=l2") != key("penalty=none")


PACKABLE = ["tc", "dip", "decorrelate", "orthogonal", "l1", "l2", "mmd"]


@pytest.mark.slow
def test_packed_runs_reach_the_metrics_of_separate_runs(tmp_path: Path) -> None:
    common = [*TINY, "model=vae", "model.hidden=[32]", f"penalty=[{','.join(PACKABLE)}]", "epochs=2"]
    sweep = ["-m", *common, "penalty.tc.weight=1,7", "penalty.orthogonal.weight=0.1,1"]
    for folder, launcher in (("packed", ["hydra/launcher=packed"]), ("separate", [])):
        outcome = command([*sweep, f"hydra.sweep.dir={folder}", *launcher], tmp_path)
        assert outcome.code == 0, outcome.err
        if launcher:
            assert "individually" not in outcome.out + outcome.err
    files = sorted((tmp_path / "packed").rglob("metrics.json"))
    assert len(files) == 4
    for file in files:
        packed, separate = metrics_of(file.parent), metrics_of(tmp_path / "separate" / file.parent.name)
        for name in ("test/loss", *(f"test/{option}" for option in PACKABLE)):
            assert packed[name] == pytest.approx(separate[name], rel=2e-3, abs=1e-4), name
