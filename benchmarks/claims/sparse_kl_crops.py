"""Ng (2011), CS294A lecture notes: units that are rarely active become pen strokes."""

from experiments import Outcome
from measurements import setting, smoothness
from pictures import beside, unit_sheet

from aetrain.api import Trained

CLAIM = (
    "100 sigmoid units on 10x10 crops, held by the KL penalty at a mean activation of 0.01, are strokes. Without the "
    "penalty they are not."
)
LESSON = "Sparse sigmoid units on crops become strokes."
RESULT = "mean activation {mean activation, with the penalty}, target 0.01; without penalty {mean activation, without}"
RUNS = {
    "sparse": ["experiment=sparse_kl_crops"],
    "plain": ["experiment=sparse_kl_crops", "sparsity=none", "model.code_activation=sigmoid"],
    "document": ["experiment=sparse_kl_crops", "model.tied=false", "sparsity.weight=5", "optimizer.lr=1e-3"],
}


def check(runs: dict[str, Trained]) -> Outcome:
    """Check that the mean activation is within 20 % of the target, and the units smoother than without the penalty."""
    target = setting(runs["sparse"], "sparsity.target")
    mean = {name: run.metrics["test/code_mean"] for name, run in runs.items()}
    smooth = {name: smoothness(run.model.first_layer_weights().detach()) for name, run in runs.items()}
    titles = {"sparse": "with the penalty", "plain": "without", "document": "the document's settings"}
    metrics = {"target of the mean activation": target}
    metrics |= {f"mean activation, {titles[name]}": value for name, value in mean.items()}
    metrics |= {f"correlation of neighbouring weights, {titles[name]}": value for name, value in smooth.items()}
    metrics |= {f"test SSE, {titles[name]}": run.metrics["test/sse"] for name, run in runs.items()}
    picture = beside(
        runs["sparse"].directory / "beside.png",
        [unit_sheet(run, 100) for run in runs.values()],
        ["with the penalty", "without", "the document's settings"],
    )
    note = (
        "The document's own settings (untied weights, weight 5, Adam at 0.001, 15 epochs; the third panel) come near "
        f"the target ({mean['document']:.4f} for {target:g}), but leave most units without a pattern of their own: the "
        "decoder need not reproduce the pattern that the encoder detects. With tied weights it must, and every unit "
        "becomes a stroke; a weight of 40 and Adam at 0.003 bring the mean activation to "
        f"{mean['sparse']:.4f} in the same 15 epochs."
    )
    holds = abs(mean["sparse"] / target - 1) < 0.2 and smooth["sparse"] > max(smooth["plain"], 0.5)
    return Outcome(metrics, holds, picture, note)
