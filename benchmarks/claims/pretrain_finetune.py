"""Hinton & Salakhutdinov (2006), Erhan et al. (2010): pretraining without labels helps where labels are few."""

from experiments import Outcome

from aetrain.api import Trained

CLAIM = (
    "784-1000-1000-500-10, whose layers except the last are pretrained as a stack of RBMs on images without labels, "
    "and which is then trained as a whole on 100, 1,000 or 10,000 labels, has a higher accuracy than from random "
    "weights."
)
LESSON = "Pretraining without labels improves a classifier with few labels."
RESULT = "100 labels: {100 labels: accuracy, pretrained, %} %, random start {100 labels: accuracy, random start, %} %"
RUNS = {"stack of RBMs": ["experiment=pretrain_finetune"]}


def check(runs: dict[str, Trained]) -> Outcome:
    """Check that the accuracy is higher for each number of labels."""
    (run,) = runs.values()
    metrics, holds = {}, True
    for count in run.config.measures.few_labels.labels:
        pretrained = run.metrics.get(f"test/finetuned_{count}")
        random = run.metrics.get(f"test/finetuned_{count}_random")
        if pretrained is None or random is None:  # more labels than there are images
            continue
        metrics[f"{count:,} labels: accuracy, pretrained, %"] = pretrained
        metrics[f"{count:,} labels: accuracy, random start, %"] = random
        holds &= pretrained > random
    note = (
        "[uses.md](uses.md) has the other kinds of pretraining, the other networks, the published results, and other "
        "uses of a code."
    )
    return Outcome(metrics, holds, note=note)
