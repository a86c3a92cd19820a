"""The document's finding: with a sparse code, a denoising autoencoder brings back detail in the digit better."""

from evidence import corrupted, noise_of, sse, strokes, unseen
from experiments import Outcome
from sheets import rows

from aetrain.api import Trained

CLAIM = (
    "Trained on salt noise with the sparsity penalty, an autoencoder recovers the digit from a noisy image better than "
    "without: the error inside the strokes is smaller."
)
RUNS = {
    "sparse": ["experiment=sparse_denoising"],
    "plain": ["experiment=sparse_denoising", "sparsity=none", "model.code_activation=sigmoid"],
}


def check(runs: dict[str, Trained]) -> Outcome:
    """Squared error an image, noisy to clean, inside the strokes (x > 0.5 and the pixels beside) and in the rest."""
    x, noise = unseen(runs["sparse"], 5000), noise_of(runs["sparse"])
    x_in, ink = corrupted(noise, x), strokes(x)
    painted = {"noisy image itself": x_in} | {
        text: runs[name].reconstruct(x_in) for name, text in (("plain", "no penalty"), ("sparse", "sparse code"))
    }
    figures = {}
    for text, y in painted.items():
        figures[f"SSE inside the strokes, {text}"] = sse(y * ink, x * ink)
        figures[f"SSE outside of them, {text}"] = sse(y * ~ink, x * ~ink)
    figures["mean activation, no penalty"] = runs["plain"].metrics["test/code_mean"]
    figures["mean activation, sparse code"] = runs["sparse"].metrics["test/code_mean"]
    picture = rows(
        runs["sparse"].directory / "rows.png",
        {"clean": x, "noisy": x_in, "no penalty": painted["no penalty"], "sparse": painted["sparse code"]},
    )
    holds = figures["SSE inside the strokes, sparse code"] < figures["SSE inside the strokes, no penalty"]
    return Outcome(figures, holds, picture)
