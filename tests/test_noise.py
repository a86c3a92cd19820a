"""Kinds of noise: their formulas in a second way, their contract, sequences of them, and their levels."""

import itertools
import json
import math
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from command import command
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from scipy.ndimage import gaussian_filter
from torch import Tensor

from aetrain import api
from aetrain.config import overrides as command_line
from aetrain.config.errors import ConfigError
from aetrain.config.paths import groups, option_config
from aetrain.config.validate import locate
from aetrain.data.digits import Digits
from aetrain.data.noise import (
    Block,
    Blur,
    Gaussian,
    ImageShape,
    Noise,
    NoiseSequence,
    NoNoise,
    Poisson,
    Replace,
    Speckle,
    noise_for,
)
from aetrain.evaluation.evaluator import sse
from aetrain.evaluation.measures.robustness import Robustness, noise_kinds
from aetrain.runs import entry
from aetrain.runs.build import build
from aetrain.runs.train import load_data
from aetrain.storage import checkpoint
from aetrain.views.error_analysis import NoiseMap

OPTIONS = groups()["noise"]
BOTH = NoiseSequence(["masking", "blur"], {"blur": Blur(0.7), "masking": Replace(0.4, 0.0)})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def build_option(option: str) -> Noise:
    config = dict(option_config("noise", option))
    noise: Noise = locate(config.pop("_target_"))(**config)
    return noise


@cache
def digits() -> Tensor:
    return Digits().read()[1].pixels.float() / 255


# --- Formulas ---


@pytest.mark.parametrize("sigma", [0.2, 0.5, 1.0, 2.3, 9.0])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 3), (8, 8), (13, 4)])
def test_blur_is_the_gaussian_filter_of_scipy(sigma: float, size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size, generator=seeded())
    planes = [gaussian_filter(plane.double(), sigma, mode="mirror", truncate=4) for plane in x.flatten(0, 1)]
    expected = torch.from_numpy(np.stack(planes)).view(x.shape)
    torch.testing.assert_close(Blur(sigma)(x).double(), expected, atol=1e-6, rtol=0)


def test_blur_of_a_point_is_the_normal_density() -> None:
    x = torch.zeros(1, 1, 41, 41)
    x[0, 0, 20, 20] = 1
    distance = (torch.arange(41.0) - 20).square()
    density = torch.exp(-(distance[:, None] + distance) / (2 * 3.0**2)) / (2 * math.pi * 3.0**2)
    torch.testing.assert_close(Blur(3.0)(x)[0, 0], density, atol=1e-5, rtol=0)
    torch.testing.assert_close(Blur(3.0)(torch.full((1, 2, 5, 7), 0.4)), torch.full((1, 2, 5, 7), 0.4))


@pytest.mark.parametrize("x", [0.2, 0.5])
def test_poisson_and_speckle_have_the_stated_moments(x: float) -> None:
    pixels = torch.full((400, 1, 30, 30), x)  # the noise is small enough that clipping changes nothing
    for noise, std in ((Poisson(100.0), math.sqrt(x / 100)), (Speckle(0.1), 0.1 * x)):
        noisy = noise(pixels, seeded()).double()
        tolerance = 5 / math.sqrt(noisy.numel())
        assert float(noisy.mean()) == pytest.approx(x, abs=tolerance * std)
        assert float(noisy.std()) == pytest.approx(std, rel=tolerance)


def test_poisson_counts_photons_and_both_keep_black_pixels_black() -> None:
    x = torch.rand(50, 1, 9, 9, generator=seeded())
    x[:, :, 0] = 0
    counts = Poisson(7.0)(x, seeded()) * 7
    torch.testing.assert_close(counts, counts.round())
    assert set(counts.round().unique().tolist()) == set(range(8)), "0 to the peak, to which brighter pixels are clipped"
    for noise in (Poisson(7.0), Speckle(2.0)):
        assert not noise(x, seeded())[:, :, 0].any()
    expected = (x + x * 2.0 * torch.randn(x.shape, generator=seeded())).clamp(0, 1)
    torch.testing.assert_close(Speckle(2.0)(x, seeded()), expected)


@pytest.mark.parametrize(("size", "height", "width"), [(1, 5, 5), (3, 7, 4), (4, 4, 4), (6, 8, 20)])
def test_block_covers_one_square_of_every_image(size: int, height: int, width: int) -> None:
    black = Block(size)(torch.ones(600, 3, height, width), seeded()) == 0
    assert torch.equal(black, black[:, :1].expand_as(black)), "the same square in all channels"
    rows, columns = black[:, 0].any(2), black[:, 0].any(1)
    assert (black.flatten(2).sum(2) == size**2).all()
    assert (rows.sum(1) == size).all()
    assert (columns.sum(1) == size).all()
    corners = torch.stack([rows.int().argmax(1), columns.int().argmax(1)], 1)
    places = (height - size + 1) * (width - size + 1)
    counts = corners.unique(dim=0, return_counts=True)[1]
    assert len(counts) == places, "every place"
    assert (counts - 600 / places).abs().max() < 6 * math.sqrt(600 / places)


def test_block_that_is_larger_than_the_image_covers_it_and_single_pixels_have_no_places() -> None:
    assert not Block(9)(torch.ones(2, 1, 4, 6), seeded()).any()
    units = torch.rand(4, 7, 1, 1)
    assert Block(3)(units) is units, "the hidden units of layer-wise pretraining"
    torch.testing.assert_close(Blur(3.0)(units), units)
    assert Block(0)(digits()) is digits()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Blur(-1.0), "sigma=-1.0"),
        (lambda: Blur(math.inf), "sigma=inf"),
        (lambda: Block(-1), "size=-1 is negative"),
        (lambda: Speckle(-0.1), "std=-0.1 is negative"),
        (lambda: Poisson(0.0), "peak=0.0"),
        (lambda: Poisson(math.nan), "peak=nan"),
        (lambda: NoiseSequence(["a"], {}), r"order=\['a'\]"),
        (lambda: NoiseSequence(["a", "a"], {"a": NoNoise()}), "the steps are a"),
        (lambda: NoiseSequence([], {"a": NoNoise()}), "each of the steps once"),
    ],
)
def test_settings_without_meaning_are_refused(make: Callable[[], Noise], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# --- The contract of every option ---

SHAPES = st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(1, 12), st.integers(1, 12))


@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("option", [*OPTIONS, "masking+blur"])
@given(shape=SHAPES, seed=st.integers(0, 1000))
def test_noise_keeps_shape_range_and_input_and_draws_from_its_generator(
    option: str, shape: tuple[int, int, int, int], seed: int
) -> None:
    noise = BOTH if option == "masking+blur" else build_option(option)
    x = torch.rand(shape, generator=seeded(seed))
    before, state = x.clone(), torch.get_rng_state()
    noisy = noise(x, seeded(seed))
    assert noisy.shape == x.shape
    assert noisy.dtype == x.dtype
    assert torch.equal(noisy, noisy.clamp(0, 1))
    assert torch.equal(x, before), "the input is unchanged"
    assert torch.equal(noise(x, seeded(seed)), noisy)
    assert torch.equal(torch.get_rng_state(), state), "the global generator is not used beside another one"
    torch.manual_seed(seed)
    assert torch.equal(noise(x), noisy), "without a generator, the global one"


@pytest.mark.parametrize("option", sorted(noise_kinds()))
@pytest.mark.parametrize("size", [(1, 8, 8), (3, 28, 28), (1, 5, 17)])
def test_level_0_changes_nothing_and_more_level_is_more_noise(option: str, size: ImageShape) -> None:
    kind = noise_kinds()[option]
    x = torch.rand(200, *size, generator=seeded())
    levels = (0.0, 1e-9, 0.1, 0.3, 0.6, 1.0)
    noisy = [kind.at_level(level, size)(x, seeded(1)) for level in levels]
    assert torch.equal(noisy[0], x)
    errors = [float((image - x).square().mean()) for image in noisy]
    assert errors == sorted(errors)
    assert errors[-1] > errors[3] > 0


def test_levels_mean_what_the_options_say() -> None:
    shape = (1, 20, 30)
    kinds = noise_kinds()
    at_level = {name: kind.at_level(0.25, shape) for name, kind in kinds.items()}
    expected = {
        "block": Block(12),  # 144 of 600 pixels
        "blur": Blur(0.25 * 20 / 4),
        "gaussian": Gaussian(0.25),
        "masking": Replace(0.25, 0.0),
        "poisson": Poisson(16.0),
        "salt": Replace(0.25, 1.0),
        "salt_and_pepper": Replace(0.25, 0.5),
        "speckle": Speckle(0.25),
    }
    assert {name: at_level[name] for name in expected} == expected
    white = torch.ones(100, 1, 50, 50)
    photons = torch.poisson(white * 16.0, generator=seeded()) / 16
    assert float(photons.std()) == pytest.approx(0.25, rel=0.02), "the level of poisson, before clipping"


# --- Sequences ---


def test_steps_are_applied_in_order_with_one_generator() -> None:
    steps: dict[str, Noise] = {"gaussian": Gaussian(0.3), "masking": Replace(0.5, 0.0)}
    x = digits()
    generator = seeded()
    by_hand = Gaussian(0.3)(Replace(0.5, 0.0)(x, generator), generator)
    masking_first = NoiseSequence(["masking", "gaussian"], steps)(x, seeded())
    assert torch.equal(masking_first, by_hand)
    gaussian_first = NoiseSequence(["gaussian", "masking"], steps)(x, seeded())
    share_black = [float((noisy[x > 0.9] == 0).float().mean()) for noisy in (masking_first, gaussian_first)]
    assert share_black == pytest.approx([0.25, 0.5], abs=0.05), (
        "half of the black pixels rise again where gaussian is last"
    )
    assert NoiseSequence()(x) is x


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("noise=[masking,gaussian]", "noise=masking+gaussian"),
        ("noise=[ masking , gaussian ]", "noise=masking+gaussian"),
        ("noise=[masking,gaussian],none", "noise=masking+gaussian,none"),
        ("noise=none,[gaussian,masking],[salt,blur]", "noise=none,gaussian+masking,salt+blur"),
        ("noise=choice([masking,gaussian],none)", "noise=choice(masking+gaussian,none)"),
        ("noise=[masking]", "noise=masking"),
        ("noise=masking+gaussian", "noise=masking+gaussian"),
        ("noise=masking", "noise=masking"),
        ("measures=[probes,robustness]", "measures=[probes,robustness]"),
        ("noise.order=[masking,gaussian]", "noise.order=[masking,gaussian]"),
    ],
)
def test_a_list_of_noises_is_one_option(text: str, normalized: str) -> None:
    assert command_line.normalize([text]) == [normalized]
    assert command_line.normalize([normalized]) == [normalized]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["noise=[masking,masking]"], "masking twice"),
        (["noise=[masking,gaussian,masking],none"], "masking twice"),
        (["noise=[]"], "noise=none"),
        (["noise=[masking,]"], "empty place"),
        (["noise=[masking,gausian]"], r"no noise named 'gausian'; did you mean 'gaussian'\?"),
        (["noise=[masking,gaussian]", "noise.order=[masking]"], r"noise\.order=\['masking'\]"),
        (["noise=[masking,gaussian]", "noise.steps.masking.q=1"], r"no setting 'noise\.steps\.masking\.q'"),
        (["noise=[masking,gaussian]", "noise.steps.masking.p=x"], r"noise\.steps\.masking\.p=x is not a number"),
    ],
)
def test_a_wrong_list_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(entry.check(*api.compose_config([*TINY, *overrides])[::2]))


def test_the_steps_of_a_sequence_have_settings_and_replace_those_of_an_experiment() -> None:
    chosen = ["noise=[masking,gaussian]", "noise.steps.gaussian.std=0.1", "noise.steps.masking.p=0.7"]
    for extra in ([], ["experiment=denoising_salt"]):
        config, _, overrides = api.compose_config([*TINY, *chosen, *extra])
        noise = build(entry.check(config, overrides)).noise
        assert noise == NoiseSequence(
            order=["masking", "gaussian"], steps={"masking": Replace(0.7, 0.0), "gaussian": Gaussian(0.1)}
        )


@pytest.mark.slow
def test_a_run_with_a_sequence_is_named_saved_resumed_and_evaluated(tmp_path: Path) -> None:
    def fine(*arguments: str) -> str:
        outcome = command(arguments, tmp_path)
        assert outcome.code == 0, outcome.err
        return outcome.out

    fine(*TINY, "noise=[masking,blur]", "hydra.run.dir=run")
    saved = (tmp_path / "run" / ".hydra" / "config.yaml").read_text()
    config = OmegaConf.create(saved)
    assert config.noise.order == ["masking", "blur"]
    assert config.noise.steps.masking.p == 0.3
    fine("resume=run", "epochs=2")
    assert "nothing to do" in fine(*TINY, "noise=[masking,blur]", "epochs=2", "hydra.run.dir=run")
    refused = command([*TINY, "noise=[blur,masking]", "epochs=2", "hydra.run.dir=run"], tmp_path)
    assert "noise.order: ['masking', 'blur'] there" in refused.err, "only the order differs"
    fine("mode=eval", "run=run", "noise=[salt,poisson]", "noise.steps.salt.p=0.1")
    directory = tmp_path / "run" / "eval" / "noise=salt+poisson,salt.p=0.1"
    own, other = (json.loads((d / "metrics.json").read_text()) for d in (tmp_path / "run", directory))
    assert own["test/sse"] == pytest.approx(other["test/sse"])
    assert own["test/noisy_sse"] != other["test/noisy_sse"]
    components = build(entry.check(*api.compose_config([f"run={tmp_path / 'run'}", "mode=eval"])[::2]))
    assert components.noise == NoiseSequence(["masking", "blur"], {"masking": Replace(0.3, 0.0), "blur": Blur(1.0)})


@pytest.mark.slow
def test_sequences_can_be_swept(tmp_path: Path) -> None:
    outcome = command(["-m", *TINY, "noise=[masking,gaussian],none,[gaussian,masking]", "hydra.sweep.dir=s"], tmp_path)
    assert outcome.code == 0, outcome.err
    names = {file.parent.name for file in tmp_path.glob("s/*/metrics.json")}
    assert names == {"noise=masking+gaussian", "noise=none", "noise=gaussian+masking"}


# --- Robustness and the noise map ---


def test_every_option_that_declares_a_level_is_compared() -> None:
    assert set(noise_kinds()) == set(OPTIONS) - {"none", "sequence"}
    assert list(noise_kinds(["salt", "blur"])) == ["salt", "blur"]
    kinds = noise_kinds([], {"dim": Poisson(3.0)})
    assert list(kinds) == ["dim"]


@pytest.mark.parametrize("part", [Robustness, NoiseMap])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kinds": ["gausian"]}, "'gausian': use names among gaussian"),
        ({"kinds": []}, r"kinds=\[\] has no noise"),
        ({"kinds": ["none"]}, "kinds="),
        ({"extra_kinds": {"salt": Poisson(3.0)}}, r"extra_kinds=\['salt'\]: salt is the name of an option"),
        ({"extra_kinds": {"none": NoNoise()}}, "NoNoise has no method at_level"),
        ({"levels": [0.5, 1.5]}, "levels=.*1.5"),
        ({"levels": []}, "levels="),
    ],
)
def test_kinds_and_levels_without_meaning_are_refused(
    part: type[Robustness | NoiseMap], arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        part(**arguments)  # type: ignore[arg-type]


def test_a_config_of_version_0_1_has_the_same_metrics_of_its_four_kinds(tiny: Callable[..., Path]) -> None:
    """The config names levels alone; the kinds of noise are built by hand."""
    target = "aetrain.evaluation.measures.robustness.Robustness"
    directory = tiny(f"+measures.robustness={{_target_: {target}, levels: [0.3, 1]}}", "noise=masking")
    metrics = json.loads((directory / "metrics.json").read_text())
    components = build(entry.check(*api.compose_config([f"run={directory}", "mode=eval"])[::2]))
    assert components.measures["robustness"] == Robustness(levels=[0.3, 1])
    checkpoint.load(directory, components.model)
    model, x = components.model.eval(), load_data(components).test.pixels.float() / 255
    kinds: dict[str, Callable[[float], Noise]] = {
        "gaussian": Gaussian,
        "masking": partial(Replace, white=0.0),
        "salt": partial(Replace, white=1.0),
        "salt_and_pepper": partial(Replace, white=0.5),
    }
    for (name, make_noise), level in itertools.product(kinds.items(), (0.3, 1)):
        noisy = make_noise(level)(x, torch.Generator().manual_seed(1))
        assert metrics[f"test/input_sse_{name}_{level:g}"] == float(sse(noisy, x).double().mean())
        reconstructions = model.reconstruct(noisy).detach()
        expected = float(sse(reconstructions, x).double().mean())
        assert metrics[f"test/noisy_sse_{name}_{level:g}"] == pytest.approx(expected, rel=1e-6)


MODULE = """
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Rows:
    p: float = 0.2

    def __call__(self, x: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        u = torch.empty_like(x[:, :1, :, :1]).uniform_(generator=generator)
        return x.masked_fill(u < self.p, 0.0)

    def at_level(self, level: float, image_shape: tuple[int, int, int]) -> "Rows":
        return replace(self, p=level)
"""


@pytest.mark.slow
def test_a_noise_of_the_user_is_measured_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine" / "noise").mkdir(parents=True)
    (tmp_path / "noise_of_rows.py").write_text(MODULE)
    (tmp_path / "mine" / "noise" / "rows.yaml").write_text("# Rows.\n_target_: noise_of_rows.Rows\np: 0.2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    added = [
        *("noise=[rows,masking]", "measures=robustness", "views=noise_map"),
        "+noise@measures.robustness.extra_kinds.rows=rows",
        "+noise@views.noise_map.extra_kinds.rows=rows",
        "measures.robustness.levels=[0,1]",
    ]
    outcome = command(["--config-dir", "mine", *TINY, *added, "hydra.run.dir=run"], tmp_path)
    assert outcome.code == 0, outcome.err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["test/input_sse_rows_0"] == 0
    assert metrics["test/input_sse_rows_1"] == pytest.approx(metrics["test/input_sse_masking_1"]), "all rows, all black"
    kinds = {name for name in metrics if name.startswith("test/noisy_sse_")}
    assert len(kinds) == 2 * (len(noise_kinds()) + 1)
    assert (tmp_path / "run" / "figures" / "noise_map.png").is_file()


@pytest.mark.parametrize("option", sorted({*OPTIONS} - {"none", "sequence"}))
def test_missing_values_stay_missing_under_every_noise(option: str) -> None:
    noise = noise_for(build_option(option), "image", has_missing=True)
    x = torch.rand(20, 1, 9, 8, generator=seeded())
    x[torch.rand(x.shape, generator=seeded(1)) < 0.4] = torch.nan
    noisy = noise(x, seeded(2))
    assert noisy.isnan()[x.isnan()].all()
    assert noisy[~noisy.isnan()].isfinite().all()
    assert not torch.equal(noisy.nan_to_num(0), x.nan_to_num(0))


def test_a_blur_of_known_pixels_is_their_weighted_mean() -> None:
    x = torch.rand(2, 1, 6, 7, generator=seeded())
    torch.testing.assert_close(noise_for(Blur(1.2), "image", has_missing=True)(x), Blur(1.2)(x))
    constant = torch.full((1, 1, 6, 7), 0.7).masked_fill(torch.rand(1, 1, 6, 7, generator=seeded()) < 0.5, torch.nan)
    blurred = noise_for(Blur(1.2), "image", has_missing=True)(constant)
    torch.testing.assert_close(blurred, constant, equal_nan=True)
