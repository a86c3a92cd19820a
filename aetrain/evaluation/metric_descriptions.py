"""One description per metric. The console, reports and docs/metrics.md quote it.

`python -m aetrain.evaluation.metric_descriptions > docs/metrics.md` writes the page.
"""

import re
from collections.abc import Mapping

# By kind, in the order of tables. Capitals in a name stand for any word: `is_nll_K` describes `is_nll_50`.
DESCRIPTIONS_BY_KIND: Mapping[str, Mapping[str, str]] = {
    "Losses": {
        "loss": (
            "training loss (noise on, random codes sampled, penalties weighted) of images without augmentation, nats"
        ),
        "nll": "negative log-likelihood of the image given its code (the mean of a random code), nats",
        "kl": "KL divergence from the distribution of the code to the prior, nats",
        "neg_elbo": "negative evidence lower bound: nll of a sampled code plus kl, nats",
        "iwae": "importance-weighted bound of -log p(x) minus nll, nats; it replaces kl in the loss of an IWAE",
        "sparsity": "sparsity penalty before it is weighted",
        "contractive": "squared Frobenius norm of the code's Jacobian with respect to the pixels",
        "critic": "-log of the probability, by the critic, that a code is a sample from the prior, nats",
        "mmd": "squared maximum mean discrepancy between codes and prior samples, unbiased estimate (can be below 0)",
        "l2": "squared length of the code",
        "codebook": "squared distance from encoder outputs to their codewords; its gradient moves the codewords",
        "commitment": "squared distance from encoder outputs to their codewords; its gradient moves the encoder",
    },
    "Errors": {
        "sse": "squared error of the reconstruction, summed over the pixels of an image",
        "shuffled_sse": (
            "squared error summed over pixels, of images whose pixels are shuffled in one random order; "
            "low only if the network copies its input"
        ),
        "code_sse": "squared error summed over pixels, if the decoder gets the code without the max-pool indices",
        "mse": "squared error of the reconstruction per pixel",
        "bce": "cross-entropy between image and reconstruction, summed over pixels, nats",
        "bce_excess": "bce minus the entropy of the grey pixels, which is the lowest possible bce, nats",
        "psnr": "peak signal-to-noise ratio of the reconstruction, dB",
        "ssim": "structural similarity of image and reconstruction, 1 if equal",
        "noisy_sse": "squared error summed over pixels, from the reconstruction of a noisy image to the clean image",
        "noisy_bce": (
            "cross-entropy summed over pixels, between the clean image and the reconstruction of a noisy image, nats"
        ),
        "noisy_psnr": "peak signal-to-noise ratio of the reconstruction of a noisy image, against the clean image, dB",
        "input_sse": "squared error summed over pixels, from the noisy image itself to the clean image",
    },
    "Code and units": {
        "code_mean": "mean activation of the units of the code",
        "l0": "number of units of an image's code that are not 0",
        "dead_units": "number of units of the code that are constant over images (standard deviation below 0.001)",
        "active_units": (
            "number of units of the code whose mean varies with the image (variance above 0.01; Burda et al. 2016)"
        ),
        "dead_hidden": (
            "fraction of the encoder's hidden units that are constant over images "
            "(standard deviation at most 0.001 of the largest in the layer)"
        ),
        "saturated": "fraction of sigmoid and tanh units within 1 % of a bound on 95 % of their activations",
        "used_codewords": "number of codewords that some image uses",
        "perplexity": "effective number of codewords in use: exp of the entropy of their frequencies",
    },
    "PCA and baselines": {
        "mean_sse": "squared error summed over pixels, if every reconstruction is the mean training image",
        "pca_sse": "squared error summed over pixels, of PCA with as many components as the code has units",
        "pca_angle": "largest principal angle between the components of PCA and those of the reconstructions, degrees",
        "MEASURE_pixels": "baseline of MEASURE: computed from raw pixels instead of the code",
        "MEASURE_pca": "baseline of MEASURE: computed from as many principal components as the code has units",
    },
    "Measures": {
        "noisy_sse_NOISE_LEVEL": (
            "squared error summed over pixels, from the reconstruction of an image with this kind and level of noise "
            "to the clean image"
        ),
        "input_sse_NOISE_LEVEL": (
            "squared error summed over pixels, from an image with this kind and level of noise to the clean image"
        ),
        "probe_linear": "test images that logistic regression on the code classifies correctly, %",
        "probe_svm": "test images that a linear support vector machine on the code classifies correctly, %",
        "probe_knn": "test images that a vote of the nearest training codes classifies correctly, %",
        "probe_kmeans": (
            "test images that k-means on the codes classifies correctly, each cluster matched with one class, %"
        ),
        "probe_nmi": "normalised mutual information of the k-means clusters of codes and the classes, 0 to 1",
        "precision_K": "training images of the query's class among the K whose codes are nearest, %",
        "finetuned_N_random": (
            "test images classified correctly by encoder and linear classifier trained together on N labels, "
            "from the run's random initial weights, %"
        ),
        "finetuned_N": (
            "test images classified correctly by encoder and linear classifier trained together on N labels, "
            "from the run's trained weights, %"
        ),
        "frechet_reconstructions": (
            "Frechet distance between reconstructions and test images, in the features of a classifier of the data set"
        ),
        "frechet_samples": (
            "Frechet distance between decoded prior samples and test images, in the features of a classifier "
            "of the data set"
        ),
        "frechet_floor": (
            "Frechet distance between training images and test images, in the features of a classifier of the "
            "data set: the value of real images"
        ),
        "is_nll_K": (
            "negative log-likelihood estimated by importance sampling with K samples of the code, nats; "
            "not a likelihood for grey pixels"
        ),
    },
}

DESCRIPTIONS: Mapping[str, str] = {
    name: text for descriptions in DESCRIPTIONS_BY_KIND.values() for name, text in descriptions.items()
}

_INTRODUCTION = """\
# Metrics

Every run writes its metrics to `metrics.json` under names such as `test/sse`. Losses and errors are means over the test
images, in evaluation mode. Errors compare images in [0, 1] with the mean of the likelihood. A metric that does not
apply to a model is left out, such as `kl` if the code is not random. Capitals in a name stand for any word: `is_nll_K`
describes `is_nll_50`. The metrics under "Measures" are computed on request (`measures=`).
"""


def metric_key(name: str) -> str:
    """Return the key in DESCRIPTIONS of a metric such as `test/is_nll_50`: `is_nll_K`.

    A metric without a description has its name without the split as key.
    """
    metric = name.partition("/")[2]
    patterns = (key for key in DESCRIPTIONS if re.fullmatch(re.sub("[A-Z]+", r"[\\w.]+", key), metric))
    return metric if metric in DESCRIPTIONS else next(patterns, metric)


def metrics_page() -> str:
    """Return the text of docs/metrics.md: one Markdown table per kind of metric."""
    parts = [_INTRODUCTION]
    for kind, descriptions in DESCRIPTIONS_BY_KIND.items():
        rows = [f"| `{name}` | {text} |" for name, text in descriptions.items()]
        parts.append("\n".join([f"## {kind}\n", "| metric | description |", "|---|---|", *rows, ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    print(metrics_page(), end="")
