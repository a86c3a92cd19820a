"""Ng (2011), CS294A lecture notes: the KL penalty holds every unit's mean activation at a target."""

import torch
from evidence import setting, smoothness, unseen
from experiments import Outcome
from sheets import beside, unit_sheet

from aetrain.api import Trained

CLAIM = (
    "With target 0.1 and weight 0.2 on cross-entropy, the mean activation of sigmoid units comes to the target; "
    "the units are others than without the penalty."
)
RUNS = {
    "sparse": ["experiment=sparse_kl"],
    "plain": ["experiment=sparse_kl", "sparsity=none", "model.code_activation=sigmoid"],
    "sums": ["experiment=sparse_kl", "likelihood.reduction=sum"],
}


def check(runs: dict[str, Trained]) -> Outcome:
    """The mean activation within 10 % of the target, nine units of ten within half of it."""
    sparse, plain, sums = runs["sparse"], runs["plain"], runs["sums"]
    target = setting(sparse, "sparsity.target")
    rates = sparse.encode(unseen(sparse)).mean(0)  # [D]
    near = float(((rates - target).abs() < target / 2).to(torch.float32).mean())
    figures = {
        "target of the mean activation": target,
        "mean activation, with the penalty": sparse.metrics["test/code_mean"],
        "units within half of the target": near,
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
        "A weight of 0.2 is one against the mean cross-entropy of a pixel (`likelihood.reduction=mean`). Against the "
        f"sum over 784 pixels it weighs next to nothing: the mean activation is {sums.metrics['test/code_mean']:.3f}."
    )
    holds = abs(sparse.metrics["test/code_mean"] / target - 1) < 0.1 and near > 0.9
    return Outcome(figures, holds, picture, note)
