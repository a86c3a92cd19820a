"""Convolutional and recurrent models a second way: by hand-written networks, by unfolding, by the LSTM's equations."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.config.paths import groups
from aetrain.data.images import Batches
from aetrain.evaluation.evaluator import Evaluator
from aetrain.model.conv import conv
from aetrain.model.layers import initialise
from aetrain.model.likelihoods import Bernoulli
from aetrain.model.lstm import lstm
from aetrain.model.records import Code
from aetrain.runs import train
from aetrain.runs.build import Components, build
from aetrain.training.backend import malloc
from aetrain.training.pretraining.pretrain import MeanImage, PretrainContext, mean_image


def built(*overrides: str) -> Components:
    config, _, said = api.composed(["device=cpu", "views=none", *overrides])
    return build(train.checked(config, said))


def images(count: int, *shape: int) -> torch.Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))


def documents_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2, stride=2),
            nn.Conv2d(16, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2, stride=1),
        ),
        nn.Sequential(
            nn.ConvTranspose2d(8, 16, 3, stride=2),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 8, 5, stride=3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 1, 2, stride=2, padding=1),
            nn.Tanh(),
        ),
    )


def test_experiment_conv_is_the_documents_network_and_loss() -> None:
    parts, theirs, x = built("experiment=conv"), documents_network(), images(5, 1, 28, 28)
    ours = list(parts.model.parameters())
    with torch.no_grad():
        for parameter, own in zip(theirs.parameters(), ours, strict=True):
            parameter.copy_(own)
    assert sum(p.numel() for p in ours) == 5729
    code, painted = theirs[0](2 * x - 1), theirs(2 * x - 1)
    assert code.shape == (5, 8, 2, 2)
    out = parts.model(x)
    torch.testing.assert_close(out.code.z, code.flatten(1))
    torch.testing.assert_close(parts.model.likelihood.mean(out.decoded), (painted + 1) / 2)
    loss = parts.objective(parts.model, out)["loss"]
    torch.testing.assert_close(loss, F.mse_loss(painted, 2 * x - 1))
    assert parts.optimizers[0].defaults["weight_decay"] == 1e-5


@pytest.mark.parametrize("code_dim", ["null", "5"])
@pytest.mark.parametrize("bottleneck", ["Deterministic", "Gaussian"])
def test_layer_by_layer_on_every_size(code_dim: str, bottleneck: str, tmp_path: Path) -> None:
    for size, channels in [(8, 1), (10, 3), (28, 3), (45, 1)]:
        model = built(
            "dataset=folder",
            f"dataset.path={tmp_path}",
            f"dataset.size={size}",
            f"dataset.channels={channels}",
            "model=conv_layers",
            f"model.code_dim={code_dim}",
            f"model.bottleneck._target_=aetrain.model.bottlenecks.{bottleneck}",
        ).model
        x = images(2, channels, size, size)
        assert model(x).decoded.shape == x.shape
        assert model.code_dim == (5 if code_dim == "5" else model.encoder.num_features)
        drawn = model.prior(3, torch.Generator())
        assert (drawn is None) == (bottleneck == "Deterministic")
        assert drawn is None or model.decode_pixels(drawn).shape == (3, channels, size, size)
        assert model.first_layer_weights().shape == (16, channels, 3, 3)


@pytest.mark.parametrize("sparsity", groups()["sparsity"])
def test_bare_maps_go_with_every_sparsity_and_bottleneck(sparsity: str) -> None:
    x = images(4, 1, 28, 28)
    for bottleneck, noise in [("Deterministic", "none"), ("Gaussian", "masking")]:  # noise knows no model
        overrides = ["model=conv_layers", "model.code_dim=null", f"sparsity={sparsity}", f"noise={noise}"]
        parts = built(*overrides, f"model.bottleneck._target_=aetrain.model.bottlenecks.{bottleneck}")
        assert parts.updates[0].step(x)["loss"].isfinite()


def test_layers_that_do_not_fit_are_named() -> None:
    for override, said in [
        ("model.encoder.conv2.kernel=9", "model.encoder.conv2 cannot read maps of 16x5x5"),
        ("model.decoder.up3.channels=2", "model.decoder must end"),
        ("model.encoder.conv1.chanels=2", "did you mean 'model.encoder.conv1.channels'"),
        ("model.encoder.conv1.stride=0", "model.encoder.conv1"),
    ]:
        with pytest.raises(ConfigError) as refused:
            built("model=conv_layers", override if "chanels" not in override else f"+{override}")
        assert said in str(refused.value), str(refused.value)


def test_a_layer_can_be_dropped_or_added_by_name() -> None:
    model = built("model=conv_layers", "~model.encoder.pool2", "~model.decoder.up1").model
    assert len(model.encoder.layers) == 3
    repeat = "+model.decoder.up0={_target_: aetrain.model.conv_layers.Repeat, factor: 2}"
    with pytest.raises(ConfigError, match="must end"):  # it came last
        built("model=conv_layers", repeat)


@pytest.mark.parametrize("side", [8, 9, 28])
def test_decoder_puts_maxima_back_where_the_encoder_found_them(side: int) -> None:
    torch.manual_seed(0)
    model = conv((1, side, side), Bernoulli(), nn.Identity(), (0.0, 1.0), 4, [4, 6], down="maxpool", up="unpool")
    seen: list[torch.Tensor] = []
    for layer in model.decoder.layers:
        layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    out = model(images(2, 1, side, side))
    for maps, unpooled in zip(reversed(out.hidden), seen, strict=True):
        assert unpooled.shape == maps.shape
        for index in torch.nonzero(unpooled):
            b, c, row, column = index.tolist()
            square = maps[b, c, row // 2 * 2 : row // 2 * 2 + 2, column // 2 * 2 : column // 2 * 2 + 2]
            assert maps[b, c, row, column] == square.max()
        per_square = F.avg_pool2d((unpooled != 0).float(), 2, ceil_mode=True, divisor_override=1)
        assert per_square.max() <= 1


def test_without_switches_maxima_go_to_the_top_left() -> None:
    model = conv((1, 8, 8), Bernoulli(), nn.Identity(), (0.0, 1.0), 4, [4], down="maxpool", up="unpool")
    seen: list[torch.Tensor] = []
    model.decoder.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.decode(torch.randn(3, 4))
    assert seen[0][:, :, ::2, ::2].any()
    assert not seen[0][:, :, 1::2].any()
    assert not seen[0][:, :, :, 1::2].any()


@torch.no_grad()
def test_switches_are_kept_and_measured_only_where_the_decoder_reads_them() -> None:
    for name in ("conv_unpool", "conv_upsample"):
        parts = built(f"model={name}", "dataset=digits", "dataset.subset=40")
        model, test = parts.model.eval(), parts.dataset.load().test
        x = test.pixels.to(torch.float32) / 255
        code = model.encode(x)
        figures = Evaluator(test, parts.dataset.prepare, parts.noise).evaluate_full(model, parts.objective, None)
        if name == "conv_unpool":
            alone = model.likelihood.mean(model.decode(code.z))
            assert abs(figures["code_sse"] - (alone - x).square().sum().item() / len(x)) < 1e-3
            assert abs(figures["code_sse"] - figures["sse"]) > 1e-3
        else:
            assert not code.pool_indices
            assert "code_sse" not in figures
            assert torch.equal(model.reconstruct(x), model.decode_pixels(code.z))


def test_deconvolution_is_a_convolution_of_the_spread_map() -> None:
    layer, x = nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1, output_padding=1), torch.randn(2, 3, 5, 5)
    spread = torch.zeros(2, 3, 9, 9)
    spread[:, :, ::2, ::2] = x
    turned = layer.weight.flip(2, 3).transpose(0, 1)
    torch.testing.assert_close(layer(x), F.conv2d(F.pad(spread, (1, 2, 1, 2)), turned, layer.bias))


def by_the_equations(layer: nn.LSTM, rows: torch.Tensor) -> torch.Tensor:
    """Hochreiter & Schmidhuber (1997) with forget gates, a step at a time: [B, T, in] to [B, T, units]."""
    h = c = torch.zeros(len(rows), layer.hidden_size)
    states = []
    for x in rows.unbind(1):
        read = x @ layer.weight_ih_l0.t() + layer.bias_ih_l0 + h @ layer.weight_hh_l0.t() + layer.bias_hh_l0
        i, f, g, o = read.unflatten(1, (4, -1)).unbind(1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        states.append(h)
    return torch.stack(states, 1)


def test_lstm_reads_rows_by_its_equations_and_writes_them_from_one_vector() -> None:
    torch.manual_seed(0)
    model, x = lstm((3, 6, 5), Bernoulli(), nn.Identity(), (0.0, 1.0), 4, [9, 7]), images(2, 3, 6, 5)
    rows = torch.stack([x[:, :, row].flatten(1) for row in range(6)], 1)  # [B, 6, 3 * 5]
    first = by_the_equations(model.encoder.layers[0], rows)
    second = by_the_equations(model.encoder.layers[1], first)
    out = model(x)
    torch.testing.assert_close(out.hidden[1].transpose(1, 2), second)
    torch.testing.assert_close(out.code.z, model.bottleneck.project(second[:, -1]))
    h = torch.stack([out.code.z] * 6, 1)
    for layer in model.decoder.layers:
        h = by_the_equations(layer, h)
    painted = torch.stack([model.decoder.row(h[:, row]).view(2, 3, 5) for row in range(6)], 2)
    torch.testing.assert_close(out.decoded, painted)
    assert [layer.hidden_size for layer in model.decoder.layers] == [7, 9]
    torch.testing.assert_close(model.decode(out.code.z), out.decoded)  # nothing but the vector


def test_lstm_units_are_shown_by_what_their_gates_look_for() -> None:
    model = lstm((3, 6, 5), Bernoulli(), nn.Identity(), (0.0, 1.0), 4, [7])
    shown, weight = model.first_layer_weights(), model.encoder.layers[0].weight_ih_l0
    assert shown.shape == (7, 3, 4, 5)
    assert torch.equal(shown[6, 1, 2], weight[2 * 7 + 6].view(3, 5)[1])  # the sixth unit's cell gate, second channel


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 10, 10), (3, 28, 20)])
def test_lstm_on_every_size(shape: tuple[int, int, int]) -> None:
    model = lstm(shape, Bernoulli(), nn.Identity(), (0.0, 1.0), 4, [6])
    assert model(images(2, *shape)).decoded.shape == (2, *shape)


def test_lstm_can_be_differentiated_twice() -> None:
    model = lstm((1, 4, 4), Bernoulli(), nn.Identity(), (0.0, 1.0), 2, [3])
    x = images(2, 1, 4, 4).requires_grad_()
    (slope,) = torch.autograd.grad(model.encode(x).z.sum(), x, create_graph=True)
    slope.square().sum().backward()
    assert x.grad is not None
    assert x.grad.any()


def test_forget_gates_begin_open() -> None:
    model = lstm((1, 4, 4), Bernoulli(), nn.Identity(), (0.0, 1.0), 2, [3], init="orthogonal", forget_bias=1.5)
    for layer in (model.encoder.layers[0], model.decoder.layers[0]):
        bias = (layer.bias_ih_l0 + layer.bias_hh_l0).detach().view(4, 3)
        torch.testing.assert_close(bias[1], torch.full((3,), 1.5))
        assert not bias[0].any()


def test_initialisation_takes_each_gate_for_a_matrix_of_its_own() -> None:
    layer = nn.LSTM(5, 6)
    initialise(layer, "orthogonal")
    for gate in layer.weight_hh_l0.detach().chunk(4):
        torch.testing.assert_close(gate @ gate.t(), torch.eye(6), atol=1e-5, rtol=0)
    assert not layer.bias_ih_l0.any()


@pytest.mark.parametrize("model", ["conv_layers", "conv_unpool", "conv_upsample", "lstm"])
def test_decoder_begins_with_the_mean_image(model: str) -> None:
    parts = built(f"model={model}", "dataset=digits", "likelihood=gaussian", "pretrain=mean")
    batches = Batches(parts.dataset.load().train, 64, parts.dataset.prepare)
    supplies = PretrainContext(
        batches, parts.noise, parts.objective, parts.make_optimizer, 0, lambda epoch, figures: None
    )
    MeanImage()(parts.model, supplies)
    mean = mean_image(batches)
    expected = mean.flatten() if model == "lstm" else mean.mean((1, 2))
    torch.testing.assert_close(parts.model.decoder.output_bias.detach(), expected)


def test_a_code_alone_paints_a_picture() -> None:
    for model in ("conv_layers", "conv_unpool", "conv_upsample", "lstm"):
        built_model = built(f"model={model}", "dataset=digits").model
        assert built_model.decode(Code(z=torch.zeros(2, 32))).shape == (2, 1, 8, 8)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
def test_freed_memory_is_kept_only_where_nobody_has_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in malloc.OWN:
        monkeypatch.delenv(name, raising=False)
    assert isinstance(malloc.keep_freed_memory(), bool)  # another C library has no such setting, and that is no error
    monkeypatch.setenv(malloc.OWN[0], "131072")
    assert not malloc.keep_freed_memory()
    monkeypatch.delenv(malloc.OWN[0])
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not malloc.keep_freed_memory()
