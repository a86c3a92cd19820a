"""The objective: the negative log-likelihood and the weighted penalties, one sum of named terms."""

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.records import Code, Forward, GaussianCode, QuantizedCode
from aetrain.objective.penalties import Critic, Penalty

Terms = dict[str, Tensor]

# Where a code of each kind is to be had.
MODELS: dict[type[Code], str] = {GaussianCode: "model=vae", QuantizedCode: "model=vqvae"}


class Objective(nn.Module):
    """loss = nll + sum of weight * penalty, in nats per image.

    Where the likelihood's reduction is the mean, the nll in the loss (not the one that is logged) is divided by the
    number of pixels, and every penalty weighs that much more.
    """

    def __init__(self, penalties: Mapping[str, Penalty]) -> None:
        super().__init__()
        self._modules_by_name = nn.ModuleDict(penalties)

    @property
    def penalties(self) -> dict[str, Penalty]:
        """The penalties by the names under which they are logged."""
        return {name: cast(Penalty, penalty) for name, penalty in self._modules_by_name.items()}

    @property
    def critics(self) -> dict[str, Critic]:
        """The penalties that must be trained themselves, by name."""
        return {name: penalty for name, penalty in self.penalties.items() if isinstance(penalty, Critic)}

    def forward(self, model: Autoencoder, out: Forward) -> Terms:
        """Batch means [] by name: `loss`, which is to be descended, and its terms without their weights."""
        return self.summed(model, self.terms(model, out))

    def terms(self, model: Autoencoder, out: Forward) -> Terms:
        """What the loss is made of, by image [B], or [] for the batch as a whole: `nll`, and penalties by name."""
        nll = model.likelihood.nll(out.decoded, out.x)
        return {"nll": nll} | {name: penalty(model, out) for name, penalty in self.penalties.items()}

    def summed(self, model: Autoencoder, terms: Terms) -> Terms:
        """The means of terms, and their `loss`."""
        means = {name: term.mean() for name, term in terms.items()}
        loss = means["nll"]
        if model.likelihood.reduction == "mean":
            loss = loss / math.prod(model.image_shape)
        for name, penalty in self.penalties.items():
            loss = loss + penalty.weight * means[name]
        return {"loss": loss, **means}

    def check(self, model: Autoencoder) -> None:
        """One dry pass over a blank image, so that parts which do not fit are refused before any data is read."""
        for name, penalty in self.penalties.items():
            if not issubclass(model.bottleneck.emits, penalty.reads):
                raise ValueError(
                    f"model.penalties.{name} reads a {penalty.reads.__name__}, but the bottleneck emits a "
                    f"{model.bottleneck.emits.__name__}: drop it with ~model.penalties.{name}, or choose a model "
                    f"with the bottleneck it needs ({MODELS.get(penalty.reads, 'model=vae')})"
                )
        with torch.no_grad():
            blank = torch.zeros(2, *model.image_shape)
            self(model, model(blank))
            for critic in self.critics.values():
                critic.terms(model, blank)
