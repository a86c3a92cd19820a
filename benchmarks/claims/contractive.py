"""Rifai et al. (2011): a penalty on the Jacobian makes the code insensitive to small changes of the image."""

import torch
from experiments import Outcome
from measurements import unseen
from pictures import beside, unit_sheet

from aetrain.api import Trained
from aetrain.objective.contractive import Contractive

CLAIM = (
    "For the same small change of the image, the code of a contractive autoencoder moves less than that of a plain "
    "one, also relative to the distance between the codes of two digits, at a comparable reconstruction error."
)
LESSON = "A penalty on the Jacobian makes the code insensitive to small changes."
RESULT = (
    "squared Jacobian norm {squared Frobenius norm of the Jacobian, contractive}, plain {squared Frobenius norm of "
    "the Jacobian, plain}"
)
RUNS = {
    "contractive": ["experiment=contractive"],
    "plain": ["experiment=contractive", "model.penalties.contractive.weight=0"],
}
STEP = 1.0  # L2 norm of the change; the norm of an image is about 9


@torch.no_grad()
def check(runs: dict[str, Trained]) -> Outcome:
    """Check how far random changes of the image move the code, also relative to the distances between codes."""
    x = unseen(runs["contractive"], 1000)
    change = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    change *= STEP / change.flatten(1).norm(dim=1)[:, None, None, None]
    metrics = {}
    for name in ("plain", "contractive"):
        run = runs[name]
        z = run.encode(x)
        moved = (run.encode(x + change) - z).norm(dim=1).mean()
        apart = (z - z.roll(1, 0)).norm(dim=1).mean()
        metrics[f"squared Frobenius norm of the Jacobian, {name}"] = float(
            Contractive(probes=None)(run.model, run.model(x[:200])).mean()
        )
        metrics[f"move of the code, {name}"] = float(moved)
        metrics[f"move over the distance between two digits' codes, {name}"] = float(moved / apart)
        metrics[f"test BCE, {name}"] = run.metrics["test/bce"]
    picture = beside(
        runs["contractive"].directory / "beside.png",
        [unit_sheet(runs["plain"]), unit_sheet(runs["contractive"])],
        ["units, plain", "units, contractive"],
    )
    relative = "move over the distance between two digits' codes"
    holds = (
        metrics["move of the code, contractive"] < 0.7 * metrics["move of the code, plain"]
        and metrics[f"{relative}, contractive"] < 0.9 * metrics[f"{relative}, plain"]
        and metrics["test BCE, contractive"] < 1.1 * metrics["test BCE, plain"]
    )
    return Outcome(metrics, holds, picture)
