"""Olshausen & Field (1996): a dictionary for sparse codes consists of oriented, local edges."""

import torch
from experiments import Outcome
from measurements import splits_of, sse, unseen
from pictures import beside, unit_sheet
from torch import Tensor

from aetrain.api import Trained
from aetrain.data.examples import Prepare, in_order
from aetrain.model.pca import PCA
from aetrain.views.render import grid, signed_grey

CLAIM = (
    "Alternating optimisation of codes and dictionary on patches turns the atoms into oriented edges, and a patch is "
    "reconstructed from few atoms with less error than from as many principal directions."
)
LESSON = "Sparse coding of patches finds oriented edges."
RESULT = "SSE {test SSE} with {active atoms of a patch (L0)} atoms, PCA {test SSE of PCA with as many directions}"
RUNS = {
    "learnt": ["experiment=sparse_coding"],
    "random": ["experiment=sparse_coding", "epochs=0"],
}


def orientation(atoms: Tensor) -> float:
    """Return the median over atoms [D, 1, h, w] of the structure tensor's coherence: 0 without a direction, 1 with one.

    (l1 - l2) / (l1 + l2) of the eigenvalues of sum grad grad^T (Bigun & Granlund 1987).
    """
    across = atoms[:, 0, 1:-1, 2:] - atoms[:, 0, 1:-1, :-2]  # [D, h - 2, w - 2]
    down = atoms[:, 0, 2:, 1:-1] - atoms[:, 0, :-2, 1:-1]
    xx, yy, xy = ((a * b).sum((1, 2)) for a, b in ((across, across), (down, down), (across, down)))
    return float((((xx - yy).square() + 4 * xy.square()).sqrt() / (xx + yy).clamp_min(1e-12)).median())


@torch.no_grad()
def check(runs: dict[str, Trained]) -> Outcome:
    """Check the coherence of the atoms, and the error against PCA with as many directions as there are active atoms."""
    learnt, random = runs["learnt"], runs["random"]
    atoms = learnt.model.first_layer_weights()
    x = unseen(learnt, 5000)
    l0 = float((learnt.encode(x) != 0).sum(1).float().mean())
    pca = PCA.fit(in_order(splits_of(learnt).train, 2000, Prepare(random_crop=x.shape[2])), 64)
    as_many = PCA(pca.mean, pca.components[: round(l0)], pca.variances[: round(l0)])
    metrics = {
        "atoms": float(len(atoms)),
        "active atoms of a patch (L0)": l0,
        "test SSE": sse(learnt.model.likelihood.mean(learnt.model(x).decoded), x),
        "test SSE of PCA with as many directions": sse(as_many.reconstruct(x), x),
        "test SSE, random dictionary": sse(random.model.likelihood.mean(random.model(x).decoded), x),
        "active atoms of a patch (L0), random dictionary": float((random.encode(x) != 0).sum(1).float().mean()),
        "dead atoms": learnt.metrics["test/dead_units"],
        "orientation (coherence), atoms": orientation(atoms),
        "orientation (coherence), principal directions": orientation(pca.components.unflatten(1, x.shape[1:])),
        "orientation (coherence), random dictionary": orientation(random.model.first_layer_weights()),
    }
    directions = signed_grey(pca.components.unflatten(1, x.shape[1:]), 0.9 / 12**0.5)
    picture = beside(
        learnt.directory / "beside.png",
        [unit_sheet(learnt), grid(directions, columns=8, gaps=1.0)],
        ["atoms", "principal directions"],
    )
    holds = (
        metrics["test SSE"] < metrics["test SSE of PCA with as many directions"]
        and l0 < 0.1 * len(atoms)
        and metrics["orientation (coherence), atoms"] > 2 * metrics["orientation (coherence), random dictionary"]
        and metrics["orientation (coherence), atoms"] > metrics["orientation (coherence), principal directions"]
    )
    return Outcome(metrics, holds, picture)
