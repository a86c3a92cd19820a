"""Makhzani & Frey (2013): exactly k units active, and all of them used where k comes down from a larger number."""

from evidence import setting
from experiments import Outcome
from sheets import beside, unit_sheet

from aetrain.api import Trained

CLAIM = (
    "Exactly k units of an image's code are active. Kept at k from the start, units stay dead; "
    "where k comes down over the first half of training, they are used."
)
RUNS = {
    "annealed": ["experiment=sparse_topk"],
    "fixed": ["experiment=sparse_topk", "sparsity.start=null"],
    "plain": ["experiment=sparse_topk", "sparsity=none"],
}


def check(runs: dict[str, Trained]) -> Outcome:
    """L0 as set, and the dead units counted with and without the remedy."""
    annealed, fixed, plain = (runs[name].metrics for name in ("annealed", "fixed", "plain"))
    k = setting(runs["annealed"], "sparsity.k")
    figures = {
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
    return Outcome(figures, holds, picture)
