"""The document's result: a denoising autoencoder with a sparse code recovers more detail of the digit."""

from experiments import Outcome
from measurements import corrupted, noise_of, sse, strokes, unseen
from pictures import rows

from aetrain.api import Trained

CLAIM = (
    "Trained on salt noise with the sparsity penalty, an autoencoder recovers the digit from a noisy image better "
    "than without the penalty: the error inside the strokes is smaller."
)
LESSON = "Sparsity helps to recover digits from salt noise."
RESULT = "SSE inside the strokes {SSE inside the strokes, sparse code}, no penalty {SSE inside the strokes, no penalty}"
RUNS = {
    "sparse": ["experiment=sparse_denoising"],
    "plain": ["experiment=sparse_denoising", "sparsity=none", "model.code_activation=sigmoid"],
}


def check(runs: dict[str, Trained]) -> Outcome:
    """Check the squared error inside the strokes, which are the pixels above 0.5 and their neighbours."""
    x, noise = unseen(runs["sparse"], 5000), noise_of(runs["sparse"])
    x_in, ink = corrupted(noise, x), strokes(x)
    outputs = {"noisy image itself": x_in} | {
        text: runs[name].reconstruct(x_in) for name, text in (("plain", "no penalty"), ("sparse", "sparse code"))
    }
    metrics = {}
    for text, y in outputs.items():
        metrics[f"SSE inside the strokes, {text}"] = sse(y * ink, x * ink)
        metrics[f"SSE outside of them, {text}"] = sse(y * ~ink, x * ~ink)
    metrics["mean activation, no penalty"] = runs["plain"].metrics["test/code_mean"]
    metrics["mean activation, sparse code"] = runs["sparse"].metrics["test/code_mean"]
    picture = rows(
        runs["sparse"].directory / "rows.png",
        {"clean": x, "noisy": x_in, "no penalty": outputs["no penalty"], "sparse": outputs["sparse code"]},
    )
    holds = metrics["SSE inside the strokes, sparse code"] < metrics["SSE inside the strokes, no penalty"]
    return Outcome(metrics, holds, picture)
