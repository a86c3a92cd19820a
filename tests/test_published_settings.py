"""Settings that published protocols need, a second way: multi-step rates, Adam from ones, one set, listed layers."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from aetrain import api
from aetrain.data.digits import Digits
from aetrain.evaluation.measures.few_labels import FewLabels
from aetrain.evaluation.measures.measure import Measure
from aetrain.evaluation.measures.probes import Probes
from aetrain.evaluation.measures.retrieval import Retrieval
from aetrain.model.map_layers import SameConv2d, SameConvTranspose2d, same_padding
from aetrain.runs import entry
from aetrain.runs.build import Components, build
from aetrain.storage.run_directory import RunDirectory
from aetrain.training.optimizers import Adam
from aetrain.training.schedules import MultiStep


def build_components(*overrides: str) -> Components:
    config, _, full_overrides = api.compose_config(["device=cpu", "views=none", "data_dir=unused", *overrides])
    return build(entry.check(config, full_overrides))


# --- Multi-step rates -------------------------------------------------------------------------------------------------


def test_multistep_equals_torchs_schedule_at_every_step() -> None:
    batches, epochs = 7, 9
    ours, theirs = (torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5) for _ in range(2))
    (set_rates,) = MultiStep([2, 5, 6], 0.3, epochs).hooks(ours)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(theirs, [2, 5, 6], 0.3)
    theirs.step()
    for epoch in range(epochs):
        for batch in range(batches):
            set_rates((epoch + batch / batches) / epochs)
            assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"])
        scheduler.step()


@pytest.mark.parametrize("milestones", [[], [0, 2], [3, 3], [5, 2]])
def test_multistep_refuses_milestones_that_do_not_rise(milestones: list[int]) -> None:
    with pytest.raises(ValueError, match=r"milestones=.* are no rising numbers"):
        MultiStep(milestones)


def test_milestones_stay_where_they_are_when_more_epochs_extend_a_run(tiny: Callable[..., Path]) -> None:
    overrides = ("model=vae", "schedule=multistep", "schedule.milestones=[1,2]")
    whole = tiny(*overrides, "epochs=3", name="whole")
    tiny(*overrides, "epochs=2", name="parts")
    parts = tiny(*overrides, "epochs=3", name="parts")
    losses = [[line["train/loss"] for line in RunDirectory(run).history() if line["epoch"]] for run in (whole, parts)]
    assert len(losses[0]) == 3
    assert losses[0] == losses[1]


# --- Adam from ones ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("initial", [0.0, 1.0])
def test_adam_equals_its_equations(initial: float) -> None:
    """Kingma & Ba (2015), algorithm 1, with second moments that start at `initial`."""
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(5, dtype=torch.float64))
    optimizer = Adam([parameter], lr=0.1, betas=(0.8, 0.9), eps=1e-4, initial_second_moment=initial)
    x, m, v = parameter.detach().clone(), torch.zeros(5, dtype=torch.float64), torch.full((5,), initial).double()
    for t in range(1, 8):
        gradient = torch.randn(5, dtype=torch.float64)
        parameter.grad = gradient.clone()
        optimizer.step()
        m, v = 0.8 * m + 0.2 * gradient, 0.9 * v + 0.1 * gradient.square()
        x = x - 0.1 * m / (1 - 0.8**t) / ((v / (1 - 0.9**t)).sqrt() + 1e-4)
        torch.testing.assert_close(parameter.detach(), x)


def test_run_with_adam_from_ones_resumes_exactly(tiny: Callable[..., Path]) -> None:
    whole = tiny("optimizer=adam_ones", "epochs=2", name="whole")
    tiny("optimizer=adam_ones", "epochs=1", name="parts")
    parts = tiny("optimizer=adam_ones", "epochs=2", name="parts")
    weights = [(run / "checkpoint" / "model.safetensors").read_bytes() for run in (whole, parts)]
    assert weights[0] == weights[1]


# --- One set of examples ----------------------------------------------------------------------------------------------


def test_single_set_has_all_examples_in_training_and_test() -> None:
    splits, apart = Digits(single_set=True, binarize="static").load(), Digits().load()
    assert len(splits.train) == len(splits.test) == len(apart.train) + len(apart.test) == 1797
    assert len(splits.validation) == 0
    assert splits.train.rows is not None
    assert splits.train.rows.tolist() == list(range(1797))
    assert torch.equal(splits.train.pixels, splits.test.pixels)
    assert len(Digits(single_set=True, subset=100).load().test) == 100
    cut = Digits(single_set=True, binarize="static", test_subset=50).load()
    assert cut.test.rows is not None
    assert torch.equal(cut.train.pixels[cut.test.rows], cut.test.pixels)
    assert len(cut.test) == 50


@pytest.mark.parametrize(
    "overrides",
    [
        ("dataset=digits", "dataset.validation=10"),
        ("dataset=digits", "dataset.train_classes=[1]"),
        ("dataset=digits", "dataset.missing=0.1"),
        ("dataset=movielens", "likelihood=gaussian"),
    ],
    ids=lambda overrides: overrides[-1],
)
def test_single_set_refuses_settings_that_need_two_sets(overrides: tuple[str, ...]) -> None:
    with pytest.raises(Exception, match="single_set=true"):
        build_components(*overrides, "dataset.single_set=true")


@pytest.mark.parametrize(
    ("measure", "is_refused"),
    [
        (Probes(), True),
        (Probes(("kmeans", "knn")), True),
        (Probes(("kmeans",)), False),
        (FewLabels(labels=(20,)), True),
        (Retrieval(), True),
    ],
)
def test_single_set_refuses_measures_that_read_training_classes(measure: Measure, is_refused: bool) -> None:
    splits = Digits(single_set=True).load().to(torch.device("cpu"))
    measure.check_images(Digits().load())
    with pytest.raises(ValueError, match="own training examples") if is_refused else nullcontext():
        measure.check_images(splits)


# --- Listed layers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "kernel", "stride"), [(28, 3, 2), (14, 4, 2), (7, 4, 1), (9, 3, 2), (5, 5, 3)])
def test_same_padding_is_that_of_tensorflow(size: int, kernel: int, stride: int) -> None:
    """TensorFlow's guide: out = ceil(n / s), total = max((out - 1) s + k - n, 0), the smaller half first."""
    convolution = SameConv2d(1, 2, kernel, stride)
    x = torch.randn(3, 1, size, size)
    out = convolution(x)
    assert out.shape[2:] == (-(-size // stride),) * 2
    before, after = same_padding(size, kernel, stride)
    assert after - before in (0, 1)
    padded = torch.zeros(3, 1, size + before + after, size + before + after)
    padded[:, :, before : before + size, before : before + size] = x
    patches = padded.unfold(2, kernel, stride).unfold(3, kernel, stride)  # [3, 1, h, w, k, k]
    assert convolution.bias is not None
    expected = torch.einsum("bchwij,ocij->bohw", patches, convolution.weight) + convolution.bias[:, None, None]
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (4, 2), (4, 1), (3, 1), (5, 3)])
def test_transposed_convolution_with_same_padding_is_the_gradient_of_the_convolution(kernel: int, stride: int) -> None:
    transposed, convolution = SameConvTranspose2d(4, 3, kernel, stride), SameConv2d(3, 4, kernel, stride)
    assert transposed.bias is not None
    with torch.no_grad():
        convolution.weight.copy_(transposed.weight)
        transposed.bias.zero_()
    x, maps = torch.randn(2, 3, 7 * stride, 7 * stride, requires_grad=True), torch.randn(2, 4, 7, 7)
    (gradient,) = torch.autograd.grad(convolution(x), x, maps)
    torch.testing.assert_close(transposed(maps), gradient)


def test_network_of_the_keras_example_has_its_numbers_of_weights() -> None:
    """The example prints 69,076 for the encoder and 65,089 for the decoder."""
    model = build_components("dataset=mnist", "model=conv_layers_vae", "model.code_dim=2").model
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert counts["encoder"] + counts["bottleneck"] == 69_076
    assert counts["decoder"] == 65_089


def test_network_of_deepobs_equals_its_layers_one_by_one() -> None:
    model = build_components("dataset=mnist", "model=conv_dropout_vae").model.eval()
    x = torch.rand(4, 1, 28, 28)
    convolutions = [layer for layer in model.encoder.modules() if isinstance(layer, nn.Conv2d)]
    hidden = x
    for layer, stride in zip(convolutions, (2, 2, 1), strict=True):
        before, after = same_padding(hidden.shape[-1], 4, stride)
        padded = F.pad(hidden, (before, after, before, after))
        hidden = F.leaky_relu(F.conv2d(padded, layer.weight, layer.bias, stride), 0.3)
    torch.testing.assert_close(model.encoder(x).features, hidden.flatten(1))
    code = model.encode(x)
    linear = [layer for layer in model.decoder.modules() if isinstance(layer, nn.Linear)]
    transposed = [layer for layer in model.decoder.modules() if isinstance(layer, nn.ConvTranspose2d)]
    maps = F.leaky_relu(linear[1](F.leaky_relu(linear[0](code.z), 0.3)), 0.3).view(4, 1, 7, 7)
    for up, stride in zip(transposed, (2, 1, 1), strict=True):
        full = F.conv_transpose2d(maps, up.weight, up.bias, stride)
        start, size = (4 - stride) // 2, stride * maps.shape[-1]
        maps = F.relu(full[:, :, start : start + size, start : start + size])
    torch.testing.assert_close(model.decode(code), linear[2](maps.flatten(1)).view(4, 1, 28, 28))


def test_transposed_kernel_below_the_stride_is_refused_by_name() -> None:
    with pytest.raises(Exception, match=r"model\.decoder\.up1\.kernel=1 is below stride=2"):
        build_components("dataset=mnist", "model=conv_layers_vae", "model.decoder.up1.kernel=1")
