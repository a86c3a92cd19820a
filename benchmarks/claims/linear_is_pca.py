"""Baldi & Hornik (1989): the best linear autoencoder spans the principal subspace."""

from experiments import Outcome

from aetrain.library import Trained

CLAIM = "A linear autoencoder with squared error is PCA: the same error, the same subspace."
RUNS = {
    "trained": ["experiment=linear_is_pca"],
    "exact": ["experiment=linear_is_pca", "pretrain=pca", "epochs=0"],
}


def check(runs: dict[str, Trained]) -> Outcome:
    """Within 1 % of PCA's error, all principal angles below 5 degrees; `pretrain=pca` exact without training."""
    trained, exact = runs["trained"].metrics, runs["exact"].metrics
    figures = {
        "test SSE": trained["test/sse"],
        "test SSE of PCA-30": trained["test/pca_sse"],
        "largest angle between the subspaces, degrees": trained["test/pca_angle"],
        "test SSE of pretrain=pca epochs=0": exact["test/sse"],
    }
    holds = (
        trained["test/sse"] < 1.01 * trained["test/pca_sse"]
        and trained["test/pca_angle"] < 5
        and abs(exact["test/sse"] - exact["test/pca_sse"]) < 1e-3
    )
    return Outcome(figures, holds, runs["trained"].directory / "figures" / "units.png")
