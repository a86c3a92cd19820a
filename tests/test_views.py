"""Pictures are what they say they are, looking changes nothing, and TensorBoard can read back what a run wrote."""

import inspect
import io
import math
import re
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from torch import Tensor, nn

from aetrain import api
from aetrain.config.validate import locate
from aetrain.data.images import Images, Prepare
from aetrain.data.noise import Gaussian as GaussianNoise
from aetrain.data.noise import Noise, NoNoise, Replace
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.bottlenecks import Gaussian
from aetrain.model.conv import conv
from aetrain.model.dense import dense
from aetrain.model.likelihoods import Bernoulli
from aetrain.model.records import Tap
from aetrain.views import unit_activations
from aetrain.views.atlas import Atlas
from aetrain.views.codes import CodeGrid, CodeMap, principal_coordinates, procrustes_rotation
from aetrain.views.context import COVARIANCE_IMAGES, ViewContext, context_factory
from aetrain.views.error_analysis import Errors, NoiseMap
from aetrain.views.image_grids import Reconstructions, Samples, interleave_classes
from aetrain.views.latent_paths import Interpolations, Traversals
from aetrain.views.neighbours import Neighbours
from aetrain.views.projector import Embedding, Projector
from aetrain.views.render import GAP, GREY, WHITE, grid, encode_png, signed_grey, write_png
from aetrain.views.scatter import frame_corners, palette, scatter, ticks
from aetrain.views.tensorboard import TensorBoardWriter, zero_or_power_of_two
from aetrain.views.units import Activations, DecoderUnits, Units
from aetrain.views.view import Histograms, Picture, PictureSet, View

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
ALBUMS = ("units", "units_sorted", "atlas")
DRAWN = [name for name in VIEWS if name not in ("activations", "projector", *ALBUMS)]

vae = partial(dense, hidden=[16], bottleneck=Gaussian)
unpool = partial(conv, channels=(4, 8), down="maxpool", up="unpool")


def built(build: Build, shape: Shape = (1, 8, 8), code_dim: int = 5) -> Autoencoder:
    torch.manual_seed(0)
    return build(shape, likelihood=Bernoulli(), sparsifier=nn.Identity(), scale=(0.0, 1.0), code_dim=code_dim)


def some_images(shape: Shape = (1, 8, 8), count: int = 60, labelled: bool = True) -> Images:
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(256, (count, *shape), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.randint(10, (count,), generator=generator) if labelled else None)


def scene_of(model: Autoencoder, images: Images, noise: Noise | None = None, epoch: int = 0) -> ViewContext:
    return context_factory(model, images, Prepare(), noise or NoNoise())(epoch)


def model_layers(context: ViewContext) -> list[Tap]:
    return context.model.unit_layers()


def layer(output: object, name: str) -> Tensor:
    assert isinstance(output, PictureSet)
    return output.pictures[name].pixels


def picture(output: object) -> Tensor:
    assert isinstance(output, Picture)
    return output.pixels


# --- pictures out of tensors ---


def test_grid_puts_each_pixel_where_it_should_be() -> None:
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
    assert torch.equal(gaps, torch.full_like(gaps, GREY)), "between the tiles and where none is left, all is grey"


@pytest.mark.parametrize(("width", "tile"), [(28, 112), (8, 112), (10, 110), (32, 96), (3, 111), (200, 200)])
def test_tiles_are_enlarged_to_about_a_hundred_pixels(width: int, tile: int) -> None:
    assert grid(torch.zeros(2, 1, width, width), columns=2).shape[2] == 2 * (tile + GAP) + GAP


@pytest.mark.parametrize(("channels", "shown"), [(1, 1), (3, 3), (2, 1), (4, 1)])
def test_grid_shows_grey_and_colour_and_the_mean_of_other_channels(channels: int, shown: int) -> None:
    images = torch.rand(1, channels, 2, 2)
    sheet = grid(images, columns=1)
    assert sheet.shape[0] == shown
    torch.testing.assert_close(
        sheet[0, GAP, GAP], images[0, 0, 0, 0] if shown == channels else images[0, :, 0, 0].mean()
    )


def test_captions_are_written_in_a_gutter_left_of_their_rows() -> None:
    images = torch.zeros(4, 1, 8, 8)
    plain, captioned = grid(images, 2), grid(images, 2, ["clean", ""])
    gutter = captioned.shape[2] - plain.shape[2]
    assert gutter > 0
    assert torch.equal(captioned[:, :, gutter:], plain)
    first, second = captioned[:, GAP:, :gutter].chunk(2, dim=1)
    assert float(first.min()) < 0.1, "letters are dark"
    assert (second - GREY).abs().max() < 0.01, "no word, no letters"
    assert grid(torch.zeros(1, 3, 8, 8), 1, ["seen"]).shape[0] == 3


def test_grid_survives_what_is_no_number_or_out_of_range() -> None:
    sheet = grid(torch.tensor([math.nan, -3.0, 7.0, 0.2]).view(1, 1, 2, 2), 1)
    assert sheet.isfinite().all()
    assert 0 <= sheet.min() <= sheet.max() <= 1


def test_signed_grey_is_symmetric_about_the_middle() -> None:
    shown = signed_grey(torch.tensor([-9.0, -2.0, -1.0, 0.0, 1.0, 2.0, 9.0]), limit=2.0)
    torch.testing.assert_close(shown, torch.tensor([0, 0, 0.25, 0.5, 0.75, 1, 1]))


def test_png_is_read_back_as_it_was() -> None:
    for mode, channels in (("L", 1), ("RGB", 3)):
        pixels = torch.randint(256, (channels, 5, 7))
        image = Image.open(io.BytesIO(encode_png(pixels / 255)))
        assert (image.mode, image.size) == (mode, (7, 5))
        assert np.array_equal(np.asarray(image).reshape(5, 7, channels), pixels.permute(1, 2, 0).numpy())


def test_png_is_written_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "figures" / "a.png"
    write_png(torch.zeros(1, 2, 2), path)
    write_png(torch.ones(1, 2, 2), path)
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]
    assert np.asarray(Image.open(path)).tolist() == [[255, 255], [255, 255]]


def test_scatter_puts_a_class_in_its_colour_where_its_points_are() -> None:
    points = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [1.0, -1.0]])
    sheet = scatter(points, torch.tensor([4, 7, 7, 7])).mul(255).round().to(torch.uint8)
    colour = torch.tensor(palette(2)[0], dtype=torch.uint8)[:, None, None]
    plane_only = (sheet == colour).all(0)[:, :440].nonzero().float().mean(0)  # without the legend, on the right
    assert plane_only[0] > sheet.shape[1] / 2, "a low value is drawn low"
    assert plane_only[1] < sheet.shape[2] / 2, "a small value is drawn left"


@pytest.mark.parametrize("scale", [0.0, 1e-12, 1.0, 1e30])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_scatter_draws_whatever_a_code_may_be(scale: float, offset: float) -> None:
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
def test_reconstructions_show_clean_seen_and_reconstruction_of_the_same_images(noise: Noise) -> None:
    images, model = some_images(), built(vae)
    context = scene_of(model, images, noise)
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


def test_images_take_turns_among_the_classes() -> None:
    labels = torch.tensor([7, 7, 2, 5, 2, 7, 5, 5])
    assert interleave_classes(labels, 8).tolist() == [2, 3, 0, 4, 6, 1, 7, 5]
    assert interleave_classes(None, 3).tolist() == [0, 1, 2]


def test_units_are_weights_over_their_norm_on_a_fixed_scale() -> None:
    model = built(partial(dense, hidden=[3]))
    with torch.no_grad():
        model.encoder.layers[0].weight.zero_()  # type: ignore[attr-defined]
        model.encoder.layers[0].weight[0, 5] = 0.01  # type: ignore[attr-defined]
        model.encoder.layers[0].weight[1] = -3  # type: ignore[attr-defined]
    sheet = layer(Units(limit=1.0)(scene_of(model, some_images())), "hidden1").clone()
    assert sheet.shape[0] == 3, "unit 3 is dead, and has a frame"
    sheet = sheet[:1]
    first, second, third = (sheet[0, GAP : GAP + 112, GAP + i * (112 + GAP) :][:, :112] for i in range(3))
    assert first[7, 5 * 14 + 7] == 1, "alone, however small, it is white"
    assert float(first[7, 7]) == 0.5
    torch.testing.assert_close(second, torch.full_like(second, 0.5 - 0.5 * (1 / 8) * 64**0.25))
    assert torch.equal(third, torch.full_like(third, 0.5)), "a unit without weights is grey"
    assert sheet[0, 0, 0] == WHITE


def test_units_look_the_same_whatever_their_number_shown() -> None:
    context = scene_of(built(partial(dense, hidden=[100])), some_images())
    few, all_of_them = (layer(Units(count=count)(context), "hidden1") for count in (40, 100))
    first = [sheet[:, GAP : GAP + 56, GAP : 8 * (56 + GAP)] for sheet in (few, all_of_them)]
    assert torch.equal(*first)
    assert all_of_them.shape[1] == all_of_them.shape[2], "a hundred are a square"


def test_decoder_units_of_a_linear_model_are_its_weights_at_the_strength_of_their_units() -> None:
    model, images = built(dense, code_dim=3), some_images()
    with torch.no_grad():
        model.bottleneck.project.weight[2] = 0  # a dead unit
    context = scene_of(model, images)
    sheet = picture(DecoderUnits(limit=0.4)(context))
    with torch.no_grad():
        z = model.encode(images.pixels / 255).z
        moved = z.mean(0) + torch.tensor([0.0, 2 * float(z[:, 1].std(correction=0)), 0.0])
        change = model.decode_pixels(moved[None]) - model.decode_pixels(z.mean(0)[None])
    tiles = [sheet[0, GAP : GAP + 112, GAP + i * (112 + GAP) :][7:112:14, 7:112:14] for i in range(3)]
    torch.testing.assert_close(tiles[1], (0.5 + 0.5 * change[0, 0] / 0.4).clamp(0, 1))
    torch.testing.assert_close(tiles[2], torch.full((8, 8), 0.5))


def test_samples_are_of_generative_models_alone_and_the_same_at_every_look() -> None:
    images = some_images()
    assert Samples()(scene_of(built(dense), images)) is None
    model = built(vae)
    assert torch.equal(*(picture(Samples()(scene_of(model, images, epoch=e))) for e in (0, 7)))
    assert picture(Samples(count=3)(scene_of(model, images))).shape == (1, 112 + 2 * GAP, 3 * (112 + GAP) + GAP)


def test_plane_holds_the_largest_variances() -> None:
    rows = torch.randn(200, 6, generator=torch.Generator().manual_seed(1)) * torch.tensor([1, 5, 1, 9, 1, 1.0])
    singular = torch.linalg.svdvals((rows - rows.mean(0)).double())
    torch.testing.assert_close(principal_coordinates(rows).norm(dim=0).flip(0), singular[:2])


def test_the_map_of_codes_does_not_turn_or_flip() -> None:
    generator = torch.Generator().manual_seed(1)
    reference = torch.randn(100, 2, generator=generator, dtype=torch.float64)
    angle = torch.tensor(2.0, dtype=torch.float64)
    rotation = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    for mirror in (torch.tensor([1.0, 1.0]), torch.tensor([-1.0, 1.0])):
        moved = 3 * reference @ rotation * mirror
        torch.testing.assert_close(moved @ procrustes_rotation(moved, reference), 3 * reference)
    model, images = built(partial(dense, hidden=[32]), code_dim=6), some_images(count=200)
    before = picture(CodeMap()(scene_of(model, images)))
    with torch.no_grad():  # the same code, with its units negated and in another order
        model.bottleneck.project.weight.copy_(-model.bottleneck.project.weight.flip(0))
        model.bottleneck.project.bias.copy_(-model.bottleneck.project.bias.flip(0))
    after = picture(CodeMap()(scene_of(model, images)))
    assert (before != after).float().mean() < 0.01


def test_grid_of_codes_paints_the_plane_with_the_first_unit_to_the_right_and_the_second_upwards() -> None:
    model = built(partial(dense, hidden=[32]), code_dim=2)
    sheet = picture(CodeGrid(side=3, limit=1.5)(scene_of(model, some_images())))
    places = torch.tensor([[x, y] for y in (1.5, 0.0, -1.5) for x in (-1.5, 0.0, 1.5)])
    with torch.no_grad():
        assert torch.equal(sheet, grid(model.decode_pixels(places), 3, width=56))


def test_activations_are_of_every_layer_and_of_the_code() -> None:
    context = scene_of(built(partial(dense, hidden=[16, 12])), some_images())
    output = Activations()(context)
    assert {name: len(values) for name, values in output.values.items()} == {
        "hidden1": 60 * 16,
        "hidden2": 60 * 12,
        "code": 60 * 5,
        "decoder1": 60 * 12,
        "decoder2": 60 * 16,
    }
    assert all(len(values) == 10 for values in Activations(count=10)(context).values.values())


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (1, 10, 10), (1, 28, 28)])
@pytest.mark.parametrize(
    ("build", "code_dim"), [(dense, 5), (vae, 5), (vae, 2), (dense, 2), (dense, 1), (unpool, 4), (dense, 70)]
)
def test_every_view_applies_to_every_family_or_says_that_it_does_not(
    build: Build, code_dim: int, shape: Shape, labelled: bool
) -> None:
    context = scene_of(built(build, shape, code_dim), some_images(shape, 30, labelled), GaussianNoise(0.2))
    for name, view in VIEWS.items():
        output = view(context)
        if (name == "samples" and build is not vae) or (name == "grid" and code_dim == 1):
            assert output is None
        elif name == "activations":
            assert isinstance(output, Histograms)
        elif name == "projector":
            assert isinstance(output, Embedding)
        elif name in ALBUMS:
            assert isinstance(output, PictureSet)
            assert list(output.pictures) == [tap.name for tap in model_layers(context)]
            for page in output.pictures.values():
                assert 0 <= page.pixels.min() <= page.pixels.max() <= 255
                assert not page.pixels.requires_grad
        else:
            pixels = picture(output)
            assert pixels.shape[0] == (3 if name in ("code", "noise_map") else shape[0])
            assert 0 <= pixels.min() <= pixels.max() <= (255 if pixels.dtype is torch.uint8 else 1)
            assert not pixels.requires_grad


@pytest.mark.parametrize("worth", [math.nan, math.inf, 1e30])
def test_views_of_a_diverged_model_can_be_drawn(worth: float, tmp_path: Path) -> None:
    model = built(vae)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(worth)
    book = TensorBoardWriter(tmp_path, VIEWS, context_factory(model, some_images(), Prepare(), NoNoise()))
    book.open("a: 1")
    book.add_pictures(0)
    book.close({}, {}, "diverged")


def test_looking_changes_nothing(tmp_path: Path) -> None:
    model = built(vae)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    book = TensorBoardWriter(
        tmp_path,
        VIEWS,
        context_factory(model.train(), some_images(), Prepare(random_crop=8, dynamic=True), GaussianNoise()),
    )
    torch.manual_seed(11)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002  # the global one is the point
    book.open("a: 1")
    book.add_scalars(0, {"test/nll": 1.0})
    book.add_pictures(0)
    book.add_pictures(1, last=True)
    book.close({"a": 1}, {"test/nll": 1.0}, "a")
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not model.training, "a look leaves the model in evaluation mode, from which `fit` takes it at each epoch"
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("view", "word"),
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
def test_settings_that_show_nothing_are_refused(view: Callable[[], View], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        view()


def test_the_configs_offer_every_view_with_its_defaults() -> None:
    from hydra.utils import instantiate

    def views(said: str) -> dict[str, Any]:
        return dict(api.compose_config([f"views={said}"])[0].views)

    assert {name: instantiate(node, _convert_="all") for name, node in views("all").items()} == {
        **VIEWS,
        "atlas": Atlas(),
        "noise_map": NoiseMap(levels=[*NoiseMap().levels]),
    }
    assert views("none") == {}
    assert list(views("[projector,code]")) == ["projector", "code"]
    assert set(views("default")) < set(VIEWS)
    for name in VIEWS:
        (node,) = views(name).values()
        settings = inspect.signature(locate(node["_target_"])).parameters
        assert set(settings) == set(node) - {"_target_"}, f"{name} leaves out a setting"


def test_the_docs_say_what_each_view_shows() -> None:
    text = (ROOT / "docs" / "views.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.M)) == set(VIEWS)
    assert f"{unit_activations.ASCENT_STEPS} steps, each {unit_activations.STEP_FRACTION:g} of the way" in text.replace("six", "6")
    assert f"the covariance of {COVARIANCE_IMAGES} images" in text


# --- the tensorboard ---


def read(directory: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sizes = {"scalars": 0, "images": 0, "tensors": 0, "histograms": 0}
    return EventAccumulator(str(directory), size_guidance=sizes).Reload()


def kept(directory: Path) -> Path:
    (file,) = directory.glob("events.out.tfevents.*")
    return file


LAYERS = ("hidden1", "code", "decoder1")  # of the model below


def a_run(directory: Path, views: Mapping[str, View] = VIEWS, epochs: int = 10) -> None:
    """Ten epochs of a model that learns, slowly, to paint white."""
    model = built(vae)
    book = TensorBoardWriter(directory, views, context_factory(model, some_images(), Prepare(), GaussianNoise()))
    book.open("model:\n  code_dim: 5\n")
    book.add_scalars(0, {"test/nll": 50.0})
    book.add_pictures(0)
    for epoch in range(1, epochs + 1):
        with torch.no_grad():
            model.decoder.layers[-1].bias += 0.1  # type: ignore[attr-defined]
        book.add_scalars(epoch, {"train/nll": 50.0 - epoch, "test/nll": 51.0 - epoch, "train/kl": 0.5, "test/kl": 0.6})
        book.add_pictures(epoch, last=epoch == epochs)
    book.close(
        {"model": "vae", "model.code_dim": 5, "optimizer.lr": 1e-3, "dataset.binarize": False},
        {"test/nll": 51.0 - epochs, "test/kl": 0.6, "test/bce": 41.5, "test/unheard_of": 1.0},
        "vae",
    )


def test_a_run_is_one_event_file_with_curves_pictures_and_config(tmp_path: Path) -> None:
    a_run(tmp_path)
    log = read(kept(tmp_path))
    assert [(e.step, e.value) for e in log.Scalars("test/nll")] == [(0, 50.0), *((i, 51.0 - i) for i in range(1, 11))]
    pages = {f"views_{album}/{name}" for album in ALBUMS for name in LAYERS}
    assert set(log.Tags()["images"]) == {f"views/{name}" for name in DRAWN} | pages
    assert set(log.Tags()["histograms"]) == {f"views_activations/{name}" for name in LAYERS}
    for tag in (*log.Tags()["images"], "views_activations/code"):
        looks = log.Histograms(tag) if "activations" in tag else log.Images(tag)
        assert [look.step for look in looks] == [0, 1, 2, 4, 8, 10], tag
    text = log.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text == "```yaml\nmodel:\n  code_dim: 5\n```"


def test_the_images_are_the_same_at_every_step_and_what_is_learned_is_not(tmp_path: Path) -> None:
    a_run(tmp_path)
    looks = read(kept(tmp_path)).Images("views/reconstructions")
    sheets = [np.asarray(Image.open(io.BytesIO(look.encoded_image_string))) for look in looks]
    assert {(look.height, look.width) for look in looks} == {sheets[0].shape}
    side = 112 + GAP
    clean_and_seen = [np.concatenate([s[: 2 * side], s[3 * side : 5 * side]]) for s in sheets]
    assert all(np.array_equal(clean_and_seen[0], other) for other in clean_and_seen)
    assert (np.diff([int(s.astype(np.int64).sum()) for s in sheets]) > 0).all(), "the reconstructions become white"


def test_the_last_pictures_are_files_too(tmp_path: Path) -> None:
    a_run(tmp_path)
    figures = sorted((tmp_path / "figures").iterdir())
    pages = {f"{album}-{name}.png": f"views_{album}/{name}" for album in ALBUMS for name in LAYERS}
    tags = {f"{name}.png": f"views/{name}" for name in DRAWN} | pages
    assert [f.name for f in figures] == sorted(tags)
    log = read(kept(tmp_path))
    for figure in figures:
        assert figure.read_bytes() == log.Images(tags[figure.name])[-1].encoded_image_string


def test_hparams_and_their_metrics_are_in_the_runs_own_file(tmp_path: Path) -> None:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    a_run(tmp_path)
    log = read(kept(tmp_path))

    def content(tag: str) -> Any:
        return HParamsPluginData.FromString(log.SummaryMetadata(f"_hparams_/{tag}").plugin_data.content)

    start = content("session_start_info").session_start_info
    assert start.group_name == "vae"
    assert start.hparams["model.code_dim"].number_value == 5
    assert start.hparams["model"].string_value == "vae"
    assert start.hparams["dataset.binarize"].bool_value is False
    columns = [info.name.tag for info in content("experiment").experiment.metric_infos]
    assert {"test/nll", "test/kl", "test/bce", "test/neg_elbo"} < set(columns), "those of other families, too"
    assert [log.Scalars(f"test/{tag}")[-1].value for tag in ("nll", "kl", "bce")] == pytest.approx([41.0, 0.6, 41.5])
    assert len(log.Scalars("test/bce")) == 1, "no epoch wrote it"
    assert "test/unheard_of" not in log.Tags()["scalars"]


def test_terms_of_train_and_test_share_a_chart(tmp_path: Path) -> None:
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    a_run(tmp_path)
    (written,) = read(kept(tmp_path)).Tensors("custom_scalars__config__")
    layout = Layout.FromString(written.tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart}
    assert charts == {"nll": [r"^\w+/nll$"], "kl": [r"^\w+/kl$"]}


def test_without_views_no_scene_is_set(tmp_path: Path) -> None:
    def never(epoch: int) -> ViewContext:
        raise AssertionError("nobody looks")

    book = TensorBoardWriter(tmp_path, {}, never)
    book.open("a: 1")
    book.add_pictures(0)
    book.add_scalars(1, {"train/nll": 1.0})
    book.add_pictures(1, last=True)
    book.close({}, {}, "bare")
    assert read(kept(tmp_path)).Tags()["images"] == []
    assert not (tmp_path / "figures").exists()


def test_what_is_written_can_be_read_before_the_run_ends(tmp_path: Path) -> None:
    book = TensorBoardWriter(
        tmp_path, {"units": Units()}, context_factory(built(vae), some_images(), Prepare(), NoNoise())
    )
    book.open("a: 1")
    book.add_scalars(1, {"train/nll": 1.0})
    book.add_pictures(1)
    log = read(kept(tmp_path))
    assert [e.value for e in log.Scalars("train/nll")] == [1.0]
    assert len(log.Images("views_units/hidden1")) == 1
    book.close({}, {}, "open")


@pytest.mark.parametrize("cut", [0, 1000])
def test_a_run_taken_up_again_goes_on_in_one_file(tmp_path: Path, cut: int) -> None:
    a_run(tmp_path, epochs=6)
    old = kept(tmp_path)
    old.write_bytes(old.read_bytes()[: -cut or None])  # as a kill may leave it
    book = TensorBoardWriter(tmp_path, VIEWS, context_factory(built(vae), some_images(), Prepare(), NoNoise()))
    told = [(epoch, {"train/nll": 100.0 - epoch, "test/nll": 50.0 - max(epoch - 1, 0)}) for epoch in range(5)]
    book.open("a: 2", epoch=4, curves=told, last=6)
    for epoch in (5, 6):
        book.add_scalars(epoch, {"train/nll": 7.0, "test/nll": 8.0})
        book.add_pictures(epoch, last=epoch == 6)
    book.close({"a": 2}, {"test/nll": 8.0}, "again")
    log = read(kept(tmp_path))
    assert [(e.step, e.value) for e in log.Scalars("test/nll")] == [
        *((0, 50.0), (1, 50.0), (2, 49.0), (3, 48.0), (4, 47.0)),
        *((5, 8.0), (6, 8.0)),
    ]
    assert [look.step for look in log.Images("views_units/hidden1")] == [0, 1, 2, 4, 6]
    assert len(log.Tensors("config/text_summary")) == len(log.Tensors("custom_scalars__config__")) == 1
    assert b"a: 2" in log.Tensors("config/text_summary")[0].tensor_proto.string_val[0]


def test_a_run_begun_anew_forgets_what_was_there(tmp_path: Path) -> None:
    a_run(tmp_path, epochs=2)
    a_run(tmp_path, {}, epochs=1)
    log = read(kept(tmp_path))
    assert [e.step for e in log.Scalars("test/nll")] == [0, 1]
    assert log.Tags()["images"] == []


def test_pictures_are_drawn_at_powers_of_two() -> None:
    assert [epoch for epoch in range(70) if zero_or_power_of_two(epoch)] == [0, 1, 2, 4, 8, 16, 32, 64]


def test_a_writer_that_ctrl_c_has_broken_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when it strikes amid the queue of the thread that writes, which then never empties."""
    monkeypatch.setattr("aetrain.views.tensorboard.MAX_CLOSE_SECONDS", 0.05)
    never_told = threading.Event()
    book = TensorBoardWriter(tmp_path, {}, context_factory(built(vae), some_images(), Prepare(), NoNoise()))

    def struck() -> None:
        with book.session("a: 1"):
            monkeypatch.setattr(book.writer, "close", never_told.wait)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        struck()
    never_told.set()
    monkeypatch.undo()
    book.writer.close()
