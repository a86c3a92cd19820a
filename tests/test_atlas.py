"""Pictures of hidden units and of the code against closed forms, for every layer of every family."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from conftest import layers_of
from PIL import Image
from test_views import context_of, event_file, layer_picture, make_model, picture, read_event_file, some_images
from torch import Tensor, nn
from torch.nn import functional as F

from aetrain import api
from aetrain.config.paths import groups
from aetrain.data.examples import Examples
from aetrain.data.mnist import FashionMnist
from aetrain.data.noise import Replace
from aetrain.evaluation.evaluator import sse
from aetrain.evaluation.measures.robustness import noise_kinds
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.bottlenecks import Gaussian, Quantized
from aetrain.model.codes import GaussianCode, QuantizedCode
from aetrain.model.conv import conv
from aetrain.model.dense import dense
from aetrain.model.layers import TopK
from aetrain.model.likelihoods import Bernoulli
from aetrain.model.likelihoods import Gaussian as Normal
from aetrain.model.lstm import lstm
from aetrain.model.records import Tap
from aetrain.runs import entry
from aetrain.runs.build import build
from aetrain.views.atlas import compute_histograms, crop_changes, format_rate, top_images
from aetrain.views.codes import CodeGrid, code_plane
from aetrain.views.context import ViewContext
from aetrain.views.error_analysis import Errors, NoiseMap
from aetrain.views.latent_paths import Interpolations, Traversals, format_short
from aetrain.views.projector import Embedding, Projector, thumbnail_sheet
from aetrain.views.render import DEAD_COLOUR, GAP, SATURATED_COLOUR, draw_frames, grid
from aetrain.views.scatter import scatter
from aetrain.views.unit_activations import UnitActivations, input_gradient, record_activations
from aetrain.views.units import Units, frame_colours, order_units, seriate

vae = partial(dense, hidden=[16], bottleneck=Gaussian)
SIDE = 80  # of a small tile of an image of 8 pixels
ORDERS: tuple[Literal["number", "rate"], ...] = ("number", "rate")
deep = partial(dense, hidden=[16, 12], activation="sigmoid")


def tap_of(context: ViewContext, name: str) -> Tap:
    return next(tap for tap in context.unit_layers if tap.name == name)


def activations_of(values: Tensor, module: nn.Module | None = None, fired: Tensor | None = None) -> UnitActivations:
    tap = Tap(name="layer", module=module or nn.ReLU())
    return UnitActivations(tap, values, values != 0 if fired is None else fired)


def slow_except(fast: str, options: Iterable[str]) -> list[Any]:
    """Return one test parameter for each option; all are marked as slow, except `fast`."""
    return [pytest.param(option, marks=() if option == fast else pytest.mark.slow) for option in options]


def test_a_unit_of_a_smooth_activation_fires_above_zero_also_where_another_one_underflows() -> None:
    model = dense((1, 8, 8), Bernoulli(), nn.Identity(), (0.0, 1.0), 4, [16], activation="gelu").eval()
    with torch.no_grad():
        layers_of(model.encoder)[0].bias[0] = -1000  # the activation is exactly 0
    values = record_activations(model, torch.rand(20, 1, 8, 8))[1]["hidden1"]
    assert values.values[:, 0].eq(0).all()
    assert torch.equal(values.fired, values.values > 0)


# --- every option of configs/model ---


@pytest.mark.slow
@pytest.mark.parametrize("model", slow_except("conv_vae", groups()["model"]))
@pytest.mark.usefixtures("small_figures")
def test_an_event_file_has_the_units_of_every_layer(model: str, tiny: Callable[..., Path]) -> None:
    directory = tiny(f"model={model}", "views=all", "dataset.subset=32", "epochs=0")
    layers = [tap.name for tap in api.load(directory).model.unit_layers()]
    assert "code" in layers
    assert len(set(layers)) == len(layers)
    log = read_event_file(event_file(directory))
    for view in ("units", "units_sorted", "atlas"):
        for name in layers:
            (event,) = log.Images(f"views_{view}/{name}")
            assert event.step == 0
            assert (directory / "figures" / f"{view}-{name}.png").is_file()
    for name in ("code", "interpolations", "traversals", "errors"):
        assert len(log.Images(f"views/{name}")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("model", groups()["model"])
def test_the_activations_of_layers_equal_those_of_the_forward_pass(model: str) -> None:
    config, _, overrides = api.compose_config([f"model={model}", "dataset=digits", "device=cpu"])
    context = context_of(build(entry.check(config, overrides)).model, some_images(count=20))
    recorded = {name: activations.values for name, activations in context.activations.items()}
    hidden = [values for name, values in recorded.items() if name.startswith("hidden")]
    assert len(hidden) == len(context.out.hidden)
    for values, expected in zip(hidden, context.out.hidden, strict=True):
        assert torch.equal(values, expected)
    assert torch.equal(recorded["code"], context.z)
    assert len({tap.module for tap in context.unit_layers}) == len(context.unit_layers), "no two layers share a module"
    assert not any(tap.module._forward_hooks or tap.module._forward_pre_hooks for tap in context.unit_layers)
    with torch.no_grad():
        assert torch.equal(context.model(context.x).decoded, context.out.decoded)


def test_fewer_of_large_images_are_used() -> None:
    large = Examples(torch.zeros(1, 3, 150, 150, dtype=torch.uint8).expand(900, -1, -1, -1))
    assert len(context_of(make_model(dense), large).x) == 100
    assert len(context_of(make_model(dense), some_images(count=1200)).x) == 1000


# --- the input that activates a unit most ---


def linear_chain() -> Autoencoder:
    return make_model(partial(dense, hidden=[10, 7], activation="identity"), code_dim=4)


def test_the_ascent_finds_the_closed_form_of_linear_units() -> None:
    model = linear_chain()
    context = context_of(model, some_images())
    first, second = (layer.weight.detach() for layer in layers_of(model.encoder))
    project = model.bottleneck.project.weight.detach()
    for name, product in (("hidden1", first), ("hidden2", second @ first), ("code", project @ second @ first)):
        optimum = context.max_activating_input(tap_of(context, name), 64, "pixels")
        assert optimum is not None
        torch.testing.assert_close(optimum.flatten(1), F.normalize(product, dim=1), rtol=0, atol=1e-4)
    optimum = context.max_activating_input(tap_of(context, "code"), 64, "data_covariance")
    assert optimum is not None
    covariance = torch.cov(context.x.flatten(1).t(), correction=0)  # of all 60 images, fewer than COVARIANCE_IMAGES
    expected = F.normalize(project @ second @ first @ covariance, dim=1)
    torch.testing.assert_close(optimum.flatten(1), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("make", [deep, partial(lstm, hidden=[9]), partial(dense, hidden=[16], bottleneck=Quantized)])
def test_the_optimum_activates_more_than_images_and_is_reproducible(make: Callable[..., Autoencoder]) -> None:
    model = make_model(make, code_dim=16)
    context = context_of(model, some_images())
    radius = float((context.x - context.mean_image).flatten(1).norm(dim=1).mean())
    for tap in context.unit_layers:
        optimum = context.max_activating_input(tap, 4, "pixels")
        assert optimum is not None
        second = context_of(model, some_images()).max_activating_input(tap, 4, "pixels")
        assert second is not None
        assert torch.equal(optimum, second)
        at_optimum = context_of(model, some_images())
        object.__setattr__(at_optimum, "x", context.mean_image + radius * optimum)
        reached = at_optimum.activations[tap.name].per_image.diagonal()
        assert (reached > context.activations[tap.name].per_image[:, :4].mean(0)).all(), tap.name


def test_fewer_units_are_the_first_of_more() -> None:
    context = context_of(make_model(deep), some_images())
    more = context.max_activating_input(tap_of(context, "hidden2"), 9)
    fewer = context.max_activating_input(tap_of(context, "hidden2"), 4)
    assert more is not None
    assert fewer is not None
    assert torch.equal(fewer, more[:4])
    assert more.shape == (9, 1, 8, 8)


def test_feature_maps_have_the_receptive_field_of_their_middle() -> None:
    model = make_model(partial(conv, channels=(4, 8), kernel=3), (1, 28, 28))
    context = context_of(model, some_images((1, 28, 28)))
    kernels, second = (context.max_activating_input(tap_of(context, name), 8) for name in ("hidden1", "hidden2"))
    assert kernels is not None
    assert second is not None
    first = model.first_layer_weights()[0, 0].detach()
    torch.testing.assert_close(kernels[0, 0], first / first.norm())
    assert second.shape[2:] == (7, 7), "3 + (3 - 1) * 2, after two strides of 2"
    decoder = context.max_activating_input(tap_of(context, "decoder1"), 8)
    assert decoder is not None
    assert decoder.shape[2:] == (28, 28), "units behind the code see the whole image"


# --- the effect of a single unit on the image ---


def test_the_effect_of_a_code_unit_is_its_weights_times_its_largest_activation() -> None:
    torch.manual_seed(0)
    model = dense((1, 8, 8), Normal(), nn.Identity(), (0.0, 1.0), code_dim=3)
    with torch.no_grad():
        assert model.decoder.output_bias is not None
        model.decoder.output_bias.fill_(0.5)
        model.bottleneck.project.weight.abs_().mul_(0.1)
        layers_of(model.decoder)[0].weight.mul_(0.1)
    context = context_of(model, some_images())
    effects = context.single_unit_effect(tap_of(context, "code"), torch.tensor([0, 2]))
    columns = layers_of(model.decoder)[0].weight.detach().t()
    for effect, unit in zip(effects.flatten(1), (0, 2), strict=True):
        torch.testing.assert_close(effect, context.z[:, unit].max() * columns[unit], rtol=0, atol=1e-6)


def test_the_effect_of_a_hidden_unit_passes_through_all_later_layers() -> None:
    model = make_model(deep)
    context = context_of(model, some_images())
    unit, hidden = 3, context.out.hidden[1]
    active = torch.zeros(2, 12)
    active[0, unit] = hidden[:, unit].max()
    with torch.no_grad():
        with_unit, without_units = model.decode_pixels(model.bottleneck(active).z)
        effects = context.single_unit_effect(tap_of(context, "hidden2"), torch.tensor([unit]))
    torch.testing.assert_close(effects[0], with_unit - without_units)


def test_the_effect_of_a_codeword_is_in_every_group() -> None:
    model = make_model(partial(dense, bottleneck=partial(Quantized, groups=2, num_codewords=6)), code_dim=4)
    context = context_of(model, some_images())
    bottleneck = model.bottleneck
    assert isinstance(bottleneck, Quantized)
    with torch.no_grad():
        pictures = model.decode_pixels(bottleneck.codebook.weight.repeat(1, 2))  # [6, C, H, W]
        effects = context.single_unit_effect(tap_of(context, "codebook"), torch.arange(6))
    torch.testing.assert_close(effects, pictures - pictures.mean(0))
    code = context.out.code
    assert isinstance(code, QuantizedCode)
    rate = code.index.flatten().bincount(minlength=6) / code.index.numel()
    torch.testing.assert_close(context.activations["codebook"].rate, rate)
    assert torch.equal(context.activations["codebook"].dead, rate == 0)


def test_changes_are_cropped_to_where_they_are_not_zero_and_faint_ones_stay_faint() -> None:
    changes = torch.zeros(2, 1, 20, 20)
    changes[0, 0, 9:12, 8:11] = 1.0
    changes[1, 0, 10, 10] = 0.01
    cropped = crop_changes(changes)
    assert cropped.shape == (2, 1, 3, 3)
    torch.testing.assert_close(cropped.flatten(1).norm(dim=1), torch.tensor([1.0, 0.2]))
    assert crop_changes(torch.zeros(2, 1, 20, 20)).shape == (2, 1, 20, 20)


# --- firing rates ---


def test_rates_and_dead_and_saturated_units() -> None:
    relu = activations_of(torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.0, 2.0]]))
    assert relu.rate.tolist() == [0, 0.5, 1]
    assert relu.dead.tolist() == [True, False, True], "a unit that is always on or always off is dead"
    assert relu.saturated.tolist() == [False] * 3
    high = torch.full((100, 1), 0.999)
    middle = torch.linspace(0.2, 0.8, 100)[:, None]
    both = torch.cat([torch.full((50, 1), 0.001), high[:50]])
    logistic = activations_of(torch.cat([middle, both, high], 1), nn.Sigmoid())
    assert logistic.saturated.tolist() == [False, True, False], "the last unit is dead"
    assert logistic.dead.tolist() == [False, False, True]
    assert frame_colours(logistic, torch.tensor([2, 1, 0])) == [DEAD_COLOUR, SATURATED_COLOUR, None]
    assert Tap(name="", module=nn.Sequential(nn.Tanh(), nn.Identity())).bounds == (-1.0, 1.0)


def test_units_that_are_never_zero_fire_above_the_middle() -> None:
    context = context_of(make_model(deep), some_images())
    hidden = context.activations["hidden1"]
    torch.testing.assert_close(hidden.rate, (hidden.values > 0.5).float().mean(0))
    sparse = context_of(make_model(partial(dense, hidden=[16], activation="relu")), some_images()).activations[
        "hidden1"
    ]
    torch.testing.assert_close(sparse.rate, (sparse.values > 0).float().mean(0))
    linear = context_of(make_model(dense), some_images()).activations["code"]
    torch.testing.assert_close(linear.rate, (linear.values > 0).float().mean(0))


def test_top_images_have_the_largest_activations() -> None:
    context = context_of(make_model(deep), some_images())
    images, _, _ = context.activations["code"].top_positions(torch.tensor([2]), 3)
    assert images[0].tolist() == context.z[:, 2].argsort(descending=True)[:3].tolist()
    assert torch.equal(top_images(context, context.activations["code"], torch.tensor([2]), 3)[0], context.x[images[0]])


@pytest.mark.parametrize("down", ["stride", "maxpool"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 11, 15)])
def test_top_patches_have_the_largest_responses_of_the_kernel(down: Any, shape: tuple[int, int, int]) -> None:
    model = make_model(partial(conv, channels=(4,), down=down, up="nearest"), shape)
    context = context_of(model, some_images(shape))
    activations = context.activations["hidden1"]
    patches = top_images(context, activations, torch.arange(4), 2)  # [4, 2, C, 3, 3]
    conv2d = layers_of(model.encoder)[0]
    responses = torch.einsum("ukcyx,ucyx->uk", patches, conv2d.weight) + conv2d.bias[:, None]
    torch.testing.assert_close(responses[:, 0].relu(), activations.values.transpose(0, 1).flatten(1).amax(1))


def test_histograms_share_a_scale_and_count_all_activations() -> None:
    activations = activations_of(torch.tensor([[0.0, 4.0], [0.0, 2.0], [1.0, 2.0], [1.0, 2.0]]))
    heights, low, high = compute_histograms(activations, torch.arange(2))
    assert (low, high) == (0, 4)
    torch.testing.assert_close(heights.square().sum(1), torch.ones(2))
    assert heights[0].nonzero().flatten().tolist() == [0, 7]
    assert float(heights[1, 14] ** 2) == pytest.approx(0.75)
    assert [format_rate(rate) for rate in (0, 0.0004, 0.031, 0.5, 1)] == ["0 %", "0.0 %", "3.1 %", "50 %", "100 %"]


def test_units_are_sorted_by_rate_and_by_similarity() -> None:
    threshold = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    columns = (torch.linspace(-1, 12, 500)[:, None] > threshold).float()  # unit j is active above `threshold[j]`
    order = threshold[seriate(columns)].tolist()
    assert order in (list(range(12)), list(range(11, -1, -1)))
    values = torch.tensor([[0.0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 1, 2]])
    activations = activations_of(values)
    assert order_units(activations, torch.arange(4), "rate").tolist() == [2, 1, 3, 0]
    similarity_order = order_units(activations, torch.arange(4), "similarity").tolist()
    assert similarity_order[2:] == [0, 2], "constant units are last"
    context = context_of(make_model(deep), some_images())
    by_number, by_rate = (layer_picture(Units(order=name)(context), "hidden1") for name in ORDERS)
    assert by_number.shape == by_rate.shape
    assert not torch.equal(by_number, by_rate)


def test_frames_are_only_around_their_tiles() -> None:
    sheet = grid(torch.zeros(4, 1, 4, 4), 2, gaps=1.0)
    assert draw_frames(sheet, [None] * 4, (112, 112), 2) is sheet
    framed = draw_frames(sheet, [None, DEAD_COLOUR, None, None], (112, 112), 2)
    red = (framed == torch.tensor(DEAD_COLOUR)[:, None, None] / 255).all(0).nonzero()
    assert red.amin(0).tolist() == [GAP // 2, GAP + 112 + GAP // 2]
    assert red.amax(0).tolist() == [GAP + 112 + GAP // 2 - 1, 2 * GAP + 2 * 112 + GAP // 2 - 1]
    assert torch.equal(framed[:, GAP : GAP + 112, GAP : GAP + 112], torch.zeros(3, 112, 112))


def test_a_layer_without_gradient_has_no_picture() -> None:
    class Opaque(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return z.detach()

    model = make_model(deep)
    model.code_transform[0] = Opaque()
    context = context_of(model, some_images())
    assert input_gradient(model, tap_of(context, "decoder1"), torch.arange(2), context.x[:2]) is None
    assert "decoder1" not in Units()(context).pictures
    assert "hidden2" in Units()(context).pictures


# --- pictures of the code ---


def test_the_grid_of_codes_is_in_the_plane_of_the_map() -> None:
    context = context_of(make_model(deep, code_dim=6), some_images())
    middle, axes = code_plane(context)
    torch.testing.assert_close(axes.t() @ axes, torch.eye(2, dtype=axes.dtype))
    view = CodeGrid(side=5, limit=0.1)  # so near to the mean that no unit leaves its range
    coordinates = (view.codes_in_plane(context).double() - middle) @ axes
    std = ((context.z.double() - middle) @ axes).std(0, correction=0)
    torch.testing.assert_close(coordinates, view.coordinates().double() * std, rtol=0, atol=1e-6)
    wide = CodeGrid(side=5, limit=50.0).codes_in_plane(context)
    assert (wide >= context.z.min(0).values).all()
    assert (wide <= context.z.max(0).values).all()


def test_codes_of_the_grid_are_sparse_or_of_codewords_as_in_the_family() -> None:
    sparse = make_model(partial(dense, hidden=[16]), code_dim=8)
    sparse.code_transform[1] = TopK(2)
    assert ((CodeGrid().codes_in_plane(context_of(sparse, some_images())) != 0).sum(1) <= 2).all()
    quantized = make_model(partial(dense, bottleneck=partial(Quantized, groups=2, num_codewords=6)), code_dim=4)
    assert isinstance(quantized.bottleneck, Quantized)
    codewords = quantized.bottleneck.codebook.weight
    codes = CodeGrid().codes_in_plane(context_of(quantized, some_images())).unflatten(1, (2, 2))
    assert (codes[:, :, None] == codewords).all(3).any(2).all()
    with torch.no_grad():
        z = quantized.encode(torch.rand(5, 1, 8, 8)).z
        assert torch.equal(quantized.project_to_code_space(z), z)


def test_interpolations_begin_and_end_at_reconstructions() -> None:
    model, images = make_model(vae), some_images()
    context = context_of(model, images)
    sheet = picture(Interpolations(count=2, steps=3)(context))
    tiles = sheet[0, GAP:, GAP:].unfold(0, 112, 112 + GAP).unfold(1, 112, 112 + GAP)[:, :, 7::14, 7::14]  # [2, 5, 8, 8]
    begin, end = tiles[0, 0], tiles[0, 4]
    with torch.no_grad():
        for image, reconstruction in ((begin, tiles[0, 1]), (end, tiles[0, 3])):
            torch.testing.assert_close(reconstruction, model.reconstruct(image[None, None])[0, 0])
        z = model.encode(torch.stack([begin, end])[:, None]).z
        torch.testing.assert_close(tiles[0, 2], model.decode_pixels(z.mean(0, keepdim=True))[0, 0])
    assert not torch.equal(begin, tiles[1, 0])


def test_traversals_change_one_unit_each_largest_kl_first() -> None:
    model = make_model(vae, code_dim=3)
    with torch.no_grad():
        for name, scale in (("project", (1.0, 9.0, 0.0)), ("log_var", (0.0, 0.0, 0.0))):
            head = getattr(model.bottleneck, name)
            head.weight.mul_(torch.tensor(scale)[:, None])
            head.bias.zero_()
    context = context_of(model, some_images(labelled=False))
    code = context.out.code
    assert isinstance(code, GaussianCode)
    nats = code.kl().mean(0)
    assert float(nats[2]) == 0
    sheet = picture(Traversals(count=2, steps=3, limit=2.0)(context))
    columns = sheet[0, GAP:, -3 * (SIDE + GAP) :]
    tiles = columns.unfold(0, SIDE, SIDE + GAP).unfold(1, SIDE, SIDE + GAP)[:, :, 5::10, 5::10]
    codes = code.mean[0].expand(2, 3, 3).clone()
    codes[0, :, 1], codes[1, :, 0] = torch.tensor([-2.0, 0.0, 2.0]), torch.tensor([-2.0, 0.0, 2.0])
    with torch.no_grad():
        torch.testing.assert_close(tiles, model.decode_pixels(codes.flatten(0, 1)).view(2, 3, 8, 8))
    assert [format_short(value) for value in (0, 0.0123, 2.267, 31.46, 4321)] == [
        "0",
        "0.012",
        "2.27",
        "31.5",
        "4.3e+03",
    ]


def test_kl_of_each_unit_equals_torch_distributions() -> None:
    code = GaussianCode(z=torch.zeros(4, 3), mean=torch.randn(4, 3), log_var=torch.randn(4, 3))
    q = torch.distributions.Normal(code.mean, (0.5 * code.log_var).exp())
    expected = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(code.kl(), expected)


def test_errors_show_the_worst_of_each_class() -> None:
    model, images = make_model(vae), some_images()
    context = context_of(model, images)
    sheet = picture(Errors(count=2)(context))
    error = sse(context.reconstruct(context.x), context.x)
    assert images.labels is not None
    label = int(images.labels.unique()[1])
    of_class = (images.labels == label).nonzero().flatten()
    worst = of_class[error[of_class].argmax()]
    side = SIDE + GAP
    left = sheet.shape[2] - 4 * side
    row = sheet[0, GAP + side : GAP + side + SIDE]
    assert torch.equal(row[5::10, left + 5 : left + SIDE : 10], context.x[worst, 0])
    assert picture(Errors()(context_of(model, some_images(labelled=False)))).shape[1] == side + GAP, "one row"


def test_the_map_of_noise_is_of_denoising_models_and_has_the_standard_error() -> None:
    model, images = make_model(vae), some_images()
    assert NoiseMap()(context_of(model, images)) is None
    context = context_of(model, images, Replace(p=0.3, white=0.0))
    cells = NoiseMap(count=50, levels=[0.0, 0.4]).compute_cells(context)
    assert list(cells) == [name.replace("_and_", ", ") for name in noise_kinds()]
    x = context.x[:50]
    for row in cells.values():
        assert row[0].error == pytest.approx(float(sse(context.reconstruct(x), x).mean())), "no noise at level 0"
    masked = Replace(p=0.4, white=0.0)(x, context.make_generator())
    assert cells["masking"][1].error == pytest.approx(float(sse(context.reconstruct(masked), x).mean()))
    assert torch.equal(cells["masking"][1].noisy, masked[0])


# --- the projector ---


@pytest.mark.parametrize("labelled", [True, False])
def test_the_projector_has_codes_classes_and_thumbnails(labelled: bool, tmp_path: Path) -> None:
    from google.protobuf import text_format
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    images = some_images(count=7, labelled=labelled)
    images = Examples(images.pixels, images.labels, tuple("abcdefghij"))
    context = context_of(make_model(vae), images)
    output = Projector()(context)
    output.save(tmp_path / "figures" / "projector")
    (config,) = text_format.Parse((tmp_path / "projector_config.pbtxt").read_text(), ProjectorConfig()).embeddings
    codes = np.loadtxt(tmp_path / config.tensor_path, delimiter="\t")
    np.testing.assert_allclose(codes, context.z.numpy(), rtol=1e-4, atol=1e-6)
    lines = (tmp_path / config.metadata_path).read_text().splitlines()
    assert len(lines) == 7 + labelled, "TensorBoard needs a heading if there are two columns"
    if images.labels is not None:
        assert lines[:2] == ["class\timage", f"{'abcdefghij'[int(images.labels[0])]}\t0"]
    width, height = config.sprite.single_image_dim
    sprite = np.asarray(Image.open(tmp_path / config.sprite.image_path))
    assert sprite.shape == (3 * height, 3 * width), "7 thumbnails are in a square of 3 by 3"
    fourth = sprite[height : 2 * height, :width]  # the fourth is the first of the second row
    assert np.array_equal(fourth[1::3, 1::3], images.pixels[3, 0].numpy())


def test_thumbnails_fit_the_texture_of_a_browser() -> None:
    for count, shape in ((1000, (1, 28, 28)), (40, (3, 200, 100)), (5, (1, 1, 1))):
        sheet, size = thumbnail_sheet(torch.rand(count, *shape))
        assert max(sheet.shape[1:]) <= 8192
        assert max(size) <= 64
        assert sheet.shape[0] == shape[0]
    assert thumbnail_sheet(torch.rand(2, 2, 8, 8))[0].shape[0] == 1
    Embedding(torch.full((1, 2), torch.nan), torch.rand(1, 1, 8, 8), [])


# --- names of classes ---


def test_classes_have_names_if_the_data_has_them() -> None:
    assert len(FashionMnist.names) == 10
    images = Examples(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]), ("cat", "dog"))
    assert images[:2].class_names == images.to(torch.device("cpu")).class_names == ("cat", "dog")
    context = context_of(make_model(vae), images)
    assert [context.class_name(label) for label in (0, 1, 2)] == ["cat", "dog", "2"]
    points = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    with_names = scatter(points, images.labels, class_name=context.class_name)
    assert with_names.shape[2] > scatter(points, images.labels).shape[2]


def test_folders_name_the_classes(tmp_path: Path) -> None:
    from aetrain.data.folder import Folder

    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(6):
            Image.new("L", (8, 8), 20 * i).save(tmp_path / name / f"{i}.png")
    splits = Folder(path=str(tmp_path), size=8).load()
    assert splits.train.class_names == splits.test.class_names == ("cat", "dog")
