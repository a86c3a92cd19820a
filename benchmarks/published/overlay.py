"""Hinton & Salakhutdinov (2006), figure 4: a code of 10 units retrieves documents of the same topic, beside LSA."""

from reproductions import Figure, Runs

COUNTS = (1, 3, 7, 15, 31, 63, 127, 255, 511, 1023)  # of retrieved documents, as on the axis of the figure
PROTOCOL = (
    "2000-256-128-10 on 20 Newsgroups. A test document retrieves training documents by the cosine of their codes; "
    f"precision at {', '.join(map(str, COUNTS))} documents is the share that has its topic. Latent semantic analysis "
    "(LSA) of 10 and of 128 dimensions reads the same words. A figure is the least difference over all these numbers."
)
SOURCE = (
    "Hinton & Salakhutdinov (2006), figure 4, on Reuters Corpus Volume II, a picture without numbers: the curve of "
    "the code of 10 units lies above those of LSA."
)
CHOICES = (
    "those of `experiment=text_retrieval`, chosen on held-out training documents ([data.md](data.md)). Half of the "
    "words are masked, as was chosen first; masking 70 %, tried after test figures of half had been seen, has a "
    "better precision at 100 held-out documents and a worse one at 10, and was dropped after its test figures were "
    "seen, too."
)
DIFFERENCES = (
    "another corpus, which is at hand; training documents are retrieved, not other test documents; 2000-256-128-10 "
    "with codes on a sphere and half of the words masked, where the paper has 2000-500-250-125-10 with a stack of RBMs."
)
REMARKS = (
    "the code is better than LSA-10 at every number of documents, and than LSA-128 from 7 documents on; at 1 and 3 "
    "documents LSA-128 is better, as are the words themselves. The likely cause is the corpus, 40 times smaller than "
    "the paper's: the nearest few documents share rare words with a query, which 10 numbers cannot hold. Spheres of "
    "other radii, other shares of masked words and more epochs were tried on held-out documents. No source for LSA of "
    "128 dimensions in the paper's figure was found."
)
RUNS = {
    "20 Newsgroups": [
        *("experiment=text_retrieval", "dataset.path=${data_dir}/text/20newsgroups.csv.gz"),
        f"measures.retrieval.at=[{','.join(map(str, COUNTS))}]",
    ],
}


def order(size: str, suffix: str) -> Figure:
    """Return the figure of the least difference to one size of LSA."""
    return Figure(
        f"precision less that of LSA-{size}, the least difference, %",
        {"10": "above 0", "128": "-"}[size],
        lambda runs: least_difference(runs, suffix),
        low=0.0,
        short_low=0.0 if size == "10" else None,
    )


def least_difference(runs: Runs, suffix: str) -> float:
    """Return the least difference of precision to a baseline over the numbers of documents."""
    (metrics,) = runs.values()
    names = [f"test/precision_{count}" for count in COUNTS]
    return min(metrics[name] - metrics[f"{name}{suffix}"] for name in names if name in metrics)


FIGURES = (
    order("10", "_lsa"),
    order("128", "_lsa_128"),
    Figure(
        "precision at 15 documents, %",
        "-",
        lambda runs: runs["20 Newsgroups"]["test/precision_15"],
        short_low=45.0,
    ),
)
SHORT = ["dataset.subset=6000", "dataset.test_subset=500", "epochs=20"]
