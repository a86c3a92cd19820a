"""The groups of runs whose reconstructions are worse than those of PCA of the same size."""

from collections.abc import Iterable, Sequence

from aetrain.evaluation.finding import BELOW_BASELINE
from aetrain.report.groups import RunGroup
from aetrain.report.html import Html, el, join
from aetrain.report.numbers import format_number
from aetrain.report.tables import swatch

MAX_NAMES = 4


def pca_losses(groups: Sequence[RunGroup]) -> Iterable[Html]:
    """Yield the sentence that names the groups with their errors and those of PCA; nothing where there are none."""
    losers = [group for group in groups if loses_to_pca(group)]
    if not losers:
        return
    names = []
    for group in losers[:MAX_NAMES]:
        error, pca = group.metric("test/sse"), group.metric("test/pca_sse")
        if error is not None and pca is not None:
            text = f" ({format_number(error.mean)}, PCA {format_number(pca.mean)}), "
            names.append(join(swatch(group), el("b", group.label), text))
    names[-1] = Html(names[-1].removesuffix(", "))
    rest = f", and {len(losers) - MAX_NAMES} more" if len(losers) > MAX_NAMES else ""
    yield el("li", "Squared error above that of PCA with as many units: ", names, f"{rest}.")


def loses_to_pca(group: RunGroup) -> bool:
    """Tell whether the mean error is above PCA's, and the diagnostics found a run no better than a baseline.

    They leave out the codes that have less freedom than PCA's, such as sparse ones.
    """
    error, pca = group.metric("test/sse"), group.metric("test/pca_sse")
    has_finding = any(finding.what in BELOW_BASELINE for run in group.runs for finding in run.findings)
    return error is not None and pca is not None and error.mean > pca.mean and has_finding
