"""The likelihood of 8-bit pixels: a logistic distribution whose mass is collected in 256 levels."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aetrain.model.likelihoods import SATURATION_MARGIN, Likelihood, Reduction
from aetrain.model.records import Kind

HALF_LEVEL = 1 / 510  # half the distance between two of the 256 levels in [0, 1]
INITIAL_S = 0.05  # about the deviation of the pixels around a poor reconstruction, over 1.8
MIN_S = 1e-3  # a quarter of a level


class DiscretizedLogistic(Likelihood):
    """Independent 8-bit pixels: P(x) = F(x + 1/510) - F(x - 1/510), F a logistic CDF with mean m and scale s.

    Salimans et al. (2017), "PixelCNN++", arXiv:1701.05517, eq. 2, with one component, for pixels in [0, 1]: the lower
    edge is open at 0, the upper one at 1. The decoder's output is m, in the data set's `scale`; s is learned, one for
    each channel. `nll` is minus the log of a probability, and `bits_per_dim` the nats of a pixel over log 2.
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset({"image"})
    support = "8-bit"
    reports_bits_per_dim = True

    def __init__(
        self,
        reduction: Reduction = "sum",
        scale: tuple[float, float] = (0.0, 1.0),
        image_shape: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        super().__init__(reduction)
        self.low, self.high = scale
        self.log_s = nn.Parameter(torch.full((image_shape[0], 1, 1), math.log(INITIAL_S)))

    @property
    def s(self) -> Tensor:
        """The scale of the logistic distribution of each channel, [C, 1, 1], above MIN_S."""
        return MIN_S + self.log_s.exp()

    def nll(self, decoded: Tensor, x: Tensor) -> Tensor:
        """Return -log P(x) of pixels x in [0, 1], in nats per image [B].

        With a and b the upper and lower limit over s, sigmoid(a) - sigmoid(b) is sigmoid(a) sigmoid(-b) (1 - e^(b-a)),
        of which each factor has an exact logarithm.
        """
        x, mask = self.observed(x)
        s, error = self.s, x - self._location(decoded)
        from_above = F.logsigmoid((error + HALF_LEVEL) / s)
        from_below = F.logsigmoid(-(error - HALF_LEVEL) / s)
        width = (-torch.expm1(-2 * HALF_LEVEL / s)).log()
        is_black, is_white = x < HALF_LEVEL, x > 1 - HALF_LEVEL
        log_p = from_above.masked_fill(is_white, 0.0) + from_below.masked_fill(is_black, 0.0)
        log_p = log_p + width.expand_as(log_p).masked_fill(is_black | is_white, 0.0)
        if mask is not None:
            log_p = log_p.masked_fill(~mask, 0.0)
        return -log_p.flatten(1).sum(1)

    def mean(self, decoded: Tensor) -> Tensor:
        """Return the expected pixels [B, C, H, W], those of the logistic distribution after its clipping to [0, 1].

        They are s (softplus(m / s) - softplus((m - 1) / s)). The levels move them by less than half a level.
        """
        m, s = self._location(decoded), self.s
        tails = torch.log1p((-m.abs() / s).exp()) - torch.log1p((-(m - 1).abs() / s).exp())
        return m.clamp(0, 1) + s * tails

    def inverse_mean(self, x: Tensor) -> Tensor:
        """Return the decoder output [B, C, H, W] whose `mean` is x, clamped to SATURATION_MARGIN from 0 and 1."""
        s, x = self.s, x.clamp(SATURATION_MARGIN, 1 - SATURATION_MARGIN)
        m = x + s * ((-torch.expm1(-x / s)).log() - (-torch.expm1(-(1 - x) / s)).log())
        return self.low + (self.high - self.low) * m

    def _location(self, decoded: Tensor) -> Tensor:
        return decoded if (self.low, self.high) == (0, 1) else (decoded - self.low) / (self.high - self.low)
