"""Train a variational autoencoder from aetrain's parts in a plain torch loop, without Hydra.

    python examples/minimal_vae.py

It prints the negative ELBO of the training images (code sampled) and of the test images per epoch, in nats per image.
"""

import torch
from torch import Tensor, nn

from aetrain.data.digits import Digits
from aetrain.data.examples import Batches, Examples, in_order
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.bottlenecks import Gaussian
from aetrain.model.dense import dense
from aetrain.model.likelihoods import Bernoulli
from aetrain.objective.objective import Objective
from aetrain.objective.penalties import KL

EPOCHS, BATCH_SIZE, CODE_DIM = 20, 128, 8


def main() -> None:
    """Build the parts, train, print."""
    torch.manual_seed(0)
    dataset = Digits()
    splits = dataset.load()
    model = dense(dataset.image_shape, Bernoulli(), nn.Identity(), dataset.scale, CODE_DIM, [128], bottleneck=Gaussian)
    objective = Objective({"kl": KL()})  # weight 1: the loss is the negative ELBO
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    batches = Batches(splits.train, BATCH_SIZE, dataset.prepare)
    for epoch in range(1, EPOCHS + 1):
        model.train()  # the code is sampled
        total = torch.zeros(())
        for x in batches:  # [B, 1, 8, 8] in [0, 1]
            losses = objective(model, model(x))  # the batch means of loss, nll and kl
            optimizer.zero_grad()
            losses["loss"].backward()
            optimizer.step()
            total += len(x) * losses["loss"].detach()
        train, test = total / batches.num_images, negative_elbo(model, objective, splits.test)
        print(f"epoch {epoch:2}  train -ELBO {train:.2f} nats  test -ELBO {test:.2f} nats")


@torch.no_grad()
def negative_elbo(model: Autoencoder, objective: Objective, images: Examples) -> Tensor:
    """Return the mean negative ELBO of images, [], with one sample of the code per image."""
    model.train()  # samples the code; there is no dropout or batch norm
    losses = [objective(model, model(x))["loss"] * len(x) for x in in_order(images, 1000, Digits().prepare)]
    return torch.stack(losses).sum() / len(images)


if __name__ == "__main__":
    main()
