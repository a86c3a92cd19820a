"""Penalties that any model may add to its own: of its weights, its decoder, and the covariance or mixture of its codes.

Shapes: B images in a batch, C channels, H height, W width, D units of the code.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, Unpack, cast

import torch
from torch import Tensor, nn

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.codes import GaussianCode
from aetrain.model.layers import LSTM_GATES
from aetrain.model.records import Forward
from aetrain.objective.jacobian import check_probes, squared_jacobian_norm
from aetrain.objective.penalties import Penalty, make_generator
from aetrain.objective.weight_schedule import WeightSettings

MAX_DENSITIES = 2**24  # densities of a unit of one image under the code of another that are computed at a time


class Orthogonality(Penalty):
    """sum over weight matrices W of ||W W^T - I||_F^2, or of ||W^T W - I||_F^2 where W has more rows than columns.

    It is 0 where the rows, or the columns, of every matrix are orthonormal. The soft orthogonality of Bansal et al.
    (2018), "Can we gain more from orthogonality regularizations in training deep CNNs?", arXiv:1810.09102; Brock et al.
    (2017), arXiv:1609.07093, sum absolute values in place of squares. The matrices are those of the encoder's layers
    and of the projection to the code (or to its mean). A kernel is a matrix with one row per output channel. Each gate
    of an LSTM has a matrix of its own.
    """

    description = "squared distance of the encoder's weight matrices from matrices with orthonormal rows or columns"

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        """Return the sum of squares [], without a unit. Raise ValueError where the encoder has no weight matrix."""
        errors = [_distance_from_orthogonal(weight) for weight in _encoder_matrices(model)]
        if not errors:
            raise ValueError("the encoder has no weight matrix that could be orthogonal: use a model that has one")
        return torch.stack(errors).sum()


def _encoder_matrices(model: Autoencoder) -> Iterator[Tensor]:
    """Yield the weight matrices [rows, columns] of the encoder and of the projection to the code."""
    encoder = cast(nn.Module, model.encoder)
    for layer in (*encoder.modules(), *model.bottleneck.project.modules()):
        blocks = LSTM_GATES if isinstance(layer, nn.LSTM) else 1  # an LSTM stacks the matrices of its gates
        for name, parameter in layer.named_parameters(recurse=False):
            if name.startswith("weight") and parameter.dim() > 1:
                yield from parameter.flatten(1).chunk(blocks)


def _distance_from_orthogonal(weight: Tensor) -> Tensor:
    """Return ||W W^T - I||_F^2 [] of a matrix, or ||W^T W - I||_F^2 where it has more rows than columns."""
    wide = weight if weight.shape[0] <= weight.shape[1] else weight.t()
    return (wide @ wide.t() - torch.eye(len(wide), device=weight.device, dtype=weight.dtype)).square().sum()


class WeightDecay(Penalty):
    """1/2 sum of the squares of all weights of the encoder, the projection to the code and the decoder; no biases.

    The weight decay of Ng (2011), CS294A lecture notes "Sparse autoencoder", section 2, with the weight lambda. Unlike
    an optimizer's `weight_decay` it is part of the loss, as the line search of L-BFGS needs. Tied weights count once.
    """

    description = "half the sum of the squared weights of encoder and decoder, without biases"

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        """Return half the sum of squares [], without a unit."""
        parts = (cast(nn.Module, model.encoder), model.bottleneck.project, cast(nn.Module, model.decoder))
        weights = {id(weight): weight for part in parts for weight in part.parameters() if weight.dim() > 1}
        return 0.5 * torch.stack([weight.square().sum() for weight in weights.values()]).sum()


class Decorrelation(Penalty):
    """1/2 sum_{i != j} C_ij^2, C the covariance of the code units over a batch (with 1/B).

    The DeCov loss of Cogswell et al. (2016), "Reducing overfitting in deep networks by decorrelating representations",
    arXiv:1511.06068, eq. 1 and 2, applied to the code.
    """

    reads_batch = True
    description = "half the sum of the squared covariances of different units of the code over a batch"

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        """Return the sum [] for the batch, in units of the code to the fourth power."""
        c = covariance(out.code.z)
        return 0.5 * (c - torch.diag_embed(c.diagonal())).square().sum()


def covariance(z: Tensor) -> Tensor:
    """Return the covariance [D, D] of codes z [B, D] over the batch, with 1/B; 0 for a batch of one image."""
    centred = z - z.mean(0)
    return centred.t() @ centred / len(z)


class DecoderJacobian(Penalty):
    """||J||_F^2 = sum_ij (dx_i / dz_j)^2 per image, J the Jacobian of the decoded pixels with respect to the code.

    The gradient penalty on the decoder of Ghosh et al. (2020), "From variational to deterministic autoencoders",
    arXiv:1903.12436, section 3.1 (RAE-GP): it makes the decoder smooth. Pixels are the mean of the likelihood, on the
    scale from 0 to 1. The gradient reaches the encoder through the code at which J is computed.

    With n `probes` it is the mean of ||v J||^2 over n random sign vectors v, which has the same expectation, as
    E[v^T v] = I (Hutchinson 1990). With `probes: null` it is exact, at the cost of one backward pass per pixel.
    Evaluation draws the same vectors each time.
    """

    description = "squared Frobenius norm of the decoded pixels' Jacobian with respect to the code"

    def __init__(self, weight: float = 1.0, probes: int | None = 1, **schedule: Unpack[WeightSettings]) -> None:
        super().__init__(weight, **schedule)
        self.probes = check_probes(probes)

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        """Return the squared norm, or its estimate, [B], in squared pixel values per squared unit of the code."""
        create_graph = torch.is_grad_enabled()
        with torch.enable_grad():  # also in evaluation, because the penalty itself is a derivative
            z = out.code.z if out.code.z.requires_grad else out.code.z.detach().requires_grad_()  # [B, D]
            pixels = model.likelihood.mean(model.decode(replace(out.code, z=z))).flatten(1)  # [B, C * H * W]
            generator = make_generator(model, z.device)
            return squared_jacobian_norm(pixels, z, self.probes, generator, create_graph)


class DIP(Penalty):
    """sum_{i != j} C_ij^2 + diagonal * sum_i (C_ii - 1)^2, C a covariance of the code over a batch.

    Kumar, Sattigeri & Balakrishnan (2018), "Variational inference of disentangled latent concepts from unlabeled
    observations", arXiv:1711.00848. With `covariance_of: mean` C is the covariance of the means, which is DIP-VAE-I
    (eq. 6); the paper has `diagonal` = 10. With `covariance_of: sample` C = Cov[mean] + E[diag(variance)] is that of
    the samples, which is DIP-VAE-II (eq. 7); the paper has `diagonal` = 1. Covariances have 1/B. They are of the
    bottleneck's z, before the code's activation.
    """

    reads = GaussianCode
    reads_batch = True
    description = (
        "sum of the squared covariances of different units of the code over a batch, plus the weighted sum of the "
        "squared distances of their variances from 1"
    )

    def __init__(
        self,
        weight: float = 10.0,
        diagonal: float = 10.0,
        covariance_of: Literal["mean", "sample"] = "mean",
        **schedule: Unpack[WeightSettings],
    ) -> None:
        super().__init__(weight, **schedule)
        if diagonal < 0:
            raise ValueError(f"diagonal={diagonal} is negative: use 0 or more")
        self.diagonal = diagonal
        self.covariance_of = covariance_of

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        """Return the sum [] for the batch, in units of the code to the fourth power."""
        code = cast(GaussianCode, out.code)
        c = covariance(code.mean)  # [D, D]
        variances = c.diagonal()  # [D]
        off_diagonal = c.square().sum() - variances.square().sum()
        if self.covariance_of == "sample":
            variances = variances + code.log_var.exp().mean(0)
        return off_diagonal + self.diagonal * (variances - 1).square().sum()


class TotalCorrelation(Penalty):
    """KL(q(z) || prod_j q(z_j)): the dependence between the units of the codes of all images, q(z) = E_x[q(z | x)].

    Chen et al. (2018), "Isolating sources of disentanglement in variational autoencoders", arXiv:1802.04942. With the
    KL of weight 1, a weight of beta - 1 makes the objective that of their beta-TCVAE.

    It is estimated by their minibatch-weighted sampling: the mean over the batch, z_i a draw from q(z | x_i), of
    log q(z_i) - sum_j log q(z_ij), with q(z) = 1/B sum_k q(z | x_k). The paper divides q by the number N of training
    images as well, which adds (D - 1) log N and changes no gradient; without that constant the value is the total
    correlation where the batch is the whole data set. Of a smaller batch it is too large, most of all with many units,
    and at most (D - 1) log B: compare values of equal batches. The draws are its own; evaluation takes the same each
    time. They are of the bottleneck's z, before the code's activation.
    """

    reads = GaussianCode
    reads_batch = True
    description = (
        "total correlation of the units of the code, estimated from the codes of a batch (too large with few images), "
        "nats"
    )

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        """Return the estimate [] for the batch, in nats."""
        code = cast(GaussianCode, out.code)
        generator = make_generator(model, code.mean.device)
        return self.estimate(code.sample(generator), code)

    def estimate(self, z: Tensor, code: GaussianCode) -> Tensor:
        """Return the estimate [] from draws z [N, D] of the mixture of the codes of a batch."""
        rows_at_once = max(1, MAX_DENSITIES // code.mean.numel())
        differences = [self._log_density_ratio(rows, code) for rows in z.split(rows_at_once)]
        return torch.cat(differences).mean()

    def _log_density_ratio(self, z: Tensor, code: GaussianCode) -> Tensor:
        """Return log q(z) - sum_j log q(z_j) [N] of draws z [N, D] from the mixture of the codes."""
        squares = (z[:, None] - code.mean).square() * (-code.log_var).exp()  # [N, B, D]
        log_densities = -0.5 * (squares + code.log_var + math.log(2 * math.pi))
        log_batch_size = math.log(len(code.mean))
        joint = log_densities.sum(2).logsumexp(1) - log_batch_size  # [N]
        marginals = log_densities.logsumexp(1) - log_batch_size  # [N, D]
        return joint - marginals.sum(1)
