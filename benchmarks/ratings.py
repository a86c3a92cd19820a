"""Compare the time of an epoch on MovieLens with that of a bare torch loop on dense rows.

    python benchmarks/ratings.py [--epochs 5] [--rows items users]

Both train the same network (AutoRec with 200 units) with the same batches, noise and optimizer, one after the other in
turns, on one thread. The bare loop has all rows dense in memory; aetrain makes each batch of sparse rows dense. The
figure is the median over epochs, in seconds, without evaluation.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn

import aetrain
from aetrain.api import Trained
from aetrain.data.sparse_rows import SparseRows

WEIGHT_DECAY, LR = 1.0, 1e-3


def train_aetrain(rows: str, epochs: int, folder: Path) -> tuple[Trained, list[float]]:
    """Train with aetrain; return the run and the seconds of each epoch but the first."""
    run = aetrain.run(
        [f"experiment=autorec_{rows.removesuffix('s')}", f"epochs={epochs}", "views=none", "device=cpu"],
        directory=folder,
    )
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return run, [line["seconds"] for line in lines if "seconds" in line][1:]


def train_bare(run: Trained, epochs: int) -> list[float]:
    """Train the same network in a bare loop; return the seconds of each epoch but the first."""
    values = run.dataset.load().train.values
    assert isinstance(values, SparseRows)
    x = values.dense().flatten(1)  # [N, D]
    known, x = (~x.isnan()).float(), x.nan_to_num(0.0)
    units, noise, batch_size = run.model.code_dim, run.config.noise.p, run.config.batch_size
    network = nn.Sequential(nn.Linear(x.shape[1], units), nn.Sigmoid(), nn.Linear(units, x.shape[1]))
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    seconds = []
    for _ in range(epochs):
        start = time.perf_counter()
        for index in torch.randperm(len(x)).split(batch_size):
            loss = bare_loss(network, x[index], known[index], noise)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def bare_loss(network: nn.Module, x: Tensor, known: Tensor, noise: float) -> Tensor:
    """Return the squared error of the known ratings x [B, D] from corrupted ones, mean over rows."""
    corrupted = x.masked_fill(torch.rand_like(x) < noise, 0.0)
    return ((network(corrupted) - x).square() * known).sum() / len(x)


def main() -> None:
    """Print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rows", nargs="+", choices=["items", "users"], default=["items", "users"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for rows in arguments.rows:
        own, bare = [], []
        for _ in range(arguments.turns):
            with tempfile.TemporaryDirectory() as folder:
                run, seconds = train_aetrain(rows, arguments.epochs, Path(folder) / "run")
                own += seconds
                bare += train_bare(run, arguments.epochs)
        a, b = statistics.median(own), statistics.median(bare)
        print(f"rows={rows}: aetrain {a:.3f} s, bare loop {b:.3f} s, ratio {a / b:.2f}", flush=True)


if __name__ == "__main__":
    main()
