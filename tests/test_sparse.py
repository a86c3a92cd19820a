"""Sparse, contractive and dictionary-learning models: formulas a second way; initialisation; means; L-BFGS."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY

from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.data.toy import Toy
from aetrain.model.conv import Down, conv
from aetrain.model.dense import dense
from aetrain.model.layers import Activation, Init, TopK, WinnerTakeAll
from aetrain.model.likelihoods import Bernoulli, Gaussian
from aetrain.model.sparse_coding import SparseCoding
from aetrain.objective.contractive import Contractive
from aetrain.objective.objective import Objective
from aetrain.objective.penalties import L1
from aetrain.runs import entry
from aetrain.runs.build import Components, build
from aetrain.storage.run_directory import RunDirectory
from aetrain.training.optimizers import LBFGS
from aetrain.training.step import OptimizerStep

SHAPE = (1, 6, 5)


def small_model(**settings: Any) -> Any:
    defaults: dict[str, Any] = {
        "hidden": [12],
        "code_dim": 4,
        "likelihood": Bernoulli(),
        "sparsifier": torch.nn.Identity(),
    }
    torch.manual_seed(0)
    return dense(SHAPE, scale=(0.0, 1.0), **(defaults | settings))


def random_images(count: int, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def build_components(*overrides: str) -> Components:
    config, _, full_overrides = api.compose_config([*TINY, *overrides])
    return build(entry.check(config, full_overrides))


# --- Winner-take-all and top-k ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "winners"), [(0.05, 1), (0.25, 2), (0.3, 3), (1.0, 8)])
def test_winner_take_all_keeps_the_largest_activations_of_each_unit(rate: float, winners: int) -> None:
    z, sparsifier = torch.rand(8, 5) + 1, WinnerTakeAll(rate).train()
    code = sparsifier(z)
    for unit in range(5):
        best = np.argsort(-z[:, unit].numpy())[:winners]
        expected = np.zeros(8, dtype=np.float32)
        expected[best] = z[best, unit]
        np.testing.assert_array_equal(code[:, unit].numpy(), expected)
    assert torch.equal(sparsifier.eval()(z), z)


def test_topk_decreases_to_k_in_training_and_keeps_k_in_evaluation() -> None:
    sparsifier, z = TopK(3, start=9, anneal=0.5), torch.rand(4, 10) + 1
    counts = []
    for progress in (0.0, 0.25, 0.5, 0.9):
        sparsifier.train().set_progress(progress)
        counts.append(int((sparsifier(z)[0] != 0).sum()))
        assert ((sparsifier.eval()(z) != 0).sum(1) == 3).all()
    assert counts == [9, 6, 3, 3]


def test_optimizer_step_sets_the_progress_of_scheduled_modules() -> None:
    components = build_components("sparsity=topk", "sparsity.k=2", "sparsity.start=12")
    (sparsifier,) = (module for module in components.model.modules() if isinstance(module, TopK))
    for progress, expected in [(0.0, 12), (0.25, 7), (0.75, 2)]:
        components.optimizer_steps[0].set_progress(progress)
        assert sparsifier.training_k == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("sparsity=topk sparsity.start=5", ("start=5", "k=10")),
        ("sparsity=topk sparsity.start=99", ("sparsity.start=99", "model.code_dim=32")),
        ("sparsity=topk sparsity.anneal=0", ("anneal=0",)),
        ("sparsity=wta sparsity.rate=0", ("rate=0",)),
        ("sparsity=wta model.code_activation=tanh", ("model.code_activation=tanh", "relu")),
        ("model=sparse_coding model.tied=false", ("model.tied=true",)),
        ("model=sparse_coding model.bottleneck.weight=-1", ("weight=-1",)),
        ("model=sparse_coding model.bottleneck.steps=0", ("steps=0",)),
        ("model=contractive model.penalties.contractive.probes=0", ("probes=0",)),
        ("model.activation=[relu,tanh,relu]", ("relu,tanh,relu", "3 hidden layers", "has 2")),
        ("model.activation=[relu,rleu]", ("model.activation", "rleu")),
        ("likelihood.reduction=median", ("likelihood.reduction=median", "mean")),
    ],
)
def test_mistakes_are_named(override: str, names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        build_components(*override.split())
    assert all(name in str(error.value) for name in names), str(error.value)


# --- Contractive ------------------------------------------------------------------------------------------------------


def autograd_norms(model: Any, x: torch.Tensor) -> torch.Tensor:
    """Return the squared Frobenius norm of each image's Jacobian, image by image."""
    norms = []
    for image in x:
        jacobian = torch.autograd.functional.jacobian(lambda pixels: model.encode(pixels[None]).z[0], image)
        norms.append(jacobian.square().sum())
    return torch.stack(norms)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "elu", "gelu"])
def test_contractive_equals_the_jacobian_of_autograd(activation: str) -> None:
    model, x = small_model(hidden=[12, 7], activation=activation, code_activation="sigmoid"), random_images(3)
    torch.testing.assert_close(Contractive()(model, model(x)), autograd_norms(model, x))


@pytest.mark.parametrize("down", ["stride", "maxpool"])
def test_contractive_of_convolutions_equals_the_jacobian_of_autograd(down: Down) -> None:
    model = conv((2, 9, 8), Bernoulli(), TopK(2), (-1.0, 1.0), 4, [3, 4], down=down)
    model = model.eval() if down == "stride" else model
    x = random_images(3, (2, 9, 8))
    torch.testing.assert_close(Contractive()(model, model(x)), autograd_norms(model, x))


def test_contractive_of_one_sigmoid_layer_has_the_closed_form() -> None:
    """Rifai et al. (2011), eq. 6: sum_j (h_j (1 - h_j))^2 sum_i W_ji^2."""
    model, x = small_model(hidden=[], code_activation="sigmoid"), random_images(5)
    h, weight = model.encode(x).z, model.bottleneck.project.weight
    expected = (h * (1 - h)).square() @ weight.square().sum(1)
    torch.testing.assert_close(Contractive()(model, model(x)), expected)


def test_contractive_gradient_is_that_of_the_closed_form() -> None:
    model, x = small_model(hidden=[], code_activation="sigmoid"), random_images(5)
    weight = model.bottleneck.project.weight
    (gradient,) = torch.autograd.grad(Contractive()(model, model(x)).sum(), weight)
    h = model.encode(x).z
    (expected,) = torch.autograd.grad(((h * (1 - h)).square() @ weight.square().sum(1)).sum(), weight)
    torch.testing.assert_close(gradient, expected)


def test_contractive_estimate_converges_to_the_exact_norm() -> None:
    model, x = small_model(activation="tanh"), random_images(4)
    exact, estimate = Contractive()(model, model(x)), Contractive(probes=20_000)(model, model(x))
    torch.testing.assert_close(estimate, exact, rtol=0.03, atol=0)


def test_contractive_in_evaluation_is_repeatable_and_needs_no_gradient() -> None:
    model, x, penalty = small_model().eval(), random_images(4), Contractive(probes=2)
    state = torch.get_rng_state()
    with torch.no_grad():
        first, second = penalty(model, model(x)), penalty(model, model(x))
        exact = Contractive()(model, model(x))
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(exact, autograd_norms(model, x))


def test_contractive_in_parts_equals_contractive_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = small_model(), random_images(4)
    at_once = Contractive()(model, model(x))
    monkeypatch.setattr("aetrain.objective.jacobian.MAX_JACOBIAN_ELEMENTS", 1)
    torch.testing.assert_close(Contractive()(model, model(x)), at_once)


# --- Sparse coding ----------------------------------------------------------------------------------------------------


def sparse_coding_model(**settings: Any) -> Any:
    arguments: dict[str, Any] = {"weight": 0.2, "steps": 1000} | settings

    def make_bottleneck(in_features: int, code_dim: int) -> SparseCoding:
        return SparseCoding(in_features, code_dim, **arguments)

    model = small_model(hidden=[], code_dim=40, tied=True, bottleneck=make_bottleneck, likelihood=Gaussian())
    model.bottleneck.project.after_optimizer_step()
    return model


@pytest.mark.parametrize("positive", [False, True])
def test_sparse_codes_equal_the_lasso_of_sklearn(positive: bool) -> None:
    from sklearn.linear_model import Lasso

    model, x = sparse_coding_model(positive=positive), random_images(5)
    with torch.no_grad():
        model.decoder.output_bias.copy_(torch.rand(30) * 0.2)
    atoms, bias = model.bottleneck.project.weight.detach().numpy(), model.decoder.output_bias.detach().numpy()
    # sklearn divides the squared error by the number of its rows, in this case the pixels.
    lasso = Lasso(alpha=0.2 / 30, fit_intercept=False, positive=positive, tol=1e-8, max_iter=100_000)
    expected = [lasso.fit(atoms.T.astype(float), (row - bias).astype(float)).coef_ for row in x.flatten(1).numpy()]
    np.testing.assert_allclose(model.encode(x).z.numpy(), np.array(expected), atol=2e-3)


def test_sparse_codes_satisfy_the_optimality_conditions() -> None:
    """|W (x - c - z W)| <= weight, with equality and the code's sign where it is not zero."""
    model, x = sparse_coding_model(), random_images(5)
    z, atoms = model.encode(x).z, model.bottleneck.project.weight.detach()
    gradient = (x.flatten(1) - model.decoder.output_bias.detach() - z @ atoms) @ atoms.t()
    assert gradient.abs().max() < 0.2 + 1e-3
    active = z.abs() > 1e-3
    assert 0 < active.sum() < 0.6 * z.numel()
    torch.testing.assert_close(gradient[active], 0.2 * z.sign()[active], atol=1e-3, rtol=0)


def test_dictionary_learns_through_the_decoder_and_keeps_atoms_of_length_1() -> None:
    components = build_components(
        "model=sparse_coding", "likelihood=gaussian", "optimizer.lr=0.01", "model.code_dim=80"
    )
    x = random_images(64, components.model.image_shape)
    atoms = components.model.bottleneck.project.weight
    losses = [components.optimizer_steps[0](x)["nll"].item() for _ in range(30)]
    torch.testing.assert_close(atoms.norm(dim=1), torch.ones(80))
    assert losses[-1] < 0.8 * losses[1]  # the first loss is of atoms before they are normalised
    out = components.model(x)
    assert not out.code.z.requires_grad
    (gradient,) = torch.autograd.grad(components.model.likelihood.nll(out.decoded, x).sum(), atoms)
    z, residual = out.code.z, (out.decoded - x).flatten(1)
    torch.testing.assert_close(gradient, 2 * z.t() @ residual)


def test_contractive_penalty_of_codes_without_gradient_is_0() -> None:
    model, x = sparse_coding_model(), random_images(2)
    assert Contractive()(model, model(x)).tolist() == [0, 0]


# --- Sums and means, activations, initialisation, optimizers ----------------------------------------------------------


@pytest.mark.parametrize("kind", [Bernoulli, Gaussian])
def test_reduction_mean_divides_only_the_nll_in_the_loss(kind: type) -> None:
    x = random_images(4)
    sums, means = (
        Objective({"l1": L1(0.5)})(model, model(x))
        for model in (small_model(likelihood=kind(reduction=reduction)) for reduction in ("sum", "mean"))
    )
    torch.testing.assert_close(sums["nll"], means["nll"])
    torch.testing.assert_close(means["loss"], sums["nll"] / 30 + 0.5 * sums["l1"])


def test_hidden_layers_have_their_activations_and_the_decoder_mirrors_them() -> None:
    model, x = small_model(hidden=[12, 7], activation=["tanh", "sigmoid"]), random_images(3)
    first = torch.tanh(model.encoder.layers[0](x.flatten(1)))
    second = torch.sigmoid(model.encoder.layers[1](first))
    torch.testing.assert_close(model(x).hidden, (first, second))
    a, b, c = model.decoder.layers
    h = torch.tanh(b(torch.sigmoid(a(model.encode(x).z))))
    torch.testing.assert_close(model(x).decoded.flatten(1), c(h))


def test_levels_of_convolutions_have_their_activations() -> None:
    activations: list[Activation] = ["tanh", "sigmoid"]
    model: Any = conv((1, 9, 8), Bernoulli(), torch.nn.Identity(), (0.0, 1.0), 4, [3, 5], activation=activations)
    x, (one, two) = random_images(2, (1, 9, 8)), model.encoder.layers
    first = torch.tanh(one(x))
    torch.testing.assert_close(model(x).hidden, (first, torch.sigmoid(two(first))))
    smallest = torch.sigmoid(model.decoder.expand(model.encode(x).z)).unflatten(1, (5, 3, 2))
    a, b = model.decoder.layers
    torch.testing.assert_close(model(x).decoded, b(torch.tanh(a(smallest))))


def mean_squares(activation: Activation, init: Init, depth: int = 10, width: int = 256) -> list[float]:
    """Return the mean square of the signal after each hidden layer, for an input of mean square 1."""
    torch.manual_seed(0)
    model = dense(
        (1, 16, 16),
        Gaussian(),
        torch.nn.Identity(),
        (0.0, 1.0),
        width,
        [width] * depth,
        activation=activation,
        init=init,
    )
    with torch.no_grad():
        hidden = model(torch.randn(200, 1, 16, 16)).hidden
    return [float(h.square().mean()) for h in hidden]


@pytest.mark.parametrize(("activation", "init"), [("tanh", "xavier"), ("relu", "he")])
def test_initialisation_keeps_the_signal_through_ten_layers(activation: Activation, init: Init) -> None:
    """Glorot & Bengio (2010), section 4.2; He et al. (2015), section 2.2. torch's default does not."""
    initialised, default = mean_squares(activation, init), mean_squares(activation, "default")
    assert 0.05 < initialised[-1] < 20
    assert initialised[-1] / initialised[0] > 0.1
    assert default[-1] < 0.05 * initialised[-1]


def test_uniform_initialisation_draws_weights_as_torch_does_and_sets_biases_to_zero() -> None:
    torch.manual_seed(0)
    model = conv((1, 16, 16), Bernoulli(), torch.nn.Identity(), (0.0, 1.0), 50, [32, 32], init="uniform")
    kinds = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.ConvTranspose2d)
    layers = [layer for layer in model.modules() if isinstance(layer, kinds)]
    assert all(any(isinstance(layer, kind) for layer in layers) for kind in kinds)
    for layer in layers:
        torch_layer = copy.deepcopy(layer)
        torch_layer.reset_parameters()
        torch.testing.assert_close(layer.weight.abs().max(), torch_layer.weight.abs().max(), rtol=0.05, atol=0)
        torch.testing.assert_close(layer.weight.std(), torch_layer.weight.std(), rtol=0.1, atol=0)
        assert layer.bias is not None
        assert torch_layer.bias is not None
        assert torch_layer.bias.abs().max() > layer.bias.abs().max() == 0


def test_xavier_keeps_the_variance_of_a_linear_signal() -> None:
    for square in mean_squares("identity", "xavier"):
        assert 0.7 < square < 1.4


def test_lbfgs_finds_the_minimum_and_draws_the_same_noise_at_every_evaluation() -> None:
    weight = torch.nn.Parameter(torch.zeros(3))
    draws: list[float] = []

    def losses(x: torch.Tensor) -> dict[str, torch.Tensor]:
        draws.append(torch.randn(()).item())
        return {"loss": (weight - x).square().sum() + (weight - 1).pow(4).sum()}

    OptimizerStep(losses, LBFGS([weight]))(torch.full((3,), 1.0))
    assert len(draws) > 2
    assert len(set(draws)) == 1
    torch.testing.assert_close(weight.detach(), torch.ones(3), atol=1e-3, rtol=0)
    next_draw = torch.randn(())
    assert next_draw.item() != draws[0]


def test_lbfgs_reaches_a_lower_error_than_adam_on_a_full_batch(tiny: Callable[..., Path]) -> None:

    overrides = ("model=linear", "model.code_dim=8", "likelihood=gaussian", "batch_size=64", "epochs=3")
    sse = [
        json.loads((tiny(*overrides, f"optimizer={name}", name=name) / "metrics.json").read_text())["test/sse"]
        for name in ("lbfgs", "adam")
    ]
    assert sse[0] < sse[1]


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_weight_decay_shrinks_weights(optimizer: str) -> None:
    norms = []
    for decay in (0.0, 10.0):
        components = build_components(f"optimizer={optimizer}", f"optimizer.weight_decay={decay}", "optimizer.lr=1e-3")
        x = random_images(8, components.model.image_shape)
        for _ in range(20):
            components.optimizer_steps[0](x)
        norms.append(sum(p.detach().square().sum().item() for p in components.model.parameters()))
    assert norms[1] < norms[0]


def test_sgd_has_momentum() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = build_components("optimizer=sgd", "optimizer.momentum=0.5", "optimizer.lr=0.1").make_optimizer([weight])
    changes = []
    for _ in range(2):
        before = weight.item()
        weight.grad = torch.ones(1)
        optimizer.step()
        changes.append(before - weight.item())
    assert math.isclose(changes[1], 1.5 * changes[0], rel_tol=1e-5)


# --- The smallest data set --------------------------------------------------------------------------------------------


def test_toy_points_lie_near_a_plane() -> None:
    train, test = Toy().read()
    points = train.pixels.flatten(1).double() / 255
    deviations = torch.linalg.svdvals(points - points.mean(0)) / math.sqrt(len(points))
    np.testing.assert_allclose(deviations.numpy(), [0.15, 0.08, 0.02], rtol=0.05)
    assert len(test) == 1000


@pytest.mark.slow
def test_linear_autoencoder_finds_the_plane(run: Callable[..., Path]) -> None:

    directory = run(
        "experiment=linear_is_pca",
        "dataset=toy",
        "model.code_dim=2",
        "batch_size=50",
        "epochs=30",
        "optimizer.lr=0.05",
        "views=none",
        "device=cpu",
    )
    metrics = json.loads((directory / "metrics.json").read_text())
    assert metrics["test/sse"] < 1.01 * metrics["test/pca_sse"]
    assert metrics["test/pca_angle"] < 5


# --- A code that is meant to be sparse and is not ---------------------------------------------------------------------

LINEAR_CODE = "but none exactly 0: use model.code_activation=relu, or sparsity=topk"


@pytest.mark.parametrize(
    ("overrides", "setting"),
    [
        (("sparsity=l1",), "sparsity"),
        (("penalty=l1",), "penalty.l1"),
        (("model=linear", "likelihood=gaussian", "sparsity=l1"), "sparsity"),
        (("model=vae", "+model.penalties.l1={_target_: aetrain.objective.penalties.L1}"), "model.penalties.l1"),
        (("sparsity=l1", "model.code_activation=relu", "sparsity.weight=1e-3"), None),
        (("sparsity=l1", "sparsity.weight=0"), None),
        (("sparsity=l1", "sparsity.layers=hidden"), None),
        (("sparsity=topk", "penalty=l1"), None),
        (("model=sparse_coding", "penalty=l1"), None),
        (("sparsity=wta",), None),
        (("penalty=l2",), None),
    ],
)
def test_a_dense_code_is_reported_before_and_after_training(
    overrides: tuple[str, ...], setting: str | None, tiny: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    directory = tiny(*overrides)
    warned = [record.getMessage() for record in caplog.records if LINEAR_CODE in record.getMessage()]
    found = [item for item in json.loads((directory / "findings.json").read_text()) if "not sparse" in item["what"]]
    if setting is None:
        assert (warned, found) == ([], [])
        return
    assert len(warned) == 1
    assert warned[0].startswith(f"{setting}: an L1 penalty")
    l0 = RunDirectory(directory).metrics()["test/l0"]
    assert found[0]["evidence"].startswith(f"{setting} leaves {l0:.0f} of the code's {l0:.0f} units")
    assert found[0]["remedy"] == "try model.code_activation=relu or sparsity=topk"


def test_an_activation_far_above_its_target_is_reported(tiny: Callable[..., Path]) -> None:
    """Untrained sigmoid units have a mean activation near 0.5."""
    evidence = {}
    for target in (0.1, 0.4):
        directory = tiny("sparsity=kl", f"sparsity.target={target}", "epochs=0", name=str(target))
        findings = json.loads((directory / "findings.json").read_text())
        evidence[target] = [item["evidence"] for item in findings if "not sparse" in item["what"]]
    assert len(evidence[0.1]) == 1
    assert "sparsity.target is 0.1" in evidence[0.1][0]
    assert evidence[0.4] == []


@pytest.mark.parametrize("key", ["sparsity", "penalty.l2", "model.penalties.kl"])
def test_a_negative_weight_is_refused(key: str, tiny: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=rf"{key}.*weight=-1.* is negative: use 0 or more"):
        tiny("model=vae", "sparsity=l1", "penalty=l2", f"{key}.weight=-1")


@pytest.mark.parametrize(("activation", "is_warned"), [("silu", True), ("relu", False)])
def test_an_l1_penalty_on_smooth_hidden_units_is_reported_before_training(
    activation: str, is_warned: bool, tiny: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    tiny("sparsity=l1", "sparsity.layers=hidden", f"model.activation={activation}", "epochs=0")
    text = (
        "sparsity: an L1 penalty makes hidden units small, but only rectified ones exactly 0: use model.activation=relu"
    )
    assert (text in [record.getMessage() for record in caplog.records]) == is_warned
