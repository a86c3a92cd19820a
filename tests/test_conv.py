"""Convolutional and recurrent models a second way: hand-written networks, unfolding, the equations of the LSTM."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.config.paths import groups
from aetrain.data.examples import Batches
from aetrain.evaluation.evaluator import Evaluator
from aetrain.model.codes import Code
from aetrain.model.conv import conv
from aetrain.model.layers import initialise
from aetrain.model.likelihoods import Bernoulli
from aetrain.model.lstm import lstm
from aetrain.model.map_layers import ConvTranspose2d
from aetrain.runs import entry
from aetrain.runs.build import Components, build
from aetrain.training.backend import malloc
from aetrain.training.pretraining.pretrain import MeanImage, PretrainContext, mean_image


def build_components(*overrides: str) -> Components:
    config, _, full_overrides = api.compose_config(["device=cpu", "views=none", *overrides])
    return build(entry.check(config, full_overrides))


def random_images(count: int, *shape: int) -> torch.Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))


def document_network() -> nn.Sequential:
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


def test_experiment_conv_equals_the_network_and_loss_of_its_document() -> None:
    components, network, x = build_components("experiment=conv"), document_network(), random_images(5, 1, 28, 28)
    weights = list(components.model.parameters())
    with torch.no_grad():
        for parameter, weight in zip(network.parameters(), weights, strict=True):
            parameter.copy_(weight)
    assert sum(p.numel() for p in weights) == 5729
    code, decoded = network[0](2 * x - 1), network(2 * x - 1)
    assert code.shape == (5, 8, 2, 2)
    out = components.model(x)
    torch.testing.assert_close(out.code.z, code.flatten(1))
    torch.testing.assert_close(components.model.likelihood.mean(out.decoded), (decoded + 1) / 2)
    loss = components.objective(components.model, out)["loss"]
    torch.testing.assert_close(loss, F.mse_loss(decoded, 2 * x - 1))
    assert components.optimizers[0].defaults["weight_decay"] == 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("code_dim", ["null", "5"])
@pytest.mark.parametrize("bottleneck", ["Deterministic", "Gaussian"])
def test_conv_layers_on_images_of_every_size(code_dim: str, bottleneck: str, tmp_path: Path) -> None:
    for size, channels in [(8, 1), (10, 3), (28, 3), (45, 1)]:
        model: Any = build_components(
            "dataset=folder",
            f"dataset.path={tmp_path}",
            f"dataset.size={size}",
            f"dataset.channels={channels}",
            "model=conv_layers",
            f"model.code_dim={code_dim}",
            f"model.bottleneck._target_=aetrain.model.bottlenecks.{bottleneck}",
        ).model
        x = random_images(2, channels, size, size)
        assert model(x).decoded.shape == x.shape
        assert model.code_dim == (5 if code_dim == "5" else model.encoder.num_features)
        codes = model.prior(3, torch.Generator())
        assert (codes is None) == (bottleneck == "Deterministic")
        assert codes is None or model.decode_pixels(codes).shape == (3, channels, size, size)
        assert model.first_layer_weights().shape == (16, channels, 3, 3)


@pytest.mark.slow
@pytest.mark.parametrize("sparsity", groups()["sparsity"])
def test_feature_maps_as_code_fit_every_sparsity_and_bottleneck(sparsity: str) -> None:
    x = random_images(4, 1, 28, 28)
    for bottleneck, noise in [("Deterministic", "none"), ("Gaussian", "masking")]:  # noise does not depend on the model
        overrides = ["model=conv_layers", "model.code_dim=null", f"sparsity={sparsity}", f"noise={noise}"]
        components = build_components(*overrides, f"model.bottleneck._target_=aetrain.model.bottlenecks.{bottleneck}")
        assert components.optimizer_steps[0](x)["loss"].isfinite()


def test_layers_that_do_not_fit_are_named_in_the_message() -> None:
    for override, message in [
        ("model.encoder.conv2.kernel=9", "model.encoder.conv2 cannot read maps of 16x5x5"),
        ("model.decoder.up3.channels=2", "model.decoder must end"),
        ("model.encoder.conv1.chanels=2", "did you mean 'model.encoder.conv1.channels'"),
        ("model.encoder.conv1.stride=0", "model.encoder.conv1"),
    ]:
        with pytest.raises(ConfigError) as error:
            build_components("model=conv_layers", override if "chanels" not in override else f"+{override}")
        assert message in str(error.value), str(error.value)


def test_layers_can_be_removed_and_added_by_name() -> None:
    model: Any = build_components("model=conv_layers", "~model.encoder.pool2", "~model.decoder.up1").model
    assert len(model.encoder.layers) == 3
    repeat = "+model.decoder.up0={_target_: aetrain.model.conv_layers.Repeat, factor: 2}"
    with pytest.raises(ConfigError, match="must end"):  # it is appended as the last layer
        build_components("model=conv_layers", repeat)


@pytest.mark.parametrize("side", [8, 9, 28])
def test_unpooling_decoder_restores_the_positions_of_the_maxima(side: int) -> None:
    torch.manual_seed(0)
    model: Any = conv((1, side, side), Bernoulli(), nn.Identity(), (0.0, 1.0), 4, [4, 6], down="maxpool", up="unpool")
    layer_inputs: list[torch.Tensor] = []
    for layer in model.decoder.layers:
        layer.register_forward_pre_hook(lambda _, arguments: layer_inputs.append(arguments[0]))
    out = model(random_images(2, 1, side, side))
    for maps, unpooled in zip(reversed(out.hidden), layer_inputs, strict=True):
        assert unpooled.shape == maps.shape
        for index in torch.nonzero(unpooled):
            b, c, row, column = index.tolist()
            square = maps[b, c, row // 2 * 2 : row // 2 * 2 + 2, column // 2 * 2 : column // 2 * 2 + 2]
            assert maps[b, c, row, column] == square.max()
        per_square = F.avg_pool2d((unpooled != 0).float(), 2, ceil_mode=True, divisor_override=1)
        assert per_square.max() <= 1


def test_without_pool_indices_maxima_go_to_the_top_left() -> None:
    model: Any = conv((1, 8, 8), Bernoulli(), nn.Identity(), (0.0, 1.0), 4, [4], down="maxpool", up="unpool")
    layer_inputs: list[torch.Tensor] = []
    model.decoder.layers[0].register_forward_pre_hook(lambda _, arguments: layer_inputs.append(arguments[0]))
    model.decode(torch.randn(3, 4))
    assert layer_inputs[0][:, :, ::2, ::2].any()
    assert not layer_inputs[0][:, :, 1::2].any()
    assert not layer_inputs[0][:, :, :, 1::2].any()


@torch.no_grad()
def test_pool_indices_are_kept_and_measured_only_where_the_decoder_reads_them() -> None:
    for name in ("conv_unpool", "conv_upsample"):
        components = build_components(f"model={name}", "dataset=digits", "dataset.subset=40")
        model, test = components.model.eval(), components.dataset.load().test
        x = test.pixels.to(torch.float32) / 255
        code = model.encode(x)
        metrics = Evaluator(test, components.dataset.prepare, components.noise).evaluate_full(
            model, components.objective, None
        )
        if name == "conv_unpool":
            without_indices = model.likelihood.mean(model.decode(code.z))
            assert abs(metrics["code_sse"] - (without_indices - x).square().sum().item() / len(x)) < 1e-3
            assert abs(metrics["code_sse"] - metrics["sse"]) > 1e-3
        else:
            assert not code.pool_indices
            assert "code_sse" not in metrics
            assert torch.equal(model.reconstruct(x), model.decode_pixels(code.z))


def test_transposed_convolution_is_a_convolution_of_the_dilated_map() -> None:
    layer, x = nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1, output_padding=1), torch.randn(2, 3, 5, 5)
    dilated = torch.zeros(2, 3, 9, 9)
    dilated[:, :, ::2, ::2] = x
    rotated = layer.weight.flip(2, 3).transpose(0, 1)
    torch.testing.assert_close(layer(x), F.conv2d(F.pad(dilated, (1, 2, 1, 2)), rotated, layer.bias))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), height=st.integers(1, 6), width=st.integers(1, 6), channels=st.integers(1, 3))
def test_transposed_convolution_to_one_channel_is_that_of_torch(
    data: st.DataObject, height: int, width: int, channels: int
) -> None:
    kernel, stride = (data.draw(st.tuples(*[st.integers(1, 4)] * 2), name) for name in ("kernel", "stride"))
    extra = data.draw(st.tuples(*(st.integers(0, step - 1) for step in stride)), "output padding")
    padding = data.draw(st.tuples(*(st.integers(0, (size - 1) // 2) for size in kernel)), "padding")
    layer = ConvTranspose2d(channels, 1, kernel, stride, padding, extra, bias=data.draw(st.booleans(), "bias"))
    results = []
    for forward in (layer, lambda x: nn.ConvTranspose2d.forward(layer, x)):
        x = random_images(3, channels, height, width).requires_grad_()
        layer.zero_grad()
        out = forward(x)
        (out * torch.arange(out.numel()).view_as(out)).sum().backward()
        results.append([out, x.grad, *(weight.grad for weight in layer.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


def lstm_states(layer: Any, rows: torch.Tensor) -> torch.Tensor:
    """Return the states [B, T, units] of an LSTM that reads rows [B, T, in]: Hochreiter & Schmidhuber (1997)."""
    h = c = torch.zeros(len(rows), layer.hidden_size)
    states = []
    for x in rows.unbind(1):
        net_input = x @ layer.weight_ih_l0.t() + layer.bias_ih_l0 + h @ layer.weight_hh_l0.t() + layer.bias_hh_l0
        i, f, g, o = net_input.unflatten(1, (4, -1)).unbind(1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        states.append(h)
    return torch.stack(states, 1)


def test_lstm_encodes_and_decodes_rows_by_its_equations() -> None:
    torch.manual_seed(0)
    model: Any = lstm((3, 6, 5), Bernoulli(), nn.Identity(), (0.0, 1.0), 4, [9, 7])
    x = random_images(2, 3, 6, 5)
    rows = torch.stack([x[:, :, row].flatten(1) for row in range(6)], 1)  # [B, 6, 3 * 5]
    first = lstm_states(model.encoder.layers[0], rows)
    second = lstm_states(model.encoder.layers[1], first)
    out = model(x)
    torch.testing.assert_close(out.hidden[1].transpose(1, 2), second)
    torch.testing.assert_close(out.code.z, model.bottleneck.project(second[:, -1]))
    h = torch.stack([out.code.z] * 6, 1)
    for layer in model.decoder.layers:
        h = lstm_states(layer, h)
    decoded = torch.stack([model.decoder.row(h[:, row]).view(2, 3, 5) for row in range(6)], 2)
    torch.testing.assert_close(out.decoded, decoded)
    assert [layer.hidden_size for layer in model.decoder.layers] == [7, 9]
    torch.testing.assert_close(model.decode(out.code.z), out.decoded)  # the decoder reads only the code


def test_first_layer_weights_of_an_lstm_are_those_of_its_gates() -> None:
    model: Any = lstm((3, 6, 5), Bernoulli(), nn.Identity(), (0.0, 1.0), 4, [7])
    pictures, weight = model.first_layer_weights(), model.encoder.layers[0].weight_ih_l0
    assert pictures.shape == (7, 3, 4, 5)
    assert torch.equal(pictures[6, 1, 2], weight[2 * 7 + 6].view(3, 5)[1])  # the sixth unit's cell gate, second channel


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 10, 10), (3, 28, 20)])
def test_lstm_on_images_of_every_size(shape: tuple[int, int, int]) -> None:
    model = lstm(shape, Bernoulli(), nn.Identity(), (0.0, 1.0), 4, [6])
    assert model(random_images(2, *shape)).decoded.shape == (2, *shape)


def test_lstm_can_be_differentiated_twice() -> None:
    model = lstm((1, 4, 4), Bernoulli(), nn.Identity(), (0.0, 1.0), 2, [3])
    x = random_images(2, 1, 4, 4).requires_grad_()
    (gradient,) = torch.autograd.grad(model.encode(x).z.sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert x.grad is not None
    assert x.grad.any()


def test_forget_bias_is_set_in_encoder_and_decoder() -> None:
    model: Any = lstm((1, 4, 4), Bernoulli(), nn.Identity(), (0.0, 1.0), 2, [3], init="orthogonal", forget_bias=1.5)
    for layer in (model.encoder.layers[0], model.decoder.layers[0]):
        bias = (layer.bias_ih_l0 + layer.bias_hh_l0).detach().view(4, 3)
        torch.testing.assert_close(bias[1], torch.full((3,), 1.5))
        assert not bias[0].any()


def test_initialisation_draws_the_matrix_of_each_gate_separately() -> None:
    layer: Any = nn.LSTM(5, 6)
    initialise(layer, "orthogonal")
    for gate in layer.weight_hh_l0.detach().chunk(4):
        torch.testing.assert_close(gate @ gate.t(), torch.eye(6), atol=1e-5, rtol=0)
    assert not layer.bias_ih_l0.any()


@pytest.mark.parametrize("model", ["conv_layers", "conv_unpool", "conv_upsample", "lstm"])
def test_pretrain_mean_sets_the_output_bias_to_the_mean_image(model: str) -> None:
    components = build_components(f"model={model}", "dataset=digits", "likelihood=gaussian", "pretrain=mean")
    batches = Batches(components.dataset.load().train, 64, components.dataset.prepare)
    context = PretrainContext(
        batches, components.noise, components.objective, components.make_optimizer, 0, lambda epoch, metrics: None
    )
    MeanImage()(components.model, context)
    mean = mean_image(batches)
    expected = mean.flatten() if model == "lstm" else mean.mean((1, 2))
    assert components.model.decoder.output_bias is not None
    torch.testing.assert_close(components.model.decoder.output_bias.detach(), expected)


def test_every_model_decodes_a_code_without_pool_indices() -> None:
    for model in ("conv_layers", "conv_unpool", "conv_upsample", "lstm"):
        autoencoder = build_components(f"model={model}", "dataset=digits").model
        assert autoencoder.decode(Code(z=torch.zeros(2, 32))).shape == (2, 1, 8, 8)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc has the setting")
def test_freed_memory_is_kept_only_where_the_user_has_not_set_malloc(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in malloc.USER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert isinstance(malloc.keep_freed_memory(), bool)  # False with another C library, which is no error
    monkeypatch.setenv(malloc.USER_VARIABLES[0], "131072")
    assert not malloc.keep_freed_memory()
    monkeypatch.delenv(malloc.USER_VARIABLES[0])
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not malloc.keep_freed_memory()
