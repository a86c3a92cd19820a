"""Views of data without pictures: words, films and columns against their definitions, and the files of a run."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from command import command
from conftest import TINY, layers_of
from PIL import Image
from sklearn.decomposition import PCA as SklearnPCA
from sklearn.metrics import r2_score
from small_datasets import (
    COLUMNS,
    FILMS,
    TOPICS,
    WORDS,
    document_counts,
    draw,
    star_ratings,
    table_values,
    topics,
    write_options,
)
from test_views import event_file, read_event_file
from torch import Tensor, nn
from written_runs import ParsedPage, write_run

from aetrain.data.examples import Examples, Prepare
from aetrain.data.noise import NoNoise
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.dense import dense
from aetrain.model.likelihoods import Gaussian
from aetrain.model.records import Kind, Tap
from aetrain.report.page import write_report
from aetrain.utils.wording import reword
from aetrain.views.annotations import PointCloud, Sheet
from aetrain.views.atlas import Atlas
from aetrain.views.bar_panels import FONT_SIZE, BarList, Panel, draw_panels, plan_lists
from aetrain.views.codes import CodeMap
from aetrain.views.context import ViewContext, context_factory
from aetrain.views.feature_errors import FeatureErrors
from aetrain.views.feature_scores import strongest_features, unit_correlations, unit_effects
from aetrain.views.linear_baseline import LinearBaseline, principal_components
from aetrain.views.projector import Projector
from aetrain.views.render import fit_text, load_font
from aetrain.views.rows import Rows
from aetrain.views.scatter import SIDE, legend_font_size, scatter
from aetrain.views.text_columns import wrap_words
from aetrain.views.unit_features import FEATURES_FILE, LESS, MORE, Features, describe_units, markdown_table

VALUES: dict[Kind, Tensor] = {"counts": document_counts(), "vector": table_values(), "ratings": star_ratings()}
NAMES: dict[Kind, tuple[str, ...]] = {"counts": WORDS, "vector": COLUMNS, "ratings": FILMS}
KINDS = list(VALUES)


def context_of(kind: Kind, code_dim: int = 2, hidden: tuple[int, ...] = (), is_final: bool = False) -> ViewContext:
    """Return the context of a dense model with a Gaussian likelihood on one of the small data sets."""
    torch.manual_seed(0)
    values = VALUES[kind][:, None, None]
    likelihood, shape = Gaussian(), (1, 1, values.shape[3])
    model: Autoencoder = dense(shape, likelihood, nn.Identity(), (0.0, 1.0), code_dim, hidden, activation="tanh")
    model.kind, model.has_missing = kind, kind == "ratings"
    labels = None if kind == "ratings" else topics(len(values))
    examples = Examples(values, labels, TOPICS, kind=kind, feature_names=NAMES[kind])
    context = context_factory(model, examples, Prepare(), NoNoise())(1)
    return context.for_figures() if is_final else context


def tap_of(context: ViewContext, name: str) -> Tap:
    return next(tap for tap in context.unit_layers if tap.name == name)


# --- the features of a unit ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", ["hidden1", "code", "decoder1"])
def test_features_that_a_unit_is_active_with_are_those_of_numpys_correlation(kind: Kind, layer: str) -> None:
    context = context_of(kind, hidden=(5,))
    scores = unit_correlations(context, tap_of(context, layer), torch.tensor([1, 0]))
    x = VALUES[kind].nan_to_num(0.0)
    x = x.log1p() if kind == "counts" else x
    for row, unit in enumerate((1, 0)):
        activations = context.activations[layer].values[:, unit]
        activations = ((activations - activations.mean()) / activations.std(correction=0)).clamp(-5, 5)
        expected = np.corrcoef(torch.cat([activations[None], x.t()]).numpy())[0, 1:]
        np.testing.assert_allclose(scores[row].numpy(), expected, atol=1e-5)


def test_features_that_a_unit_of_a_linear_decoder_produces_are_its_weights_over_the_spread_of_the_features() -> None:
    spreads = {
        "vector": VALUES["vector"].std(0, correction=0),
        "counts": VALUES["counts"].mean(0).sqrt(),
        "ratings": 1 / VALUES["ratings"].isfinite().float().mean(0).sqrt(),
    }
    for kind in KINDS:
        context = context_of(kind)
        effects = unit_effects(context, context.code_tap, torch.arange(2))
        (layer,) = layers_of(context.model.decoder)
        expected = layer.weight.detach().t() * context.z.std(0, correction=0)[:, None] / spreads[kind]
        torch.testing.assert_close(effects, expected, atol=1e-5, rtol=1e-4)


def test_a_feature_of_few_examples_or_without_spread_is_no_feature_of_a_unit() -> None:
    x = VALUES["vector"].clone()
    x[:, 0], x[:, 1], x[:4, 1] = 2.0, 0.0, 9.0  # constant; in four examples alone
    context = context_of("vector")
    context = ViewContext(context.model, x[:, None, None], None, NoNoise(), 1, feature_names=COLUMNS)
    for score in (unit_correlations, unit_effects):
        scores = score(context, context.code_tap, torch.arange(2))
        assert scores[:, :2].eq(0).all()
        assert scores[:, 2:].ne(0).all()
        assert {*strongest_features(scores, COLUMNS, 10)[0].names} == {"age", "income"}


def test_the_strongest_features_are_those_of_largest_absolute_score_positive_ones_first() -> None:
    (strongest,) = strongest_features(torch.tensor([[0.1, -0.9, 0.5, 0.0]]), COLUMNS, 3)
    assert strongest.names == ("age", "height", "weight")
    assert strongest.scores == pytest.approx((0.5, 0.1, -0.9))
    (few,) = strongest_features(torch.tensor([[0.0, 0.0, 0.5, 0.0]]), COLUMNS, 3)
    assert few.names == ("age",), "a score of 0 is no feature"


def test_units_of_a_trained_model_of_documents_are_topics() -> None:
    context = context_of("counts", code_dim=3)
    words = VALUES["counts"].log1p()
    basis = torch.stack([words[topics(len(words)) == topic].mean(0) for topic in range(3)])
    with torch.no_grad():
        context.model.bottleneck.project.weight.copy_(basis - basis.mean(0))
    context = context_of_model(context.model)
    for topic, unit in enumerate(Features(words=4)(context).layers["code"]):
        assert {*unit.active_with.names} == {*WORDS[4 * topic : 4 * topic + 4]}


def context_of_model(model: Autoencoder) -> ViewContext:
    examples = Examples(VALUES["counts"][:, None, None], topics(90), TOPICS, kind="counts", feature_names=WORDS)
    return context_factory(model, examples, Prepare(), NoNoise())(1)


def test_pictures_show_some_units_and_tables_more_the_most_important_ones_at_the_end() -> None:
    view = Features(count=4, panels=2)
    for is_final in (False, True):
        context = context_of("vector", hidden=(6,), is_final=is_final)
        output = view(context)
        units = output.layers["hidden1"]
        selection = context.select_units(tap_of(context, "hidden1"), 4)
        assert [unit.unit for unit in units] == [number + 1 for number in selection.units.tolist()]
        shown = output.pictures.pictures["hidden1"].selection
        assert shown is not None
        assert shown.units.tolist() == selection.units[:2].tolist()
    with pytest.raises(ValueError, match="words=0 shows nothing"):
        Features(words=0)


def test_a_table_of_words_shows_a_name_as_it_is() -> None:
    names = ("a|b", "*c*", "<d>\n_e_")
    (strongest,) = strongest_features(torch.tensor([[3.0, 2.0, -1.0]]), names, 3)
    context = context_of("vector")
    unit = Features()(context).layers["code"][0]
    *_, row = markdown_table([type(unit)(1, 0.5, "dead", strongest, strongest)]).splitlines()
    assert row.startswith("| 1 dead | 50 % | ")
    assert r"a\|b, \*c\*, " in row
    assert "\N{MINUS SIGN}\\<d\\> \\_e\\_" in row


# --- examples and their reconstructions ---


def shown_lists(monkeypatch: pytest.MonkeyPatch, view: Rows | FeatureErrors, context: ViewContext) -> list[Panel]:
    """Return the panels that a view draws."""
    drawn: list[Panel] = []

    def record(panels: list[Panel]) -> tuple[Tensor, Sheet]:
        drawn.extend(panels)
        return draw_panels(panels)

    monkeypatch.setattr(f"{type(view).__module__}.draw_panels", record)
    view(context)
    return drawn


def test_rows_show_a_table_as_it_is_reconstructed_by_the_model_and_by_pca(monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of("vector")
    panels = shown_lists(monkeypatch, Rows(count=3), context)
    assert [panel.title for panel in panels] == [f"{topic}, row {row}" for row, topic in enumerate(TOPICS)]
    for row, panel in enumerate(panels):
        (bars,) = panel.lists
        assert tuple(bars.labels) == COLUMNS
        true, expected, linear = bars.values.unbind(1)
        x = VALUES["vector"]
        torch.testing.assert_close(true, x[row])
        torch.testing.assert_close(expected, context.model.reconstruct(context.x)[row].flatten().detach())
        torch.testing.assert_close(linear, pca_reconstruction(x, 2)[row], atol=1e-4, rtol=1e-4)


def pca_reconstruction(x: Tensor, count: int) -> Tensor:
    pca = SklearnPCA(count).fit(x.numpy())
    return torch.from_numpy(pca.inverse_transform(pca.transform(x.numpy()))).to(x)


def test_rows_of_more_features_than_fit_show_those_of_the_largest_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of("vector")
    errors = (context.model.reconstruct(context.x) - context.x).detach().flatten(1).abs() / VALUES["vector"].std(0)
    panels = shown_lists(monkeypatch, Rows(count=3, features=2), context)
    for row, panel in enumerate(panels):
        (bars,) = panel.lists
        assert [*bars.labels] == [COLUMNS[feature] for feature in errors[row].topk(2).indices.tolist()]


def test_rows_of_documents_show_counts_and_expected_counts_far_above_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    context, counts = context_of("counts"), VALUES["counts"]
    panels = shown_lists(monkeypatch, Rows(count=3, features=3), context)
    for row, panel in enumerate(panels):
        own, reconstructed = panel.lists
        excess = (counts[row] - counts.mean(0)).where(counts[row] > 0, -torch.inf)
        assert [*own.labels] == [WORDS[word] for word in excess.topk(3).indices.tolist()]
        expected = context.model.reconstruct(context.x)[row].detach().flatten()
        order = (expected - counts.mean(0)).topk(3).indices.tolist()
        assert [*reconstructed.labels] == [WORDS[word] for word in order]


def test_rows_of_ratings_show_the_held_out_ones_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of("ratings")
    hidden = context.x.clone()
    hidden[:, :, :, ::2] = torch.nan
    context = ViewContext(
        context.model, hidden, None, NoNoise(), 1, feature_names=FILMS, targets=context.x, make_baseline=None
    )
    for row, panel in enumerate(shown_lists(monkeypatch, Rows(count=8), context)):
        assert panel.title == f"row {row}"
        best, held_out = panel.lists
        known = {name for name, rating in zip(FILMS, VALUES["ratings"][row].tolist(), strict=True) if rating == rating}
        assert {*best.labels} == {name for name in known if name in FILMS[1::2]}
        if known & {*FILMS[::2]}:
            assert {*held_out.labels} == {f"? {name}" for name in known if name in FILMS[::2]}
        else:
            assert held_out.heading == "largest errors"
        assert [*best.values[:, 0]] == sorted(best.values[:, 0], reverse=True)


def test_errors_of_features_are_shares_of_their_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    context, x = context_of("vector"), VALUES["vector"]
    features, classes = shown_lists(monkeypatch, FeatureErrors(), context)
    errors = (context.model.reconstruct(context.x).detach().flatten(1) - x).square()
    shares = dict(zip(COLUMNS, (errors.mean(0) / x.var(0, correction=0)).tolist(), strict=True))
    bars = features.lists[0]
    assert [*bars.labels] == sorted(COLUMNS, key=lambda name: -shares[name])
    assert bars.values[:, 0].tolist() == pytest.approx([shares[name] for name in bars.labels], rel=1e-4)
    linear = 1 - torch.from_numpy(r2_score(x, pca_reconstruction(x, 2), multioutput="raw_values"))
    expected = [float(linear[COLUMNS.index(name)]) for name in bars.labels]
    assert bars.values[:, 1].tolist() == pytest.approx(expected, abs=1e-3)
    by_class = [float(errors[topics(len(x)) == topic].sum(1).mean()) for topic in range(3)]
    assert classes.lists[0].values[:, 0].tolist() == pytest.approx(by_class, rel=1e-4)
    assert tuple(classes.lists[0].labels) == TOPICS


# --- the linear code of the same size ---


def test_principal_components_are_those_of_the_singular_value_decomposition() -> None:
    factors = draw(200, 6, seed=1) * torch.tensor([6.0, 5.0, 4.0, 3.0, 2.0, 1.5])
    x = factors @ draw(6, 90, seed=2) + 0.1 * draw(200, 90, seed=3)
    components, variances = principal_components(x, 4)
    _, values, vectors = torch.linalg.svd(x, full_matrices=False)
    torch.testing.assert_close((components @ vectors[:4].t()).abs(), torch.eye(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(variances, values[:4].square() / 200, rtol=1e-4, atol=0)
    torch.testing.assert_close(components, principal_components(x, 4)[0], atol=0, rtol=0)


def test_the_baseline_of_documents_is_lsa_and_does_not_depend_on_their_length() -> None:
    counts = VALUES["counts"]
    baseline = LinearBaseline.fit(counts[:, None, None], 2, "counts")
    assert baseline.name == "LSA"
    rows = counts.log1p()
    rows = rows / rows.norm(dim=1, keepdim=True)
    _, _, vectors = np.linalg.svd(rows.numpy(), full_matrices=False)
    expected = np.abs(rows.numpy() @ vectors[:2].T)
    np.testing.assert_allclose(baseline.encode(counts[:, None, None]).abs().numpy(), expected, atol=1e-4)
    full = LinearBaseline.fit(counts[:, None, None], len(WORDS), "counts")
    torch.testing.assert_close(
        full.reconstruct(counts[:, None, None], len(WORDS)).flatten(1), counts, atol=1e-3, rtol=0
    )


def test_the_baseline_of_ratings_predicts_the_mean_of_a_film_that_is_not_rated() -> None:
    ratings = VALUES["ratings"][:, None, None]
    baseline = LinearBaseline.fit(ratings, 2, "ratings")
    unknown = torch.full_like(ratings[:1], torch.nan)
    torch.testing.assert_close(baseline.reconstruct(unknown, 2).flatten(), VALUES["ratings"].nanmean(0))


# --- codes in a plane ---


def test_codes_are_drawn_beside_the_linear_code_whose_plane_they_match() -> None:
    context = context_of("vector", code_dim=3)
    output = CodeMap()(context)
    cloud = cast(PointCloud, output.content)
    beside = cloud.beside
    assert beside is not None
    assert (cloud.title, beside.title, tuple(beside.class_names)) == ("codes", "PCA", TOPICS)
    torch.testing.assert_close(beside.points, context.baseline.encode(context.x)[:, :2].double())
    centred = beside.points - beside.points.mean(0)
    assert torch.linalg.eigvals(cloud.points.t() @ centred).real.min() >= -1e-6, "no rotation would match better"
    narrow = scatter(beside.points, beside.labels, title="a")
    assert output.pixels.shape[2] > 1.5 * narrow.shape[2]


@pytest.mark.usefixtures("small_figures")
def test_the_names_of_many_classes_do_not_overlap() -> None:
    sizes = [legend_font_size(number) for number in (3, 20, 40)]
    assert sizes[0] > sizes[1] > sizes[2]
    for number, size in zip((3, 20, 40), sizes, strict=True):
        assert size <= SIDE / number


# --- words ---


def test_texts_about_images_are_reworded_for_other_data() -> None:
    text = "Images: the pixels of an image, imagery, a pixel, an example; An image"
    assert reword(text, "image") == text
    expected = "Examples: the features of an example, imagery, a feature, an example; An example"
    assert reword(text, "example") == expected
    expected = "Documents: the features of a document, imagery, a feature, a document; A document"
    assert reword(text, "document") == expected
    assert reword("a density of its values (pixels in [0, 1]), nats", "example") == "a density of its values, nats"


# --- bars ---


def test_a_bar_is_as_long_as_its_value_in_its_colour() -> None:
    bars = BarList("bars", ["a", "b"], torch.tensor([[2.0], [-1.0]]), [[MORE], [LESS]])
    pixels, sheet = draw_panels([Panel("panel", [bars])])
    width = plan_lists([Panel("panel", [bars])], load_font(FONT_SIZE)).bars
    for colour, share in ((MORE, 2 / 3), (LESS, 1 / 3)):
        mask = (sheet.pixels == torch.tensor(colour, dtype=torch.uint8)[:, None, None]).all(0)
        assert int(mask.any(0).sum()) == pytest.approx(width * share, abs=3)
    assert [text.text for text in sheet.texts] == ["panel", "bars", "a", "b"]
    assert not torch.equal(pixels, sheet.pixels), "the picture of TensorBoard has its texts"


def test_bars_without_values_are_drawn() -> None:
    empty = BarList("", [], torch.zeros(0, 1), [])
    missing = BarList("", ["a"], torch.tensor([[torch.nan]]), [[MORE]])
    assert draw_panels([Panel("none", [empty, missing])])[0].shape[0] == 3


def test_a_long_name_loses_its_middle() -> None:
    font = load_font(20)
    assert fit_text("short", font, 200) == "short"
    title = "Lord of the Rings: The Fellowship of the Ring, The (2001)"
    cut = fit_text(title, font, 200)
    first, last = cut.split("…")
    assert title.startswith(first)
    assert title.endswith(last)
    assert last.endswith("(2001)")
    assert 180 < font.getlength(cut) <= 200
    assert fit_text("a\nb", font, 200) == "a b"
    assert fit_text("wide", font, 1) == "…"


# --- runs ---


@pytest.fixture
def run_on(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that trains on one of the small data sets and returns the directory of the run."""
    folder = write_options(tmp_path / "mine")

    def run_on(option: str, *overrides: str) -> Path:
        small = [f"dataset={option}", "model=deep", "model.hidden=[6]", "model.code_dim=2", "likelihood=gaussian"]
        words = ["--config-dir", str(folder), *small, "device=cpu", "trust=true", "hydra.run.dir=run", *overrides]
        outcome = command(words, tmp_path)
        assert outcome.code == 0, outcome.err
        return tmp_path / "run"

    return run_on


def test_a_run_on_a_table_writes_the_features_of_its_units(run_on: Callable[..., Path]) -> None:
    run = run_on("people", "epochs=3", "views=default")
    layers = ["hidden1", "code", "decoder1"]
    content = json.loads((run / FEATURES_FILE).read_text())
    assert [*content] == layers
    assert {*content["code"][0]["active_with"]["names"]} <= {*COLUMNS}
    log = read_event_file(event_file(run))
    for layer in layers:
        assert [event.step for event in log.Images(f"views_features/{layer}")] == [0, 1, 2, 3]
        texts = log.Tensors(f"features/{layer}/text_summary")
        assert [event.step for event in texts] == [0, 1, 2, 3]
        assert "active with" in texts[-1].tensor_proto.string_val[0].decode()
        with Image.open(run / "figures" / f"features-{layer}.png") as figure:
            assert figure.width >= 1600
    assert not [tag for tag in log.Tags()["images"] if tag.startswith(("views/reconstructions", "views_units"))]


def test_a_run_on_a_table_speaks_of_examples(run_on: Callable[..., Path]) -> None:
    run = run_on("people", "epochs=1", "views=[code,activations,rows,feature_errors]", "verbose=true")
    texts = [*json.loads((run / "descriptions.json").read_text()).values(), (run / "aetrain.log").read_text()]
    texts += [value["evidence"] for value in json.loads((run / "findings.json").read_text())]
    lines = [line for text in texts for line in text.splitlines() if "samples_per_plugin" not in line]
    assert not [line for line in lines if re.search(r"\b(image|pixel)s?\b", line)]
    assert any("examples/s" in line for line in lines)
    assert {file.stem for file in run.glob("figures/*")} == {"code", "activations", "rows", "feature_errors", "curves"}


def test_a_run_on_images_has_no_view_of_features(tiny: Callable[..., Path]) -> None:
    run = tiny("views=[features]", "epochs=0", "model.hidden=[4]", "model.code_dim=2")
    assert not (run / FEATURES_FILE).exists()
    assert not [*run.glob("figures/features*")]


def test_the_projector_has_no_thumbnails_of_data_without_pictures(tmp_path: Path) -> None:
    Projector()(context_of("counts")).save(tmp_path / "figures" / "projector")
    assert {file.name for file in tmp_path.rglob("*") if file.is_file()} == {
        *("codes.tsv", "labels.tsv", "projector_config.pbtxt"),
    }
    assert (tmp_path / "projector" / "labels.tsv").read_text().splitlines()[:2] == ["class\texample", "space\t0"]
    assert "sprite" not in (tmp_path / "projector_config.pbtxt").read_text()


def test_an_atlas_of_documents_has_words_and_the_classes_of_the_best_examples() -> None:
    context = context_of("counts", code_dim=3)
    output = Atlas(images=4)(context)
    texts = [text.text for text in cast(Sheet, output.pictures["code"].content).texts]
    assert {"unit", "active with", "produces", "best examples"} <= {*texts}
    (unit, *_) = describe_units(context, context.code_tap, torch.tensor([0]), 10)
    strongest = max(zip(unit.active_with.scores, unit.active_with.names, strict=True), key=lambda pair: abs(pair[0]))
    assert any(text.lstrip("\N{MINUS SIGN}").startswith(strongest[1]) for text in texts)
    best = context.z[:, 0].topk(4).indices % len(TOPICS)
    for topic in best.unique().tolist():
        count = int((best == topic).sum())
        name = TOPICS[topic] if count == 1 else f"{TOPICS[topic]} \N{MULTIPLICATION SIGN}{count}"
        assert any(name in text for text in texts)


def test_words_are_wrapped_into_a_few_lines_of_their_column() -> None:
    font = load_font(20)
    lines = wrap_words(["one", "two", "three"] * 20, font, 150)
    assert len(lines) == 3
    assert max(map(font.getlength, lines)) <= 150
    assert wrap_words([], font, 150) == []


def test_a_report_has_the_words_of_units_and_no_broken_picture(run_on: Callable[..., Path], tmp_path: Path) -> None:
    run = run_on("people", "epochs=1", "views=[features,rows]")
    page, count = write_report(run, tmp_path)
    text = page.read_text()
    parsed = ParsedPage(text)
    assert count == 1
    assert "Units in words" in parsed.text
    assert all(column in parsed.text for column in COLUMNS)
    images = {attributes["alt"]: attributes["src"] for tag, attributes in parsed.tags if tag == "img"}
    assert {*images} == {"rows of run"}
    assert "The same images" not in parsed.text


@pytest.mark.parametrize(
    "content", ["", "[]", "null", '{"code": 3}', '{"code": [{"unit": 1}]}', '{"code": [{"unit": "<b>"}]}']
)
def test_a_report_leaves_out_damaged_words(content: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", *TINY)
    (run / FEATURES_FILE).write_text(content)
    page, _ = write_report(tmp_path, tmp_path)
    assert "Units in words" not in page.read_text()


def test_a_report_escapes_the_names_of_features(tmp_path: Path) -> None:
    words = {"names": ["<script>alert(1)</script>", 'a"b'], "scores": [0.5, -0.25]}
    unit = {"unit": 1, "rate": 0.5, "state": "", "active_with": words, "produces": words}
    run = write_run(tmp_path / "run", *TINY)
    (run / FEATURES_FILE).write_text(json.dumps({"code": [unit]}))
    page, _ = write_report(tmp_path, tmp_path)
    assert "<script>alert" not in page.read_text()
    assert '\N{MINUS SIGN}a"b' in ParsedPage(page.read_text()).text
