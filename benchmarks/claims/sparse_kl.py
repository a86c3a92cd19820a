"""Ng (2011), CS294A lecture notes: the KL penalty keeps every unit's mean activation at a target."""

import torch
from experiments import Outcome
from measurements import setting, smoothness, unseen
from pictures import beside, unit_sheet

from aetrain.api import Trained

CLAIM = (
    "With target 0.1 and weight 0.2 on cross-entropy, the mean activation of sigmoid units comes to the target, and "
    "the units differ from those without the penalty."
)
LESSON = "A KL penalty brings the mean activation to its target."
RESULT = "mean activation {mean activation, with the penalty}, target 0.1"
RUNS = {
    "sparse": ["experiment=sparse_kl"],
    "plain": ["experiment=sparse_kl", "sparsity=none", "model.code_activation=sigmoid"],
    "sums": ["experiment=sparse_kl", "likelihood.reduction=sum"],
}


def check(runs: dict[str, Trained]) -> Outcome:
    """Check that the mean activation is within 10 % of the target, and that of 90 % of the units within 50 %."""
    sparse, plain, sums = runs["sparse"], runs["plain"], runs["sums"]
    target = setting(sparse, "sparsity.target")
    rates = sparse.encode(unseen(sparse)).mean(0)  # [D]
    share_near_target = float(((rates - target).abs() < target / 2).to(torch.float32).mean())
    metrics = {
        "target of the mean activation": target,
        "mean activation, with the penalty": sparse.metrics["test/code_mean"],
        "units within half of the target": share_near_target,
        "mean activation, without": plain.metrics["test/code_mean"],
        "mean activation, with the penalty against sums over pixels": sums.metrics["test/code_mean"],
        "test BCE, with": sparse.metrics["test/bce"],
        "test BCE, without": plain.metrics["test/bce"],
        "test BCE, with the penalty against sums over pixels": sums.metrics["test/bce"],
        "correlation of neighbouring weights, with": smoothness(sparse.model.first_layer_weights().detach()),
        "correlation of neighbouring weights, without": smoothness(plain.model.first_layer_weights().detach()),
    }
    picture = beside(
        sparse.directory / "beside.png", [unit_sheet(plain), unit_sheet(sparse)], ["without the penalty", "with it"]
    )
    note = (
        "The document's weight of 0.2 is against the mean cross-entropy of a pixel (`likelihood.reduction=mean`). "
        "Against the sum over 784 pixels it has almost no effect: the mean activation is "
        f"{sums.metrics['test/code_mean']:.3f}."
    )
    holds = abs(sparse.metrics["test/code_mean"] / target - 1) < 0.1 and share_near_target > 0.9
    return Outcome(metrics, holds, picture, note)
