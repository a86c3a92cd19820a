"""Every formula a second way: SVD, Monte Carlo, autograd, torch.distributions, scikit-learn."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributions

from aetrain.data.examples import Prepare, random_crops
from aetrain.data.noise import Gaussian as GaussianNoise
from aetrain.data.noise import Replace
from aetrain.evaluation import evaluator, image_errors
from aetrain.model.bottlenecks import Deterministic, Gaussian
from aetrain.model.codes import GaussianCode
from aetrain.model.conv import Up, conv
from aetrain.model.dense import dense
from aetrain.model.layers import TiedLinear, TopK
from aetrain.model.likelihoods import Bernoulli
from aetrain.model.likelihoods import Gaussian as GaussianPixels
from aetrain.model.pca import PCA
from aetrain.model.records import Forward
from aetrain.objective.penalties import KL, L1, KLSparsity

SHAPE = (1, 6, 5)


def small_model(**settings: Any) -> Any:
    arguments: dict[str, Any] = {"hidden": [12], "code_dim": 4} | settings
    torch.manual_seed(0)
    return dense(SHAPE, Bernoulli(), torch.nn.Identity(), (0.0, 1.0), **arguments)


def random_images(count: int, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def test_bernoulli_nll_equals_torch_distributions() -> None:
    logits, x = torch.randn(5, *SHAPE), random_images(5).round()
    expected = -distributions.Bernoulli(logits=logits).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(Bernoulli().nll(logits, x), expected)


@pytest.mark.parametrize("variance", [0.5, 0.1, 2.0])
def test_gaussian_nll_equals_torch_distributions_without_its_constant(variance: float) -> None:
    means, x = torch.randn(5, *SHAPE), random_images(5)
    constant = 0.5 * math.log(2 * math.pi * variance) * x[0].numel()
    expected = -distributions.Normal(means, math.sqrt(variance)).log_prob(x).sum((1, 2, 3)) - constant
    torch.testing.assert_close(GaussianPixels(variance).nll(means, x), expected)


def test_gaussian_nll_of_variance_one_half_is_the_squared_error() -> None:
    means, x = torch.randn(5, *SHAPE), random_images(5)
    torch.testing.assert_close(GaussianPixels().nll(means, x), evaluator.sse(means, x))


def test_mean_of_a_scaled_likelihood_is_in_pixel_units() -> None:
    likelihood, x = GaussianPixels(scale=(-1.0, 1.0)), random_images(3)
    assert likelihood.nll(2 * x - 1, x).abs().max() < 1e-9
    torch.testing.assert_close(likelihood.mean(2 * x - 1), x)


def test_gaussian_kl_equals_torch_distributions_and_monte_carlo() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_var = torch.randn(3, 4, generator=generator), torch.randn(3, 4, generator=generator)
    code = GaussianCode(z=mean, mean=mean, log_var=log_var)
    kl = KL()(small_model(), Forward(x=mean, x_in=mean, hidden=(), code=code, decoded=mean))
    q, p = distributions.Normal(mean, (0.5 * log_var).exp()), distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(kl, distributions.kl_divergence(q, p).sum(1))
    torch.manual_seed(0)
    z = q.sample((200_000,))
    log_ratios = (q.log_prob(z) - p.log_prob(z)).sum(2)
    error = log_ratios.std(0) / math.sqrt(len(log_ratios))
    assert ((log_ratios.mean(0) - kl).abs() < 5 * error).all()


def test_gaussian_code_has_the_stated_moments() -> None:
    torch.manual_seed(0)
    bottleneck = Gaussian(6, 3).train()
    features = torch.randn(1, 6).expand(100_000, 6)
    code = bottleneck(features)
    torch.testing.assert_close(code.z.mean(0), code.mean[0], atol=0.02, rtol=0)
    torch.testing.assert_close(code.z.var(0), code.log_var[0].exp(), atol=0.02, rtol=0.02)


@given(target=st.floats(0.01, 0.99), rate=st.floats(0.01, 0.99))
@settings(max_examples=50, deadline=None)
def test_kl_sparsity_equals_torch_distributions(target: float, rate: float) -> None:
    z = torch.full((8, 3), rate, dtype=torch.float64)
    code = GaussianCode(z=z, mean=z, log_var=z)
    out = Forward(x=z, x_in=z, hidden=(), code=code, decoded=z)
    expected = distributions.kl_divergence(
        distributions.Bernoulli(torch.tensor(target, dtype=torch.float64)),
        distributions.Bernoulli(torch.tensor(rate, dtype=torch.float64)),
    )
    torch.testing.assert_close(KLSparsity(target, 1.0)(small_model(), out), 3 * expected, atol=1e-9, rtol=1e-9)


def test_l1_equals_the_vector_norm_of_the_code_or_of_all_hidden_layers() -> None:
    model, x = small_model(hidden=[12, 7]), random_images(4)
    out = model(x)
    torch.testing.assert_close(L1(layers="code")(model, out), torch.linalg.vector_norm(out.code.z, ord=1, dim=1))
    all_hidden = torch.cat([h.flatten(1) for h in out.hidden], 1)
    torch.testing.assert_close(L1(layers="hidden")(model, out), torch.linalg.vector_norm(all_hidden, ord=1, dim=1))


@given(k=st.integers(1, 9), seed=st.integers(0, 1000), ties=st.booleans())
@settings(max_examples=50, deadline=None)
def test_topk_keeps_exactly_the_k_largest(k: int, seed: int, ties: bool) -> None:
    z = torch.randn(6, 9, generator=torch.Generator().manual_seed(seed)) + 10  # no unit is 0 before TopK
    z = z.round() if ties else z
    code = TopK(k)(z)
    assert torch.equal(TopK(1, eval_k=k).eval()(z), code)
    assert ((code != 0).sum(1) == k).all()
    torch.testing.assert_close(code.sort(1, descending=True).values[:, :k], z.sort(1, descending=True).values[:, :k])
    assert ((code == z) | (code == 0)).all()


def test_tied_layers_share_their_weights_before_and_after_training() -> None:
    model, untied = small_model(tied=True), small_model()
    pairs = [(layer, layer.source) for layer in model.decoder.layers]
    assert all(isinstance(layer, TiedLinear) for layer, _ in pairs)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    x = random_images(8)
    for _ in range(3):
        optimizer.zero_grad()
        out = model(x)
        model.likelihood.nll(out.decoded, x).sum().backward()
        optimizer.step()
    model.to(torch.float64).to(torch.float32)
    sources = {id(p) for p in model.parameters()}
    assert all(id(source.weight) in sources for _, source in pairs)
    h = torch.randn(2, 4)
    torch.testing.assert_close(pairs[0][0](h), h @ model.bottleneck.project.weight + pairs[0][0].bias)
    num_weights = [sum(p.numel() for p in m.parameters() if p.dim() > 1) for m in (model, untied)]
    assert 2 * num_weights[0] == num_weights[1]


def test_tied_gradient_is_the_sum_of_the_gradients_of_both_layers() -> None:
    tied, x = small_model(tied=True, hidden=[]), random_images(5)
    tied.likelihood.nll(tied(x).decoded, x).sum().backward()
    weight = tied.bottleneck.project.weight
    w_in, w_out = (weight.detach().clone().requires_grad_() for _ in range(2))
    z = x.flatten(1) @ w_in.t() + tied.bottleneck.project.bias.detach()
    decoded = (z @ w_out + tied.decoder.layers[0].bias.detach()).view_as(x)
    tied.likelihood.nll(decoded, x).sum().backward()
    torch.testing.assert_close(weight.grad, w_in.grad + w_out.grad)


def test_pca_equals_sklearn_and_the_svd() -> None:
    from sklearn.decomposition import PCA as SklearnPCA

    x = random_images(200) ** 2
    pca = PCA.fit(x.split(64), 5)
    reference = SklearnPCA(5, svd_solver="full").fit(x.flatten(1).numpy())
    np.testing.assert_allclose(pca.mean.numpy(), reference.mean_, atol=1e-5)
    np.testing.assert_allclose(pca.variances.numpy() * 200 / 199, reference.explained_variance_, rtol=1e-4)
    np.testing.assert_allclose(np.abs(pca.components.numpy() @ reference.components_.T), np.eye(5), atol=1e-3)
    centred = x.flatten(1) - x.flatten(1).mean(0)
    _, s, _ = torch.linalg.svd(centred, full_matrices=False)
    residual = evaluator.sse(pca.reconstruct(x), x).sum()
    torch.testing.assert_close(residual, s[5:].square().sum(), rtol=1e-4, atol=1e-4)


def test_angle_between_subspaces_equals_scipy() -> None:
    from scipy.linalg import subspace_angles

    a, b = PCA.fit([random_images(200, seed=1)], 4), PCA.fit([random_images(200, seed=2)], 4)
    expected = math.degrees(subspace_angles(a.components.t().double().numpy(), b.components.t().double().numpy()).max())
    assert abs(a.angle_to(b) - expected) < 1e-3
    assert a.angle_to(a) < 0.1


def test_pca_with_more_units_than_pixels_is_exact() -> None:
    x = random_images(50)
    torch.testing.assert_close(PCA.fit([x], 100).reconstruct(x), x, atol=1e-4, rtol=0)


def test_entropy_equals_torch_distributions_and_bounds_the_cross_entropy() -> None:
    x = random_images(4)
    torch.testing.assert_close(image_errors.entropy(x), distributions.Bernoulli(x).entropy().sum((1, 2, 3)))
    assert (image_errors.entropy(torch.zeros(1, *SHAPE)) == 0).all()
    assert (image_errors.bce(random_images(4, seed=1), x) > image_errors.entropy(x)).all()
    torch.testing.assert_close(image_errors.bce(x, x), image_errors.entropy(x), atol=1e-4, rtol=1e-4)


def test_psnr_and_ssim_of_known_images() -> None:
    x = random_images(3, (1, 28, 28))
    torch.testing.assert_close(image_errors.psnr(x + 0.1, x), torch.full((3,), 20.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(image_errors.ssim(x, x), torch.ones(3))
    for side in (2, 5, 8, 10, 28):  # crops and small images get a smaller window
        value = image_errors.ssim(random_images(2, (1, side, side), 1), random_images(2, (1, side, side), 2))
        assert value.shape == (2,)
        assert (value < 0.99).all()


@pytest.mark.parametrize(("white", "low", "high"), [(0.0, 0.7, 0.0), (1.0, 0.7, 0.3), (0.5, 0.7, 0.15)])
def test_replacing_noise_changes_the_stated_share_of_pixels(white: float, low: float, high: float) -> None:
    x = torch.full((100, 1, 40, 40), 0.5)
    noisy = Replace(p=0.3, white=white)(x, torch.Generator().manual_seed(0))
    assert abs((noisy == 0.5).float().mean() - low) < 0.005
    assert abs((noisy == 1).float().mean() - high) < 0.005
    assert set(noisy.unique().tolist()) <= {0.0, 0.5, 1.0}


def test_noise_of_strength_0_is_the_identity_and_noise_copies_its_input() -> None:
    x = random_images(3)
    before = x.clone()
    for noise in (Replace(0.0, 0.5), GaussianNoise(0.0)):
        torch.testing.assert_close(noise(x), x)
    Replace(1.0, 0.5)(x)
    GaussianNoise(2.0)(x)
    assert torch.equal(x, before)


def test_gaussian_noise_has_the_stated_standard_deviation() -> None:
    x = torch.full((50, 1, 40, 40), 0.5)
    difference = GaussianNoise(0.3, clip=False)(x, torch.Generator().manual_seed(0)) - x
    assert abs(difference.std() - 0.3) < 0.005
    assert abs(difference.mean()) < 0.005
    clipped = GaussianNoise(2.0)(x)
    assert clipped.min() == 0
    assert clipped.max() == 1


def test_random_crops_are_squares_of_the_image() -> None:
    pixels = torch.arange(3 * 2 * 7 * 9, dtype=torch.uint8).view(3, 2, 7, 9)
    crops = random_crops(pixels, 4, torch.Generator().manual_seed(0))
    assert crops.shape == (3, 2, 4, 4)
    for image, crop in zip(pixels, crops, strict=True):
        windows = image.unfold(1, 4, 1).unfold(2, 4, 1).permute(1, 2, 0, 3, 4).reshape(-1, 2, 4, 4)
        assert any(torch.equal(crop, window) for window in windows)


def test_dynamic_binarisation_draws_white_with_the_grey_value_as_probability() -> None:
    pixels = torch.full((2000, 1, 4, 4), 51, dtype=torch.uint8)
    x = Prepare(dynamic=True)(pixels, torch.Generator().manual_seed(0))
    assert set(x.unique().tolist()) == {0.0, 1.0}
    assert abs(x.mean() - 0.2) < 0.01


@pytest.mark.parametrize("side", [8, 10, 28])
@pytest.mark.parametrize("up", ["transpose", "nearest", "unpool"])
def test_conv_decodes_to_the_size_of_its_input(side: int, up: Up) -> None:
    model = conv((3, side, side + 1), Bernoulli(), torch.nn.Identity(), (0.0, 1.0), 4, [4, 6, 8], down="maxpool", up=up)
    assert model(random_images(2, (3, side, side + 1))).decoded.shape == (2, 3, side, side + 1)
    assert model.decode(torch.zeros(2, 4)).shape == (2, 3, side, side + 1)


def test_unpooling_restores_the_positions_of_the_maxima() -> None:
    x = random_images(2, (1, 7, 7))
    pooled, indices = torch.nn.functional.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
    unpooled = torch.nn.functional.max_unpool2d(pooled, indices, (2, 2), output_size=(7, 7))
    assert ((unpooled == x) | (unpooled == 0)).all()
    assert ((unpooled != 0).sum((1, 2, 3)) == pooled[0].numel()).all()


def test_deterministic_code_is_the_projection() -> None:
    bottleneck, features = Deterministic(6, 3), torch.randn(2, 6)
    torch.testing.assert_close(
        bottleneck(features).z, features @ bottleneck.project.weight.t() + bottleneck.project.bias
    )


def test_random_code_is_drawn_in_training_and_its_mean_in_evaluation() -> None:
    model, x = small_model(bottleneck=Gaussian), random_images(3)
    model.eval()
    assert torch.equal(model.reconstruct(x), model.reconstruct(x))
    model.train()
    assert not torch.equal(model.reconstruct(x), model.reconstruct(x))
