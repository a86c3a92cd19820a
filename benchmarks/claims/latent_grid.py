"""The course's two-unit code: an L2 penalty gathers the codes around 0, and what lies between them is a digit, too."""

import torch
from experiments import Outcome
from likeness import codes_of_test, likeness, plate
from torch import Tensor

from aetrain.library import Trained
from aetrain.views.codes import CodeGrid
from aetrain.views.render import grid

CLAIM = (
    "With an L2 penalty on a code of two units, a grid of codes around 0 is decoded smoothly and every cell is a "
    "digit; without the penalty it is not."
)
RUNS = {
    "latent_grid": ["experiment=latent_grid"],
    "without": ["experiment=latent_grid", "model.penalties.l2.weight=0"],
}
SIDE = 20


def jumps(pictures: Tensor) -> Tensor:
    """The squared change between neighbours, right and down, of a grid's pictures [SIDE * SIDE, 1, 28, 28]."""
    cells = pictures.flatten(1).unflatten(0, (SIDE, SIDE))
    return torch.cat([cells.diff(dim=d).square().sum(2).flatten() for d in (0, 1)])


def check(runs: dict[str, Trained]) -> Outcome:
    """The grid spans two standard deviations of the codes around 0, each model's own."""
    figures: dict[str, float] = {}
    sheets, by_title = {}, {}
    for name, run in runs.items():
        title = "with the penalty" if name == "latent_grid" else "without"
        z = codes_of_test(run)
        limit = 2 * float(z.square().mean().sqrt())
        pictures = run.decode(CodeGrid(SIDE, limit).codes())
        judged, jump = likeness(pictures), jumps(pictures)
        sheets[f"{title}, ±{limit:.1f}"] = grid(pictures, columns=SIDE)
        by_title[title] = judged, jump
        figures |= {
            f"the codes' distance from 0 (root mean square), {title}": float(z.square().sum(1).mean().sqrt()),
            f"mean squared change from cell to cell, {title}": float(jump.mean()),
            f"the largest, {title}": float(jump.max()),
            f"distance of a cell to the nearest training image, {title}": float(judged.distance.mean()),
            f"share of nearest training images that agree on the digit, {title}": float(judged.agreement.mean()),
            f"share of cells that are plain digits (8 of 10 agree), {title}": float(
                (judged.agreement >= 0.8).float().mean()
            ),
            f"digits on the grid, {title}": judged.classes,
            f"test SSE, {title}": run.metrics["test/sse"],
        }
    (with_, jump), (without, other_jump) = by_title["with the penalty"], by_title["without"]
    holds = bool(
        jump.mean() < other_jump.mean()
        and with_.distance.mean() < without.distance.mean()
        and (with_.agreement >= 0.8).float().mean() > (without.agreement >= 0.8).float().mean()
    )
    return Outcome(figures, holds, plate(runs["latent_grid"].directory / "figures" / "grids.png", sheets))
