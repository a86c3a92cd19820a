"""A code of two units is a map of the digits (Hinton & Salakhutdinov 2006, figure 3)."""

from evidence import data_of, knn_accuracy, side_by_side
from experiments import Outcome

from aetrain.evaluation import ruler
from aetrain.library import Trained
from aetrain.views.scatter import scatter

CLAIM = (
    "In the plane of the 2-unit code of 784-128-64-10-2 the classes separate better than in that of PCA's first two."
)
RUNS = {"deep": ["experiment=code_2d"]}
SHOWN = 2000


def check(runs: dict[str, Trained]) -> Outcome:
    """The 10 nearest training codes call 20 points more of the test digits right, and the error is lower."""
    (deep,) = runs.values()
    data = data_of(deep)
    pca = data.pca(2)
    codes = {"deep autoencoder": deep.encode, "PCA": pca.encode}
    accuracy = {
        name: knn_accuracy(encode(data.train), data.train_labels, encode(data.test), data.test_labels)
        for name, encode in codes.items()
    }
    labels = data.test_labels[:SHOWN]
    picture = side_by_side(
        deep.directory / "figures" / "beside_pca.png",
        {f"{name}: {accuracy[name]:.0%}": scatter(encode(data.test[:SHOWN]), labels) for name, encode in codes.items()},
    )
    pca_sse = float(ruler.sse(pca.reconstruct(data.test), data.test).mean())
    ours, theirs = accuracy.values()
    figures = {
        "10-NN accuracy of the code": ours,
        "10-NN accuracy of PCA-2": theirs,
        "test SSE": deep.metrics["test/sse"],
        "test SSE of PCA-2": pca_sse,
    }
    return Outcome(figures, ours > theirs + 0.2 and deep.metrics["test/sse"] < pca_sse, picture)
