"""Measure an epoch of training on sparse rows of documents against a plain loop on dense rows.

    python benchmarks/sparse.py [--path FILE] [--rounds 7] [--batch-size 100] [--clock cpu]

The network is that of experiment=text_retrieval. Both train the same layers with Adam in float32, in batches of the
same size, and take turns of one epoch, the first of which does not count; the ratio is the median of the ratios of the
turns. The plain loop has all rows as one dense tensor and computes nothing but the loss. aetrain makes each batch dense
from its sparse rows, seeds the epoch and sums its losses; evaluation is left out on both sides. `--clock cpu` compares
processor time, for a machine with other load.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from aetrain.api import compose_config
from aetrain.data.examples import Batches
from aetrain.runs import entry
from aetrain.runs.build import Components, build
from aetrain.runs.train import load_data
from aetrain.training.backend.setup import backend
from aetrain.training.loop import TrainState, fit

CLOCKS = {"cpu": time.process_time, "wall": time.perf_counter}


def aetrain_epoch(components: Components, batches: Batches) -> Callable[[], None]:
    """Return a function that trains one epoch as aetrain does."""
    state = TrainState(components.model, seed=0, epochs=0)

    def train() -> None:
        state.epochs += 1
        fit(state, components.optimizer_steps, batches)

    return train


def plain_epoch(rows: Tensor, batch_size: int) -> Callable[[], None]:
    """Return a function that trains one epoch of the same network on dense rows [N, D], in a few lines of torch."""
    widths = [rows.shape[1], 256, 128, 10]
    encoder, decoder = dense(widths), dense(widths[::-1])
    model = nn.Sequential(encoder, decoder)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def train() -> None:
        for index in torch.randperm(len(rows)).split(batch_size):
            x = rows[index]
            code = 10 * nn.functional.normalize(encoder(x * (torch.rand_like(x) > 0.5)))
            loss = -(x * decoder(code).log_softmax(1)).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return train


def dense(widths: Sequence[int]) -> nn.Sequential:
    """Return layers of these widths, with rectifiers between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def main() -> None:
    """Measure, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", help="file of the documents; by default scikit-learn downloads them")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--clock", choices=CLOCKS, default="cpu")
    arguments = parser.parse_args()
    overrides = ["experiment=text_retrieval", "views=none", "measures=none", "device=cpu", "precision=float32"]
    if arguments.path:
        overrides.append(f"dataset.path={arguments.path}")
    config, _, full_overrides = compose_config(overrides)
    components = build(entry.check(config, full_overrides))
    train = load_data(components).train
    batches = Batches(train, arguments.batch_size, components.dataset.prepare)
    rows = torch.cat([*map(components.dataset.prepare, train.values.split(1000))]).flatten(1)
    epochs = {"aetrain": aetrain_epoch(components, batches), "plain loop": plain_epoch(rows, arguments.batch_size)}
    clock = CLOCKS[arguments.clock]
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    with backend():
        for turn in range(arguments.rounds + 1):
            for name, epoch in epochs.items():
                start = clock()
                epoch()
                if turn:  # the first epoch also allocates memory
                    seconds[name].append(clock() - start)
    for name, values in seconds.items():
        print(f"{name}: {statistics.median(values):.2f} s an epoch of {len(train):,} documents ({arguments.clock})")
    ratios = [own / plain for own, plain in zip(*seconds.values(), strict=True)]
    print(f"ratio: {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    main()
