"""Pictures against their definitions, views that do not change training, and the event file of a run."""

import inspect
import io
import math
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from conftest import ROOT, layers_of
from PIL import Image
from torch import Tensor, nn

from aetrain import api
from aetrain.config.validate import locate
from aetrain.data.examples import Examples, Prepare
from aetrain.data.noise import Gaussian as GaussianNoise
from aetrain.data.noise import Noise, NoNoise, Replace
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.bottlenecks import Gaussian
from aetrain.model.conv import conv
from aetrain.model.dense import dense
from aetrain.model.likelihoods import Bernoulli
from aetrain.model.pca import PCA
from aetrain.views import unit_activations
from aetrain.views.atlas import Atlas
from aetrain.views.codes import CodeGrid, CodeMap, principal_coordinates, procrustes_rotation
from aetrain.views.context import COVARIANCE_IMAGES, ViewContext, context_factory
from aetrain.views.error_analysis import Errors, NoiseMap
from aetrain.views.feature_errors import FeatureErrors
from aetrain.views.image_grids import Reconstructions, Samples, interleave_classes
from aetrain.views.latent_paths import Interpolations, Traversals
from aetrain.views.neighbours import Neighbours
from aetrain.views.projector import Embedding, Projector
from aetrain.views.render import GAP, GREY, WHITE, encode_png, grid, signed_grey, write_png
from aetrain.views.rows import Rows
from aetrain.views.scatter import frame_corners, palette, scatter, ticks
from aetrain.views.tensorboard import TensorBoardWriter, zero_or_power_of_two
from aetrain.views.unit_features import Features
from aetrain.views.units import Activations, DecoderUnits, Units
from aetrain.views.view import Histograms, Picture, PictureSet, View, selects_units

Build = Callable[..., Autoencoder]
Shape = tuple[int, int, int]

VIEWS: dict[str, View] = {
    "reconstructions": Reconstructions(),
    "units": Units(),
    "decoder_units": DecoderUnits(),
    "samples": Samples(),
    "code": CodeMap(),
    "grid": CodeGrid(),
    "neighbours": Neighbours(),
    "activations": Activations(),
    "units_sorted": Units(order="similarity"),
    "atlas": Atlas(count=4),
    "interpolations": Interpolations(),
    "traversals": Traversals(),
    "errors": Errors(),
    "noise_map": NoiseMap(),
    "projector": Projector(),
}
VIEWS_OF_FEATURES = {"features": Features(), "rows": Rows(), "feature_errors": FeatureErrors()}
PICTURE_SETS = ("units", "units_sorted", "atlas")
SINGLE_PICTURES = [name for name in VIEWS if name not in ("activations", "projector", *PICTURE_SETS)]

vae = partial(dense, hidden=[16], bottleneck=Gaussian)
unpool = partial(conv, channels=(4, 8), down="maxpool", up="unpool")


def make_model(build: Build, shape: Shape = (1, 8, 8), code_dim: int = 5) -> Autoencoder:
    torch.manual_seed(0)
    return build(shape, likelihood=Bernoulli(), sparsifier=nn.Identity(), scale=(0.0, 1.0), code_dim=code_dim)


def some_images(shape: Shape = (1, 8, 8), count: int = 60, labelled: bool = True) -> Examples:
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(256, (count, *shape), generator=generator, dtype=torch.uint8)
    return Examples(pixels, torch.randint(10, (count,), generator=generator) if labelled else None)


def context_of(model: Autoencoder, images: Examples, noise: Noise | None = None, epoch: int = 0) -> ViewContext:
    return context_factory(model, images, Prepare(), noise or NoNoise())(epoch)


def layer_picture(output: object, name: str) -> Tensor:
    assert isinstance(output, PictureSet)
    return output.pictures[name].pixels


def picture(output: object) -> Tensor:
    assert isinstance(output, Picture)
    return output.pixels


# --- pictures from tensors ---


def test_grid_puts_each_pixel_at_its_position() -> None:
    images = torch.linspace(0, 1, 3 * 4 * 4).view(3, 1, 4, 4)
    sheet = grid(images, columns=2)
    factor = 112 // 4
    side = 4 * factor + GAP
    assert sheet.shape == (1, GAP + 2 * side, GAP + 2 * side)
    for number, (row, column) in enumerate([(0, 0), (0, 1), (1, 0)]):
        tile = sheet[0, GAP + row * side :, GAP + column * side :][: 4 * factor, : 4 * factor]
        assert torch.equal(tile, images[number, 0].repeat_interleave(factor, 0).repeat_interleave(factor, 1))
    gaps = sheet.clone()
    for row, column in [(0, 0), (0, 1), (1, 0)]:
        gaps[0, GAP + row * side :, GAP + column * side :][: 4 * factor, : 4 * factor] = GREY
    assert torch.equal(gaps, torch.full_like(gaps, GREY)), "the gaps and the empty tile are grey"


@pytest.mark.parametrize(("width", "tile"), [(28, 112), (8, 112), (10, 110), (32, 96), (3, 111), (200, 200)])
def test_tiles_are_enlarged_to_about_a_hundred_pixels(width: int, tile: int) -> None:
    assert grid(torch.zeros(2, 1, width, width), columns=2).shape[2] == 2 * (tile + GAP) + GAP


@pytest.mark.parametrize(("channels", "expected"), [(1, 1), (3, 3), (2, 1), (4, 1)])
def test_grid_shows_grey_and_colour_and_the_mean_of_other_channels(channels: int, expected: int) -> None:
    images = torch.rand(1, channels, 2, 2)
    sheet = grid(images, columns=1)
    assert sheet.shape[0] == expected
    torch.testing.assert_close(
        sheet[0, GAP, GAP], images[0, 0, 0, 0] if expected == channels else images[0, :, 0, 0].mean()
    )


def test_captions_are_in_a_gutter_left_of_their_rows() -> None:
    images = torch.zeros(4, 1, 8, 8)
    plain, captioned = grid(images, 2), grid(images, 2, ["clean", ""])
    gutter = captioned.shape[2] - plain.shape[2]
    assert gutter > 0
    assert torch.equal(captioned[:, :, gutter:], plain)
    first, second = captioned[:, GAP:, :gutter].chunk(2, dim=1)
    assert float(first.min()) < 0.1, "letters are dark"
    assert (second - GREY).abs().max() < 0.01, "an empty caption has no letters"
    assert grid(torch.zeros(1, 3, 8, 8), 1, ["noisy"]).shape[0] == 3


def test_grid_draws_nan_and_values_out_of_range() -> None:
    sheet = grid(torch.tensor([math.nan, -3.0, 7.0, 0.2]).view(1, 1, 2, 2), 1)
    assert sheet.isfinite().all()
    assert 0 <= sheet.min() <= sheet.max() <= 1


def test_signed_grey_is_symmetric_about_the_middle() -> None:
    grey = signed_grey(torch.tensor([-9.0, -2.0, -1.0, 0.0, 1.0, 2.0, 9.0]), limit=2.0)
    torch.testing.assert_close(grey, torch.tensor([0, 0, 0.25, 0.5, 0.75, 1, 1]))


def test_png_is_lossless() -> None:
    for mode, channels in (("L", 1), ("RGB", 3)):
        pixels = torch.randint(256, (channels, 5, 7))
        image = Image.open(io.BytesIO(encode_png(pixels / 255)))
        assert (image.mode, image.size) == (mode, (7, 5))
        assert np.array_equal(np.asarray(image).reshape(5, 7, channels), pixels.permute(1, 2, 0).numpy())


def test_png_is_written_atomically_without_other_files(tmp_path: Path) -> None:
    path = tmp_path / "figures" / "a.png"
    write_png(torch.zeros(1, 2, 2), path)
    write_png(torch.ones(1, 2, 2), path)
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]
    assert np.asarray(Image.open(path)).tolist() == [[255, 255], [255, 255]]


def test_scatter_draws_a_class_in_its_colour_at_its_points() -> None:
    points = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [1.0, -1.0]])
    sheet = scatter(points, torch.tensor([4, 7, 7, 7])).mul(255).round().to(torch.uint8)
    colour = torch.tensor(palette(2)[0], dtype=torch.uint8)[:, None, None]
    position = (sheet == colour).all(0)[:, :440].nonzero().float().mean(0)  # without the legend at the right
    assert position[0] > sheet.shape[1] / 2, "a low value is drawn low"
    assert position[1] < sheet.shape[2] / 2, "a small value is drawn left"


@pytest.mark.parametrize("scale", [0.0, 1e-12, 1.0, 1e30])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_scatter_draws_codes_of_any_size_and_nan(scale: float, offset: float) -> None:
    points = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)) * scale + offset
    points[0, 0] = math.nan
    points[1, 1] = math.inf
    assert scatter(points).isfinite().all()


def test_scatter_has_a_legend_only_for_classes_and_colours_for_many() -> None:
    points = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    assert scatter(points).shape[2] < scatter(points, torch.arange(60) % 3).shape[2]
    assert scatter(points, torch.arange(60)).shape[0] == 3
    assert len(set(palette(26))) == 26


def test_ticks_are_round_and_inside() -> None:
    assert ticks(-2.9, 3.3) == [-2, 0, 2]
    assert ticks(0.011, 0.099) == pytest.approx([0.02, 0.04, 0.06, 0.08])
    low, high = frame_corners(torch.tensor([[0.0, 0.0], [10.0, 1.0]], dtype=torch.float64))
    assert float(high[0] - low[0]) == pytest.approx(float(high[1] - low[1])), "one scale for both axes"


# --- views ---


@pytest.mark.parametrize("noise", [NoNoise(), Replace(p=0.5, white=0.0)])
def test_reconstructions_show_clean_and_noisy_images_and_reconstructions(noise: Noise) -> None:
    images, model = some_images(), make_model(vae)
    context = context_of(model, images, noise)
    chosen = interleave_classes(images.labels, 60)[:10]
    x = images.pixels[chosen] / 255
    x_in = context.x_in[chosen]
    with torch.no_grad():
        expected = [x, x_in, model.reconstruct(x_in)] if x_in.ne(x).any() else [x, model.reconstruct(x)]
    sheet = picture(Reconstructions()(context))
    side = 112 + GAP
    assert sheet.shape[1] == 2 * len(expected) * side + GAP, "two blocks, one row of each kind in both"
    small = sheet[0, GAP:, -(5 * side) :].unflatten(0, (-1, side)).unflatten(2, (5, side))  # [rows, y, columns, x]
    small = small[:, 7:112:14, :, 7:112:14].permute(0, 2, 1, 3)  # the middle of each enlarged pixel: [rows, 5, 8, 8]
    for kind, rows in enumerate(expected):
        torch.testing.assert_close(small[kind], rows[:5, 0])
        torch.testing.assert_close(small[kind + len(expected)], rows[5:, 0])


def test_pca_of_the_same_size_has_a_row_of_reconstructions() -> None:
    images, model = some_images(), make_model(vae)
    pca = PCA.fit([images.pixels / 255], model.code_dim)
    noise = GaussianNoise()
    context = context_factory(model, images, Prepare(), noise, fit_pca=lambda: pca)(0)
    chosen = interleave_classes(images.labels, 60)[:5]
    with_pca, without = Reconstructions()(context), Reconstructions()(context_of(model, images, noise))
    assert with_pca.annotations is not None
    assert with_pca.annotations.rows[:4] == ["image", "noisy input", "reconstruction", "PCA"]
    side = 112 + GAP
    sheet = picture(with_pca)
    assert sheet.shape[1] == picture(without).shape[1] + 2 * side, "a row in each of the two blocks"
    row = sheet[0, GAP:, -(5 * side) :].unflatten(0, (-1, side)).unflatten(2, (5, side))[3, 7:112:14, :, 7:112:14]
    centred = context.x_in[chosen].flatten(1) - pca.mean
    expected = pca.mean + centred @ pca.components.t() @ pca.components
    torch.testing.assert_close(row.transpose(0, 1), expected.view(5, 8, 8).clamp(0, 1))


def test_pca_has_no_row_where_it_is_left_out_or_would_copy() -> None:
    images, model = some_images(), make_model(vae)
    left_out = context_factory(model, images, Prepare(), NoNoise(), fit_pca=lambda: None)(0)
    assert left_out.pca_reconstruct(left_out.x) is None
    overcomplete = make_model(vae, code_dim=64)
    pca = PCA.fit([images.pixels / 255], 64)
    context = context_factory(overcomplete, images, Prepare(), NoNoise(), fit_pca=lambda: pca)(0)
    assert context.pca_reconstruct(context.x) is None


def test_the_pca_of_the_pictures_is_that_of_the_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fits: list[PCA] = []
    fit = PCA.fit

    def record_fit(batches: Iterable[Tensor], k: int) -> PCA:
        fits.append(fit(batches, k))
        return fits[-1]

    monkeypatch.setattr(PCA, "fit", staticmethod(record_fit))
    few = ("dataset=digits", "dataset.subset=64", "dataset.test_subset=64", "views=reconstructions", "epochs=1")
    trained = api.run(["model=deep", *few], directory=tmp_path / "run")
    assert len(fits) == 1
    assert "test/pca_sse" in trained.metrics


@pytest.mark.parametrize("count", [7, 8, 11])
def test_last_row_of_reconstructions_is_filled_with_grey(count: int) -> None:
    context = context_of(make_model(vae), some_images())
    sheet, side = picture(Reconstructions(count=count)(context)), 112 + GAP
    blocks = -(-count // 5)
    assert sheet.shape[1] == 2 * blocks * side + GAP
    assert bool((sheet[:, -2 * side :, -(5 * blocks - count) * side :] == 0.5).all()), "after the last image"


def test_images_alternate_between_the_classes() -> None:
    labels = torch.tensor([7, 7, 2, 5, 2, 7, 5, 5])
    assert interleave_classes(labels, 8).tolist() == [2, 3, 0, 4, 6, 1, 7, 5]
    assert interleave_classes(None, 3).tolist() == [0, 1, 2]


def test_units_are_weights_over_their_norm_on_a_fixed_scale() -> None:
    model = make_model(partial(dense, hidden=[3]))
    with torch.no_grad():
        weight = layers_of(model.encoder)[0].weight
        weight.zero_()
        weight[0, 5] = 0.01
        weight[1] = -3
    sheet = layer_picture(Units(limit=1.0)(context_of(model, some_images())), "hidden1").clone()
    assert sheet.shape[0] == 3, "unit 3 is dead and has a red frame"
    sheet = sheet[:1]
    first, second, third = (sheet[0, GAP : GAP + 112, GAP + i * (112 + GAP) :][:, :112] for i in range(3))
    assert first[7, 5 * 14 + 7] == 1, "the only weight of a unit is white, also a small one"
    assert float(first[7, 7]) == 0.5
    torch.testing.assert_close(second, torch.full_like(second, 0.5 - 0.5 * (1 / 8) * 64**0.25))
    assert torch.equal(third, torch.full_like(third, 0.5)), "a unit without weights is grey"
    assert sheet[0, 0, 0] == WHITE


def test_units_look_the_same_for_any_number_of_units() -> None:
    context = context_of(make_model(partial(dense, hidden=[100])), some_images())
    few, all_units = (layer_picture(Units(count=count)(context), "hidden1") for count in (40, 100))
    first = [sheet[:, GAP : GAP + 56, GAP : 8 * (56 + GAP)] for sheet in (few, all_units)]
    assert torch.equal(*first)
    assert all_units.shape[1] == all_units.shape[2], "100 units are a square"


def test_decoder_units_of_a_linear_model_are_its_weights_times_the_standard_deviation() -> None:
    model, images = make_model(dense, code_dim=3), some_images()
    with torch.no_grad():
        model.bottleneck.project.weight[2] = 0  # a dead unit
    context = context_of(model, images)
    sheet = picture(DecoderUnits(limit=0.4)(context))
    with torch.no_grad():
        z = model.encode(images.pixels / 255).z
        moved = z.mean(0) + torch.tensor([0.0, 2 * float(z[:, 1].std(correction=0)), 0.0])
        change = model.decode_pixels(moved[None]) - model.decode_pixels(z.mean(0)[None])
    tiles = [sheet[0, GAP : GAP + 112, GAP + i * (112 + GAP) :][7:112:14, 7:112:14] for i in range(3)]
    torch.testing.assert_close(tiles[1], (0.5 + 0.5 * change[0, 0] / 0.4).clamp(0, 1))
    torch.testing.assert_close(tiles[2], torch.full((8, 8), 0.5))


def test_samples_are_of_generative_models_only_and_the_same_at_every_epoch() -> None:
    images = some_images()
    assert Samples()(context_of(make_model(dense), images)) is None
    model = make_model(vae)
    assert torch.equal(*(picture(Samples()(context_of(model, images, epoch=epoch))) for epoch in (0, 7)))
    assert picture(Samples(count=3)(context_of(model, images))).shape == (1, 112 + 2 * GAP, 3 * (112 + GAP) + GAP)


def test_principal_coordinates_have_the_largest_variances() -> None:
    rows = torch.randn(200, 6, generator=torch.Generator().manual_seed(1)) * torch.tensor([1, 5, 1, 9, 1, 1.0])
    singular = torch.linalg.svdvals((rows - rows.mean(0)).double())
    torch.testing.assert_close(principal_coordinates(rows).norm(dim=0).flip(0), singular[:2])


def test_the_map_of_codes_does_not_rotate_or_flip() -> None:
    generator = torch.Generator().manual_seed(1)
    reference = torch.randn(100, 2, generator=generator, dtype=torch.float64)
    angle = torch.tensor(2.0, dtype=torch.float64)
    rotation = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    for mirror in (torch.tensor([1.0, 1.0]), torch.tensor([-1.0, 1.0])):
        moved = 3 * reference @ rotation * mirror
        torch.testing.assert_close(moved @ procrustes_rotation(moved, reference), 3 * reference)
    model, images = make_model(partial(dense, hidden=[32]), code_dim=6), some_images(count=200)
    before = picture(CodeMap()(context_of(model, images)))
    with torch.no_grad():  # the same code, with its units negated and in another order
        model.bottleneck.project.weight.copy_(-model.bottleneck.project.weight.flip(0))
        model.bottleneck.project.bias.copy_(-model.bottleneck.project.bias.flip(0))
    after = picture(CodeMap()(context_of(model, images)))
    assert (before != after).float().mean() < 0.01


def test_grid_of_codes_has_the_first_unit_to_the_right_and_the_second_upwards() -> None:
    model = make_model(partial(dense, hidden=[32]), code_dim=2)
    sheet = picture(CodeGrid(side=3, limit=1.5)(context_of(model, some_images())))
    codes = torch.tensor([[x, y] for y in (1.5, 0.0, -1.5) for x in (-1.5, 0.0, 1.5)])
    with torch.no_grad():
        assert torch.equal(sheet, grid(model.decode_pixels(codes), 3, width=56))


def test_activations_are_of_every_layer_and_of_the_code() -> None:
    context = context_of(make_model(partial(dense, hidden=[16, 12])), some_images())
    output = Activations()(context)
    assert {name: len(values) for name, values in output.values.items()} == {
        "hidden1": 60 * 16,
        "hidden2": 60 * 12,
        "code": 60 * 5,
        "decoder1": 60 * 12,
        "decoder2": 60 * 16,
    }
    assert all(len(values) == 10 for values in Activations(count=10)(context).values.values())


@pytest.mark.slow
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (1, 10, 10), (1, 28, 28)])
@pytest.mark.parametrize(
    ("build", "code_dim"), [(dense, 5), (vae, 5), (vae, 2), (dense, 2), (dense, 1), (unpool, 4), (dense, 70)]
)
def test_every_view_applies_to_every_family_or_returns_none(
    build: Build, code_dim: int, shape: Shape, labelled: bool
) -> None:
    context = context_of(make_model(build, shape, code_dim), some_images(shape, 30, labelled), GaussianNoise(0.2))
    for name, view in VIEWS.items():
        output = view(context.for_figures() if selects_units(view) else context)
        if (name == "samples" and build is not vae) or (name == "grid" and code_dim == 1):
            assert output is None
        elif name == "activations":
            assert isinstance(output, Histograms)
        elif name == "projector":
            assert isinstance(output, Embedding)
        elif name in PICTURE_SETS:
            assert isinstance(output, PictureSet)
            assert list(output.pictures) == [tap.name for tap in context.model.unit_layers()]
            for page in output.pictures.values():
                assert 0 <= page.pixels.min() <= page.pixels.max() <= 255
                assert not page.pixels.requires_grad
        else:
            pixels = picture(output)
            assert pixels.shape[0] == (3 if name in ("code", "noise_map") else shape[0])
            assert 0 <= pixels.min() <= pixels.max() <= (255 if pixels.dtype is torch.uint8 else 1)
            assert not pixels.requires_grad


@pytest.mark.parametrize("factor", [math.nan, math.inf, 1e30])
def test_views_of_a_diverged_model(factor: float, tmp_path: Path) -> None:
    model = make_model(vae)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(factor)
    tensorboard = TensorBoardWriter(tmp_path, VIEWS, context_factory(model, some_images(), Prepare(), NoNoise()))
    tensorboard.open("a: 1")
    tensorboard.add_pictures(0, last=True)
    tensorboard.close({}, {}, "diverged")


def numpy_generator_state() -> Any:
    """Return a copy of the state of numpy's global generator."""
    return cast(Any, np.random.get_state())[1]  # noqa: NPY002  # the test is about the global generator


def test_views_do_not_change_training(tmp_path: Path) -> None:
    model = make_model(vae)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tensorboard = TensorBoardWriter(
        tmp_path,
        VIEWS,
        context_factory(model.train(), some_images(), Prepare(random_crop=8, dynamic=True), GaussianNoise()),
    )
    torch.manual_seed(11)
    state, numpy_state = torch.get_rng_state(), numpy_generator_state()
    tensorboard.open("a: 1")
    tensorboard.add_scalars(0, {"test/nll": 1.0})
    tensorboard.add_pictures(0)
    tensorboard.add_pictures(1, last=True)
    tensorboard.close({"a": 1}, {"test/nll": 1.0}, "a")
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(numpy_generator_state(), numpy_state)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not model.training, "views leave the model in evaluation mode; `fit` sets training mode at each epoch"
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (partial(Units, count=0), "count=0"),
        (partial(DecoderUnits, limit=-1.0), "limit=-1"),
        (partial(Samples, count=-2), "count=-2"),
        (partial(Reconstructions, columns=0), "columns=0"),
        (partial(CodeMap, count=0), "count=0"),
        (partial(Activations, count=0), "count=0"),
        (partial(Atlas, images=0), "images=0"),
        (partial(Traversals, steps=0), "steps=0"),
        (partial(Interpolations, count=-1), "count=-1"),
        (partial(Errors, classes=0), "classes=0"),
        (partial(NoiseMap, levels=[0.1, 1.5]), "1.5"),
        (partial(Projector, count=0), "count=0"),
    ],
)
def test_settings_that_show_nothing_are_refused(view: Callable[[], View], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        view()


@pytest.mark.slow
def test_the_configs_have_every_view_with_its_defaults() -> None:
    from hydra.utils import instantiate

    def views(option: str) -> dict[str, Any]:
        group = dict(api.compose_config([f"views={option}"])[0].views)
        assert group.pop("format") == ["png"], "the setting of the group that is no view"
        return group

    assert {name: instantiate(node, _convert_="all") for name, node in views("all").items()} == {
        **VIEWS,
        **VIEWS_OF_FEATURES,
        "atlas": Atlas(),
        "noise_map": NoiseMap(levels=[*NoiseMap().levels]),
    }
    assert views("none") == {}
    assert list(views("[projector,code]")) == ["projector", "code"]
    assert set(views("default")) < set(VIEWS | VIEWS_OF_FEATURES)
    for name in VIEWS:
        (node,) = views(name).values()
        settings = inspect.signature(locate(node["_target_"])).parameters
        assert set(settings) == set(node) - {"_target_"}, f"the config of {name} lacks a setting"


def test_the_docs_describe_each_view() -> None:
    text = (ROOT / "docs" / "views.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.M)) == set(VIEWS | VIEWS_OF_FEATURES)
    steps, fraction = unit_activations.ASCENT_STEPS, unit_activations.STEP_FRACTION
    assert f"{steps} steps, each {fraction:g} of the way" in text.replace("six", "6")
    assert f"the covariance of {COVARIANCE_IMAGES} images" in text


# --- the event file ---


def read_event_file(directory: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sizes = {"scalars": 0, "images": 0, "tensors": 0, "histograms": 0}
    return EventAccumulator(str(directory), size_guidance=sizes).Reload()


def event_file(directory: Path) -> Path:
    (file,) = directory.glob("events.out.tfevents.*")
    return file


LAYERS = ("hidden1", "code", "decoder1")  # of the model below


def write_run(directory: Path, views: Mapping[str, View] = VIEWS, epochs: int = 10) -> None:
    """Write the event file of a model whose reconstructions become whiter at each of `epochs` epochs."""
    model = make_model(vae)
    tensorboard = TensorBoardWriter(directory, views, context_factory(model, some_images(), Prepare(), GaussianNoise()))
    tensorboard.open("model:\n  code_dim: 5\n")
    tensorboard.add_scalars(0, {"test/nll": 50.0})
    tensorboard.add_pictures(0)
    for epoch in range(1, epochs + 1):
        with torch.no_grad():
            layers_of(model.decoder)[-1].bias += 0.1
        tensorboard.add_scalars(
            epoch, {"train/nll": 50.0 - epoch, "test/nll": 51.0 - epoch, "train/kl": 0.5, "test/kl": 0.6}
        )
        tensorboard.add_pictures(epoch, last=epoch == epochs)
    tensorboard.close(
        {"model": "vae", "model.code_dim": 5, "optimizer.lr": 1e-3, "dataset.binarize": False},
        {"test/nll": 51.0 - epochs, "test/kl": 0.6, "test/bce": 41.5, "test/unknown": 1.0},
        "vae",
    )


@pytest.mark.slow
def test_an_event_file_has_curves_pictures_and_config(tmp_path: Path) -> None:
    write_run(tmp_path)
    log = read_event_file(event_file(tmp_path))
    assert [(e.step, e.value) for e in log.Scalars("test/nll")] == [(0, 50.0), *((i, 51.0 - i) for i in range(1, 11))]
    set_tags = {f"views_{view}/{name}" for view in PICTURE_SETS for name in LAYERS}
    assert set(log.Tags()["images"]) == {f"views/{name}" for name in SINGLE_PICTURES} | set_tags
    assert set(log.Tags()["histograms"]) == {f"views_activations/{name}" for name in LAYERS}
    for tag in (*log.Tags()["images"], "views_activations/code"):
        events = log.Histograms(tag) if "activations" in tag else log.Images(tag)
        assert [event.step for event in events] == [0, 1, 2, 4, 8, 10], tag
    text = log.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text == "```yaml\nmodel:\n  code_dim: 5\n```"


@pytest.mark.slow
def test_the_images_are_the_same_at_every_step_and_reconstructions_are_not(tmp_path: Path) -> None:
    write_run(tmp_path)
    events = read_event_file(event_file(tmp_path)).Images("views/reconstructions")
    sheets = [np.asarray(Image.open(io.BytesIO(event.encoded_image_string))) for event in events]
    assert {(event.height, event.width) for event in events} == {sheets[0].shape}
    side = 112 + GAP
    inputs = [np.concatenate([sheet[: 2 * side], sheet[3 * side : 5 * side]]) for sheet in sheets]
    assert all(np.array_equal(inputs[0], rows) for rows in inputs)
    sums = [int(sheet.astype(np.int64).sum()) for sheet in sheets]
    assert (np.diff(sums) > 0).all(), "the reconstructions become white"


@pytest.mark.slow
def test_the_last_pictures_are_also_files(tmp_path: Path) -> None:
    write_run(tmp_path)
    figures = {figure.name for figure in (tmp_path / "figures").iterdir()}
    of_sets = {f"{name}-{layer}.png" for name in PICTURE_SETS for layer in LAYERS}
    assert figures == {f"{name}.png" for name in (*SINGLE_PICTURES, "activations")} | of_sets


@pytest.mark.slow
def test_hparams_and_their_metrics_are_in_the_event_file(tmp_path: Path) -> None:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    write_run(tmp_path)
    log = read_event_file(event_file(tmp_path))

    def content(tag: str) -> Any:
        return HParamsPluginData.FromString(log.SummaryMetadata(f"_hparams_/{tag}").plugin_data.content)

    start = content("session_start_info").session_start_info
    assert start.group_name == "vae"
    assert start.hparams["model.code_dim"].number_value == 5
    assert start.hparams["model"].string_value == "vae"
    assert start.hparams["dataset.binarize"].bool_value is False
    assert "_hparams_/experiment" not in log.Tags()["tensors"], "TensorBoard would take one run's columns for all"
    assert [log.Scalars(f"test/{tag}")[-1].value for tag in ("nll", "kl", "bce")] == pytest.approx([41.0, 0.6, 41.5])
    assert len(log.Scalars("test/bce")) == 1, "written by no epoch"
    assert "test/unknown" not in log.Tags()["scalars"]


@pytest.mark.slow
def test_losses_of_train_and_test_share_a_chart(tmp_path: Path) -> None:
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    write_run(tmp_path)
    (event,) = read_event_file(event_file(tmp_path)).Tensors("custom_scalars__config__")
    layout = Layout.FromString(event.tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart}
    assert charts == {"nll": [r"^\w+/nll$"], "kl": [r"^\w+/kl$"]}


def test_without_views_no_context_is_made(tmp_path: Path) -> None:
    def fail(epoch: int) -> ViewContext:
        raise AssertionError("no view needs a context")

    tensorboard = TensorBoardWriter(tmp_path, {}, fail)
    tensorboard.open("a: 1")
    tensorboard.add_pictures(0)
    tensorboard.add_scalars(1, {"train/nll": 1.0})
    tensorboard.add_pictures(1, last=True)
    tensorboard.close({}, {}, "bare")
    assert read_event_file(event_file(tmp_path)).Tags()["images"] == []
    assert not (tmp_path / "figures").exists()


def test_the_event_file_can_be_read_before_the_run_ends(tmp_path: Path) -> None:
    tensorboard = TensorBoardWriter(
        tmp_path, {"units": Units()}, context_factory(make_model(vae), some_images(), Prepare(), NoNoise())
    )
    tensorboard.open("a: 1")
    tensorboard.add_scalars(1, {"train/nll": 1.0})
    tensorboard.add_pictures(1)
    log = read_event_file(event_file(tmp_path))
    assert [e.value for e in log.Scalars("train/nll")] == [1.0]
    assert len(log.Images("views_units/hidden1")) == 1
    tensorboard.close({}, {}, "open")


@pytest.mark.slow
@pytest.mark.parametrize("cut", [0, 1000])
def test_a_resumed_run_has_one_event_file(tmp_path: Path, cut: int) -> None:
    write_run(tmp_path, epochs=6)
    old_file = event_file(tmp_path)
    old_file.write_bytes(old_file.read_bytes()[: -cut or None])  # a kill may cut the file
    tensorboard = TensorBoardWriter(
        tmp_path, VIEWS, context_factory(make_model(vae), some_images(), Prepare(), NoNoise())
    )
    curves = [(epoch, {"train/nll": 100.0 - epoch, "test/nll": 50.0 - max(epoch - 1, 0)}) for epoch in range(5)]
    tensorboard.open("a: 2", epoch=4, curves=curves, last=6)
    for epoch in (5, 6):
        tensorboard.add_scalars(epoch, {"train/nll": 7.0, "test/nll": 8.0})
        tensorboard.add_pictures(epoch, last=epoch == 6)
    tensorboard.close({"a": 2}, {"test/nll": 8.0}, "again")
    log = read_event_file(event_file(tmp_path))
    assert [(e.step, e.value) for e in log.Scalars("test/nll")] == [
        *((0, 50.0), (1, 50.0), (2, 49.0), (3, 48.0), (4, 47.0)),
        *((5, 8.0), (6, 8.0)),
    ]
    assert [event.step for event in log.Images("views_units/hidden1")] == [0, 1, 2, 4, 6]
    assert len(log.Tensors("config/text_summary")) == len(log.Tensors("custom_scalars__config__")) == 1
    assert b"a: 2" in log.Tensors("config/text_summary")[0].tensor_proto.string_val[0]


def test_a_restarted_run_replaces_the_event_file(tmp_path: Path) -> None:
    write_run(tmp_path, epochs=2)
    write_run(tmp_path, {}, epochs=1)
    log = read_event_file(event_file(tmp_path))
    assert [e.step for e in log.Scalars("test/nll")] == [0, 1]
    assert log.Tags()["images"] == []


def test_pictures_are_drawn_at_powers_of_two() -> None:
    assert [epoch for epoch in range(70) if zero_or_power_of_two(epoch)] == [0, 1, 2, 4, 8, 16, 32, 64]


def test_a_writer_that_ctrl_c_blocks_is_closed_after_a_time_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C inside the queue of the writing thread may block the queue, so that `close` never returns."""
    monkeypatch.setattr("aetrain.views.tensorboard.MAX_CLOSE_SECONDS", 0.05)
    never_set = threading.Event()
    tensorboard = TensorBoardWriter(tmp_path, {}, context_factory(make_model(vae), some_images(), Prepare(), NoNoise()))

    tensorboard.open("a: 1")

    def interrupt() -> None:
        with tensorboard.closed_on_error():
            monkeypatch.setattr(tensorboard.writer, "close", never_set.wait)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    never_set.set()
    monkeypatch.undo()
    tensorboard.writer.close()
