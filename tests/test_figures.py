"""The figures that a run writes at its end: their texts, their pixels, their formats, and when they are drawn."""

import base64
import io
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY
from PIL import Image
from test_views import VIEWS, context_of, make_model, some_images, vae

from aetrain import api
from aetrain.config.chosen_options import run_caption
from aetrain.config.errors import ConfigError
from aetrain.data.examples import Examples
from aetrain.data.noise import Gaussian as GaussianNoise
from aetrain.runs import entry
from aetrain.views.annotations import (
    Annotations,
    Curves,
    FigureOptions,
    KeyEntry,
    PlacedText,
    PointCloud,
    Sheet,
    Tiles,
)
from aetrain.views.context import ViewContext
from aetrain.views.drawing_parameters import drawing_parameters
from aetrain.views.figure import draw_figure, enlargement, label_tiles, save_figure
from aetrain.views.learning_curves import curve_panels, unit_of
from aetrain.views.page import MAX_TEXT_LENGTH, WIDTH, text_width, wrap
from aetrain.views.render import GAP, grid
from aetrain.views.view import describe_view

CAPTION = "vae · digits · epoch 3 · seed 7"
SETTINGS = {"epochs": 1}  # a config that is not lost
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

# Texts that the figure of each view has beside its caption.
TEXTS = {
    "reconstructions": ["Test images and their reconstructions", "image", "noisy input", "reconstruction", *NAMES],
    "units-code": ["Inputs that activate the units of the code most", "unit", "0"],
    "units-hidden1": ["Inputs that activate the units of layer hidden1 most"],
    "units_sorted-hidden1": ["Inputs that activate the units of layer hidden1 most"],
    "decoder_units": ["Effects of the units of the code on the decoded image", "change of a pixel:", "0"],
    "samples": ["Images decoded from codes drawn from the prior", "value of a pixel:", "1"],
    "code": ["Codes of 60 test images", *(f"axis {i} of the principal plane" for i in (1, 2)), "class", *NAMES],
    "grid": ["Images decoded from a grid of codes", "axis 1 of the principal plane, standard deviations", "-2", "0.11"],
    "neighbours": ["Nearest neighbours of test images", "rank of the neighbour", "by pixels", "by code", "8", "zero"],
    "activations": ["Distributions of the activations of each layer", "activation", "hidden1", "code", "decoder1"],
    "atlas-hidden1": ["Atlas of the units of layer hidden1", "unit", "input", "effect", "best images"],
    "interpolations": ["position between the two codes", "zero to two", "0.17", "1"],
    "traversals": ["value of the unit, standard deviations from the mean of the prior", "-2.5", "2.5"],
    "errors": ["Test images with the worst reconstructions", "class: mean squared error", "image", "reconstruction"],
    "noise_map": ["Reconstructions of noisy test images", "level of the noise", "kind of noise", "0.15", "masking"],
}


def named_images(count: int = 60) -> Examples:
    images = some_images(count=count)
    return Examples(images.pixels, torch.arange(count) % 10, NAMES)


@pytest.fixture(scope="module")
def context() -> ViewContext:
    return context_of(make_model(vae), named_images(), GaussianNoise(), epoch=3)


@pytest.fixture(scope="module")
def figures(context: ViewContext, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the figures of all views, as PNG and SVG files."""
    folder = tmp_path_factory.mktemp("figures")
    for name, view in VIEWS.items():
        output = view(context.for_figures())
        if output is not None and name != "projector":
            output.save(folder / name, FigureOptions(CAPTION, ["png", "svg"], describe_view(view)))
    return folder


def texts_of(svg: Path) -> list[str]:
    """Return the texts of an SVG file."""
    return [unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text())]


def embedded_picture(svg: Path) -> np.ndarray:
    """Return the picture [H, W, 3] inside an SVG file, from its upper left corner."""
    (content,) = re.findall(r"data:image/png;base64,\s*([\w+/=\s]+)\"", svg.read_text())
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))


def unit_numbers(texts: list[str]) -> set[str]:
    """Return the texts that are whole numbers above 0."""
    return {text for text in texts if re.fullmatch(r"[1-9]\d*", text)}


@pytest.mark.parametrize("name", TEXTS)
def test_a_figure_has_a_title_names_and_a_caption(name: str, figures: Path) -> None:
    texts = texts_of(figures / f"{name}.svg")
    assert set(TEXTS[name]) <= set(texts)
    assert texts.count(CAPTION) == 1
    assert not re.search(r"\b(None|nan)\b", " ".join(texts))


def test_every_figure_is_wide_enough_for_a_projector(figures: Path) -> None:
    files = sorted(figures.glob("*.png"))
    assert {file.stem for file in files} >= {*TEXTS, "atlas-code", "units-decoder1"}
    for file in files:
        with Image.open(file) as image:
            assert image.width >= WIDTH >= 1600


def test_pictures_of_units_have_the_numbers_of_their_units(context: ViewContext, figures: Path) -> None:
    final = context.for_figures()
    for name, tap in (("units-hidden1", "hidden1"), ("atlas-decoder1", "decoder1")):
        view = VIEWS[name.partition("-")[0]]
        numbers = {str(unit + 1) for unit in view(final).pictures[tap].selection.units.tolist()}  # type: ignore[union-attr]
        assert numbers <= unit_numbers(texts_of(figures / f"{name}.svg"))
    assert any(text.startswith("unit ") for text in texts_of(figures / "traversals.svg"))


def test_the_picture_of_a_figure_has_the_pixels_of_tensorboard(context: ViewContext, figures: Path) -> None:
    for name in ("samples", "interpolations"):  # grids without labels of single tiles
        pixels = VIEWS[name](context).pixels  # type: ignore[union-attr]
        expected = pixels.mul(255).round().to(torch.uint8).expand(3, -1, -1).permute(1, 2, 0).numpy()
        assert np.array_equal(embedded_picture(figures / f"{name}.svg"), expected), name


def test_the_scale_of_a_picture_is_in_its_key(context: ViewContext, figures: Path) -> None:
    limit = VIEWS["decoder_units"](context.for_figures()).limit  # type: ignore[union-attr]
    assert {f"{-limit:.2g} or less", f"{limit:.2g} or more"} <= set(texts_of(figures / "decoder_units.svg"))


def test_the_key_explains_the_frames_that_occur(tmp_path: Path) -> None:
    model = make_model(partial(vae, hidden=[16]))
    with torch.no_grad():
        model.encoder.layers[0].weight[3:] = 0  # type: ignore[union-attr, index]
        model.encoder.layers[0].bias[3:] = -1  # type: ignore[union-attr, index]
    context = context_of(model, named_images())
    VIEWS["units"](context).save(tmp_path / "units", FigureOptions(CAPTION, ["svg"]))  # type: ignore[union-attr]
    assert "dead unit" in texts_of(tmp_path / "units-hidden1.svg")
    assert "saturated unit" not in texts_of(tmp_path / "units-hidden1.svg")
    assert "dead unit" not in texts_of(tmp_path / "units-code.svg")


def test_labels_stand_at_their_tiles() -> None:
    images = torch.rand(6, 1, 28, 28)
    tiles = Tiles(grid(images, 3, ["a", "b"]), (112, 112), 3)
    annotations = Annotations("", rows=["a", "b"], columns=["x", "y", "z"], tiles=["", "", "", "4", "5", "6"])
    sheet = label_tiles(tiles, annotations, font=10)
    plain = grid(images, 3)
    band = sheet.pixels.shape[1] - plain.shape[1]
    assert band > 10, "a band above the second row alone"
    second = GAP // 2 + 112 + GAP
    assert torch.equal(sheet.pixels[:, second + band :], plain[:, second:])
    assert bool((sheet.pixels[:, second : second + band] == 1).all())
    positions = {text.text: (text.x, text.y) for text in sheet.texts}
    assert set(positions) == {*"abxyz456"}
    assert positions["5"][0] == positions["y"][0] == GAP + 112 + GAP + 56
    assert second < positions["5"][1] < second + band
    assert positions["b"][1] == second + band + GAP // 2 + 56
    assert positions["a"][0] < 0
    assert positions["x"][1] < 0


def test_pixels_are_enlarged_by_whole_numbers() -> None:
    assert enlargement(100, 700) == (2, 1)
    assert enlargement(100, 800) == (2, 1600 / 1440)
    assert enlargement(100, 5000)[0] == 1
    assert enlargement(118, 118, tile=112)[0] == 3, "a few tiles do not fill the page"
    red = torch.zeros(3, 40, 720)
    red[0] = 1
    with drawing_parameters():
        content = draw_figure(Sheet(red), Annotations("red"), FigureOptions()).encode_png()
    picture = np.asarray(Image.open(io.BytesIO(content)))
    assert int((picture == (255, 0, 0)).all(2).sum()) == (2 * 40) * (2 * 720)


def parameters() -> dict[str, object]:
    """Return matplotlib's parameters but its backend, which is chosen when it is read."""
    import matplotlib

    return {name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != "backend"}


def test_figures_are_the_same_at_every_drawing(figures: Path, context: ViewContext, tmp_path: Path) -> None:
    import matplotlib

    options = FigureOptions(CAPTION, ["png", "svg", "pdf"], describe_view(VIEWS["code"]))
    contents = []
    styles: dict[str, Any] = {"a": {}, "b": {"figure.facecolor": "black", "font.size": 30, "axes.grid": True}}
    for name, style in styles.items():
        with matplotlib.rc_context(style):
            before = parameters()
            VIEWS["code"](context).save(tmp_path / name / "code", options)  # type: ignore[union-attr]
            assert parameters() == before
        contents.append({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1], "whatever the user's style is"
    assert set(contents[0]) == {"code.png", "code.svg", "code.pdf"}
    assert contents[0]["code.pdf"].startswith(b"%PDF")
    assert contents[0]["code.svg"] == (figures / "code.svg").read_bytes()


@pytest.mark.parametrize("name", ["$x^2", "_private", "日本語", "two\nlines", "<b>&amp;", "long " * 60, ""])
def test_class_names_are_drawn_as_they_are(name: str, tmp_path: Path) -> None:
    cloud = PointCloud(torch.rand(4, 2), torch.tensor([0, 1, 1, 0]), [name, "other"])
    save_figure(cloud, Annotations("names"), tmp_path / "points", FigureOptions("", ["svg", "png"]))
    text = " ".join(name.split())
    if len(text) > MAX_TEXT_LENGTH:
        text = f"{text[: MAX_TEXT_LENGTH - 1]}…"
    assert {text, "other"} - {""} <= set(texts_of(tmp_path / "points.svg"))


def test_texts_are_wrapped_and_shrunk_to_their_place() -> None:
    lines = wrap("one two three four", 20, text_width("one two", 20) + 1)
    assert lines == ["one two", "three", "four"]
    assert wrap("", 20, 100) == []
    narrow = PlacedText(50, 50, "a long text in a small place", max_width=20)
    with drawing_parameters():
        page = draw_figure(Sheet(torch.zeros(1, 100, 1440), [narrow]), Annotations("t"), FigureOptions())
    (text,) = (item for item in page.figure.texts if item.get_text() == narrow.text)
    assert float(text.get_fontsize()) < 8


def test_a_picture_without_annotations_has_its_name_as_title(tmp_path: Path) -> None:
    from aetrain.views.view import Picture

    Picture(torch.rand(1, 20, 20)).save(tmp_path / "class_means", FigureOptions(CAPTION, ["svg"], "The note."))
    assert {"Class means", "The note.", CAPTION} <= set(texts_of(tmp_path / "class_means.svg"))


# --- learning curves ---


def history(epochs: int) -> list[Mapping[str, float]]:
    lines: list[Mapping[str, float]] = [{"epoch": 0, "test/sse": 100.0, "seconds": 0.0}]
    trained = range(1, epochs + 1)
    return lines + [{"epoch": i, "train/loss": 9.0 - i, "test/sse": 100.0 / 10**i, "seconds": 1.0} for i in trained]


def test_learning_curves_have_a_panel_for_each_metric() -> None:
    descriptions = {"sse": "squared error of the reconstruction", "loss": "training loss, nats"}
    panels = list(curve_panels(history(2), descriptions))
    assert [(panel.metric, panel.unit) for panel in panels] == [("sse", "squared error"), ("loss", "nats")]
    assert panels[0].curves == {"test images": [(0, 100.0), (1, 10.0), (2, 1.0)]}
    assert panels[1].curves == {"training images": [(1, 8.0), (2, 7.0)]}
    assert not list(curve_panels(history(0), descriptions)), "one point is no curve"
    assert unit_of("signal-to-noise ratio, dB") == "dB"
    with drawing_parameters():
        page = draw_figure(Curves(panels), Annotations("Learning curves", x_axis="epoch"), FigureOptions())
    sse, loss = page.figure.axes
    assert (sse.get_yscale(), loss.get_yscale()) == ("log", "linear")
    assert (sse.get_xlabel(), sse.get_ylabel()) == ("epoch", "squared error")
    assert [*np.asarray(loss.lines[0].get_xdata())] == [1, 2]
    assert {"training images", "test images"} <= {text.get_text() for text in page.figure.texts}


# --- a run ---


def test_a_run_writes_its_figures_in_the_chosen_formats(tiny: Callable[..., Path]) -> None:
    run = tiny("model=vae", "model.hidden=[16]", "views=[decoder_units,samples]", "views.format=[svg,pdf]", "seed=3")
    names = {file.name for file in (run / "figures").iterdir()}
    assert names == {f"{name}.{kind}" for name in ("decoder_units", "samples", "curves") for kind in ("svg", "pdf")} | {
        "strip.png"
    }
    for name in ("decoder_units", "curves"):
        assert "vae · digits · epoch 1 · seed 3" in texts_of(run / "figures" / f"{name}.svg")


@pytest.mark.parametrize("value", ["gif", "null", "[]", "[png,gif]", "3"])
def test_unknown_formats_are_refused(value: str) -> None:
    config, _, overrides = api.compose_config([*TINY, f"views.format={value}"])
    with pytest.raises(ConfigError, match=r"views\.format=.* png, svg, pdf"):
        entry.check(config, overrides)


def test_formats_are_one_or_a_list() -> None:
    for value, expected in (("svg", ["svg"]), ("[png,svg,png]", ["png", "svg"])):
        config, _, overrides = api.compose_config([*TINY, "views=default", f"views.format={value}"])
        settings = entry.check(config, overrides)
        assert settings.figure_formats == expected
        assert "format" not in settings.view_names


def test_a_caption_names_the_model_the_data_set_the_epoch_and_the_seed() -> None:
    assert run_caption(SETTINGS, [], 10, 0) == "deep · mnist · epoch 10 · seed 0"
    assert run_caption(SETTINGS, ["dataset=fashion", "model=vae"], 3, 1) == "vae · fashion · epoch 3 · seed 1"
    assert run_caption(SETTINGS, ["experiment=beta_vae"], 5, 0) == "beta_vae · vae · mnist · epoch 5 · seed 0"
    assert run_caption(SETTINGS, ["experiment=hinton_best"], 5, 0) == "hinton_best · deep · mnist · epoch 5 · seed 0"


PROGRAM = """
import sys
from aetrain import api
from aetrain.runs import entry
from aetrain.views.tensorboard import TensorBoardWriter

add_pictures = TensorBoardWriter.add_pictures

def checked(self, epoch, last=False):
    add_pictures(self, epoch, last)
    assert last == ("matplotlib" in sys.modules), epoch

TensorBoardWriter.add_pictures = checked
config, directory, overrides = api.compose_config(sys.argv[1:])
entry.run(config, directory, overrides)
assert "matplotlib" in sys.modules
assert "matplotlib.pyplot" not in sys.modules
"""


def test_matplotlib_is_imported_at_the_end_of_a_run_alone_and_without_pyplot(tmp_path: Path) -> None:
    settings = [*TINY, "model=linear", "views=default", "epochs=1", "hydra.run.dir=run"]
    command = [sys.executable, "-c", PROGRAM, *settings]
    completed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert completed.returncode == 0, completed.stderr


def test_every_key_entry_fits_on_the_page() -> None:
    entries = [KeyEntry((0, 0, 0), f"entry number {number}") for number in range(30)]
    with drawing_parameters():
        page = draw_figure(
            Sheet(torch.zeros(1, 9, 9)), Annotations("key", key_title="colour", key=entries), FigureOptions()
        )
        page.encode_png()
    for text in page.figure.texts:
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= page.figure.bbox.width
        assert box.y0 >= 0
