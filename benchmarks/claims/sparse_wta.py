"""Makhzani & Frey (2015): with lifetime sparsity every unit is active for some images, and none is dead."""

import torch
from experiments import Outcome
from measurements import setting, smoothness, unseen
from pictures import beside, unit_sheet

from aetrain.api import Trained

CLAIM = (
    "Each unit is active for the set fraction of a training batch: a code has rate x units active on average and no "
    "unit is dead, while top-k with as many active units leaves units dead. The units are strokes."
)
LESSON = "Winner-take-all leaves no unit dead."
RESULT = "dead units of 500: {dead units of 500, winner-take-all}, top-k {dead units of 500, top-k with as many active}"
RUNS = {
    "wta": ["experiment=sparse_wta"],
    "topk": ["experiment=sparse_wta", "sparsity=topk", "sparsity.k=25", "model.code_activation=relu"],
    "plain": ["experiment=sparse_wta", "sparsity=none", "model.code_activation=relu"],
}


@torch.no_grad()
def check(runs: dict[str, Trained]) -> Outcome:
    """Check the L0 in training, and the dead units of both kinds of sparsity."""
    wta, topk, plain = (runs[name].metrics for name in ("wta", "topk", "plain"))
    run, rate = runs["wta"], setting(runs["wta"], "sparsity.rate")
    size = int(setting(run, "batch_size"))
    batch = unseen(run, size)
    run.model.train()
    training = run.encode(batch) != 0  # [B, D]
    run.model.eval()
    metrics = {
        "share of a training batch for which a unit is active (L0 over life)": float(training.float().mean(0).max()),
        "active units (L0) while training, of 500": float(training.float().sum(1).mean()),
        "active units (L0) in the test, where nothing is silenced": wta["test/l0"],
        "dead units of 500, winner-take-all": wta["test/dead_units"],
        "dead units of 500, top-k with as many active": topk["test/dead_units"],
        "dead units of 500, no sparsity": plain["test/dead_units"],
        "test SSE, winner-take-all": wta["test/sse"],
        "test SSE, top-k": topk["test/sse"],
        "correlation of neighbouring weights, winner-take-all": smoothness(run.model.first_layer_weights().detach()),
        "correlation of neighbouring weights, no sparsity": smoothness(
            runs["plain"].model.first_layer_weights().detach()
        ),
    }
    picture = beside(
        run.directory / "beside.png",
        [unit_sheet(runs["plain"]), unit_sheet(run)],
        ["units, no sparsity", "units, winner-take-all"],
    )
    l0_as_set = abs(metrics["active units (L0) while training, of 500"] / (rate * 500) - 1) < 0.05
    holds = l0_as_set and wta["test/dead_units"] == 0 and topk["test/dead_units"] > 0
    note = (
        "The test keeps every unit, as the paper does to read features. The decoder has learnt to decode the winners "
        "alone, so the test's reconstructions are too bright "
        f"(SSE {wta['test/sse']:.1f}) and no measure of the method."
    )
    return Outcome(metrics, holds, picture, note)
