"""The training doctor: what ails a trained model, by what evidence, and what helps. One function a disease.

A rule reads figures that are measured anyway, of the end of a run and of its epochs, and says nothing where they are
missing. Thresholds are where nobody would call the run well; each has a test that trains its way there, and runs of
every family that do not.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from aetrain.evaluation.finding import Finding
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.bottlenecks import Quantized


@dataclass(frozen=True)
class Case:
    """What the rules know of a run."""

    figures: Mapping[str, float]  # of the whole ruler, by name: `sse`, `kl`, ...
    history: Sequence[Mapping[str, float]]  # of its epochs, that before training first, by tag: `train/loss`, ...
    code_dim: int
    codewords: int | None  # in the book, where there is one
    sparse: bool  # whether a code is asked for in which units are mostly idle
    reach: tuple[float, float]  # the darkest and the brightest pixel that can be painted, where 0 is black, 1 white
    settings: Mapping[str, Any]  # of the run, by name: `optimizer.lr`, ...

    @property
    def lr(self) -> float | None:
        """The learning rate, where there is one."""
        return self.settings.get("optimizer.lr")

    def advice(self, *ideas: str) -> str:
        """Those of some ideas whose settings the run has, in a sentence."""
        known = [idea for idea in ideas if all(name in self.settings for name in re.findall(r"\w+(?:\.\w+)+", idea))]
        *others, last = known
        return f"try {', '.join(others)}{' or ' if others else ''}{last}"

    def share_of_mean_image(self, figure: str) -> float | None:
        """A squared error as a share of what the mean image has."""
        error, mean = self.figures.get(figure), self.figures.get("mean_sse")
        return None if error is None or not mean else error / mean


def case_of(
    model: Autoencoder,
    figures: Mapping[str, float],
    history: Sequence[Mapping[str, float]],
    settings: Mapping[str, Any],
) -> Case:
    """The case of a trained model: `figures` by name, `history` by tag, `settings` by their dotted names."""
    ends = model.likelihood.mean(torch.tensor([-1e6, 1e6])).tolist()
    bottleneck = model.bottleneck
    return Case(
        figures,
        history,
        code_dim=model.code_dim,
        codewords=bottleneck.book.num_embeddings if isinstance(bottleneck, Quantized) else None,
        sparse="sparsity" in figures or not isinstance(model.finish[-1], nn.Identity),
        reach=(ends[0], ends[1]),
        settings=settings,
    )


def examine(case: Case) -> list[Finding]:
    """Everything that is wrong, the most telling first; empty for a healthy run."""
    return [finding for rule in RULES if (finding := rule(case)) is not None]


def diverging(case: Case) -> Finding | None:
    """Training ends far above the best that it had, or above where it began."""
    losses = [line["train/loss"] for line in case.history if "train/loss" in line]
    begun = next((value for tag, value in (case.history[0] if case.history else {}).items() if _is_loss(tag)), None)
    if begun is None or not losses:
        return None
    best = min(begun, *losses)
    if losses[-1] - best < max(abs(best), 0.05 * max(abs(begun), case.figures.get("mean_sse", 0.0))):
        return None
    return Finding(
        "training diverges",
        f"the loss is {losses[-1]:.4g} after {len(losses)} epochs, and was {best:.4g} at its best",
        f"try a smaller optimizer.lr{'' if case.lr is None else f' (it is {case.lr:g})'}",
    )


def _is_loss(tag: str) -> bool:
    return tag in ("test/loss", "validation/loss")


def posterior_collapse(case: Case) -> Finding | None:
    """A random code that says (nearly) nothing of the image, or in fewer than a tenth of its units."""
    kl, active = case.figures.get("kl"), case.figures.get("active_units")
    if kl is None or active is None or (kl >= 0.5 and active >= 0.1 * case.code_dim):
        return None
    return Finding(
        "posterior collapse",
        f"the code carries {kl:.3g} nats, and {active:.0f} of its {case.code_dim} units move with the image",
        case.advice("a smaller model.penalties.kl.weight", "more epochs", "a smaller optimizer.lr"),
    )


def dead_units(case: Case) -> Finding | None:
    """Units that no image moves: more than a quarter of the code's, or three quarters of the encoder's hidden ones.

    Of hidden rectifiers half are often dead in runs that do well: 45 to 59 % in model=vae and model=vqvae on Fashion.
    """
    found = []
    dead = case.figures.get("dead_units", 0.0)
    # Idle units of a random code are the prior's own doing, those of a sparse one what was asked for in part.
    if "active_units" not in case.figures and dead > (0.75 if case.sparse else 0.25) * case.code_dim:
        found.append(f"{dead:.0f} of the code's {case.code_dim} units")
    if (hidden := case.figures.get("dead_hidden", 0.0)) > 0.75:
        found.append(f"{hidden:.0%} of the hidden units")
    if not found:
        return None
    return Finding(
        "dead units",
        f"no image moves {' and '.join(found)}",
        case.advice(
            "a smaller optimizer.lr", "a smaller sparsity.weight", "model.activation=leaky_relu", "fewer units"
        ),
    )


def saturated_units(case: Case) -> Finding | None:
    """More than a quarter of the sigmoid and tanh units are stuck at an end, where they pass no gradient on."""
    share = case.figures.get("saturated")
    if share is None or share <= 0.25 or case.sparse:
        return None
    return Finding(
        "saturated units",
        f"{share:.0%} of the sigmoid and tanh units stay at an end of their range for nearly all images",
        case.advice("a smaller optimizer.lr", "model.init=xavier", "model.activation=relu"),
    )


def copying(case: Case) -> Finding | None:
    """Shuffled pixels, in which there is nothing to learn, come out (nearly) as they went in."""
    share = case.share_of_mean_image("shuffled_sse")
    if share is None or share >= 0.25:
        return None
    return Finding(
        "the code copies",
        f"images whose pixels are shuffled are reproduced, too, with {share:.1%} of the mean image's error",
        case.advice(f"a smaller model.code_dim (it is {case.code_dim})", "noise=masking", "sparsity=topk"),
    )


def codebook_collapse(case: Case) -> Finding | None:
    """Of the book, less than a tenth is in use."""
    perplexity, used = case.figures.get("perplexity"), case.figures.get("used_codewords")
    if perplexity is None or used is None or not case.codewords or perplexity >= 0.1 * case.codewords:
        return None
    return Finding(
        "codebook collapse",
        f"{used:.0f} of {case.codewords} codewords are used, as evenly as {perplexity:.1f} would be",
        case.advice(
            "a smaller model.bottleneck.patience", "a smaller optimizer.lr", "fewer model.bottleneck.num_codewords"
        ),
    )


def critic_won(case: Case) -> Finding | None:
    """A critic that tells codes from the prior almost every time teaches the encoder nothing."""
    last = case.history[-1] if case.history else {}
    right = {tag: value for tag, value in last.items() if tag.startswith("train/") and tag.endswith("_accuracy")}
    for tag, value in right.items():
        if value > 0.95:
            name = tag.removeprefix("train/").removesuffix("_accuracy")
            return Finding(
                "the critic has won",
                f"it tells {value:.1%} of codes and draws of the prior apart, so codes do not follow the prior",
                case.advice(
                    f"a larger model.penalties.{name}.weight", f"a smaller model.penalties.{name}.units", "more epochs"
                ),
            )
    return None


def out_of_reach(case: Case) -> Finding | None:
    """The decoder's last activation cannot paint black, or cannot paint white."""
    low, high = case.reach
    if low <= 0.01 and high >= 0.99:
        return None
    return Finding(
        "the output's range does not fit",
        f"pixels from {max(low, 0):.2g} to {min(high, 1):.2g} can be painted, and images have them from 0 to 1",
        "choose likelihood.output and dataset.scale that go together: sigmoid and [0,1], tanh and [-1,1], or identity",
    )


def mean_image(case: Case) -> Finding | None:
    """The reconstructions are hardly better than one picture for all."""
    share = case.share_of_mean_image("sse")
    if share is None or share < 0.9:
        return None
    return Finding(
        "no better than the mean image",
        f"the squared error is {share:.0%} of what painting the mean image every time would have",
        case.advice("another optimizer.lr", "more epochs", "a larger model.code_dim", "less weight on the penalties"),
    )


RULES: Sequence[Callable[[Case], Finding | None]] = (
    diverging,
    posterior_collapse,
    codebook_collapse,
    critic_won,
    out_of_reach,
    dead_units,
    saturated_units,
    copying,
    mean_image,
)
