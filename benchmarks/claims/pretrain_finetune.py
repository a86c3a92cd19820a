"""Hinton & Salakhutdinov (2006), Erhan et al. (2010): images without labels help where labels are few."""

from experiments import Outcome

from aetrain.api import Trained

CLAIM = (
    "784-1000-1000-500-10, all but its last layer pretrained as a stack of RBMs on images without labels and all of it "
    "then trained on 100, 1,000 or 10,000 labels, is right more often than from a random start."
)
RUNS = {"stack of RBMs": ["experiment=pretrain_finetune"]}


def check(runs: dict[str, Trained]) -> Outcome:
    """More test images right for each number of labels."""
    (run,) = runs.values()
    figures, holds = {}, True
    for count in run.config.measures.few_labels.labels:
        ours, random = (run.metrics.get(f"test/finetuned_{count}{end}") for end in ("", "_random"))
        if ours is None or random is None:  # more labels than there are images
            continue
        figures[f"{count:,} labels: test images right, pretrained, %"] = ours
        figures[f"{count:,} labels: test images right, random start, %"] = random
        holds &= ours > random
    note = (
        "Every other pretraining, the other networks, the published figures, and what else codes are good for: "
        "[uses.md](uses.md)."
    )
    return Outcome(figures, holds, note=note)
