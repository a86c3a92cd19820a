"""The course's two-unit code: an L2 penalty gathers the codes around 0, and codes between them decode into digits."""

import torch
from experiments import Outcome
from generated_images import codes_of_test, mnist, vote_digits
from measurements import pixels
from pictures import beside
from torch import Tensor

from aetrain.api import Trained
from aetrain.views.codes import CodeGrid
from aetrain.views.render import grid

CLAIM = (
    "With an L2 penalty on a code of two units, a grid of codes around 0 is decoded smoothly into all ten digits, and "
    "its cells are as near to a training image as test images are. Without the penalty the same grid misses digits, "
    "and a grid that spans the codes changes in larger steps."
)
LESSON = "An L2 penalty makes the plane of codes dense and smooth."
RESULT = (
    "digits on a grid of codes {digits on the grid, with the penalty}, without penalty {digits on the grid, without, "
    "the same grid}"
)
RUNS = {
    "latent_grid": ["experiment=latent_grid"],
    "without": ["experiment=latent_grid", "model.penalties.l2.weight=0"],
}
SIDE = 20


def cell_changes(pictures: Tensor) -> Tensor:
    """Return the squared differences between pictures [SIDE * SIDE, 1, 28, 28] of adjacent cells, right and down."""
    cells = pictures.flatten(1).unflatten(0, (SIDE, SIDE))
    return torch.cat([cells.diff(dim=d).square().sum(2).flatten() for d in (0, 1)])


def check(runs: dict[str, Trained]) -> Outcome:
    """Check three grids: one around 0 for both models, and one as wide as the codes of the model without penalty.

    Half the width of a grid is twice the root mean square of the codes: of the first model for the first two grids.
    """
    widths = {name: 2 * float(codes_of_test(run).square().mean().sqrt()) for name, run in runs.items()}
    metrics: dict[str, float] = {}
    sheets, votes, changes = {}, {}, {}
    for title, name, width in (
        ("with the penalty", "latent_grid", widths["latent_grid"]),
        ("without, the same grid", "without", widths["latent_grid"]),
        ("without, as wide as its codes", "without", widths["without"]),
    ):
        pictures = runs[name].decode(CodeGrid(SIDE, width).coordinates())
        votes[title], changes[title] = vote_digits(pictures), cell_changes(pictures)
        sheets[f"{title}: ±{width:.1f}"] = grid(pictures, columns=SIDE)
        metrics |= {
            f"half the grid's width, {title}": width,
            f"digits on the grid, {title}": votes[title].classes,
            f"mean squared change from cell to cell, {title}": float(changes[title].mean()),
            f"largest squared change from cell to cell, {title}": float(changes[title].max()),
            f"squared distance of a cell to the nearest training image, {title}": float(votes[title].distance.mean()),
            f"share of cells with 8 of the 10 nearest training images of one digit, {title}": float(
                (votes[title].agreement >= 0.8).float().mean()
            ),
        }
    test_distance = float(vote_digits(pixels(mnist().test, 500)).distance.mean())
    metrics["squared distance of a test image to the nearest training image"] = test_distance
    metrics |= {f"test SSE, {name}": run.metrics["test/sse"] for name, run in runs.items()}
    penalty, same, wide = votes
    holds = bool(
        votes[penalty].classes == 10
        and votes[same].classes < 10
        and votes[penalty].distance.mean() < test_distance
        and changes[penalty].mean() < changes[wide].mean()
        and changes[penalty].max() < changes[wide].max()
    )
    note = (
        "Not confirmed: that cells are no digits without the penalty. On a grid as wide as its codes they are digits "
        "(the share of cells whose neighbours agree is no smaller than with the penalty), but in islands with abrupt "
        "borders."
    )
    picture = beside(runs["latent_grid"].directory / "figures" / "grids.png", sheets.values(), sheets)
    return Outcome(metrics, holds, picture, note)
