"""Helpers of the contract checks."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from aetrain.data.examples import Examples
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.bottlenecks import Deterministic
from aetrain.model.dense import MakeBottleneck, dense
from aetrain.model.likelihoods import Bernoulli
from aetrain.utils.shards import Shard, computing

IMAGE_SHAPE = (1, 8, 8)
NUM_CLASSES = 3


def expect(holds: bool, sentence: str) -> None:
    """Raise AssertionError with a sentence unless a condition holds."""
    if not holds:
        raise AssertionError(sentence)


def expect_close(actual: Tensor, expected: Tensor, sentence: str, tolerance: float = 1e-4) -> None:
    """Raise AssertionError with a sentence where tensors differ by more than rounding."""
    expect(actual.shape == expected.shape, f"{sentence}: shapes {list(actual.shape)} and {list(expected.shape)}")
    expect(torch.allclose(actual, expected, rtol=tolerance, atol=tolerance), sentence)


def random_images(count: int, shape: tuple[int, int, int] = IMAGE_SHAPE, seed: int = 0) -> Tensor:
    """Return pixels [count, C, H, W] in [0, 1], half of them black or white."""
    x = torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))
    return (2 * x - 0.5).clamp(0, 1)


def labelled_images(count: int, shape: tuple[int, int, int] = IMAGE_SHAPE, seed: int = 0) -> Examples:
    """Return uint8 images in three classes, which differ in brightness."""
    labels = torch.arange(count) % NUM_CLASSES
    pixels = random_images(count, shape, seed) * (labels[:, None, None, None] + 1) / NUM_CLASSES
    return Examples(pixels.mul(255).round().to(torch.uint8), labels)


def small_model(
    make_bottleneck: MakeBottleneck = Deterministic,
    code_dim: int = 4,
    tied: bool = False,
    image_shape: tuple[int, int, int] = IMAGE_SHAPE,
) -> Autoencoder:
    """Return a small dense autoencoder with the same weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return dense(
            image_shape,
            Bernoulli(),
            nn.Identity(),
            (0.0, 1.0),
            code_dim,
            hidden=(12,),
            activation="tanh",
            bottleneck=make_bottleneck,
            tied=tied,
        )


@contextmanager
def unchanged(what: str, *modules: nn.Module) -> Iterator[None]:
    """Expect that the code inside changes no weight and draws nothing from the global generator."""
    before = [copy.deepcopy(module.state_dict()) for module in modules]
    generator = torch.get_rng_state()
    yield
    for module, state in zip(modules, before, strict=True):
        for name, tensor in module.state_dict().items():
            expect(torch.equal(tensor, state[name]), f"{what} changes {name} of the model")
    expect(torch.equal(torch.get_rng_state(), generator), f"{what} draws from the global generator: use its own")


def expect_same_in_shard(compute: Callable[[Tensor], Tensor], x: Tensor, what: str) -> None:
    """Expect of a function of examples x [6, ...] that those of a shard have the values that they have in the batch.

    A value [] is that of any examples.
    """
    shard, values = Shard(1, 4, 6, (1, 3, 2)), []
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for computed in (None, shard):
            torch.manual_seed(0)
            with computing(computed):
                values.append(compute(x if computed is None else computed.take(x)))
    expected = values[0] if values[0].dim() == 0 else shard.take(values[0])
    expect_close(values[1], expected, f"{what} in one of several processes: draw by aetrain.utils.shards")


def expect_gradients(loss: Tensor, module: nn.Module, sentence: str) -> None:
    """Expect that a loss has a finite gradient, which is not 0 everywhere, in some parameter of a module."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    present = [gradient for gradient in gradients if gradient is not None]
    expect(bool(present), f"{sentence}: no parameter has a gradient")
    expect(all(bool(gradient.isfinite().all()) for gradient in present), f"{sentence}: a gradient is not finite")
    expect(any(bool((gradient != 0).any()) for gradient in present), f"{sentence}: all gradients are 0")


def expect_reloadable(make: Callable[[], nn.Module], compute: Callable[[nn.Module], Tensor], what: str) -> None:
    """Expect that a module gives the same result after its state is saved and loaded into a new one."""
    torch.manual_seed(1)
    first = make().eval()
    torch.manual_seed(2)
    second = make().eval()
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        expect_close(compute(second), compute(first), f"{what} is another after state_dict() is saved and loaded")
