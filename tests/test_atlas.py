"""What is said of hidden units is true of them, for every layer of every family, and an event file shows it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_views import built, kept, layer, picture, read, scene_of, some_images
from torch import Tensor, nn
from torch.nn import functional as F

from aetrain import api
from aetrain.config.paths import groups
from aetrain.data.images import Images
from aetrain.data.mnist import FashionMnist
from aetrain.data.noise import Replace
from aetrain.evaluation.evaluator import sse
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.bottlenecks import Gaussian, Quantized
from aetrain.model.conv import conv
from aetrain.model.dense import dense
from aetrain.model.layers import TopK
from aetrain.model.likelihoods import Gaussian as Normal
from aetrain.model.lstm import lstm
from aetrain.model.records import GaussianCode, QuantizedCode, Tap
from aetrain.objective.penalties import gaussian_kl
from aetrain.runs import train
from aetrain.runs.build import build
from aetrain.views.atlas import top_images, compute_histograms, format_rate, crop_changes
from aetrain.views.codes import CodeGrid, code_plane
from aetrain.views.context import ViewContext
from aetrain.views.error_analysis import Errors, NoiseMap
from aetrain.views.latent_paths import Interpolations, Traversals, format_short
from aetrain.views.projector import Embedding, Projector, thumbnail_sheet
from aetrain.views.render import DEAD_COLOUR, GAP, SATURATED_COLOUR, draw_frames, grid
from aetrain.views.scatter import scatter
from aetrain.views.unit_activations import UnitActivations, input_gradient
from aetrain.views.units import Units, frame_colours, order_units, seriate

vae = partial(dense, hidden=[16], bottleneck=Gaussian)
SIDE = 80  # of a small tile of 8 pixels
deep = partial(dense, hidden=[16, 12], activation="sigmoid")


def tap_of(context: ViewContext, name: str) -> Tap:
    return next(tap for tap in context.unit_layers if tap.name == name)


def activity_of(values: Tensor, module: nn.Module | None = None, fired: Tensor | None = None) -> UnitActivations:
    return UnitActivations(Tap(name="some", module=module or nn.ReLU()), values, values != 0 if fired is None else fired)


# --- every option of configs/model ---


@pytest.mark.parametrize("model", groups()["model"])
def test_an_event_file_shows_the_units_of_every_layer(model: str, tiny: Callable[..., Path]) -> None:
    directory = tiny(f"model={model}", "views=all", "dataset.subset=32", "epochs=0")
    layers = [tap.name for tap in api.load(directory).model.unit_layers()]
    assert "code" in layers
    assert len(set(layers)) == len(layers)
    log = read(kept(directory))
    for view in ("units", "units_sorted", "atlas"):
        for name in layers:
            looks = log.Images(f"views_{view}/{name}")
            assert [look.step for look in looks] == [0]
            assert (directory / "figures" / f"{view}-{name}.png").read_bytes() == looks[-1].encoded_image_string
    for name in ("code", "interpolations", "traversals", "errors"):
        assert len(log.Images(f"views/{name}")) == 1


@pytest.mark.parametrize("model", groups()["model"])
def test_layers_are_where_the_models_own_record_has_them(model: str) -> None:
    config, _, said = api.compose_config([f"model={model}", "dataset=digits", "device=cpu"])
    context = scene_of(build(entry.check(config, said)).model, some_images(count=20))
    seen = {name: activity.values for name, activity in context.activations.items()}
    hidden = [values for name, values in seen.items() if name.startswith("hidden")]
    assert len(hidden) == len(context.out.hidden)
    for ours, theirs in zip(hidden, context.out.hidden, strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(seen["code"], context.z)
    assert len({tap.module for tap in context.unit_layers}) == len(context.unit_layers), "no two layers share a module"
    assert not any(tap.module._forward_hooks or tap.module._forward_pre_hooks for tap in context.unit_layers)
    with torch.no_grad():
        assert torch.equal(context.model(context.x).decoded, context.out.decoded)


def test_of_large_images_fewer_are_looked_at() -> None:
    large = Images(torch.zeros(1, 3, 150, 150, dtype=torch.uint8).expand(900, -1, -1, -1))
    assert len(scene_of(built(dense), large).x) == 100
    assert len(scene_of(built(dense), some_images(count=1200)).x) == 1000


# --- what excites a unit ---


def linear_chain() -> Autoencoder:
    return built(partial(dense, hidden=[10, 7], activation="identity"), code_dim=4)


def test_the_ascent_finds_the_closed_form_of_linear_units() -> None:
    model = linear_chain()
    context = scene_of(model, some_images())
    first, second = (module.weight.detach() for module in model.encoder.layers)  # type: ignore[attr-defined]
    project = model.bottleneck.project.weight.detach()
    for name, whole in (("hidden1", first), ("hidden2", second @ first), ("code", project @ second @ first)):
        found = context.max_activating_input(tap_of(context, name), 64, "pixels")
        assert found is not None
        torch.testing.assert_close(found.flatten(1), F.normalize(whole, dim=1), rtol=0, atol=1e-4)
    found = context.max_activating_input(tap_of(context, "code"), 64, "images")
    assert found is not None
    spread = torch.cov(context.x.flatten(1).t(), correction=0)  # of all 60 images, which are less than `SPREAD`
    expected = F.normalize(project @ second @ first @ spread, dim=1)
    torch.testing.assert_close(found.flatten(1), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("make", [deep, partial(lstm, hidden=[9]), partial(dense, hidden=[16], bottleneck=Quantized)])
def test_what_is_found_excites_more_than_images_do_and_is_found_again(make: Callable[..., Autoencoder]) -> None:
    model = built(make, code_dim=16)
    context = scene_of(model, some_images())
    size = float((context.x - context.mean_image).flatten(1).norm(dim=1).mean())
    for tap in context.unit_layers:
        found = context.max_activating_input(tap, 4, "pixels")
        assert found is not None
        again = scene_of(model, some_images()).max_activating_input(tap, 4, "pixels")
        assert again is not None
        assert torch.equal(found, again)
        excited = scene_of(model, some_images())
        object.__setattr__(excited, "x", context.mean_image + size * found)
        ours = excited.activations[tap.name].per_image.diagonal()
        assert (ours > context.activations[tap.name].per_image[:, :4].mean(0)).all(), tap.name


def test_fewer_units_are_the_first_of_more() -> None:
    context = scene_of(built(deep), some_images())
    more = context.max_activating_input(tap_of(context, "hidden2"), 9)
    fewer = context.max_activating_input(tap_of(context, "hidden2"), 4)
    assert more is not None
    assert fewer is not None
    assert torch.equal(fewer, more[:4])
    assert more.shape == (9, 1, 8, 8)


def test_maps_are_shown_by_what_their_middle_sees() -> None:
    model = built(partial(conv, channels=(4, 8), kernel=3), (1, 28, 28))
    context = scene_of(model, some_images((1, 28, 28)))
    kernels, seven = (context.max_activating_input(tap_of(context, name), 8) for name in ("hidden1", "hidden2"))
    assert kernels is not None
    assert seven is not None
    first = model.first_layer_weights()[0, 0].detach()
    torch.testing.assert_close(kernels[0, 0], first / first.norm())
    assert seven.shape[2:] == (7, 7), "3 + (3 - 1) * 2, of two strides of two"
    whole = context.max_activating_input(tap_of(context, "decoder1"), 8)
    assert whole is not None
    assert whole.shape[2:] == (28, 28), "behind the code everything is seen"


# --- what it paints ---


def normal(build: Callable[..., Autoencoder], **settings: Any) -> Autoencoder:
    torch.manual_seed(0)
    given = {"image_shape": (1, 8, 8), "likelihood": Normal(), "sparsifier": nn.Identity(), "scale": (0.0, 1.0)}
    return build(**given, **settings)


def test_a_unit_alone_paints_its_weights_times_its_greatest_activation() -> None:
    model = normal(dense, code_dim=3)
    with torch.no_grad():
        model.decoder.output_bias.fill_(0.5)
        model.bottleneck.project.weight.abs_().mul_(0.1)
        model.decoder.layers[0].weight.mul_(0.1)  # type: ignore[attr-defined]
    context = scene_of(model, some_images())
    painted = context.single_unit_effect(tap_of(context, "code"), torch.tensor([0, 2]))
    columns = model.decoder.layers[0].weight.detach().t()  # type: ignore[attr-defined]
    for ours, unit in zip(painted.flatten(1), (0, 2), strict=True):
        torch.testing.assert_close(ours, context.z[:, unit].max() * columns[unit], rtol=0, atol=1e-6)


def test_a_hidden_unit_alone_is_painted_by_all_that_comes_after_it() -> None:
    model = built(deep)
    context = scene_of(model, some_images())
    unit, hidden = 3, context.out.hidden[1]
    active = torch.zeros(2, 12)
    active[0, unit] = hidden[:, unit].max()
    with torch.no_grad():
        alone, none = model.decode_pixels(model.bottleneck(active).z)
        painted = context.single_unit_effect(tap_of(context, "hidden2"), torch.tensor([unit]))
    torch.testing.assert_close(painted[0], alone - none)


def test_a_codeword_alone_stands_in_every_group() -> None:
    model = built(partial(dense, bottleneck=partial(Quantized, groups=2, num_codewords=6)), code_dim=4)
    context = scene_of(model, some_images())
    bottleneck = model.bottleneck
    assert isinstance(bottleneck, Quantized)
    with torch.no_grad():
        pictures = model.decode_pixels(bottleneck.codebook.weight.repeat(1, 2))  # [6, C, H, W]
        painted = context.single_unit_effect(tap_of(context, "codebook"), torch.arange(6))
    torch.testing.assert_close(painted, pictures - pictures.mean(0))
    code = context.out.code
    assert isinstance(code, QuantizedCode)
    counted = code.index.flatten().bincount(minlength=6) / code.index.numel()
    torch.testing.assert_close(context.activations["codebook"].rate, counted)
    assert torch.equal(context.activations["codebook"].dead, counted == 0)


def test_strokes_are_cut_out_of_what_is_empty_around_them_and_faint_ones_stay_faint() -> None:
    changes = torch.zeros(2, 1, 20, 20)
    changes[0, 0, 9:12, 8:11] = 1.0
    changes[1, 0, 10, 10] = 0.01
    shown = crop_changes(changes)
    assert shown.shape == (2, 1, 3, 3)
    torch.testing.assert_close(shown.flatten(1).norm(dim=1), torch.tensor([1.0, 0.2]))
    assert crop_changes(torch.zeros(2, 1, 20, 20)).shape == (2, 1, 20, 20)


# --- how it fires ---


def test_rates_and_dead_and_saturated_units() -> None:
    relu = activity_of(torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.0, 2.0]]))
    assert relu.rate.tolist() == [0, 0.5, 1]
    assert relu.dead.tolist() == [True, False, True], "what is always the same says nothing, on or off"
    assert relu.saturated.tolist() == [False] * 3
    high = torch.full((100, 1), 0.999)
    middle = torch.linspace(0.2, 0.8, 100)[:, None]
    both = torch.cat([torch.full((50, 1), 0.001), high[:50]])
    logistic = activity_of(torch.cat([middle, both, high], 1), nn.Sigmoid())
    assert logistic.saturated.tolist() == [False, True, False], "the last is dead"
    assert logistic.dead.tolist() == [False, False, True]
    assert frame_colours(logistic, torch.tensor([2, 1, 0])) == [DEAD_COLOUR, SATURATED_COLOUR, None]
    assert Tap(name="", module=nn.Sequential(nn.Tanh(), nn.Identity())).bounds == (-1.0, 1.0)


def test_a_unit_that_is_never_zero_fires_above_the_middle() -> None:
    context = scene_of(built(deep), some_images())
    hidden = context.activations["hidden1"]
    torch.testing.assert_close(hidden.rate, (hidden.values > 0.5).float().mean(0))
    sparse = scene_of(built(partial(dense, hidden=[16], activation="relu")), some_images()).activations["hidden1"]
    torch.testing.assert_close(sparse.rate, (sparse.values > 0).float().mean(0))
    linear = scene_of(built(dense), some_images()).activations["code"]
    torch.testing.assert_close(linear.rate, (linear.values > 0).float().mean(0))


def test_best_images_are_the_best() -> None:
    context = scene_of(built(deep), some_images())
    images, _, _ = context.activations["code"].top_positions(torch.tensor([2]), 3)
    assert images[0].tolist() == context.z[:, 2].argsort(descending=True)[:3].tolist()
    assert torch.equal(top_images(context, context.activations["code"], torch.tensor([2]), 3)[0], context.x[images[0]])


@pytest.mark.parametrize("down", ["stride", "maxpool"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 11, 15)])
def test_best_patches_are_what_the_kernel_answered_to(down: Any, shape: tuple[int, int, int]) -> None:
    model = built(partial(conv, channels=(4,), down=down, up="nearest"), shape)
    context = scene_of(model, some_images(shape))
    activity = context.activations["hidden1"]
    patches = top_images(context, activity, torch.arange(4), 2)  # [4, 2, C, 3, 3]
    conv2d = model.encoder.layers[0]  # type: ignore[attr-defined]
    answers = torch.einsum("ukcyx,ucyx->uk", patches, conv2d.weight) + conv2d.bias[:, None]
    torch.testing.assert_close(answers[:, 0].relu(), activity.values.transpose(0, 1).flatten(1).amax(1))


def test_histograms_share_a_scale_and_count_everything() -> None:
    activity = activity_of(torch.tensor([[0.0, 4.0], [0.0, 2.0], [1.0, 2.0], [1.0, 2.0]]))
    heights, low, high = compute_histograms(activity, torch.arange(2))
    assert (low, high) == (0, 4)
    torch.testing.assert_close(heights.square().sum(1), torch.ones(2))
    assert heights[0].nonzero().flatten().tolist() == [0, 7]
    assert float(heights[1, 14] ** 2) == pytest.approx(0.75)
    assert [format_rate(rate) for rate in (0, 0.0004, 0.031, 0.5, 1)] == ["0 %", "0.0 %", "3.1 %", "50 %", "100 %"]


def test_units_are_sorted_by_rate_and_by_likeness() -> None:
    place = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    columns = (torch.linspace(-1, 12, 500)[:, None] > place).float()  # unit j is active from `place[j]` on
    found = place[seriate(columns)].tolist()
    assert found in (list(range(12)), list(range(11, -1, -1)))
    values = torch.tensor([[0.0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 1, 2]])
    activity = activity_of(values)
    assert order_units(activity, torch.arange(4), "rate").tolist() == [2, 1, 3, 0]
    assert order_units(activity, torch.arange(4), "similarity").tolist()[2:] == [0, 2], "those that nothing moves come last"
    context = scene_of(built(deep), some_images())
    plain, moved = (layer(Units(order=order)(context), "hidden1") for order in ("number", "rate"))
    assert plain.shape == moved.shape
    assert not torch.equal(plain, moved)


def test_frames_are_around_their_tiles_alone() -> None:
    sheet = grid(torch.zeros(4, 1, 4, 4), 2, gaps=1.0)
    assert draw_frames(sheet, [None] * 4, (112, 112), 2) is sheet
    shown = draw_frames(sheet, [None, DEAD_COLOUR, None, None], (112, 112), 2)
    red = (shown == torch.tensor(DEAD_COLOUR)[:, None, None] / 255).all(0).nonzero()
    assert red.amin(0).tolist() == [GAP // 2, GAP + 112 + GAP // 2]
    assert red.amax(0).tolist() == [GAP + 112 + GAP // 2 - 1, 2 * GAP + 2 * 112 + GAP // 2 - 1]
    assert torch.equal(shown[:, GAP : GAP + 112, GAP : GAP + 112], torch.zeros(3, 112, 112))


def test_no_slope_is_no_picture() -> None:
    class Opaque(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return z.detach()

    model = built(deep)
    model.code_transform[0] = Opaque()
    context = scene_of(model, some_images())
    assert input_gradient(model, tap_of(context, "decoder1"), torch.arange(2), context.x[:2]) is None
    assert "decoder1" not in Units()(context).pictures
    assert "hidden2" in Units()(context).pictures


# --- pictures of the code ---


def test_the_grid_lies_in_the_plane_of_the_map() -> None:
    context = scene_of(built(deep, code_dim=6), some_images())
    middle, axes = code_plane(context)
    torch.testing.assert_close(axes.t() @ axes, torch.eye(2, dtype=axes.dtype))
    view = CodeGrid(side=5, limit=0.1)  # so near to the mean that no unit leaves its range
    shown = (view.codes_in_plane(context).double() - middle) @ axes
    spread = ((context.z.double() - middle) @ axes).std(0, correction=0)
    torch.testing.assert_close(shown, view.coordinates().double() * spread, rtol=0, atol=1e-6)
    wide = CodeGrid(side=5, limit=50.0).codes_in_plane(context)
    assert (wide >= context.z.min(0).values).all()
    assert (wide <= context.z.max(0).values).all()


def test_codes_that_are_made_up_are_such_as_the_family_makes() -> None:
    sparse = built(partial(dense, hidden=[16]), code_dim=8)
    sparse.code_transform[1] = TopK(2)
    assert ((CodeGrid().codes_in_plane(scene_of(sparse, some_images())) != 0).sum(1) <= 2).all()
    words = built(partial(dense, bottleneck=partial(Quantized, groups=2, num_codewords=6)), code_dim=4)
    book = words.bottleneck.codebook.weight  # type: ignore[union-attr]
    codes = CodeGrid().codes_in_plane(scene_of(words, some_images())).unflatten(1, (2, 2))
    assert (codes[:, :, None] == book).all(3).any(2).all()
    with torch.no_grad():
        z = words.encode(torch.rand(5, 1, 8, 8)).z
        assert torch.equal(words.project_to_code_space(z), z)


def test_interpolations_begin_and_end_at_reconstructions() -> None:
    model, images = built(vae), some_images()
    context = scene_of(model, images)
    sheet = picture(Interpolations(count=2, steps=3)(context))
    tiles = sheet[0, GAP:, GAP:].unfold(0, 112, 112 + GAP).unfold(1, 112, 112 + GAP)[:, :, 7::14, 7::14]  # [2, 5, 8, 8]
    begin, end = tiles[0, 0], tiles[0, 4]
    with torch.no_grad():
        for shown, made in ((begin, tiles[0, 1]), (end, tiles[0, 3])):
            torch.testing.assert_close(made, model.reconstruct(shown[None, None])[0, 0])
        z = model.encode(torch.stack([begin, end])[:, None]).z
        torch.testing.assert_close(tiles[0, 2], model.decode_pixels(z.mean(0, keepdim=True))[0, 0])
    assert not torch.equal(begin, tiles[1, 0])


def test_traversals_move_one_unit_each_the_most_telling_first() -> None:
    model = built(vae, code_dim=3)
    with torch.no_grad():
        for name, scale in (("project", (1.0, 9.0, 0.0)), ("log_var", (0.0, 0.0, 0.0))):
            head = getattr(model.bottleneck, name)
            head.weight.mul_(torch.tensor(scale)[:, None])
            head.bias.zero_()
    context = scene_of(model, some_images(labelled=False))
    code = context.out.code
    assert isinstance(code, GaussianCode)
    nats = gaussian_kl(code).mean(0)
    assert float(nats[2]) == 0
    sheet = picture(Traversals(count=2, steps=3, limit=2.0)(context))
    tiles = (
        sheet[0, GAP:, -3 * (SIDE + GAP) :].unfold(0, SIDE, SIDE + GAP).unfold(1, SIDE, SIDE + GAP)[:, :, 5::10, 5::10]
    )
    base = code.mean[0].expand(2, 3, 3).clone()
    base[0, :, 1], base[1, :, 0] = torch.tensor([-2.0, 0.0, 2.0]), torch.tensor([-2.0, 0.0, 2.0])
    with torch.no_grad():
        torch.testing.assert_close(tiles, model.decode_pixels(base.flatten(0, 1)).view(2, 3, 8, 8))
    assert [format_short(value) for value in (0, 0.0123, 2.267, 31.46, 4321)] == ["0", "0.012", "2.27", "31.5", "4.3e+03"]


def test_kl_by_unit_is_that_of_torchs_distributions() -> None:
    code = GaussianCode(z=torch.zeros(4, 3), mean=torch.randn(4, 3), log_var=torch.randn(4, 3))
    ours = torch.distributions.Normal(code.mean, (0.5 * code.log_var).exp())
    expected = torch.distributions.kl_divergence(ours, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(gaussian_kl(code), expected)


def test_errors_show_the_worst_of_each_class() -> None:
    model, images = built(vae), some_images()
    context = scene_of(model, images)
    sheet = picture(Errors(count=2)(context))
    error = sse(context.reconstruct(context.x), context.x)
    assert images.labels is not None
    label = int(images.labels.unique()[1])
    own = (images.labels == label).nonzero().flatten()
    worst = own[error[own].argmax()]
    side = SIDE + GAP
    left = sheet.shape[2] - 4 * side
    row = sheet[0, GAP + side : GAP + side + SIDE]
    assert torch.equal(row[5::10, left + 5 : left + SIDE : 10], context.x[worst, 0])
    assert picture(Errors()(scene_of(model, some_images(labelled=False)))).shape[1] == side + GAP, "one line"


def test_the_map_of_noise_is_of_denoising_models_and_says_the_rulers_error() -> None:
    model, images = built(vae), some_images()
    assert NoiseMap()(scene_of(model, images)) is None
    context = scene_of(model, images, Replace(p=0.3, white=0.0))
    cells = NoiseMap(count=50, levels=[0.0, 0.4]).compute_cells(context)
    assert list(cells) == ["gaussian", "masking", "salt", "salt, pepper"]
    x = context.x[:50]
    for each in cells.values():
        assert each[0].error == pytest.approx(float(sse(context.reconstruct(x), x).mean())), "no noise at level 0"
    masked = Replace(p=0.4, white=0.0)(x, context.make_generator())
    assert cells["masking"][1].error == pytest.approx(float(sse(context.reconstruct(masked), x).mean()))
    assert torch.equal(cells["masking"][1].noisy, masked[0])


# --- the projector ---


@pytest.mark.parametrize("labelled", [True, False])
def test_tensorboard_finds_codes_classes_and_thumbnails(labelled: bool, tmp_path: Path) -> None:
    from google.protobuf import text_format
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    images = some_images(count=7, labelled=labelled)
    images = Images(images.pixels, images.labels, tuple("abcdefghij"))
    context = scene_of(built(vae), images)
    output = Projector()(context)
    output.save(tmp_path / "figures" / "projector")
    (config,) = text_format.Parse((tmp_path / "projector_config.pbtxt").read_text(), ProjectorConfig()).embeddings
    codes = np.loadtxt(tmp_path / config.tensor_path, delimiter="\t")
    np.testing.assert_allclose(codes, context.z.numpy(), rtol=1e-4, atol=1e-6)
    lines = (tmp_path / config.metadata_path).read_text().splitlines()
    assert len(lines) == 7 + labelled, "a heading where there are two columns, as TensorBoard has it"
    if images.labels is not None:
        assert lines[:2] == ["class\timage", f"{'abcdefghij'[int(images.labels[0])]}\t0"]
    width, height = config.sprite.single_image_dim
    sprite = np.asarray(Image.open(tmp_path / config.sprite.image_path))
    assert sprite.shape == (3 * height, 3 * width), "seven go into a square of nine"
    fourth = sprite[height : 2 * height, :width]  # the fourth begins the second row
    assert np.array_equal(fourth[1::3, 1::3], images.pixels[3, 0].numpy())


def test_thumbnails_fit_into_what_a_browser_can_show() -> None:
    for count, shape in ((1000, (1, 28, 28)), (40, (3, 200, 100)), (5, (1, 1, 1))):
        sheet, size = thumbnail_sheet(torch.rand(count, *shape))
        assert max(sheet.shape[1:]) <= 8192
        assert max(size) <= 64
        assert sheet.shape[0] == shape[0]
    assert thumbnail_sheet(torch.rand(2, 2, 8, 8))[0].shape[0] == 1
    Embedding(torch.full((1, 2), torch.nan), torch.rand(1, 1, 8, 8), [])


# --- classes in words ---


def test_classes_have_names_where_the_data_has_them() -> None:
    assert len(FashionMnist.classes) == 10
    images = Images(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]), ("cat", "dog"))
    assert images[:2].names == images.to(torch.device("cpu")).names == ("cat", "dog")
    context = scene_of(built(vae), images)
    assert [context.class_name(label) for label in (0, 1, 2)] == ["cat", "dog", "2"]
    points = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    assert scatter(points, images.labels, class_name=context.class_name).shape[2] > scatter(points, images.labels).shape[2]


def test_folders_name_the_classes(tmp_path: Path) -> None:
    from aetrain.data.folder import Folder

    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(6):
            Image.new("L", (8, 8), 20 * i).save(tmp_path / name / f"{i}.png")
    splits = Folder(path=str(tmp_path), size=8).load()
    assert splits.train.names == splits.test.names == ("cat", "dog")
