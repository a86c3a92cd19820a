"""An autoencoder that was trained with entries missing fills them in, in a table and in images."""

from experiments import Outcome

from aetrain.api import Trained

CLAIM = (
    "With 30 % of the values hidden at random, in training as well, an autoencoder with masking noise fills the hidden "
    "values of test examples in with a smaller error than the column mean and than iterative PCA, whose number of "
    "components is chosen on hidden training values: in the table breast_cancer and in images of digits."
)
LESSON = "A denoising autoencoder that was trained with entries missing fills them in."
RESULT = (
    "RMSE in the table {table: RMSE}, iterative PCA {table: RMSE of iterative PCA}; in images {images: RMSE}, "
    "iterative PCA {images: RMSE of iterative PCA}"
)
IMAGES = ["dataset=digits", "model.code_dim=32", "measures.imputation.components=[4,8,12,16,20,24,32]"]
RUNS = {"table": ["experiment=missing_values"], "images": ["experiment=missing_values", *IMAGES]}


def check(runs: dict[str, Trained]) -> Outcome:
    """Check the error at hidden values against those of the column mean and of iterative PCA."""
    metrics: dict[str, float] = {}
    holds = True
    for name, run in runs.items():
        rmse, mean, pca = (run.metrics[f"test/rmse{suffix}"] for suffix in ("", "_column_mean", "_iterative_pca"))
        metrics |= {f"{name}: RMSE": rmse, f"{name}: RMSE of the column mean": mean}
        metrics |= {f"{name}: RMSE of iterative PCA": pca}
        metrics[f"{name}: components of iterative PCA"] = run.metrics["test/iterative_pca_components"]
        holds = holds and rmse < min(mean, pca)
    return Outcome(metrics, holds)
