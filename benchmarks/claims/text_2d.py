"""Hinton & Salakhutdinov (2006), figure 4: topics of documents in the plane of a code, beside LSA's."""

from experiments import Outcome
from measurements import knn_accuracy, splits_of
from pictures import beside
from torch import Tensor

from aetrain.api import Trained
from aetrain.data.examples import Examples
from aetrain.data.sparse_rows import SparseRows
from aetrain.evaluation.measures.lsa import LSA
from aetrain.views.linear_baseline import spread_index
from aetrain.views.scatter import scatter

CLAIM = (
    "In the plane of a code of 2 units the 20 topics of 20 Newsgroups separate better than in the plane of the first "
    "two components of latent semantic analysis (LSA)."
)
LESSON = "In two dimensions topics separate where those of LSA do not."
RESULT = "10-NN accuracy {10-NN accuracy, code}, LSA {10-NN accuracy, LSA}"
RUNS = {"code": ["experiment=text_2d", "dataset.path=${data_dir}/text/20newsgroups.csv.gz"]}
MIN_GAIN = 0.1
SCATTER_DOCUMENTS = 2000


def check(runs: dict[str, Trained]) -> Outcome:
    """Check that 10-NN on the code is 10 points more accurate than on LSA."""
    run = runs["code"]
    data = splits_of(run)
    lsa = LSA.fit(data.train, 2, run.dataset.prepare)
    codes = {"code": run.encode, "LSA": lambda rows: rows.flatten(1) @ lsa.components.t()}
    accuracy = {name: knn_accuracy(encode, data, read=dense) for name, encode in codes.items()}
    documents = data.test[spread_index(len(data.test), SCATTER_DOCUMENTS)]  # the file is sorted by topic
    picture = beside(
        run.directory / "figures" / "beside_lsa.png",
        [
            scatter(
                encode(dense(documents)), documents.labels, class_name=documents.class_name, has_legend=name == "LSA"
            )
            for name, encode in codes.items()
        ],
        [f"{name}: {value:.0%}" for name, value in accuracy.items()],
    )
    metrics = {f"10-NN accuracy, {name}": value for name, value in accuracy.items()}
    return Outcome(metrics, accuracy["code"] >= accuracy["LSA"] + MIN_GAIN, picture)


def dense(examples: Examples) -> Tensor:
    """Return the weights of words [N, 1, 1, D]."""
    assert isinstance(examples.values, SparseRows)
    return examples.values.dense()
