"""A price on absolute activations silences most units of the layers it is put on."""

import torch
from evidence import unseen
from experiments import Outcome
from sheets import beside, unit_sheet

from aetrain.api import Trained

CLAIM = (
    "L1 on the hidden layers makes them sparse, the more the larger its weight, at a small cost in error; "
    "units that nothing moves are counted."
)
RUNS = {
    "sparse": ["experiment=sparse_l1"],
    "strong": ["experiment=sparse_l1", "sparsity.weight=0.2"],
    "plain": ["experiment=sparse_l1", "sparsity=none"],
}


@torch.no_grad()
def check(runs: dict[str, Trained]) -> Outcome:
    """Active units of the hidden layer, which is rectified, and those that no test image wakes."""
    figures = {}
    said = {"plain": "no penalty", "sparse": "L1", "strong": "L1, weight 0.2"}
    for name, text in said.items():
        active = runs[name].model(unseen(runs[name])).hidden[0] > 0  # [N, units]
        figures[f"active hidden units (L0) of 256, {text}"] = float(active.float().sum(1).mean())
        figures[f"dead hidden units of 256, {text}"] = float((~active.any(0)).sum())
        figures[f"test SSE, {text}"] = runs[name].metrics["test/sse"]
    l0 = [figures[f"active hidden units (L0) of 256, {said[name]}"] for name in ("strong", "sparse", "plain")]
    picture = beside(
        runs["sparse"].directory / "beside.png",
        [unit_sheet(runs["plain"]), unit_sheet(runs["sparse"])],
        ["units, no penalty", "units, L1"],
    )
    holds = l0[0] < l0[1] < 0.5 * l0[2] and runs["sparse"].metrics["test/sse"] < 1.5 * runs["plain"].metrics["test/sse"]
    return Outcome(figures, holds, picture)
