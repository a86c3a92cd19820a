"""Olshausen & Field (1996): a dictionary for sparse codes of whitened photographs consists of localised edges."""

import torch
from experiments import Outcome
from gabor import gabor_share
from measurements import splits_of
from pictures import beside, unit_sheet
from torch import Tensor

from aetrain.api import Trained
from aetrain.data.examples import Prepare, in_order
from aetrain.model.pca import PCA
from aetrain.views.render import grid, signed_grey

BOUND = 0.8  # R^2 from which on a Gabor function fits an atom
NUM_DIRECTIONS = 96  # principal directions to compare with; the later ones are mostly noise

CLAIM = (
    "Sparse coding of whitened patches of photographs turns atoms into localised, oriented edges: a Gabor function "
    "fits more of them (R² above 0.8) than of the principal directions of the same patches and of the atoms before "
    "training."
)
LESSON = "Sparse codes of natural images are localised, oriented edges."
RESULT = (
    "a Gabor function fits {atoms that a Gabor fits, %} % of the atoms, {principal directions that a Gabor fits, %} % "
    "of the principal directions, {atoms of digits that a Gabor fits, %} % of the atoms of digits"
)
RUNS = {
    "learnt": ["experiment=natural_patches"],
    "random": ["experiment=natural_patches", "epochs=0"],
    "digits": [
        *("experiment=sparse_coding", "model.code_dim=192", "dataset.subset=45000", "optimizer.lr=0.01", "epochs=20"),
    ],
}


def share(images: Tensor) -> float:
    """Return the share of images [N, 1, h, w] that a Gabor function fits, in percent."""
    return 100 * gabor_share(images[:, 0].cpu().numpy(), BOUND)


@torch.no_grad()
def check(runs: dict[str, Trained]) -> Outcome:
    """Check the share of atoms that a Gabor function fits against principal directions, random atoms and digits."""
    learnt = runs["learnt"]
    atoms = learnt.model.first_layer_weights()
    pca = PCA.fit(in_order(splits_of(learnt).train, 2000, Prepare()), NUM_DIRECTIONS)
    directions = pca.components.unflatten(1, atoms.shape[1:])
    metrics = {
        "atoms": float(len(atoms)),
        "atoms that a Gabor fits, %": share(atoms),
        "principal directions that a Gabor fits, %": share(directions),
        "atoms before training that a Gabor fits, %": share(runs["random"].model.first_layer_weights()),
        "atoms of digits that a Gabor fits, %": share(runs["digits"].model.first_layer_weights()),
        "active atoms of a patch (L0)": learnt.metrics["test/l0"],
        "test SSE": learnt.metrics["test/sse"],
        "dead atoms": learnt.metrics["test/dead_units"],
    }
    sheet = grid(signed_grey(directions[:64], 0.9 / 12**0.5), columns=8, gaps=1.0)
    titles = ["atoms of photographs", "principal directions", "atoms of digits"]
    pictures = [unit_sheet(learnt), sheet, unit_sheet(runs["digits"])]
    picture = beside(learnt.directory / "beside.png", pictures, titles)
    fitted = metrics["atoms that a Gabor fits, %"]
    others = ("principal directions that a Gabor fits, %", "atoms before training that a Gabor fits, %")
    return Outcome(metrics, fitted > 2 * max(metrics[name] for name in others), picture)
