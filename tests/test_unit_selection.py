"""The units that pictures show: their importance, the dead ones that final pictures leave out, and the grey scale."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import layers_of
from torch import Tensor, nn

from aetrain.data.examples import Examples, Prepare
from aetrain.data.noise import NoNoise
from aetrain.evaluation.evaluator import ACTIVE_UNIT_VARIANCE, sse
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.bottlenecks import Gaussian, Quantized
from aetrain.model.dense import dense
from aetrain.model.layers import TopK
from aetrain.model.likelihoods import Bernoulli
from aetrain.model.likelihoods import Gaussian as Normal
from aetrain.model.records import Tap
from aetrain.views.annotations import Tiles
from aetrain.views.atlas import Atlas
from aetrain.views.context import ViewContext, context_factory
from aetrain.views.latent_paths import Traversals
from aetrain.views.render import CLIPPED_SHARE, MIN_LIMIT, describe_limit, signed_grey, signed_limit
from aetrain.views.tensorboard import TensorBoardWriter
from aetrain.views.unit_selection import MAX_DEAD_UNITS, UnitSelection, squared_effect
from aetrain.views.units import DecoderUnits, Units
from aetrain.views.view import Picture, PictureSet

deep = partial(dense, hidden=[16, 12])
DEAD = (1, 4)  # numbers from 0 of the units that `kill_units` silences


def make_model(build: Callable[..., Autoencoder], code_dim: int = 5, **options: object) -> Autoencoder:
    torch.manual_seed(0)
    settings = {"likelihood": Bernoulli(), "sparsifier": nn.Identity(), "scale": (0.0, 1.0), "code_dim": code_dim}
    return build((1, 8, 8), **(settings | options))


def context_of(model: Autoencoder) -> ViewContext:
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(256, (60, 1, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.randint(10, (60,), generator=generator)
    return context_factory(model, Examples(pixels, labels), Prepare(), NoNoise())(0)


def tap_of(context: ViewContext, name: str) -> Tap:
    return context.activations[name].tap


def selection_of(output: object, layer: str | None = None) -> UnitSelection:
    if layer is not None:
        assert isinstance(output, PictureSet)
        output = output.pictures[layer]
    assert isinstance(output, Picture)
    assert output.selection is not None
    if output.annotations is not None and output.annotations.tiles:
        assert output.annotations.tiles == output.selection.numbers
    return output.selection


@torch.no_grad()
def kill_units(model: Autoencoder) -> None:
    """Set the incoming weights of some units of the first layer to 0."""
    layer = layers_of(model.encoder)[0]
    layer.weight[list(DEAD)] = 0
    layer.bias[list(DEAD)] = 0


@torch.no_grad()
def ablated_errors(context: ViewContext, tap: Tap) -> Tensor:
    """Return the mean squared error [U] with each unit in turn at its mean over images, less the error of all units."""
    values = context.activations[tap.name].values
    errors = []
    for unit in (None, *range(values.shape[1])):
        ablated = values.clone()
        if unit is not None:
            ablated[:, unit] = values[:, unit].mean()
        hook = tap.module.register_forward_hook(lambda module, inputs, output, ablated=ablated: ablated)
        errors.append(sse(context.model.reconstruct(context.x), context.x).mean())
        hook.remove()
    return torch.stack(errors[1:]) - errors[0]


# --- importance ---


def test_importance_of_a_least_squares_decoder_is_the_error_without_the_unit() -> None:
    model = make_model(dense, likelihood=Normal(variance=1.0))
    context = context_of(model)
    (decoder,) = layers_of(model.decoder)
    z, pixels = context.z, context.x.flatten(1)
    weights = torch.linalg.lstsq(torch.cat([z, torch.ones(len(z), 1)], dim=1), pixels).solution  # [D + 1, pixels]
    with torch.no_grad():
        decoder.weight.copy_(weights[:-1].t())
        decoder.bias.copy_(weights[-1])
    context = context_of(model)
    importance = context.unit_importance(context.code_tap)
    torch.testing.assert_close(importance, z.var(0, correction=0) * weights[:-1].square().sum(1), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(importance, ablated_errors(context, context.code_tap), rtol=1e-3, atol=1e-4)


def test_importance_of_a_gaussian_code_is_its_kl_and_of_codewords_their_rate() -> None:
    context = context_of(make_model(partial(dense, hidden=[16], bottleneck=Gaussian)))
    torch.testing.assert_close(context.unit_importance(context.code_tap), context.out.code.kl().mean(0))
    hidden = tap_of(context, "hidden1")
    effect = squared_effect(context.model, hidden, context.activations["hidden1"].values, context.mean_image)
    assert torch.equal(context.unit_importance(hidden), effect), "no KL, because it is no unit of the code"
    context = context_of(make_model(partial(dense, hidden=[16], bottleneck=Quantized), code_dim=16))
    codebook = tap_of(context, "codebook")
    assert torch.equal(context.unit_importance(codebook), context.activations["codebook"].rate)


# --- final pictures ---


def test_final_pictures_leave_out_dead_units_and_count_them() -> None:
    model = make_model(deep)
    kill_units(model)
    context = context_of(model)
    for view in (Units(), Units(order="similarity"), Units(order="rate"), Atlas(count=16)):
        during_training = selection_of(view(context), "hidden1")
        assert sorted(during_training.units.tolist()) == list(range(16)), "all units, dead or not"
        final = selection_of(view(context.for_figures()), "hidden1")
        assert sorted(final.units.tolist()) == [unit for unit in range(16) if unit not in DEAD]
        assert final.describe().startswith("14 of 16 units, ")
        assert final.describe().endswith("; not drawn: 2 dead units")
    importance = context.unit_importance(tap_of(context, "hidden1"))
    drawn = selection_of(Units(count=3)(context.for_figures()), "hidden1").units
    assert drawn.tolist() == importance.argsort(descending=True)[:3].tolist()
    assert importance[list(DEAD)].tolist() == [0, 0]
    numbered = selection_of(Units(order="number")(context.for_figures()), "hidden1")
    assert numbered.units.tolist() == list(range(16)), "the order of training"


def test_units_keep_their_positions_during_training() -> None:
    context = context_of(make_model(deep))
    for output in (Units(count=7)(context), Atlas(count=7)(context)):
        assert selection_of(output, "hidden1").units.tolist() == list(range(7))
    assert selection_of(DecoderUnits()(context)).units.tolist() == list(range(5))


def test_a_layer_without_live_units_shows_its_first_units() -> None:
    model = make_model(deep)
    with torch.no_grad():
        layers_of(model.encoder)[0].weight.zero_()
    context = context_of(model).for_figures()
    selection = selection_of(Units()(context), "hidden1")
    assert selection.units.tolist() == list(range(MAX_DEAD_UNITS))
    assert selection.describe() == "8 of 16 units, by number; all 16 are dead"


def test_the_context_of_figures_shares_the_forward_pass() -> None:
    context = context_of(make_model(deep))
    final = context.for_figures()
    assert not context.is_final
    assert final.is_final
    assert final.out is context.out
    tap = tap_of(context, "hidden1")
    inputs = context.max_activating_input(tap, 16)
    shuffled = torch.tensor([5, 0, 9])
    assert inputs is not None
    cached = final.max_activating_input(tap, shuffled)
    assert cached is not None
    assert torch.equal(cached, inputs[shuffled])


def test_only_the_figures_are_drawn_from_the_final_context(tmp_path: Path) -> None:
    calls: list[tuple[str, int, bool]] = []

    class Recorder:
        def __init__(self, name: str, selects_units: bool) -> None:
            self.name, self.selects_units = name, selects_units

        def __call__(self, context: ViewContext) -> None:
            calls.append((self.name, context.epoch, context.is_final))

    views = {"units": Recorder("units", True), "images": Recorder("images", False)}
    images = Examples(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), None)
    writer = TensorBoardWriter(tmp_path, views, context_factory(make_model(deep), images, Prepare(), NoNoise()))
    writer.open("a: 1")
    writer.add_pictures(1)
    writer.add_pictures(2, last=True)
    writer.close({}, {}, "")
    assert calls == [
        *(("units", 1, False), ("images", 1, False)),
        *(("units", 2, False), ("units", 2, True), ("images", 2, False)),
    ]
    calls.clear()
    writer.open("a: 1", epoch=2, last=2)  # the figures of a resumed run
    writer.close({}, {}, "")
    assert calls == [("units", 2, True), ("images", 2, False)]


def test_pictures_of_a_variational_code_begin_with_active_units_and_leave_out_collapsed_ones() -> None:
    model = make_model(partial(dense, hidden=[16], bottleneck=Gaussian), code_dim=6)
    collapsed = [0, 2, 3]
    with torch.no_grad():
        for name, scale in (("project", 20.0), ("log_var", 1.0)):
            head = getattr(model.bottleneck, name)
            head.weight.mul_(scale)
            head.weight[collapsed], head.bias[collapsed] = 0, 0  # the posterior is the prior
    context = context_of(model)
    code = context.out.code
    assert (code.mean_z.var(0, correction=0) > ACTIVE_UNIT_VARIANCE).nonzero().flatten().tolist() == [1, 4, 5]
    nats = [float(code.kl()[:, unit].mean()) for unit in range(6)]
    descending = sorted([1, 4, 5], key=lambda unit: -nats[unit])
    for view in (DecoderUnits(), Traversals()):
        selection = selection_of(view(context.for_figures()))
        assert selection.units.tolist() == descending
        text = "3 of 6 units, largest KL from the prior first; not drawn: 3 inactive units"
        assert selection.describe() == text
    assert selection_of(DecoderUnits()(context)).units.tolist() == list(range(6))
    assert selection_of(Traversals()(context)).units.tolist() == [*descending, *collapsed], "collapsed units are last"


# --- grey scale ---


@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("build", [partial(dense, hidden=[16], bottleneck=Gaussian), partial(dense)])
def test_the_scale_of_decoder_units_fits_the_model(build: "partial[Autoencoder]", scale: float) -> None:
    """Weights of any size give a picture with contrast, in which few pixels are black or white."""
    sparsifier = nn.Identity() if build.keywords else TopK(3)  # a VAE, and a sparse code with dead units
    model = make_model(build, code_dim=20, sparsifier=sparsifier)
    with torch.no_grad():
        layers_of(model.decoder)[0].weight.mul_(scale)
    context = context_of(model)
    z, dead = context.z, context.activations["code"].dead
    picture = DecoderUnits()(context)
    assert picture.limit is not None
    mean, std = z.mean(0), z.std(0, correction=0)
    changes = context.decode_pixels(mean + 2 * std.diag()) - context.decode_pixels(mean[None])
    sizes = changes[~dead].abs().flatten()
    assert float((sizes > picture.limit).float().mean()) <= CLIPPED_SHARE
    assert float((sizes > 0.99 * picture.limit).float().mean()) >= CLIPPED_SHARE / 2, "no smaller scale is possible"
    assert picture.limit == pytest.approx(float(sizes.quantile(1 - CLIPPED_SHARE)), rel=0.05)
    assert float(signed_grey(changes[~dead], picture.limit).std()) > 0.1
    assert picture.annotations is not None
    assert [entry.text for entry in picture.annotations.key] == [
        f"{-picture.limit:.2g} or less",
        "0",
        f"{picture.limit:.2g} or more",
    ]


def test_a_fixed_scale_is_kept_and_stated() -> None:
    assert DecoderUnits(limit=0.4)(context_of(make_model(deep))).limit == 0.4
    with pytest.raises(ValueError, match="limit=0"):
        DecoderUnits(limit=0)


def test_tensorboard_states_the_scale_below_the_units() -> None:
    context = context_of(make_model(dense))
    pictures = [DecoderUnits(limit=limit)(context) for limit in (0.4, 0.8)]
    tiles = pictures[0].content
    assert isinstance(tiles, Tiles)
    height = tiles.pixels.shape[1]
    footers = [picture.pixels[:, height:] for picture in pictures]
    assert footers[0].shape == footers[1].shape
    assert not torch.equal(*footers), "the text has the number"
    assert float(footers[0].min()) < 0.5
    assert describe_limit(0.04567) == "white: +0.046, black: -0.046"


def test_changes_that_no_image_would_show_stay_grey() -> None:
    assert signed_limit(torch.full((3, 1, 8, 8), 1e-5)) == MIN_LIMIT
    assert signed_limit(torch.zeros(0, 1, 8, 8)) == MIN_LIMIT
    assert signed_limit(torch.full((3, 1, 8, 8), torch.nan)) == MIN_LIMIT
    assert signed_limit(torch.linspace(-1, 1, 1001).view(1, 1, 1, -1)) == pytest.approx(1 - CLIPPED_SHARE, abs=2e-3)
