"""The better direction of metrics: higher, lower, or neither, such as of a KL divergence. Imports no torch."""

from collections.abc import Iterable
from typing import Literal

from aetrain.evaluation.metric_names import find_pattern, is_baseline, name_of

# Metrics on request (`measures=`) of the code and of samples: names and patterns.
CLASS_METRICS = (
    *("probe_linear", "probe_svm", "probe_knn", "probe_kmeans", "probe_nmi"),
    *("precision_K", "precision_K_binary", "finetuned_N"),
    *("roc_auc", "roc_auc_CLASS", "average_precision", "average_precision_CLASS"),
)
ITEM_METRICS = ("recall_K", "ndcg_K")  # of held-out users
GENERATIVE_METRICS = ("frechet_reconstructions", "frechet_samples", "is_nll_K")

HIGHER_IS_BETTER = ("psnr", "ssim", "noisy_psnr", "explained_variance", *CLASS_METRICS, *ITEM_METRICS)
LOWER_IS_BETTER = (
    *("loss", "sse", "code_sse", "noisy_sse", "mse", "nll", "neg_elbo", "bce", "bce_excess", "noisy_bce"),
    *("rmse", "mae", "token_perplexity", "bits_per_dim"),
    "noisy_sse_NOISE_LEVEL",
    *("seconds_per_epoch", *GENERATIVE_METRICS),
)


def better_direction(tag: str) -> Literal["higher", "lower"] | None:
    """Return the direction in which a metric, such as `test/sse`, is better; None if it has none."""
    pattern = find_result(name_of(tag), HIGHER_IS_BETTER + LOWER_IS_BETTER)
    if not pattern:
        return None
    return "higher" if pattern in HIGHER_IS_BETTER else "lower"


def find_result(name: str, patterns: Iterable[str]) -> str:
    """Return the pattern of a metric that is a result of a model; empty if there is none, or if it is a baseline."""
    return "" if is_baseline(name) else find_pattern(name, patterns)
