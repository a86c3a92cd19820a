"""A deep autoencoder of sigmoid units reconstructs digits after 5 epochs, and better after 20."""

from experiments import Outcome
from measurements import one_of_each_class, pca_sse, splits_of
from pictures import rows

from aetrain.api import Trained

CLAIM = "784-256-128-256-784 with sigmoid units reconstructs test digits after 5 epochs, and better after 20."
LESSON = "A deep autoencoder of sigmoid units trains, slowly."
RESULT = "SSE {test SSE after 5 epochs} after 5 epochs, {test SSE after 20 epochs} after 20"
RUNS = {
    "5 epochs": ["experiment=deep_sigmoid"],
    "20 epochs": ["experiment=deep_sigmoid", "epochs=20"],
}


def check(runs: dict[str, Trained]) -> Outcome:
    """Check that the error is below half of PCA-2's after 5 epochs, and after 20 below 0.9 times that after 5."""
    data = splits_of(runs["5 epochs"])
    short, long = (run.metrics["test/sse"] for run in runs.values())
    pca_2 = pca_sse(data, 2)
    x = one_of_each_class(data.test)
    picture = rows(
        runs["20 epochs"].directory / "figures" / "digits.png",
        {"test digits": x, **{name: run.reconstruct(x) for name, run in runs.items()}},
    )
    metrics = {
        "test SSE after 5 epochs": short,
        "test SSE after 20 epochs": long,
        "test SSE of PCA-2": pca_2,
        "test SSE of PCA-128": runs["20 epochs"].metrics["test/pca_sse"],
    }
    note = (
        "PCA with as many units as this code, 128, is still better: sigmoid units and 20 epochs do not reach it "
        f"({metrics['test SSE of PCA-128']:.2f})."
        if long > metrics["test SSE of PCA-128"]
        else ""
    )
    return Outcome(metrics, short < pca_2 / 2 and long < 0.9 * short, picture, note)
