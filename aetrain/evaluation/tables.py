"""Figures as a person reads them: a line an epoch, a table at the end."""

import re
from collections.abc import Mapping

from aetrain.evaluation.ruler import MEANING
from aetrain.training.fit import Run

LINE = {  # what an epoch's line says, where it is there
    "train": ("loss", "nll", "kl", "sparsity"),
    "test": ("loss", "neg_elbo", "sse", "noisy_sse"),
}


def epoch_line(run: Run, figures: Mapping[str, float], watched: str, num_images: int) -> str:
    """`epoch 3/10 | train loss 104.3 nll ... | test loss 80.1 sse ... | 1.52 s, 39,000 images/s`."""
    parts = [f"epoch {run.epoch:{len(str(run.epochs))}}/{run.epochs}"]
    for split, names in (("train", LINE["train"]), (watched, LINE["test"])):
        known = [f"{name} {figures[f'{split}/{name}']:.2f}" for name in names if f"{split}/{name}" in figures]
        if known:
            parts.append(f"{split} {' '.join(known)}")
    if run.seconds:
        parts.append(f"{run.seconds:.2f} s, {num_images / run.seconds:,.0f} images/s")
    return " | ".join(parts)


def figures_table(figures: Mapping[str, float]) -> str:
    """One figure a line: its name, its value, what it is."""
    order = list(MEANING)
    names = sorted(figures, key=lambda name: order.index(n) if (n := explained(name)) in MEANING else len(order))
    rows = [(name, f"{figures[name]:.4f}", MEANING.get(explained(name), "")) for name in names]
    wide, tall = max(len(r[0]) for r in rows), max(len(r[1]) for r in rows)
    return "\n".join(f"  {name:{wide}}  {value:>{tall}}  {meaning}".rstrip() for name, value, meaning in rows)


def explained(name: str) -> str:
    """The name under which a figure is explained: `is_nll_K` for `test/is_nll_50`; capitals stand for any word."""
    own = name.partition("/")[2]
    patterns = (key for key in MEANING if re.fullmatch(re.sub("[A-Z]+", r"[\\w.]+", key), own))
    return own if own in MEANING else next(patterns, own)
