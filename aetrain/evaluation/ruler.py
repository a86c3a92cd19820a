"""The one ruler: every figure that is printed, logged or written, for every family, whatever it was trained on.

Figures are means over images. Errors are between the images, in [0, 1], and the expected pixels; `nll`, `bce`, `kl`
and `neg_elbo` are nats per image.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from aetrain.data.batches import in_order
from aetrain.data.dataset import Images, Prepare
from aetrain.data.noise import Noise
from aetrain.evaluation.vitals import Vitals
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.pca import PCA
from aetrain.model.records import Forward, GaussianCode, QuantizedCode
from aetrain.objective.objective import Objective
from aetrain.objective.penalties import GaussianKL

Figures = dict[str, float]

PAINTED = 5000  # reconstructions whose directions are compared with PCA's
PIXEL_EPS = 1e-6  # cross-entropy of a reconstructed pixel that is exactly black or white stays finite


def sse(expected: Tensor, x: Tensor) -> Tensor:
    """Squared error per image, [B]."""
    return (expected - x).square().flatten(1).sum(1)


def bce(expected: Tensor, x: Tensor) -> Tensor:
    """Cross-entropy of pixels in [0, 1] per image, [B], nats."""
    p = expected.clamp(PIXEL_EPS, 1 - PIXEL_EPS)
    # -x log p - (1 - x) log(1 - p); F.binary_cross_entropy takes its logarithms one by one, six times as long.
    return -torch.lerp((1 - p).log(), p.log(), x).flatten(1).sum(1)


def entropy(x: Tensor) -> Tensor:
    """Entropy of pixels taken as Bernoulli rates, per image, [B]: the floor of their cross-entropy, nats."""
    return -(torch.xlogy(x, x) + torch.xlogy(1 - x, 1 - x)).flatten(1).sum(1)


def psnr(expected: Tensor, x: Tensor) -> Tensor:
    """10 log10(1 / MSE) per image, [B], dB; an error below half a grey level squared counts as that."""
    mse = (expected - x).square().flatten(1).mean(1)
    return -10 * mse.clamp_min((0.5 / 255) ** 2).log10()


def ssim(reconstruction: Tensor, x: Tensor) -> Tensor:
    """Structural similarity per image, [B], in a window of 11 pixels, or the largest that fits, around each pixel.

    Wang et al. (2004), eq. 13, constants and window (a normal density of deviation 1.5, cut off at 5 pixels from its
    middle) of section III.C, for pixels in [0, 1]; the picture is mirrored at its edges, and below 4 pixels the window
    is even. This is torchmetrics' figure, which takes longer to import than all else together.
    """
    side = min(x.shape[2:])
    window = min(11, side - 1 + side % 2)
    sigma = 1.5 if window == 11 else max(window - 1, 1) / 7
    from_middle = torch.arange(window, device=x.device) - window // 2
    line = torch.exp(-0.5 * (from_middle / sigma).square()) if window > 3 else torch.ones_like(from_middle)
    line = line / line.sum()
    weights = torch.outer(line, line).to(x.dtype).expand(5, 1, -1, -1)
    a, b = reconstruction.flatten(0, 1), x.flatten(0, 1)  # [B * C, H, W]
    moments = F.conv2d(
        F.pad(torch.stack([a, b, a * a, b * b, a * b], 1), 4 * [window // 2], "reflect"), weights, groups=5
    )
    mean_a, mean_b, aa, bb, ab = moments.unbind(1)  # each [B * C, h, w]
    luminance = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
    variances = (aa - mean_a**2).clamp_min(0) + (bb - mean_b**2).clamp_min(0)
    structure = (2 * (ab - mean_a * mean_b) + 0.03**2) / (variances + 0.03**2)
    return (luminance * structure).unflatten(0, x.shape[:2]).flatten(1).mean(1)


@dataclass(frozen=True)
class Ruler:
    """Measures a model on one set of images, the same way every time.

    The model is in evaluation mode; what is random (noise, the code's draw, dynamic binarisation) comes from
    generators that start from the same seed at every call.
    """

    images: Images
    prepare: Prepare
    noise: Noise
    batch_size: int = 1000

    def quick(self, model: Autoencoder, objective: Objective) -> Figures:
        """What is worth knowing after every epoch."""
        return self._mean(lambda x, generator: quick_figures(model, objective, self.noise, model(x), generator)[0])

    def full(self, model: Autoencoder, objective: Objective, pca: PCA | None = None) -> Figures:
        """Everything, the code's statistics and PCA with as many units included."""
        codes: list[Tensor] = []
        means: list[Tensor] = []
        painted: list[Tensor] = []
        words: list[Tensor] = []
        vitals = Vitals(model)

        def figures(x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
            out = model(x)
            vitals.look(out)
            codes.append(out.code.z)
            if isinstance(out.code, GaussianCode):
                means.append(out.code.mean)
            if isinstance(out.code, QuantizedCode):
                words.append(out.code.index.flatten())
            seen, noisy = quick_figures(model, objective, self.noise, out, generator)
            expected = model.likelihood.mean(out.decoded)
            seen["bce_excess"] = seen["bce"] - entropy(x)
            seen["psnr"] = psnr(expected, x)
            seen["ssim"] = ssim(expected.clamp(0, 1), x)
            seen["code_mean"] = out.code.z.mean(1)
            seen["l0"] = (out.code.z != 0).sum(1)
            if out.code.where:
                seen["code_sse"] = sse(model.likelihood.mean(model.decode(out.code.z)), x)
            if noisy is not out:
                denoised = model.likelihood.mean(noisy.decoded)
                seen["noisy_bce"] = bce(denoised, x)
                seen["noisy_psnr"] = psnr(denoised, x)
                seen["input_sse"] = sse(noisy.x_in, x)
            if pca is not None:
                seen["pca_sse"] = sse(pca.reconstruct(x), x)
                seen["mean_sse"] = sse(pca.mean.view_as(x[:1]), x)
                painted.append(expected)
            return seen

        found = self._mean(figures)
        found["shuffled_sse"] = self._shuffled_sse(model)
        found |= vitals.figures()
        found["dead_units"] = float((torch.cat(codes).std(0, correction=0) < 1e-3).sum())
        if means:
            found["active_units"] = float((torch.cat(means).var(0, correction=0) > 0.01).sum())
        if words:
            counts = torch.cat(words).bincount()
            found["used_codewords"] = float((counts > 0).sum())
            found["perplexity"] = float(torch.distributions.Categorical(probs=counts).entropy().exp())
        if pca is not None:
            found["pca_angle"] = pca.angle_to(PCA.fit(painted[: max(1, PAINTED // self.batch_size)], model.code_dim))
        return found

    @torch.no_grad()
    def _mean(self, figures: Callable[[Tensor, torch.Generator], dict[str, Tensor]]) -> Figures:
        """Means over all images of per-image figures [B]; one of a whole batch [] counts for each of its images."""
        generator = torch.Generator(self.images.pixels.device).manual_seed(1)
        total: dict[str, Tensor] = {}
        for x in self._batches():
            for name, value in figures(x, generator).items():
                part = value.to(torch.float64).sum() if value.dim() else value.to(torch.float64) * len(x)
                total[name] = total[name] + part if name in total else part
        means = torch.stack(list(total.values())) / len(self.images)
        return dict(zip(total, means.tolist(), strict=True))

    @torch.no_grad()
    def _shuffled_sse(self, model: Autoencoder) -> float:
        """Of the first batch, its pixels in another order; from the code alone, which is what may copy."""
        x = next(self._batches())
        order = torch.randperm(x[0].numel(), generator=torch.Generator().manual_seed(1)).to(x.device)
        shuffled = x.flatten(1)[:, order].view_as(x)
        return float(sse(model.likelihood.mean(model.decode(model.encode(shuffled).z)), shuffled).mean())

    def _batches(self) -> Iterator[Tensor]:
        return in_order(self.images, self.batch_size, self.prepare)


def quick_figures(
    model: Autoencoder, objective: Objective, noise: Noise, out: Forward, generator: torch.Generator
) -> tuple[dict[str, Tensor], Forward]:
    """Per-image figures [B], or [] for a term of the whole batch, of one pass over clean images; and the noisy pass.

    The latter is the pass itself where there is no noise.
    """
    likelihood, x, noisy = model.likelihood, out.x, out
    expected = likelihood.mean(out.decoded)
    terms = objective.terms(model, out)
    seen = {"nll": terms["nll"], "sse": sse(expected, x), "bce": bce(expected, x)}
    seen["mse"] = seen["sse"] / x[0].numel()
    drawn = with_drawn_code(model, out, generator)
    x_in = noise(x, generator)
    trained = terms if drawn is out or x_in is not x else objective.terms(model, drawn)
    if isinstance(out.code, GaussianCode):
        seen["kl"] = GaussianKL()(model, out)
        seen["neg_elbo"] = (trained["nll"] if x_in is x else likelihood.nll(drawn.decoded, x)) + seen["kl"]
    seen |= terms
    if x_in is not x:
        noisy = model(x_in, x)
        seen["noisy_sse"] = sse(likelihood.mean(noisy.decoded), x)
        trained = objective.terms(model, with_drawn_code(model, noisy, generator))
    seen["loss"] = objective.summed(model, trained)["loss"]
    return seen, noisy


def with_drawn_code(model: Autoencoder, out: Forward, generator: torch.Generator) -> Forward:
    """The same pass with its code drawn at random, as in training; the very pass where the code is not random."""
    if not isinstance(out.code, GaussianCode):
        return out
    code = model.sample(out.code, generator)
    return replace(out, code=code, decoded=model.decode(code))
