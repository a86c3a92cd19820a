"""Rifai et al. (2011): a penalty on the code's Jacobian makes a code that small changes of the image hardly move."""

import torch
from evidence import unseen
from experiments import Outcome
from sheets import beside, unit_sheet

from aetrain.api import Trained
from aetrain.objective.contractive import Contractive

CLAIM = (
    "For the same small change of the image, the code of a contractive autoencoder moves less than a plain one's, also "
    "relative to how far apart the codes of two digits are, at comparable reconstruction."
)
RUNS = {
    "contractive": ["experiment=contractive"],
    "plain": ["experiment=contractive", "model.penalties.contractive.weight=0"],
}
STEP = 1.0  # length of the change, of images whose own length is about 9


@torch.no_grad()
def check(runs: dict[str, Trained]) -> Outcome:
    """How far random changes of one length move the code, also over the codes' own spread; the exact Jacobian."""
    x = unseen(runs["contractive"], 1000)
    change = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    change *= STEP / change.flatten(1).norm(dim=1)[:, None, None, None]
    figures = {}
    for name, text in (("plain", "plain"), ("contractive", "contractive")):
        run = runs[name]
        z = run.encode(x)
        moved = (run.encode(x + change) - z).norm(dim=1).mean()
        apart = (z - z.roll(1, 0)).norm(dim=1).mean()
        some = x[:200]
        figures[f"squared Frobenius norm of the Jacobian, {text}"] = float(
            Contractive(probes=None)(run.model, run.model(some)).mean()
        )
        figures[f"move of the code, {text}"] = float(moved)
        figures[f"move over the distance between two digits' codes, {text}"] = float(moved / apart)
        figures[f"test BCE, {text}"] = run.metrics["test/bce"]
    picture = beside(
        runs["contractive"].directory / "beside.png",
        [unit_sheet(runs["plain"]), unit_sheet(runs["contractive"])],
        ["units, plain", "units, contractive"],
    )
    relative = "move over the distance between two digits' codes"
    holds = (
        figures["move of the code, contractive"] < 0.7 * figures["move of the code, plain"]
        and figures[f"{relative}, contractive"] < 0.9 * figures[f"{relative}, plain"]
        and figures["test BCE, contractive"] < 1.1 * figures["test BCE, plain"]
    )
    return Outcome(figures, holds, picture)
