"""Records that modules exchange: the encoder's output, the result of one forward pass, a layer of units.

Shapes: B images in a batch, C channels, H height, W width, D units of the code.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from aetrain.model.codes import Code

# The kind of the examples of a data set. All but images are vectors of D features, [1, 1, D]: any numbers, counts such
# as those of words, or ratings, most of which are missing (NaN).
Kind = Literal["image", "vector", "counts", "ratings"]

# Each kind in messages.
DATA_WORDS: Mapping[Kind, str] = {"image": "images", "vector": "vectors", "counts": "counts", "ratings": "ratings"}


def noun_of(kind: Kind) -> str:
    """Return the word for an example of a kind in messages."""
    return "image" if kind == "image" else "example"


# The terms of a loss by name: per image [B], or [] for the batch as a whole. "loss" is the sum that training minimises.
LossDict = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """The output of an encoder."""

    hidden: tuple[Tensor, ...]  # activations of its layers in the shapes of its taps, first layer first
    features: Tensor  # [B, F] the input of the bottleneck
    pool_indices: tuple[Tensor, ...] = ()  # of max-pooling, first pooling first; empty where the decoder reads none


@dataclass(frozen=True, kw_only=True)
class Forward:
    """The result of one pass through an autoencoder. Penalties, metrics and views read it without a second pass."""

    x: Tensor  # [B, C, H, W] the clean target, in [0, 1]
    x_in: Tensor  # [B, C, H, W] the encoder's input: x, or x with noise
    hidden: tuple[Tensor, ...]  # the encoder's activations
    code: Code
    decoded: Tensor  # [B, C, H, W] parameters of the likelihood (logits or means), never pixels

    def map(self, function: Callable[[Tensor], Tensor]) -> "Forward":
        """Return the record with a function applied to each of its tensors."""
        x, x_in, decoded = map(function, (self.x, self.x_in, self.decoded))
        hidden = tuple(map(function, self.hidden))
        return Forward(x=x, x_in=x_in, hidden=hidden, code=self.code.map(function), decoded=decoded)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tap:
    """A layer of units whose inputs and activations can be read: those of one module.

    Both are [B, units] for dense units, [B, channels, h, w] for feature maps, [B, units, steps] for recurrent units.
    """

    name: str
    module: nn.Module
    weights: Tensor | None = None  # [units, C, h, w] as pictures, of linear units that read pixels
    is_argmax: bool = False  # True where only the unit with the largest activation of each step is active

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The limits that the activations approach but do not pass; None where they are unbounded.

        A module of another kind than sigmoid and tanh states them as its class attribute `bounds`. The last module
        that has bounds decides, also where they are None.
        """
        known: dict[type[nn.Module], tuple[float, float] | None] = {nn.Sigmoid: (0.0, 1.0), nn.Tanh: (-1.0, 1.0)}
        bounded = [m for m in self.module.modules() if type(m) in known or hasattr(type(m), "bounds")]
        if not bounded:
            return None
        return getattr(bounded[-1], "bounds", known.get(type(bounded[-1])))
