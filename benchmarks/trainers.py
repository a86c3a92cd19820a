"""The same autoencoder trained in different ways, an epoch at a time when asked to: `contestants.py WAY NETWORK DATA`.

Every way trains the same network on the 60,000 grey digits of MNIST in batches of 128 (Adam at 1e-3, cross-entropy of
logits), and measures the loss of the 10,000 test images after each epoch. A line on stdin asks for an epoch; the
seconds that it took are the answer on stdout. Started by speed.py, which takes turns between them.
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

# The fully connected networks: units from the pixels to the code, and whether the code is random.
DENSE = {
    "dense": ([784, 256, 128], False),
    "vae": ([784, 400, 20], True),
    "deep": ([784, 1000, 500, 250, 30], False),
}
OVERRIDES = {
    "dense": ["model=deep", "model.hidden=[256]", "model.code_dim=128"],
    "vae": ["model=vae", "model.hidden=[400]", "model.code_dim=20"],
    "deep": ["model=deep", "model.hidden=[1000,500,250]", "model.code_dim=30"],
    "conv": ["model=conv", "model.channels=[16,32]", "model.code_dim=32"],
}
BATCH = 128


class Over(BaseException):
    """No further epoch is asked for."""


def answers(epoch: Callable[[], object]) -> None:
    """Do an epoch whenever a line comes, and say how long it took."""
    for _ in sys.stdin:
        began = now()
        epoch()
        say(began)


def now() -> tuple[float, float]:
    """The clock on the wall, and the time that this process has spent on processors."""
    return time.perf_counter(), time.process_time()


def say(began: tuple[float, float], *figures: float) -> None:
    """Answer with the seconds since then on both clocks."""
    passed = (after - before for after, before in zip(now(), began, strict=True))
    print(*passed, *figures, file=sys.__stdout__, flush=True)


def images(data: str) -> Iterator[Any]:
    """Training and test pixels, uint8 [N, 784]."""
    from aetrain.data.mnist import Mnist

    return (part.pixels.flatten(1) for part in Mnist(path=data).read())


# --- aetrain ----------------------------------------------------------------------------------------------------------


def by_aetrain(network: str, data: str, *more: str) -> None:
    """The command as a user has it: figures, log, curves, pictures and checkpoint at each epoch's end."""
    from aetrain import api
    from aetrain.runs import train

    fit = train.fit
    began = now()

    def wait() -> None:
        nonlocal began
        if not sys.stdin.readline():
            raise Over
        began = now()

    def answer(run: Any) -> None:
        say(began, run.seconds)
        wait()

    def in_turns(state: Any, updates: Any, batches: Any, callbacks: Any, progress: Any) -> None:
        wait()
        fit(state, updates, batches, [*callbacks, answer], progress)

    train.fit = in_turns
    with tempfile.TemporaryDirectory() as folder:
        words = ["dataset=mnist", "device=cpu", f"data_dir='{data}'", "epochs=1000", f"hydra.run.dir='{folder}/run'"]
        train.run(*api.composed([*words, *OVERRIDES[network], *more]))


# --- A loop by hand ---------------------------------------------------------------------------------------------------


def network_by_hand(network: str) -> Any:
    """A module whose `forward` gives logits [B, 784] and the loss's other term."""
    from torch import nn

    if network == "conv":
        return nn.Sequential(
            *(
                nn.Unflatten(1, (1, 28, 28)),
                nn.Conv2d(1, 16, 3, 2, 1),
                nn.ReLU(),
                nn.Conv2d(16, 32, 3, 2, 1),
                nn.ReLU(),
            ),
            *(nn.Flatten(), nn.Linear(1568, 32), nn.Linear(32, 1568), nn.ReLU(), nn.Unflatten(1, (32, 7, 7))),
            *(nn.ConvTranspose2d(32, 16, 3, 2, 1, 1), nn.ReLU(), nn.ConvTranspose2d(16, 1, 3, 2, 1, 1), nn.Flatten()),
        )
    sizes, random = DENSE[network]
    encoder, decoder = [], []
    for wide, narrow in itertools.pairwise(sizes[:-1]):
        encoder += [nn.Linear(wide, narrow), nn.ReLU()]
    for narrow, wide in itertools.pairwise(sizes[:0:-1]):
        decoder += [nn.Linear(narrow, wide), nn.ReLU()]
    decoder.append(nn.Linear(sizes[1], sizes[0]))
    if random:
        return Variational(nn.Sequential(*encoder), sizes[-2], sizes[-1], nn.Sequential(*decoder))
    return nn.Sequential(*encoder, nn.Linear(sizes[-2], sizes[-1]), *decoder)


def Variational(encoder: Any, features: int, code: int, decoder: Any) -> Any:
    """The module of Kingma & Welling (2014); KL per image beside the logits."""
    import torch
    from torch import nn

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = encoder, decoder
            self.mean, self.log_var = nn.Linear(features, code), nn.Linear(features, code)

        def forward(self, x: Any) -> Any:
            h = self.encoder(x)
            mean, log_var = self.mean(h), self.log_var(h)
            z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
            return self.decoder(z), -0.5 * (1 + log_var - mean.pow(2) - log_var.exp()).sum()

    return Module()


def summed_loss(model: Any, x: Any) -> Any:
    """The loss of a batch [B, 784], summed over its images."""
    from torch.nn import functional as F

    out = model(x)
    logits, kl = out if isinstance(out, tuple) else (out, 0.0)
    return F.binary_cross_entropy_with_logits(logits, x, reduction="sum") + kl


def by_hand(network: str, data: str) -> None:
    """Nothing but the tensor operations: a permutation, slices to floats, loss, gradients, fused Adam."""
    import torch

    train, test = images(data)
    model = network_by_hand(network)
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

    answers(epoch)


def by_hand_set_up_alike(network: str, data: str) -> None:
    """The same loop with the same libraries below torch."""
    from aetrain.training.backend.setup import set_up

    with set_up():
        by_hand(network, data)


def by_products(network: str, data: str) -> None:
    """The floor of a fully connected network: the products of an epoch's training, there and back, nothing else."""
    import torch
    from torch import nn

    from aetrain.training.backend.setup import set_up

    model = network_by_hand(network)
    todo: list[Callable[[], object]] = []

    def note(layer: Any, given: Any, out: Any) -> None:
        x, g, w = given[0].detach().contiguous(), torch.randn_like(out), layer.weight.detach()
        first = given[0].grad_fn is None  # nobody asks for the gradient of the pixels
        todo.append(lambda: x @ w.t())
        todo.append(lambda: g.t() @ x)
        todo.extend([] if first else [lambda: g @ w])

    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(note)
    model(torch.rand(BATCH, 784))
    with set_up():
        answers(lambda: [[product() for product in todo] for _ in range(-(-60000 // BATCH))])


# --- Others -----------------------------------------------------------------------------------------------------------


def loaders(data: str) -> tuple[Any, Any]:
    """The input pipeline that examples have: torchvision's data set, one image at a time, no workers."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    with tempfile.TemporaryDirectory() as folder:  # where torchvision may unpack the archives
        raw = Path(folder) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for archive in (Path(data) / "MNIST" / "raw").glob("*.gz"):
            (raw / archive.name).symlink_to(archive)
        to = transforms.ToTensor()
        parts = [datasets.MNIST(folder, train=train, transform=to, download=True) for train in (True, False)]
    train, test = (DataLoader(part, batch_size=BATCH, shuffle=part.train) for part in parts)
    return train, test


def by_example(network: str, data: str) -> None:
    """As pytorch/examples does it: DataLoader, Adam, `.item()` at each step, a pass over the test set."""
    import torch

    train, test = loaders(data)
    model = network_by_hand(network)
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

    answers(epoch)


def by_lightning(network: str, data: str) -> None:
    """A LightningModule and its Trainer, with the logger and checkpoint that it has by default; no progress bar."""
    import lightning
    import torch

    train, test = loaders(data)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network_by_hand(network)

        def training_step(self, batch: Any, _: int) -> Any:
            loss = summed_loss(self.net, batch[0].flatten(1)) / len(batch[0])
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch: Any, _: int) -> None:
            self.log("val_loss", summed_loss(self.net, batch[0].flatten(1)) / len(batch[0]))

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    class Turns(lightning.Callback):
        began = now()

        def on_train_epoch_start(self, *_: object) -> None:
            if not sys.stdin.readline():
                raise Over
            self.began = now()

        def on_train_epoch_end(self, *_: object) -> None:  # after validation
            say(self.began)

    with tempfile.TemporaryDirectory() as folder:
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": folder}
        trainer = lightning.Trainer(
            accelerator="cpu", max_epochs=1000, num_sanity_val_steps=0, callbacks=[Turns()], **quiet
        )
        trainer.fit(Module(), train, test)


def by_keras(network: str, data: str) -> None:
    """Keras on JAX: `fit` on arrays of floats, compiled by XLA."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras
    from keras import layers, ops

    class RandomCall(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.seed = keras.random.SeedGenerator(0)

        def call(self, given: Any) -> Any:
            mean, log_var = given
            self.add_loss(-0.5 * ops.mean(ops.sum(1 + log_var - ops.square(mean) - ops.exp(log_var), 1)))
            return mean + ops.exp(0.5 * log_var) * keras.random.normal(ops.shape(mean), seed=self.seed)

    train, test = (part.numpy().astype("float32") / 255 for part in images(data))
    x = h = keras.Input((784,))
    if network == "conv":
        h = layers.Reshape((28, 28, 1))(h)
        for channels in (16, 32):
            h = layers.Conv2D(channels, 3, 2, "same", activation="relu")(h)
        h = layers.Dense(1568, activation="relu")(layers.Dense(32)(layers.Flatten()(h)))
        h = layers.Conv2DTranspose(16, 3, 2, "same", activation="relu")(layers.Reshape((7, 7, 32))(h))
        logits = layers.Flatten()(layers.Conv2DTranspose(1, 3, 2, "same")(h))
    else:
        sizes, random = DENSE[network]
        for units in sizes[1:-1]:
            h = layers.Dense(units, activation="relu")(h)
        z = (
            RandomCall()([layers.Dense(sizes[-1])(h), layers.Dense(sizes[-1])(h)])
            if random
            else layers.Dense(sizes[-1])(h)
        )
        for units in sizes[-2:0:-1]:
            z = layers.Dense(units, activation="relu")(z)
        logits = layers.Dense(784)(z)
    model = keras.Model(x, logits)

    def nll(target: Any, logits: Any) -> Any:
        return ops.sum(ops.softplus(logits) - target * logits, 1)

    model.compile(keras.optimizers.Adam(1e-3), nll)
    model.fit(
        train[: 2 * BATCH], train[: 2 * BATCH], batch_size=BATCH, validation_data=(test, test), verbose=0
    )  # compiled
    answers(lambda: model.fit(train, train, batch_size=BATCH, epochs=1, validation_data=(test, test), verbose=0))


FLOOR = "matrix products alone"
WAYS: dict[str, Callable[[str, str], None]] = {
    "aetrain": by_aetrain,
    "aetrain compile=true": lambda network, data: by_aetrain(network, data, "compile=true"),
    "aetrain precision=fast": lambda network, data: by_aetrain(network, data, "precision=fast"),
    "aetrain compile=true precision=fast": lambda network, data: by_aetrain(
        network, data, "compile=true", "precision=fast"
    ),
    "loop by hand": by_hand,
    "loop by hand, set up alike": by_hand_set_up_alike,
    FLOOR: by_products,
    "PyTorch example, DataLoader": by_example,
    "Lightning, DataLoader": by_lightning,
    "Keras on JAX": by_keras,
}
NEEDS = {"Lightning, DataLoader": ("lightning",), "Keras on JAX": ("keras", "jax")}


if __name__ == "__main__":
    way, network, data = sys.argv[1:]
    with redirect_stdout(sys.stderr), suppress(Over):
        WAYS[way](network, str(Path(data).resolve()))
