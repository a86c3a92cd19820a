"""The inputs of the diagnostics: the properties of a run that the rules read."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from aetrain.evaluation.sparsity_goal import SparsityGoal, sparsity_goal
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.records import Kind, noun_of
from aetrain.objective.objective import loss_constants
from aetrain.objective.penalties import Penalty

SETTING = re.compile(r"\w+(?:\.\w+)+")  # a dotted name such as `optimizer.lr` in an advice


@dataclass(frozen=True)
class DiagnosticInputs:
    """The properties of a run that the rules read."""

    metrics: Mapping[str, float]  # all standard metrics of the trained model, by name: `sse`, `kl`, ...
    history: Sequence[Mapping[str, float]]  # metrics before training and after each epoch: `train/loss`, ...
    code_dim: int
    num_codewords: int | None  # None without a codebook
    sparse: bool  # whether the code is meant to be sparse
    output_range: tuple[float, float]  # lowest and highest pixel that the decoder can output; 0 is black, 1 is white
    settings: Mapping[str, Any]  # of the run, by dotted name: `optimizer.lr`, ...
    loss_constant: float = 0.0  # of the likelihood, in `train/loss` and `test/loss`
    nll_weight: float = 1.0  # of the nll in the loss: 1 / pixels with likelihood.reduction=mean
    sparsity_goal: SparsityGoal = field(default_factory=SparsityGoal)
    largest_byte: int = 255  # of the stored training images
    has_targets: bool = False  # whether held-out examples have targets of their own, such as held-out ratings
    weights_rise: bool = False  # whether the weight of a penalty, and with it the training loss, rises by a schedule
    is_pca_comparable: bool = False  # whether the code has as much freedom as that of PCA
    kind: Kind = "image"  # of the examples

    @property
    def lr(self) -> float | None:
        """The learning rate, if the optimizer has one."""
        return self.settings.get("optimizer.lr")

    @property
    def noun(self) -> str:
        """The word for an example."""
        return noun_of(self.kind)

    @property
    def mean_noun(self) -> str:
        """The words for the reconstruction that is the same for all examples."""
        return "mean image" if self.kind == "image" else "mean"

    def advice(self, *ideas: str) -> str:
        """Return `try a, b or c` with the ideas whose settings exist in this run."""
        known = [idea for idea in ideas if self.settings.keys() >= set(SETTING.findall(idea))]
        if not known:
            return "try other settings"
        *others, last = known
        return f"try {', '.join(others)} or {last}" if others else f"try {last}"

    def share_of_mean_image_error(self, metric: str) -> float | None:
        """Return a squared error divided by the error of the mean image; None where one of them is missing."""
        error, mean_image_error = self.metrics.get(metric), self.metrics.get("mean_sse")
        return None if error is None or not mean_image_error else error / mean_image_error


def diagnostic_inputs(
    model: Autoencoder,
    metrics: Mapping[str, float],
    history: Sequence[Mapping[str, float]],
    settings: Mapping[str, Any],
    penalties: Mapping[str, Penalty],
    largest_byte: int = 255,
    data_constant: float = 0.0,
    has_targets: bool = False,
) -> DiagnosticInputs:
    """Return the inputs of the rules for a trained model and its penalties by name.

    `data_constant` is that of `loss_constants`. For the other arguments see `DiagnosticInputs`.
    """
    darkest, brightest = -math.inf, math.inf
    if model.kind == "image":
        decoded = torch.zeros(2, *model.image_shape)
        decoded[:, 0, 0, 0] = torch.tensor([-1e6, 1e6])
        with torch.no_grad():
            extremes = model.likelihood.mean(decoded.to(next(model.parameters()).device))[:, 0, 0, 0]
        darkest, brightest = extremes.tolist()
    goal = sparsity_goal(model, penalties, settings)
    return DiagnosticInputs(
        metrics,
        history,
        code_dim=model.code_dim,
        num_codewords=model.bottleneck.num_codewords,
        sparse=goal.is_sparse or "sparsity" in penalties,
        output_range=(darkest, brightest),
        settings=settings,
        loss_constant=loss_constants(model, data_constant)["loss"],
        nll_weight=1 / math.prod(model.image_shape) if model.likelihood.reduction == "mean" else 1.0,
        sparsity_goal=goal,
        largest_byte=largest_byte,
        has_targets=has_targets,
        weights_rise=any(penalty.schedule is not None for penalty in penalties.values()),
        is_pca_comparable=_is_pca_comparable(model, goal, settings),
        kind=model.kind,
    )


def _is_pca_comparable(model: Autoencoder, goal: SparsityGoal, settings: Mapping[str, Any]) -> bool:
    """Tell whether the code has as much freedom as that of PCA, and fewer units than the image has pixels.

    A codeword, a category and a sparse code have less. Where training has other classes than the test, PCA may extend
    to these better than the model, which says nothing against it.
    """
    if settings.get("dataset.train_classes") is not None:
        return False
    return model.bottleneck.linear and not goal.is_sparse and model.code_dim < math.prod(model.image_shape)
