"""An LSTM reads an image row by row into one vector, another writes the rows (Srivastava et al. 2015)."""

from experiments import Outcome
from measurements import one_of_each_class, pca_of, pca_sse, pixels, splits_of
from pictures import rows

from aetrain.api import Trained

CLAIM = "An LSTM that reads a digit row by row stores it in one vector, from which another LSTM writes the rows."
LESSON = "An LSTM codes an image row by row into one vector."
RESULT = "SSE {test SSE} with 32 units, PCA-32 {test SSE of PCA-32}"
RUNS = {"sequence": ["experiment=sequence"]}


def check(runs: dict[str, Trained]) -> Outcome:
    """Check that the error is below that of PCA-16, and that the vector is the decoder's only input."""
    run = runs["sequence"]
    data = splits_of(run)
    x, examples = pixels(data.test, 1000), one_of_each_class(data.test)
    code = run.encode(x)
    difference = (run.decode(code) - run.reconstruct(x)).abs().max().item()
    metrics = {
        "test SSE": run.metrics["test/sse"],
        "test SSE of PCA-2": pca_sse(data, 2),
        "test SSE of PCA-16": pca_sse(data, 16),
        "test SSE of PCA-32": run.metrics["test/pca_sse"],
        "units of the code": code.shape[1],
        "largest difference, written from the vector alone": difference,
    }
    holds = metrics["test SSE"] < metrics["test SSE of PCA-16"] and difference < 1e-6 and code.dim() == 2
    pca = pca_of(data.train, 32)
    picture = rows(
        run.directory / "figures" / "beside.png",
        {"clean": examples, "LSTM": run.reconstruct(examples), "PCA-32": pca.reconstruct(examples)},
    )
    return Outcome(metrics, holds, picture)
