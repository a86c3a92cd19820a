"""The same autoencoder with several trainers, one epoch per request: `python benchmarks/trainers.py WAY NETWORK DATA`.

Every trainer trains the same network on the 60,000 grey digits of MNIST in batches of 128 (Adam at 1e-3, cross-entropy
of logits), and computes the loss of the 10,000 test images after each epoch. A line on stdin requests an epoch; the
answer on stdout is the seconds that it took. speed.py starts the trainers, and they take turns.
"""

import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

# The fully connected networks: numbers of units from the pixels to the code, and whether the code is random.
DENSE = {
    "dense": ([784, 256, 128], False),
    "vae": ([784, 400, 20], True),
    "deep": ([784, 1000, 500, 250, 30], False),
}
RELU = ["model.activation=relu", "model.init=default"]  # the networks of all measurements of speed and of uses
OVERRIDES = {
    "dense": ["model=deep", "model.hidden=[256]", "model.code_dim=128", *RELU],
    "vae": ["model=vae", "model.hidden=[400]", "model.code_dim=20", *RELU],
    "deep": ["model=deep", "model.hidden=[1000,500,250]", "model.code_dim=30", *RELU],
    "conv": ["model=conv", "model.channels=[16,32]", "model.code_dim=32", *RELU],
}
BATCH = 128


class NoMoreRequests(BaseException):
    """No further epoch is requested."""


def train_on_request(epoch: Callable[[], object]) -> None:
    """Train an epoch for each line of stdin, and print its seconds."""
    for _ in sys.stdin:
        start = read_clocks()
        epoch()
        print_seconds(start)


def read_clocks() -> tuple[float, float]:
    """Return wall-clock time and the processor time of this process, in seconds."""
    return time.perf_counter(), time.process_time()


def print_seconds(start: tuple[float, float], *more: float) -> None:
    """Print the seconds since `start` on both clocks, and more numbers."""
    seconds = (end - begin for end, begin in zip(read_clocks(), start, strict=True))
    print(*seconds, *more, file=sys.__stdout__, flush=True)


def read_images(data: str) -> Iterator[Any]:
    """Yield training and test pixels, uint8 [N, 784]."""
    from aetrain.data.mnist import Mnist

    return (part.pixels.flatten(1) for part in Mnist(path=data).read())


# --- aetrain ----------------------------------------------------------------------------------------------------------


def train_with_aetrain(network: str, data: str, *more: str) -> None:
    """Run the command in full: metrics, log, curves, pictures and checkpoint at the end of each epoch."""
    from unittest import mock

    from aetrain.api import compose_config
    from aetrain.runs import entry
    from aetrain.training import loop

    start = read_clocks()

    def wait() -> None:
        nonlocal start
        if not sys.stdin.readline():
            raise NoMoreRequests
        start = read_clocks()

    def answer(state: loop.TrainState) -> None:
        print_seconds(start, state.seconds)
        wait()

    def fit_on_request(state: Any, steps: Any, batches: Any, callbacks: Any, *options: Any) -> None:
        wait()
        loop.fit(state, steps, batches, [*callbacks, answer], *options)

    with tempfile.TemporaryDirectory() as folder, mock.patch("aetrain.runs.train.fit", fit_on_request):
        run = ["dataset=mnist", "device=cpu", f"data_dir='{data}'", "epochs=1000", f"hydra.run.dir='{folder}/run'"]
        entry.run(*compose_config([*run, *OVERRIDES[network], *more]))


# --- A loop by hand ---------------------------------------------------------------------------------------------------


def make_network(network: str) -> Any:
    """Return a module whose `forward` gives logits [B, 784], of a VAE also the KL summed over the batch."""
    from torch import nn

    if network == "conv":
        return make_convolutional_network()
    sizes, random = DENSE[network]
    encoder, decoder = [], []
    for inputs, outputs in itertools.pairwise(sizes[:-1]):
        encoder += [nn.Linear(inputs, outputs), nn.ReLU()]
    for inputs, outputs in itertools.pairwise(sizes[:0:-1]):
        decoder += [nn.Linear(inputs, outputs), nn.ReLU()]
    decoder.append(nn.Linear(sizes[1], sizes[0]))
    if random:
        return make_vae(nn.Sequential(*encoder), sizes[-2], sizes[-1], nn.Sequential(*decoder))
    return nn.Sequential(*encoder, nn.Linear(sizes[-2], sizes[-1]), *decoder)


def make_convolutional_network() -> Any:
    """Return the convolutional network, with a code of 32 units."""
    from torch import nn

    encoder = [nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()]
    code = [nn.Flatten(), nn.Linear(1568, 32), nn.Linear(32, 1568), nn.ReLU(), nn.Unflatten(1, (32, 7, 7))]
    decoder = [nn.ConvTranspose2d(32, 16, 3, 2, 1, 1), nn.ReLU(), nn.ConvTranspose2d(16, 1, 3, 2, 1, 1)]
    return nn.Sequential(nn.Unflatten(1, (1, 28, 28)), *encoder, *code, *decoder, nn.Flatten())


def make_vae(encoder: Any, features: int, code: int, decoder: Any) -> Any:
    """Return the module of Kingma & Welling (2014), whose `forward` gives logits [B, 784] and the summed KL."""
    import torch
    from torch import nn

    class VAE(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = encoder, decoder
            self.mean, self.log_var = nn.Linear(features, code), nn.Linear(features, code)

        def forward(self, x: Any) -> Any:
            h = self.encoder(x)
            mean, log_var = self.mean(h), self.log_var(h)
            z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
            return self.decoder(z), -0.5 * (1 + log_var - mean.pow(2) - log_var.exp()).sum()

    return VAE()


def summed_loss(model: Any, x: Any) -> Any:
    """Return the loss of a batch x [B, 784], summed over its images."""
    from torch.nn import functional as F

    out = model(x)
    logits, kl = out if isinstance(out, tuple) else (out, 0.0)
    return F.binary_cross_entropy_with_logits(logits, x, reduction="sum") + kl


def train_by_hand(network: str, data: str) -> None:
    """Train with the tensor operations alone: a permutation, slices to floats, loss, gradients, fused Adam."""
    import torch

    train, test = read_images(data)
    model = make_network(network)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def epoch() -> float:
        total = torch.zeros(())
        for index in torch.randperm(len(train)).split(BATCH):
            x = train[index].to(torch.float32).div_(255)
            loss = summed_loss(model, x) / len(x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        with torch.no_grad():
            for pixels in test.split(1000):
                total += summed_loss(model, pixels.to(torch.float32).div_(255))
        return total.item()

    train_on_request(epoch)


def train_by_hand_with_backend(network: str, data: str) -> None:
    """Train with the same loop and with aetrain's settings of the libraries below torch."""
    from aetrain.training.backend.setup import backend

    with backend():
        train_by_hand(network, data)


def compute_products(network: str, data: str) -> None:
    """Compute only the matrix products of an epoch of a fully connected network, forward and backward."""
    import torch
    from torch import nn

    from aetrain.training.backend.setup import backend

    model = make_network(network)
    products: list[Callable[[], object]] = []

    def add_products(layer: Any, inputs: Any, outputs: Any) -> None:
        x, g, w = inputs[0].detach().contiguous(), torch.randn_like(outputs), layer.weight.detach()
        products.append(lambda: x @ w.t())
        products.append(lambda: g.t() @ x)
        if inputs[0].grad_fn is not None:  # the gradient of the pixels is not needed
            products.append(lambda: g @ w)

    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(add_products)
    model(torch.rand(BATCH, 784))

    def epoch() -> None:
        for _ in range(-(-60000 // BATCH)):
            for product in products:
                product()

    with backend():
        train_on_request(epoch)


# --- Others -----------------------------------------------------------------------------------------------------------


def make_loaders(data: str) -> tuple[Any, Any]:
    """Return the usual loaders of training and test images: torchvision's data set, image by image, without workers."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    with tempfile.TemporaryDirectory() as folder:  # torchvision unpacks the archives into it
        raw = Path(folder) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for archive in (Path(data) / "MNIST" / "raw").glob("*.gz"):
            (raw / archive.name).symlink_to(archive)
        to_tensor = transforms.ToTensor()
        parts = [datasets.MNIST(folder, train=train, transform=to_tensor, download=True) for train in (True, False)]
    train, test = (DataLoader(part, batch_size=BATCH, shuffle=part.train) for part in parts)
    return train, test


def train_like_example(network: str, data: str) -> None:
    """Train like pytorch/examples: DataLoader, Adam, `.item()` at each step, a pass over the test set."""
    import torch

    train, test = make_loaders(data)
    model = make_network(network)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def epoch() -> float:
        model.train()
        total = 0.0
        for x, _ in train:
            x = x.flatten(1)
            optimizer.zero_grad()
            loss = summed_loss(model, x)
            loss.backward()
            total += loss.item()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            for x, _ in test:
                total += summed_loss(model, x.flatten(1)).item()
        return total

    train_on_request(epoch)


def train_with_lightning(network: str, data: str) -> None:
    """Train a LightningModule with a Trainer, its default logger and checkpoint, and without a progress bar."""
    import lightning
    import torch

    train, test = make_loaders(data)

    class Module(lightning.LightningModule):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.net = make_network(network)

        def training_step(self, batch: Any, _: int) -> Any:
            loss = summed_loss(self.net, batch[0].flatten(1)) / len(batch[0])
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch: Any, _: int) -> None:
            self.log("val_loss", summed_loss(self.net, batch[0].flatten(1)) / len(batch[0]))

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    class EpochOnRequest(lightning.Callback):  # type: ignore[misc, unused-ignore]
        start = read_clocks()

        def on_train_epoch_start(self, *_: object) -> None:
            if not sys.stdin.readline():
                raise NoMoreRequests
            self.start = read_clocks()

        def on_train_epoch_end(self, *_: object) -> None:  # after validation
            print_seconds(self.start)

    with tempfile.TemporaryDirectory() as folder:
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": folder}
        trainer = lightning.Trainer(
            accelerator="cpu", max_epochs=1000, num_sanity_val_steps=0, callbacks=[EpochOnRequest()], **quiet
        )
        trainer.fit(Module(), train, test)


def train_with_keras(network: str, data: str) -> None:
    """Train with Keras on JAX: `fit` on arrays of floats, compiled by XLA."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras
    from keras import layers, ops

    train, test = (part.numpy().astype("float32") / 255 for part in read_images(data))
    x = keras.Input((784,))
    if network == "conv":
        h = layers.Reshape((28, 28, 1))(x)
        for channels in (16, 32):
            h = layers.Conv2D(channels, 3, 2, "same", activation="relu")(h)
        h = layers.Dense(1568, activation="relu")(layers.Dense(32)(layers.Flatten()(h)))
        h = layers.Conv2DTranspose(16, 3, 2, "same", activation="relu")(layers.Reshape((7, 7, 32))(h))
        logits = layers.Flatten()(layers.Conv2DTranspose(1, 3, 2, "same")(h))
    else:
        logits = keras_dense_logits(network, x)
    model = keras.Model(x, logits)

    def nll(target: Any, logits: Any) -> Any:
        return ops.sum(ops.softplus(logits) - target * logits, 1)

    def fit(images: Any) -> None:
        model.fit(images, images, batch_size=BATCH, epochs=1, validation_data=(test, test), verbose=0)

    model.compile(keras.optimizers.Adam(1e-3), nll)
    fit(train[: 2 * BATCH])  # compiles
    train_on_request(lambda: fit(train))


def keras_dense_logits(network: str, x: Any) -> Any:
    """Return the logits [B, 784] of a fully connected network for an input x [B, 784]."""
    import keras
    from keras import layers, ops

    class Sampling(layers.Layer):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.seed = keras.random.SeedGenerator(0)

        def call(self, inputs: Any) -> Any:
            mean, log_var = inputs
            self.add_loss(-0.5 * ops.mean(ops.sum(1 + log_var - ops.square(mean) - ops.exp(log_var), 1)))
            return mean + ops.exp(0.5 * log_var) * keras.random.normal(ops.shape(mean), seed=self.seed)

    sizes, random = DENSE[network]
    h = x
    for units in sizes[1:-1]:
        h = layers.Dense(units, activation="relu")(h)
    code = [layers.Dense(sizes[-1])(h) for _ in range(2 if random else 1)]
    z = Sampling()(code) if random else code[0]
    for units in sizes[-2:0:-1]:
        z = layers.Dense(units, activation="relu")(z)
    return layers.Dense(784)(z)


FLOOR = "matrix products alone"
WAYS: dict[str, Callable[[str, str], None]] = {
    "aetrain": train_with_aetrain,
    "aetrain compile=true": lambda network, data: train_with_aetrain(network, data, "compile=true"),
    "aetrain precision=fast": lambda network, data: train_with_aetrain(network, data, "precision=fast"),
    "aetrain compile=true precision=fast": lambda network, data: train_with_aetrain(
        network, data, "compile=true", "precision=fast"
    ),
    "loop by hand": train_by_hand,
    "loop by hand, set up alike": train_by_hand_with_backend,
    FLOOR: compute_products,
    "PyTorch example, DataLoader": train_like_example,
    "Lightning, DataLoader": train_with_lightning,
    "Keras on JAX": train_with_keras,
}
FEW_IMAGES = "dataset.subset=12000"
BUSY_WAYS = {  # of benchmarks/busy.py
    "aetrain, few images": lambda network, data: train_with_aetrain(network, data, FEW_IMAGES),
    "aetrain, few images, one thread": lambda network, data: train_with_aetrain(network, data, FEW_IMAGES, "threads=1"),
}
PACKAGES_OF = {"Lightning, DataLoader": ("lightning",), "Keras on JAX": ("keras", "jax")}


if __name__ == "__main__":
    way, network, data = sys.argv[1:]
    with redirect_stdout(sys.stderr), suppress(NoMoreRequests):
        (WAYS | BUSY_WAYS)[way](network, str(Path(data).resolve()))
