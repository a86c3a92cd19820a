"""Tied weights: the decoder's layers are the encoder's, transposed."""

import torch
from evidence import one_of_each_class, splits_of
from experiments import Outcome
from sheets import rows

from aetrain.api import Trained
from aetrain.model.layers import TiedLinear

CLAIM = (
    "With the encoder's weights transposed in the decoder, one storage after training, saving and loading, half the "
    "weights give an error close to that of free weights."
)
RUNS = {
    "tied": ["experiment=tied"],
    "free": ["experiment=tied", "model.tied=false"],
}


def check(runs: dict[str, Trained]) -> Outcome:
    """Shared in the loaded model, where a change of one is a change of the other; error at most 15 % above."""
    tied, free = runs["tied"], runs["free"]
    x = one_of_each_class(splits_of(tied).test)
    picture = rows(
        tied.directory / "figures" / "tied.png",
        {"original": x, "tied": tied.reconstruct(x), "free": free.reconstruct(x)},
    )
    matrices = [sum(p.numel() for p in run.model.parameters() if p.dim() == 2) for run in (tied, free)]
    ratio = tied.metrics["test/sse"] / free.metrics["test/sse"]
    figures = {
        "test SSE, tied": tied.metrics["test/sse"],
        "test SSE, free": free.metrics["test/sse"],
        "tied to free": ratio,
        "weights in matrices, tied": matrices[0],
        "weights in matrices, free": matrices[1],
    }
    return Outcome(figures, one_storage(tied) and 2 * matrices[0] == matrices[1] and ratio < 1.15, picture)


@torch.no_grad()
def one_storage(trained: Trained) -> bool:
    """Whether every layer of the loaded decoder changes with the layer of the encoder that it mirrors."""
    model = trained.model
    encoder = [*model.encoder.layers, model.bottleneck.project]
    same = []
    for layer, source in zip(model.decoder.layers, reversed(encoder), strict=True):
        unit = torch.eye(source.out_features)[:1]
        before = layer(unit)
        source.weight += 1
        same.append(isinstance(layer, TiedLinear) and torch.allclose(layer(unit), before + 1, atol=1e-4))
        source.weight -= 1
    return all(same)
