"""Metrics on the console: one line per epoch, and a table at the end of a run."""

from collections.abc import Mapping

from aetrain.evaluation.metric_descriptions import DESCRIPTIONS, metric_key
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


def metrics_table(metrics: Mapping[str, float]) -> str:
    """Return a text table with the columns name, value and description, one metric per line."""
    ranks = {key: rank for rank, key in enumerate(DESCRIPTIONS)}
    names = sorted(metrics, key=lambda name: ranks.get(metric_key(name), len(ranks)))
    values = {name: f"{metrics[name]:.4f}" for name in names}
    name_width, value_width = max(map(len, values)), max(map(len, values.values()))
    lines = []
    for name, value in values.items():
        description = DESCRIPTIONS.get(metric_key(name), "")
        lines.append(f"  {name:{name_width}}  {value:>{value_width}}  {description}".rstrip())
    return "\n".join(lines)
