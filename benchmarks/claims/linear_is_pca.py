"""Baldi & Hornik (1989): the best linear autoencoder spans the principal subspace."""

from experiments import Outcome

from aetrain.api import Trained

CLAIM = "A linear autoencoder with squared error is PCA: the same error, the same subspace."
LESSON = "A linear autoencoder with squared error is PCA."
RESULT = "SSE {test SSE}, PCA {test SSE of PCA-30}"
RUNS = {
    "trained": ["experiment=linear_is_pca"],
    "exact": ["experiment=linear_is_pca", "pretrain=pca", "epochs=0"],
    "toy": [
        "experiment=linear_is_pca",
        "dataset=toy",
        "model.code_dim=2",
        "batch_size=50",
        "epochs=30",
        "optimizer.lr=0.05",
    ],
}


def check(runs: dict[str, Trained]) -> Outcome:
    """Check that the error is within 1 % of PCA's and all principal angles below 5 degrees; `pretrain=pca` is exact."""
    trained, exact, toy = (runs[name].metrics for name in ("trained", "exact", "toy"))
    metrics = {
        "test SSE": trained["test/sse"],
        "test SSE of PCA-30": trained["test/pca_sse"],
        "largest angle between the subspaces, degrees": trained["test/pca_angle"],
        "test SSE of pretrain=pca epochs=0": exact["test/sse"],
        "dataset=toy, 3-D to 2-D: test SSE": toy["test/sse"],
        "dataset=toy: test SSE of PCA-2": toy["test/pca_sse"],
        "dataset=toy: angle between the planes, degrees": toy["test/pca_angle"],
    }
    holds = (
        all(run["test/sse"] < 1.01 * run["test/pca_sse"] and run["test/pca_angle"] < 5 for run in (trained, toy))
        and abs(exact["test/sse"] - exact["test/pca_sse"]) < 1e-3
    )
    return Outcome(metrics, holds, runs["trained"].directory / "figures" / "units-code.png")
