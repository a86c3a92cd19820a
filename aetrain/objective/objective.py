"""The objective: the negative log-likelihood and the weighted penalties, one sum of named terms."""

import math
from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.codes import Code, GaussianCode, QuantizedCode, RandomCode
from aetrain.model.records import Forward, LossDict
from aetrain.objective.penalties import Critic, Penalty
from aetrain.utils.shards import computing, gather, is_shard

# A model whose bottleneck emits the type of code, for error messages.
MODEL_THAT_EMITS: dict[type[Code], str] = {
    RandomCode: "model=vae",
    GaussianCode: "model=vae",
    QuantizedCode: "model=vqvae",
}


class Objective(nn.Module):
    """loss = nll + sum of weight * penalty, in nats per image.

    In training the weight of a penalty is that of the present progress, in evaluation the full one (`Penalty`).

    Where the likelihood's reduction is the mean, the nll in the loss (not the one that is logged) is divided by the
    number of pixels, so that every penalty has a larger share of the loss. The losses that training descends are
    without the likelihood's constants; `recorded_losses` adds them.
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
        """The penalties with parameters that are trained, by name."""
        return {name: penalty for name, penalty in self.penalties.items() if isinstance(penalty, Critic)}

    def forward(self, model: Autoencoder, out: Forward) -> LossDict:
        """Return batch means [] by name: `loss`, which training minimises, and its terms without their weights."""
        return self.reduce(model, self.losses(model, out))

    def losses(self, model: Autoencoder, out: Forward) -> LossDict:
        """Return the terms of the loss without their weights: `nll` per image [B], and the penalties by name.

        A penalty is per image [B], or [] for the batch as a whole. Where the loss contains another term in place of a
        penalty, such as with free bits, it is beside the penalty as `kl_term`.
        """
        losses = {"nll": model.likelihood.nll(out.decoded, out.x)}
        batch: Forward | None = None  # of all processes, where this one computes a shard
        for name, penalty in self.penalties.items():  # in this order, in which they draw random numbers
            if not (is_shard() and penalty.reads_batch):
                losses |= _penalty_losses(name, penalty, model, out)
                continue
            batch = batch or out.map(gather)
            with computing(None):
                losses |= _penalty_losses(name, penalty, model, batch)
        return losses

    def reduce(self, model: Autoencoder, losses: LossDict) -> LossDict:
        """Return the batch means [] of `losses`, and their weighted sum `loss`."""
        means = {name: loss.mean() for name, loss in losses.items()}
        total = means["nll"]
        if model.likelihood.reduction == "mean":
            total = total / math.prod(model.image_shape)
        for name, penalty in self.penalties.items():
            term = means.get(f"{name}_term", means[name])
            total = total + penalty.current_weight(model.training) * term
        return {"loss": total, **means}

    def check(self, model: Autoencoder) -> None:
        """Run one pass over two blank images, so that components that do not fit are refused before data is read.

        Raise ValueError where the model breaks its contract, or where a penalty reads another type of code than the
        bottleneck emits.
        """
        model.check()
        for name, penalty in self.penalties.items():
            if not issubclass(model.bottleneck.emits, penalty.reads):
                suggestion = MODEL_THAT_EMITS.get(penalty.reads, "model=vae")
                raise ValueError(
                    f"model.penalties.{name} reads a {penalty.reads.__name__}, but the bottleneck emits a "
                    f"{model.bottleneck.emits.__name__}: drop it with ~model.penalties.{name}, or choose a model "
                    f"with the bottleneck it needs ({suggestion})"
                )
        with torch.no_grad():
            blank = torch.zeros(2, *model.image_shape)
            self(model, model(blank))
            for critic in self.critics.values():
                critic.losses(model, blank)


def _penalty_losses(name: str, penalty: Penalty, model: Autoencoder, out: Forward) -> LossDict:
    """Return a penalty by its name, and the term that the loss contains in its place, where there is one."""
    losses = {name: penalty(model, out)}
    if (term := penalty.loss_term(model, out)) is not None:
        losses[f"{name}_term"] = term
    return losses


def loss_constants(model: Autoencoder, data_constant: float = 0.0) -> dict[str, float]:
    """Return the constants of the likelihood in recorded losses, by name, in nats per example.

    With them `nll` and `neg_elbo` are those of a probability density of values, pixels in [0, 1] (of a probability with
    likelihood=bernoulli and the likelihoods of counts), so that runs of different variances and scales can be compared.
    `data_constant` is the mean over the examples of the part that the data decide (`mean_data_constant`). No constant
    changes a gradient. Training leaves them out, because a line search compares losses in float32, which would lose
    digits.
    """
    num_pixels = math.prod(model.image_shape)
    constant = model.likelihood.constant(num_pixels) + data_constant
    in_loss = constant / num_pixels if model.likelihood.reduction == "mean" else constant
    return {"nll": constant, "neg_elbo": constant, "loss": in_loss}


def recorded_losses(model: Autoencoder, losses: Mapping[str, float], data_constant: float = 0.0) -> dict[str, float]:
    """Return means of losses and metrics, by name, with `loss_constants`: as files, curves and the log have them."""
    constants = loss_constants(model, data_constant)
    return {name: value + constants.get(name, 0.0) for name, value in losses.items()}


@torch.no_grad()
def mean_data_constant(model: Autoencoder, batches: Iterable[Tensor]) -> float:
    """Return the mean over examples of the likelihood's `data_constant`; 0 where it has none, without reading them."""
    total, count = 0.0, 0
    for x in batches:
        constant = model.likelihood.data_constant(x)
        if constant is None:
            return 0.0
        total += float(constant.double().sum())
        count += len(x)
    return total / max(count, 1)
