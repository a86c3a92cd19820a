"""Metrics on the console: one line per epoch, and a table at the end of a run."""

from collections.abc import Mapping

from aetrain.evaluation.metric_names import name_of
from aetrain.training.loop import TrainState

# The metrics in the line of an epoch, where they are measured.
TRAINING_METRICS = ("loss", "nll", "kl", "sparsity")
HELD_OUT_METRICS = ("loss", "neg_elbo", "sse", "noisy_sse")


def epoch_line(state: TrainState, metrics: Mapping[str, float], split: str, num_images: int) -> str:
    """Return `epoch 3/10 | train loss 104.3 nll ... | test loss 80.1 sse ... | 1.52 s, 39,000 images/s`.

    `metrics` have names such as `train/loss`; `split` is the held-out split, `validation` or `test`; `num_images` is
    the number of training images per epoch.
    """
    parts = [f"epoch {state.epoch:{len(str(state.epochs))}}/{state.epochs}"]
    for prefix, names in (("train", TRAINING_METRICS), (split, HELD_OUT_METRICS)):
        values = [f"{name} {metrics[f'{prefix}/{name}']:.2f}" for name in names if f"{prefix}/{name}" in metrics]
        if values:
            parts.append(" ".join([prefix, *values]))
    if state.seconds:
        parts.append(f"{state.seconds:.2f} s, {num_images / state.seconds:,.0f} images/s")
    return " | ".join(parts)


def metrics_table(metrics: Mapping[str, float], descriptions: Mapping[str, str]) -> str:
    """Return a text table with the columns tag, value and description, one metric per line.

    `descriptions` are texts by the name of the metric, in the order of the table. Other metrics come last.
    """
    ranks = {name: rank for rank, name in enumerate(descriptions)}
    tags = sorted(metrics, key=lambda tag: ranks.get(name_of(tag), len(ranks)))
    values = {tag: f"{metrics[tag]:.4f}" for tag in tags}
    tag_width, value_width = max(map(len, values)), max(map(len, values.values()))
    lines = []
    for tag, value in values.items():
        description = descriptions.get(name_of(tag), "")
        lines.append(f"  {tag:{tag_width}}  {value:>{value_width}}  {description}".rstrip())
    return "\n".join(lines)
