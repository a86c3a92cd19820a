"""The standard metrics: the same definitions for every family of models and every training objective.

A metric is a mean over images. Errors compare images in [0, 1] with the expected pixels, the mean of the likelihood;
counts with expected counts of the same total.
`nll`, `bce`, `kl` and `neg_elbo` are in nats per image.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from aetrain.data.examples import Examples, Prepare, fill_missing, with_targets
from aetrain.data.noise import Noise
from aetrain.evaluation.entry_errors import ENTRY_METRICS, EntryErrors
from aetrain.evaluation.image_errors import bce, entropy, psnr, ssim
from aetrain.evaluation.unit_stats import UNIT_METRICS, UnitStats
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.codes import Code
from aetrain.model.likelihoods import Likelihood
from aetrain.model.pca import PCA
from aetrain.model.records import Forward
from aetrain.objective.objective import Objective, loss_constants, mean_data_constant, recorded_losses
from aetrain.objective.penalties import KL
from aetrain.utils.devices import to_float64

Metrics = dict[str, float]
BatchMetrics = dict[str, Tensor]  # per-image values [B], or one value [] that holds for the whole batch

MAX_ANGLE_IMAGES = 5000  # reconstructions from which `pca_angle` is computed
DEAD_CODE_STD = 1e-3  # below this standard deviation over images, a unit of the code is dead
ACTIVE_UNIT_VARIANCE = 0.01  # above this variance of its mean, a unit of a random code is active

# The description of each standard metric by kind, in the order of tables.
STANDARD_METRICS: Mapping[str, Mapping[str, str]] = {
    "Losses": {
        "loss": (
            "training loss (noise on, random codes sampled, penalties weighted) of examples without augmentation, "
            "with the constant of the likelihood, nats"
        ),
        "nll": (
            "negative log-likelihood of the example given its code (the mean of a random code), as a density of its "
            "values (pixels in [0, 1]) if the likelihood is continuous, nats"
        ),
        "kl": KL.description,
        "neg_elbo": "negative evidence lower bound: nll of a sampled code plus kl, nats",
        "bits_per_dim": (
            "neg_elbo (nll, if the code is not random) per pixel and channel, bits; "
            "only with likelihood=discretized_logistic"
        ),
    },
    "Errors": {
        "sse": "squared error of the reconstruction, summed over the values (pixels) of an example",
        "shuffled_sse": (
            "squared error summed over values, of examples whose values are shuffled in one random order; "
            "low only if the network copies its input"
        ),
        "code_sse": "squared error summed over values, if the decoder gets the code without the max-pool indices",
        "mse": "squared error of the reconstruction per value (pixel)",
        "explained_variance": (
            "share of the variance of the features that reconstructions explain: 1 - sse / mean_sse; 1 if equal"
        ),
        **ENTRY_METRICS,
        "bce": "cross-entropy between image and reconstruction, summed over pixels, nats",
        "bce_excess": "bce minus the entropy of the grey pixels, which is the lowest possible bce, nats",
        "psnr": "peak signal-to-noise ratio of the reconstruction, dB",
        "ssim": "structural similarity of image and reconstruction, 1 if equal",
        "noisy_sse": "squared error summed over values, from the reconstruction of a noisy example to the clean one",
        "noisy_bce": (
            "cross-entropy summed over pixels, between the clean image and the reconstruction of a noisy image, nats"
        ),
        "noisy_psnr": "peak signal-to-noise ratio of the reconstruction of a noisy image, against the clean image, dB",
        "input_sse": "squared error summed over values, from the noisy example itself to the clean one",
    },
    "Code and units": {
        "code_mean": "mean activation of the units of the code",
        "l0": "number of units of an example's code that are not 0",
        "dead_units": "number of units of the code that are constant over examples (standard deviation below 0.001)",
        "active_units": (
            "number of units of the code whose mean varies with the example (variance above 0.01; Burda et al. 2016)"
        ),
        **UNIT_METRICS,
        "used_codewords": "number of codewords that some example uses",
        "perplexity": "effective number of codewords in use: exp of the entropy of their frequencies",
    },
    "PCA": {
        "mean_sse": "squared error summed over values, if every reconstruction is the mean training example",
        "pca_sse": (
            "squared error summed over values, of PCA with as many components as the code has units, or with all "
            "components if there are fewer"
        ),
        "pca_angle": (
            "largest principal angle between the components of PCA and those of the reconstructions, degrees; "
            "only if reconstructions are a linear function of the example (model=linear with likelihood=gaussian)"
        ),
    },
}


def sse(expected: Tensor, x: Tensor) -> Tensor:
    """Return the squared error summed over the pixels of each image, [B]."""
    return (expected - x).square().flatten(1).sum(1)


def known_sse(expected: Tensor, x: Tensor) -> Tensor:
    """Return the squared error summed over the known values of each example, [B]; a missing value of x is NaN."""
    return (expected - x).square().masked_fill(x.isnan(), 0.0).flatten(1).sum(1)


def squared_error(model: Autoencoder) -> Callable[[Tensor, Tensor], Tensor]:
    """Return `sse`, or `known_sse` for a model of data with missing values."""
    return known_sse if model.has_missing else sse


@dataclass(frozen=True)
class Evaluator:
    """Compute the standard metrics of a model on one set of images, the same values at every call.

    The model must be in evaluation mode. All random numbers (noise, samples of the code, dynamic binarisation) come
    from generators that start from the same seed at every call.
    """

    images: Examples
    prepare: Prepare
    noise: Noise
    batch_size: int = 1000
    data_constants: dict[Likelihood, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def evaluate_epoch(self, model: Autoencoder, objective: Objective) -> Metrics:
        """Return the metrics that are computed after every epoch."""

        entry_errors = EntryErrors(model.kind)

        def epoch_metrics(x_in: Tensor, x: Tensor, generator: torch.Generator) -> BatchMetrics:
            out = model(x_in, x)
            entry_errors.update(model.likelihood.expected(out.decoded, x), out)
            return batch_metrics(model, objective, self.noise, out, generator)[0]

        return self._recorded(model, self._mean(epoch_metrics)) | entry_errors.metrics()

    def evaluate_full(self, model: Autoencoder, objective: Objective, pca: PCA | None = None) -> Metrics:
        """Return all standard metrics, with statistics of the code; with `pca`, also the PCA baseline."""
        unit_stats, code_stats, entry_errors = UnitStats(model), CodeStats(), EntryErrors(model.kind)
        error = squared_error(model)
        reconstructions: list[Tensor] = []  # [B, C, H, W] each, of a linear model
        num_angle_batches = max(1, MAX_ANGLE_IMAGES // self.batch_size)
        baseline = None if self._has_hidden_counts(model) else pca

        def full_metrics(x_in: Tensor, x: Tensor, generator: torch.Generator) -> BatchMetrics:
            out = model(x_in, x)
            unit_stats.update(out)
            code_stats.update(out.code)
            metrics, noisy = batch_metrics(model, objective, self.noise, out, generator)
            expected = model.likelihood.expected(out.decoded, x)
            entry_errors.update(expected, out)
            metrics |= reconstruction_metrics(model, out, expected, metrics.get("bce"))
            if noisy is not out:
                metrics |= denoising_metrics(model, noisy)
            if baseline is not None:
                known = fill_missing(x_in, baseline.mean) if model.has_missing else x_in
                metrics["pca_sse"] = error(baseline.reconstruct(known), x)
                metrics["mean_sse"] = error(baseline.mean.view_as(x[:1]), x)
            if pca is not None and model.linear and len(reconstructions) < num_angle_batches:
                reconstructions.append(expected)
            return metrics

        metrics = self._recorded(model, self._mean(full_metrics))
        if not model.has_missing:
            metrics["shuffled_sse"] = self._shuffled_sse(model)
        if model.kind == "vector" and metrics.get("mean_sse"):
            metrics["explained_variance"] = 1 - metrics["sse"] / metrics["mean_sse"]
        metrics |= unit_stats.metrics() | code_stats.metrics() | entry_errors.metrics()
        if pca is not None and reconstructions:
            metrics["pca_angle"] = pca.angle_to(PCA.fit(reconstructions, model.code_dim))
        return metrics

    @torch.no_grad()
    def example_metrics(self, model: Autoencoder, objective: Objective) -> dict[str, Tensor]:
        """Return the metrics of each example of which `evaluate_epoch` returns the means, [N] each, float64.

        Those of a whole batch, such as `loss`, are left out.
        """
        generator = torch.Generator(self.images.values.device).manual_seed(1)
        parts: dict[str, list[Tensor]] = {}
        for x_in, x in self._batches():
            metrics, _ = batch_metrics(model, objective, self.noise, model(x_in, x), generator)
            for name, value in metrics.items():
                if value.dim():
                    parts.setdefault(name, []).append(value.cpu().double())
        constants = loss_constants(model, self.data_constant(model))
        return {name: torch.cat(values) + constants.get(name, 0.0) for name, values in parts.items()}

    def data_constant(self, model: Autoencoder) -> float:
        """Return the mean over all images of the constant that the data decide, in nats; computed once."""
        if model.likelihood not in self.data_constants:
            self.data_constants[model.likelihood] = mean_data_constant(model, (x for _, x in self._batches()))
        return self.data_constants[model.likelihood]

    def _recorded(self, model: Autoencoder, means: Metrics) -> Metrics:
        """Return the means with the constants of the likelihood, and `bits_per_dim` where the likelihood has it."""
        metrics = recorded_losses(model, means, self.data_constant(model))
        if model.likelihood.reports_bits_per_dim:
            nats = metrics.get("neg_elbo", metrics["nll"])
            metrics["bits_per_dim"] = nats / (math.prod(model.image_shape) * math.log(2))
        return metrics

    @torch.no_grad()
    def _mean(self, metrics: Callable[[Tensor, Tensor, torch.Generator], BatchMetrics]) -> Metrics:
        """Return means over all images of the metrics of inputs and targets, [B, C, H, W] each.

        A value of a whole batch counts once for each of its images.
        """
        generator = torch.Generator(self.images.values.device).manual_seed(1)
        totals: dict[str, Tensor] = {}
        for x_in, x in self._batches():
            for name, value in metrics(x_in, x, generator).items():
                total = to_float64(value).sum() if value.dim() else to_float64(value) * len(x)
                totals[name] = totals[name] + total if name in totals else total
        means = torch.stack(list(totals.values())) / len(self.images)
        return dict(zip(totals, means.tolist(), strict=True))

    @torch.no_grad()
    def _shuffled_sse(self, model: Autoencoder) -> float:
        """Return the squared error on the first batch, with the pixels of all its images in one random order.

        The decoder gets the code alone, without pool indices, because the question is how much the code can copy.
        """
        x, _ = next(self._batches())
        order = torch.randperm(x[0].numel(), generator=torch.Generator().manual_seed(1)).to(x.device)
        shuffled = x.flatten(1)[:, order].view_as(x)
        decoded = model.decode(model.encode(shuffled).z)
        return float(sse(model.likelihood.expected(decoded, shuffled), shuffled).mean())

    def _has_hidden_counts(self, model: Autoencoder) -> bool:
        """Tell whether targets are counts that are hidden from the model, of which PCA and the mean predict none."""
        return model.kind == "counts" and not model.has_missing and self.images.targets is not None

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return with_targets(self.images, self.batch_size, self.prepare)


def batch_metrics(
    model: Autoencoder, objective: Objective, noise: Noise, out: Forward, generator: torch.Generator
) -> tuple[BatchMetrics, Forward]:
    """Return the metrics of one batch, without `loss_constants`, and the forward pass of its noisy images.

    `out` is the forward pass of the clean images. It is returned as the noisy pass if there is no noise. The loss is
    the training loss: of noisy images if there is noise, with a sample of the code if the code is random.
    """
    likelihood, x, error = model.likelihood, out.x, squared_error(model)
    expected = likelihood.expected(out.decoded, x)
    losses = objective.losses(model, out)
    metrics = {"nll": losses["nll"], "sse": error(expected, x)}
    if model.kind == "image" and not model.has_missing:
        metrics["bce"] = bce(expected, x)
    metrics["mse"] = metrics["sse"] / x[0].numel()
    sampled = sample_code(model, out, generator)
    x_in = noise(out.x_in, generator)
    is_noisy = x_in is not out.x_in
    training_losses = losses if sampled is out or is_noisy else objective.losses(model, sampled)
    if out.code.is_random:
        metrics["kl"] = out.code.kl().sum(1)
        sampled_nll = likelihood.nll(sampled.decoded, x) if is_noisy else training_losses["nll"]
        metrics["neg_elbo"] = sampled_nll + metrics["kl"]
    metrics |= losses
    noisy = out
    if is_noisy:
        noisy = model(x_in, x)
        metrics["noisy_sse"] = error(likelihood.expected(noisy.decoded, x), x)
        training_losses = objective.losses(model, sample_code(model, noisy, generator))
    metrics["loss"] = objective.reduce(model, training_losses)["loss"]
    return metrics, noisy


def sample_code(model: Autoencoder, out: Forward, generator: torch.Generator) -> Forward:
    """Return the forward pass with a sample of its code, as in training; `out` itself if the code is not random."""
    if not out.code.is_random:
        return out
    code = model.sample(out.code, generator)
    return replace(out, code=code, decoded=model.decode(code))


def reconstruction_metrics(
    model: Autoencoder, out: Forward, expected: Tensor, cross_entropy: Tensor | None
) -> BatchMetrics:
    """Return the metrics of clean images and their codes that are computed at the end of a run.

    `expected` are the reconstructions [B, C, H, W] and `cross_entropy` is their `bce` [B], None where it is undefined.
    """
    x, z = out.x, out.code.z
    metrics = {}
    if cross_entropy is not None:
        metrics["bce_excess"] = cross_entropy - entropy(x)
    if model.kind == "image":
        metrics |= {"psnr": psnr(expected, x), "ssim": ssim(expected.clamp(0, 1), x)}
    metrics |= {"code_mean": z.mean(1), "l0": (z != 0).sum(1)}
    if out.code.pool_indices:
        metrics["code_sse"] = squared_error(model)(model.likelihood.expected(model.decode(z), x), x)
    return metrics


def denoising_metrics(model: Autoencoder, noisy: Forward) -> BatchMetrics:
    """Return the metrics of noisy images, compared with the clean ones."""
    denoised = model.likelihood.expected(noisy.decoded, noisy.x)
    metrics = {}
    if model.kind == "image" and not model.has_missing:
        metrics["noisy_bce"] = bce(denoised, noisy.x)
    if model.kind == "image":
        metrics["noisy_psnr"] = psnr(denoised, noisy.x)
    seen = noisy.x_in.nan_to_num(0.0) if model.has_missing else noisy.x_in
    metrics["input_sse"] = squared_error(model)(seen, noisy.x)
    return metrics


@dataclass
class CodeStats:
    """Accumulate codes over batches, for statistics that are not means over images."""

    codes: list[Tensor] = field(default_factory=list)  # [B, D] each
    means: list[Tensor] = field(default_factory=list)  # [B, D] each, of random codes
    indices: list[Tensor] = field(default_factory=list)  # [B * G] each, of codes with a codebook

    def update(self, code: Code) -> None:
        """Add the codes of one batch."""
        self.codes.append(code.z)
        if code.is_random:
            self.means.append(code.mean_z)
        if code.codeword_indices is not None:
            self.indices.append(code.codeword_indices.flatten())

    def metrics(self) -> Metrics:
        """Return the number of dead units, and statistics of random codes and of codes with a codebook.

        `active_units` is defined as in Burda et al. (2016), arXiv:1509.00519.
        """
        metrics = {"dead_units": float((torch.cat(self.codes).std(0, correction=0) < DEAD_CODE_STD).sum())}
        if self.means:
            variances = torch.cat(self.means).var(0, correction=0)
            metrics["active_units"] = float((variances > ACTIVE_UNIT_VARIANCE).sum())
        if self.indices:
            counts = torch.cat(self.indices).bincount()
            metrics["used_codewords"] = float((counts > 0).sum())
            metrics["perplexity"] = float(torch.distributions.Categorical(probs=counts).entropy().exp())
        return metrics
