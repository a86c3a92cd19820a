"""An L1 penalty on the activations of a layer turns most of its units off."""

import torch
from experiments import Outcome
from measurements import unseen
from pictures import beside, unit_sheet

from aetrain.api import Trained

CLAIM = (
    "L1 on the hidden layers makes them sparse, the more so the larger its weight, at a small cost in error. Dead "
    "units are counted."
)
LESSON = "L1 makes hidden layers sparse at a small cost."
RESULT = (
    "active units {active hidden units (L0) of 256, L1} of 256, no penalty {active hidden units (L0) of 256, no "
    "penalty}"
)
RUNS = {
    "sparse": ["experiment=sparse_l1"],
    "strong": ["experiment=sparse_l1", "sparsity.weight=0.2"],
    "plain": ["experiment=sparse_l1", "sparsity=none"],
}


@torch.no_grad()
def check(runs: dict[str, Trained]) -> Outcome:
    """Check the active units of the hidden layer (ReLU); count the units that no test image activates."""
    metrics = {}
    titles = {"plain": "no penalty", "sparse": "L1", "strong": "L1, weight 0.2"}
    for name, text in titles.items():
        active = runs[name].model(unseen(runs[name])).hidden[0] > 0  # [N, units]
        metrics[f"active hidden units (L0) of 256, {text}"] = float(active.float().sum(1).mean())
        metrics[f"dead hidden units of 256, {text}"] = float((~active.any(0)).sum())
        metrics[f"test SSE, {text}"] = runs[name].metrics["test/sse"]
    l0 = [metrics[f"active hidden units (L0) of 256, {titles[name]}"] for name in ("strong", "sparse", "plain")]
    picture = beside(
        runs["sparse"].directory / "beside.png",
        [unit_sheet(runs["plain"]), unit_sheet(runs["sparse"])],
        ["units, no penalty", "units, L1"],
    )
    holds = l0[0] < l0[1] < 0.5 * l0[2] and runs["sparse"].metrics["test/sse"] < 1.5 * runs["plain"].metrics["test/sse"]
    return Outcome(metrics, holds, picture)
