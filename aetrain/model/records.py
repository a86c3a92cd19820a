"""The records that everything hands over: what an encoder made, what a bottleneck coded, what one pass saw.

Shapes: B images in a batch, C channels, H height, W width, D units of the code.
"""

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What an encoder makes of images."""

    hidden: tuple[Tensor, ...]  # activations of its layers as its taps have them, first layer first
    features: Tensor  # [B, F] what the bottleneck reads
    where: tuple[Tensor, ...] = ()  # max-pool switches, first pooling first; empty where nothing was pooled


@dataclass(frozen=True, kw_only=True)
class Code:
    """What a bottleneck hands the decoder."""

    z: Tensor  # [B, D]
    where: tuple[Tensor, ...] = ()  # the encoder's max-pool switches (Zhao et al. 2016, "What-where autoencoders")


@dataclass(frozen=True, kw_only=True)
class GaussianCode(Code):
    """A code drawn from a diagonal normal distribution."""

    mean: Tensor  # [B, D]
    log_var: Tensor  # [B, D]


@dataclass(frozen=True, kw_only=True)
class QuantizedCode(Code):
    """A code of G groups, each of them one of the codewords of a book."""

    continuous: Tensor  # [B, G, D / G] what the encoder made of each group, before it was rounded to a codeword
    codewords: Tensor  # [B, G, D / G] the codewords that it was rounded to, with their gradient
    index: Tensor  # [B, G] which codewords these are


@dataclass(frozen=True, kw_only=True)
class Forward:
    """One pass through an autoencoder. Penalties, figures and views read it and need not run the model again."""

    x: Tensor  # [B, C, H, W] the clean target, in [0, 1]
    x_in: Tensor  # [B, C, H, W] what the encoder saw: x, or x with noise
    hidden: tuple[Tensor, ...]  # the encoder's activations
    code: Code
    decoded: Tensor  # [B, C, H, W] parameters of the likelihood (logits or means), never pixels


@dataclass(frozen=True, kw_only=True, eq=False)
class Tap:
    """A layer of units: the module that turns what they read into their activations, where both can be looked at.

    Both are [B, units] for dense units, [B, channels, h, w] for maps, [B, units, steps] for what is said in steps.
    """

    name: str
    module: nn.Module
    weights: Tensor | None = None  # [units, C, h, w] as pictures, of linear units that read pixels
    contest: bool = False  # whether at each step the largest wins, and it alone is active

    @property
    def bounds(self) -> tuple[float, float] | None:
        """What the units' activations can come near to, but not pass; None where there is no end to them.

        A module of another kind says it as `bounds`; the last that says something, even None, is right.
        """
        known: dict[type[nn.Module], tuple[float, float] | None] = {nn.Sigmoid: (0.0, 1.0), nn.Tanh: (-1.0, 1.0)}
        told = [m for m in self.module.modules() if type(m) in known or hasattr(type(m), "bounds")]
        return getattr(told[-1], "bounds", known.get(type(told[-1]))) if told else None
