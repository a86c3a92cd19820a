"""Makhzani & Frey (2013): exactly k units are active, and all units are used if k falls from a larger number."""

from experiments import Outcome
from measurements import setting
from pictures import beside, unit_sheet

from aetrain.api import Trained

CLAIM = (
    "Exactly k units of an image's code are active. With k fixed from the start, many units stay dead; where k falls "
    "over the first half of training, they are used."
)
LESSON = "A falling k keeps units of a k-sparse code alive."
RESULT = "dead units of 500: {dead units of 500, k annealed} annealed, {dead units of 500, k fixed} fixed"
RUNS = {
    "annealed": ["experiment=sparse_topk"],
    "fixed": ["experiment=sparse_topk", "sparsity.start=null"],
    "plain": ["experiment=sparse_topk", "sparsity=none"],
}


def check(runs: dict[str, Trained]) -> Outcome:
    """Check that the L0 is k, and that annealing halves the number of dead units at least."""
    annealed, fixed, plain = (runs[name].metrics for name in ("annealed", "fixed", "plain"))
    k = setting(runs["annealed"], "sparsity.k")
    metrics = {
        "k": k,
        "active units (L0), k fixed": fixed["test/l0"],
        "active units (L0), k annealed": annealed["test/l0"],
        "active units (L0), no sparsity": plain["test/l0"],
        "dead units of 500, k fixed": fixed["test/dead_units"],
        "dead units of 500, k annealed": annealed["test/dead_units"],
        "test SSE, k fixed": fixed["test/sse"],
        "test SSE, k annealed": annealed["test/sse"],
        "test SSE, no sparsity": plain["test/sse"],
    }
    picture = beside(
        runs["annealed"].directory / "beside.png",
        [unit_sheet(runs["plain"]), unit_sheet(runs["annealed"])],
        ["units, no sparsity", f"units, {k:.0f} kept"],
    )
    holds = (
        annealed["test/l0"] == fixed["test/l0"] == k
        and fixed["test/dead_units"] > 0
        and annealed["test/dead_units"] < 0.5 * fixed["test/dead_units"]
    )
    return Outcome(metrics, holds, picture)
