"""Names of metrics and patterns of names: the tag `test/precision_10` has the name `precision_10`.

A description may belong to a pattern: `precision_K` describes `precision_10`. A single capital stands for a number,
a longer word in capitals for any word. The report imports this module, which imports no torch.
"""

import re
from collections.abc import Iterable

# Metrics of TensorBoard's HParams table, in this order; each run writes those that it has.
HPARAM_METRICS = ("test/sse", "test/nll", "test/neg_elbo", "test/kl", "test/bce", "test/noisy_sse", "test/rmse")

# The ends of the names of baselines, such as `probe_linear_pca` of `probe_linear`, by the title of their column.
BASELINE_SUFFIXES = {
    "PCA": "_pca",
    "LSA": "_lsa",
    "LSA-128": "_lsa_128",
    "pixels": "_pixels",
    "input": "_input",
    "untrained": "_random",
    "popularity": "_popularity",
    "SVD": "_svd",
    "forest": "_forest",
    "column mean": "_column_mean",
    "iterative PCA": "_iterative_pca",
}


def name_of(tag: str) -> str:
    """Return the name of a metric without its split: `sse` for `test/sse`."""
    return tag.partition("/")[2] or tag


def find_pattern(name: str, patterns: Iterable[str]) -> str:
    """Return the pattern that a name equals, or else the first one that it matches; empty if there is none."""
    known = list(patterns)
    if name in known:
        return name
    return next((pattern for pattern in known if re.fullmatch(_expression(pattern), name)), "")


def is_baseline(name: str) -> bool:
    """Tell whether a name ends as those of baselines, which need no model, or no trained one."""
    return name.endswith(tuple(BASELINE_SUFFIXES.values()))


def _expression(pattern: str) -> str:
    """Return the regular expression of a pattern."""
    parts = re.split("([A-Z]+)", pattern)  # capitals at odd positions
    capitals = {i: r"[\d.]+" if len(part) == 1 else r"[\w.]+" for i, part in enumerate(parts) if i % 2}
    return "".join(capitals.get(i, re.escape(part)) for i, part in enumerate(parts))
