"""Hinton & Salakhutdinov (2006), figure 2: a deep autoencoder's codes keep more of a digit than PCA's."""

from experiments import Outcome
from measurements import curve, one_of_each_class, pca_of, splits_of
from pictures import rows

from aetrain.api import Trained

CLAIM = (
    "784-1000-500-250-30 reconstructs digits better than PCA with 30 components (SSE 13.87), at the published 3.00. "
    "The same network with a code of 2 units is better than PCA with 2 components."
)
LESSON = "Today's recipe trains 784-1000-500-250-30 without pretraining."
RESULT = "SSE {test SSE}, published 3.00, PCA-30 {test SSE of PCA-30}"
RUNS = {
    "deep": ["experiment=hinton"],
    "2 units": ["experiment=hinton", "model.code_dim=2", "epochs=4"],
    "sigmoid": ["experiment=hinton", "model.activation=sigmoid", "model.init=default", "epochs=4"],
}
PUBLISHED = 3.00


def check(runs: dict[str, Trained]) -> Outcome:
    """Check the error against a quarter of PCA's and the published one, and the 2-unit code against 0.75 of PCA-2."""
    deep, two, sigmoid = (runs[name].metrics for name in RUNS)
    data = splits_of(runs["deep"])
    x = one_of_each_class(data.test)
    images = {
        "original": x,
        "deep, 30": runs["deep"].reconstruct(x),
        "PCA, 30": pca_of(data.train, 30).reconstruct(x),
        "deep, 2": runs["2 units"].reconstruct(x),
        "PCA, 2": pca_of(data.train, 2).reconstruct(x),
    }
    picture = rows(runs["deep"].directory / "figures" / "rows.png", images)
    metrics = {
        "test SSE": deep["test/sse"],
        "published": PUBLISHED,
        "test SSE of PCA-30": deep["test/pca_sse"],
        f"test SSE, 2 units, {two['epochs']} epochs": two["test/sse"],
        "test SSE of PCA-2": two["test/pca_sse"],
        f"test SSE, sigmoid units, {sigmoid['epochs']} epochs": sigmoid["test/sse"],
    }
    holds = (
        deep["test/sse"] < deep["test/pca_sse"] / 4
        and deep["test/sse"] <= PUBLISHED
        and two["test/sse"] < 0.75 * two["test/pca_sse"]
    )
    silu_sse = curve(runs["deep"], "test/sse")[: sigmoid["epochs"] + 1][-1]
    note = (
        f"From random weights the document's sigmoid units learn far more slowly: after {sigmoid['epochs']} epochs of "
        f"the same recipe they are at {sigmoid['test/sse']:.2f}, and SiLU units at {silu_sse:.2f} "
        f"({deep['test/sse']:.2f} after {deep['epochs']} epochs). `hinton_rbm` shows the effect of a stack of RBMs on "
        "sigmoid units."
    )
    return Outcome(metrics, holds, picture, note)
