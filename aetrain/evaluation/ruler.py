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
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.pca import PCA
from aetrain.model.records import Forward, GaussianCode, QuantizedCode
from aetrain.objective.objective import Objective
from aetrain.objective.penalties import GaussianKL

Figures = dict[str, float]

# What each figure is, in a line; tables and the README quote this.
MEANING = {
    "loss": "what training descends, as it does: noise on, random codes drawn",
    "nll": "negative log-likelihood of the image given its mean code, nats",
    "kl": "KL from the code's distribution to the prior, nats",
    "neg_elbo": "nll with the code drawn at random, plus kl, nats",
    "sparsity": "the sparsity penalty, without its weight",
    "critic": "-log of the chance that the critic gives a code of being a draw from the prior, nats",
    "mmd": "squared distance of the codes to draws from the prior, without bias (so it may be below 0)",
    "l2": "squared length of the code",
    "codebook": "squared distance of the codewords to what they stand for",
    "commitment": "the same distance, as the encoder descends it",
    "sse": "squared error summed over an image's pixels",
    "code_sse": "the same from the code alone, without the max-pool switches that an unpooling decoder is also given",
    "pca_sse": "the same of PCA with as many units",
    "pca_angle": "largest angle between PCA's directions and those of the reconstructions, degrees",
    "mse": "squared error per pixel",
    "bce": "cross-entropy of the pixels, nats",
    "bce_excess": "bce above the entropy of the grey pixels, which nothing can undercut, nats",
    "psnr": "peak signal-to-noise ratio, dB",
    "ssim": "structural similarity, 1 where equal",
    "noisy_sse": "squared error from a noisy image to the clean one",
    "noisy_bce": "cross-entropy from a noisy image to the clean one, nats",
    "noisy_psnr": "peak signal-to-noise ratio from a noisy image to the clean one, dB",
    "input_sse": "squared error of the noisy image itself",
    "code_mean": "mean activation of the code's units",
    "l0": "units of an image's code that are not zero",
    "dead_units": "units of the code that no image moves (standard deviation below 0.001)",
    "used_codewords": "codewords that some image uses",
    "perplexity": "how many codewords are in use, each counted by how often: exp of the entropy of their use",
    "MEASURE_pixels": "the same of raw pixels in place of the code",
    "MEASURE_pca": "the same of PCA with as many units",
    "probe_linear": "test images whose class logistic regression reads from the code, %",
    "probe_svm": "test images whose class a linear support vector machine reads from the code, %",
    "probe_knn": "test images of the class that most of the nearest training codes have, %",
    "probe_kmeans": "test images in the cluster of codes that stands for their class, %",
    "probe_nmi": "normalised mutual information of the codes' clusters and the classes, 0 to 1",
    "precision_K": "of the K training images whose codes are nearest to a test image's, those of its class, %",
    "finetuned_N_random": "the same from the random weights that the run began with",
    "finetuned_N": "test images that encoder and classifier get right, trained together on N labels, %",
    "active_units": "units whose mean moves with the image (variance above 0.01; Burda et al. 2016)",
}

PAINTED = 5000  # reconstructions whose directions are compared with PCA's
PIXEL_EPS = 1e-6  # cross-entropy of a reconstructed pixel that is exactly black or white stays finite


def sse(expected: Tensor, x: Tensor) -> Tensor:
    """Squared error per image, [B]."""
    return (expected - x).square().flatten(1).sum(1)


def bce(expected: Tensor, x: Tensor) -> Tensor:
    """Cross-entropy of pixels in [0, 1] per image, [B], nats."""
    return F.binary_cross_entropy(expected.clamp(PIXEL_EPS, 1 - PIXEL_EPS), x, reduction="none").flatten(1).sum(1)


def entropy(x: Tensor) -> Tensor:
    """Entropy of pixels taken as Bernoulli rates, per image, [B]: the floor of their cross-entropy, nats."""
    return -(torch.xlogy(x, x) + torch.xlogy(1 - x, 1 - x)).flatten(1).sum(1)


def psnr(expected: Tensor, x: Tensor) -> Tensor:
    """10 log10(1 / MSE) per image, [B], dB; an error below half a grey level squared counts as that."""
    mse = (expected - x).square().flatten(1).mean(1)
    return -10 * mse.clamp_min((0.5 / 255) ** 2).log10()


def ssim(reconstruction: Tensor, x: Tensor) -> Tensor:
    """Structural similarity per image, [B] (Wang et al. 2004), in their 11-pixel window or the largest that fits.

    The window is a normal density of deviation 1.5, cut off at 5 pixels from its middle; below 4 pixels it is even.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    side = min(x.shape[2:])
    window = min(11, side - 1 + side % 2)
    value = structural_similarity_index_measure(
        reconstruction,
        x,
        gaussian_kernel=window > 3,
        sigma=1.5 if window == 11 else max(window - 1, 1) / 7,  # torchmetrics takes the window's size from it
        kernel_size=window,
        data_range=1.0,
        reduction="none",
    )
    assert isinstance(value, Tensor)
    return value


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
        return self._mean(lambda x, generator: quick_figures(model, objective, self.noise, model(x), generator))

    def full(self, model: Autoencoder, objective: Objective, pca: PCA | None = None) -> Figures:
        """Everything, the code's statistics and PCA with as many units included."""
        codes: list[Tensor] = []
        painted: list[Tensor] = []
        words: list[Tensor] = []

        def figures(x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
            out = model(x)
            codes.append(out.code.mean if isinstance(out.code, GaussianCode) else out.code.z)
            if isinstance(out.code, QuantizedCode):
                words.append(out.code.index.flatten())
            seen = quick_figures(model, objective, self.noise, out, generator)
            expected = model.likelihood.mean(out.decoded)
            seen["bce_excess"] = seen["bce"] - entropy(x)
            seen["psnr"] = psnr(expected, x)
            seen["ssim"] = ssim(expected.clamp(0, 1), x)
            seen["code_mean"] = out.code.z.mean(1)
            seen["l0"] = (out.code.z != 0).sum(1)
            if out.code.where:
                seen["code_sse"] = sse(model.likelihood.mean(model.decode(out.code.z)), x)
            x_in = self.noise(x, generator)
            if x_in is not x:
                denoised = model.likelihood.mean(model(x_in).decoded)
                seen["noisy_bce"] = bce(denoised, x)
                seen["noisy_psnr"] = psnr(denoised, x)
                seen["input_sse"] = sse(x_in, x)
            if pca is not None:
                seen["pca_sse"] = sse(pca.reconstruct(x), x)
                painted.append(expected)
            return seen

        means = self._mean(figures)
        code = torch.cat(codes)
        means["dead_units"] = float((code.std(0, correction=0) < 1e-3).sum())
        if issubclass(model.bottleneck.emits, GaussianCode):
            means["active_units"] = float((code.var(0, correction=0) > 0.01).sum())
        if words:
            counts = torch.cat(words).bincount()
            means["used_codewords"] = float((counts > 0).sum())
            means["perplexity"] = float(torch.distributions.Categorical(probs=counts).entropy().exp())
        if pca is not None:
            means["pca_angle"] = pca.angle_to(PCA.fit(painted[: max(1, PAINTED // self.batch_size)], model.code_dim))
        return means

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

    def _batches(self) -> Iterator[Tensor]:
        return in_order(self.images, self.batch_size, self.prepare)


def quick_figures(
    model: Autoencoder, objective: Objective, noise: Noise, out: Forward, generator: torch.Generator
) -> dict[str, Tensor]:
    """Per-image figures [B], or [] for a term of the whole batch, of one pass over clean images."""
    likelihood, x = model.likelihood, out.x
    expected = likelihood.mean(out.decoded)
    seen = {"nll": likelihood.nll(out.decoded, x), "sse": sse(expected, x), "bce": bce(expected, x)}
    seen["mse"] = seen["sse"] / x[0].numel()
    drawn = with_drawn_code(model, out, generator)
    if isinstance(out.code, GaussianCode):
        seen["kl"] = GaussianKL()(model, out)
        seen["neg_elbo"] = likelihood.nll(drawn.decoded, x) + seen["kl"]
    for name, penalty in objective.penalties.items():
        seen[name] = penalty(model, out)
    if (x_in := noise(x, generator)) is not x:
        denoised = model(x_in, x)
        seen["noisy_sse"] = sse(likelihood.mean(denoised.decoded), x)
        drawn = with_drawn_code(model, denoised, generator)
    seen["loss"] = objective(model, drawn)["loss"]
    return seen


def with_drawn_code(model: Autoencoder, out: Forward, generator: torch.Generator) -> Forward:
    """The same pass with its code drawn at random, as in training; the very pass where the code is not random."""
    if not isinstance(out.code, GaussianCode):
        return out
    code = model.sample(out.code, generator)
    return replace(out, code=code, decoded=model.decode(code))
