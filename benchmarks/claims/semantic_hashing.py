"""Salakhutdinov & Hinton (2009), "Semantic hashing": documents are searched by the bits of their codes."""

import time
from collections.abc import Callable

import torch
from experiments import Outcome
from measurements import splits_of
from torch import Tensor

from aetrain.api import Trained
from aetrain.evaluation.measures.baselines import nearest_by_bits
from aetrain.evaluation.measures.measure import encode_all
from aetrain.evaluation.measures.retrieval import find_nearest

CLAIM = (
    "A binary code of 64 bits, by noise on the units and a threshold, finds documents by the Hamming distance with a "
    "precision at 100 within 3 points of the real-valued code of the same size."
)
LESSON = "Noise on the units of a code makes them bits, which lose little of the precision of a search."
RESULT = "precision at 100: bits {precision at 100, bits} %, real-valued code {precision at 100, real-valued code} %"
PATH = "dataset.path=${data_dir}/text/20newsgroups.csv.gz"
RUNS = {
    "bits": ["experiment=semantic_hashing", PATH],
    "real-valued": ["experiment=text_retrieval", "model.code_dim=64", PATH],
}
MAX_LOSS = 3.0  # points
NUM_RESULTS = 100
ROUNDS = 3


def check(runs: dict[str, Trained]) -> Outcome:
    """Check that bits lose at most 3 points of the precision at 100."""
    bits, real = runs["bits"], runs["real-valued"]
    metrics = {
        "precision at 100, bits": bits.metrics["test/precision_100_binary"],
        "precision at 100, activations of the same code": bits.metrics["test/precision_100"],
        "precision at 100, real-valued code": real.metrics["test/precision_100"],
        "precision at 10, bits": bits.metrics["test/precision_10_binary"],
        "precision at 10, real-valued code": real.metrics["test/precision_10"],
        **queries_per_second(bits),
    }
    loss = metrics["precision at 100, real-valued code"] - metrics["precision at 100, bits"]
    return Outcome(metrics, loss <= MAX_LOSS)


def queries_per_second(run: Trained) -> dict[str, float]:
    """Return the number of test documents a second whose 100 nearest training documents are found, of both codes."""
    data = splits_of(run)
    train, test = (encode_all(run.model, part, run.dataset.prepare) for part in (data.train, data.test))
    threshold = train.mean(0)
    rows, queries = train > threshold, test > threshold
    searches: dict[str, Callable[[], Tensor]] = {
        "queries a second, bits": lambda: nearest_by_bits(queries, rows, NUM_RESULTS),
        "queries a second, real-valued code": lambda: find_nearest(test, train, NUM_RESULTS, "cosine"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in searches}
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for name, find in searches.items():
                start = time.process_time()
                find()
                seconds[name].append(time.process_time() - start)
    return {name: len(test) / min(times) for name, times in seconds.items()}
