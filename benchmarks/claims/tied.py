"""Tied weights: the decoder's layers are the encoder's, transposed."""

import torch
from experiments import Outcome
from measurements import one_of_each_class, splits_of
from pictures import rows

from aetrain.api import Trained
from aetrain.model.dense import DenseDecoder, DenseEncoder
from aetrain.model.layers import TiedLinear

CLAIM = (
    "With the encoder's weights transposed in the decoder (one storage after training, saving and loading), half the "
    "weights give an error close to that of free weights."
)
LESSON = "Tied weights halve the parameters at the same error."
RESULT = "SSE tied {test SSE, tied}, free {test SSE, free}"
RUNS = {
    "tied": ["experiment=tied"],
    "free": ["experiment=tied", "model.tied=false"],
}


def check(runs: dict[str, Trained]) -> Outcome:
    """Check that the loaded model shares its weights, and that the error is at most 15 % above that of free weights."""
    tied, free = runs["tied"], runs["free"]
    x = one_of_each_class(splits_of(tied).test)
    picture = rows(
        tied.directory / "figures" / "tied.png",
        {"original": x, "tied": tied.reconstruct(x), "free": free.reconstruct(x)},
    )
    tied_weights, free_weights = count_matrix_weights(tied), count_matrix_weights(free)
    ratio = tied.metrics["test/sse"] / free.metrics["test/sse"]
    metrics = {
        "test SSE, tied": tied.metrics["test/sse"],
        "test SSE, free": free.metrics["test/sse"],
        "tied to free": ratio,
        "weights in matrices, tied": tied_weights,
        "weights in matrices, free": free_weights,
    }
    return Outcome(metrics, shares_weights(tied) and 2 * tied_weights == free_weights and ratio < 1.15, picture)


def count_matrix_weights(trained: Trained) -> int:
    """Return the number of weights in the matrices of a model; shared weights count once."""
    return sum(weight.numel() for weight in trained.model.parameters() if weight.dim() == 2)


@torch.no_grad()
def shares_weights(trained: Trained) -> bool:
    """Return whether each layer of the decoder changes with its layer of the encoder."""
    encoder, decoder = trained.model.encoder, trained.model.decoder
    assert isinstance(encoder, DenseEncoder)
    assert isinstance(decoder, DenseDecoder)
    encoder_layers = [*encoder.layers, trained.model.bottleneck.project]
    same = []
    for layer, source in zip(decoder.layers, reversed(encoder_layers), strict=True):
        unit = torch.eye(source.out_features)[:1]
        before = layer(unit)
        source.weight += 1
        same.append(isinstance(layer, TiedLinear) and torch.allclose(layer(unit), before + 1, atol=1e-4))
        source.weight -= 1
    return all(same)
