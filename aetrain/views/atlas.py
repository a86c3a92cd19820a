"""The atlas: a page for each layer, a line for each of its units, with all that is known about it."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from aetrain.views.exhibits import Album, Picture, positive
from aetrain.views.probe import Activity, by_unit
from aetrain.views.render import DEAD, SATURATED, bytes_of, stamps
from aetrain.views.scene import Norm, Scene
from aetrain.views.units import marks, shade

TILE = 84  # of a picture, in pixels: 3 x MNIST's 28
GAP = 6
TEXT = 136  # width of the first column
BARS = 168  # of the histogram
HEAD = 38  # height of the headings
LETTERS = 27  # a card shows them at about a third
BINS = 28
BEST = "best images"
UNSEEN = 1e-6  # of a pixel that is no part of a stroke
FAINT = 0.05  # norm of a change that is shown less the smaller it is
SOME = 20_000  # activations of a unit that make its histogram
INK, PAPER, PALE = (50, 50, 50), (255, 255, 255), (225, 225, 225)


@final
@dataclass(frozen=True)
class Atlas:
    """For each layer a page, and on it for each of the first `count` units a line, always the same one:

    - its number, how often it fires, and whether it is dead (red: nothing moves it) or saturated (blue: it is always
      at one end of its range);
    - what excites it: the picture that does most, as in `Units`, with the same `limit` and `norm`;
    - what it paints: the change it makes where it alone is active, as active as its best image makes it, over the
      change's norm; white is ink that it adds, black ink that it takes away (of a channel, what it has painted there);
    - the `images` of the scene that excite it most, the best first: of a channel, what it sees of them there;
    - how its activations are distributed, on one scale for the page, the heights as square roots. Grey is zero.
    """

    count: int = 12
    images: int = 5
    limit: float = 0.9
    norm: Norm = "images"

    def __post_init__(self) -> None:
        positive(count=self.count, images=self.images, limit=self.limit)

    def __call__(self, scene: Scene) -> Album:
        return Album({name: Picture(self._page(scene, activity)) for name, activity in scene.activity.items()})

    def _page(self, scene: Scene, activity: Activity) -> Tensor:
        from PIL import Image, ImageDraw, ImageFont

        tap = activity.tap
        units = torch.arange(min(self.count, activity.values.shape[1]), device=scene.x.device)
        columns = []
        if (exciting := scene.exciting(tap, self.count, self.norm)) is not None:
            columns.append(("excites", shade(exciting, self.limit)[:, None]))
        columns.append(("paints", shade(strokes(scene.alone(tap, units)), self.limit)[:, None]))
        columns.append((BEST, best(scene, activity, units, self.images)))
        heights, low, high = histograms(activity, units)

        width = TEXT + sum(tiles.shape[1] * (TILE + GAP) + GAP for _, tiles in columns) + BARS
        page = Image.new("RGB", (width, HEAD + len(units) * (TILE + GAP)), PAPER)
        draw, font = ImageDraw.Draw(page), ImageFont.load_default(LETTERS)
        left = TEXT
        for heading, tiles in columns:
            draw.text((left, HEAD / 2), heading, fill=INK, font=font, anchor="lm")
            for row, line in enumerate(tiles):
                if heading == BEST and activity.dead[units[row]]:
                    continue
                for column, tile in enumerate(stamps(line, TILE)):
                    page.paste(tile, (left + column * (TILE + GAP), HEAD + row * (TILE + GAP)))
            left += tiles.shape[1] * (TILE + GAP) + GAP
        zero = left + (0 - low) / (high - low) * BARS
        draw.text((left, HEAD / 2), f"{low:.2g}", fill=INK, font=font, anchor="lm")
        draw.text((width - GAP, HEAD / 2), f"{high:.2g}", fill=INK, font=font, anchor="rm")
        for row, unit in enumerate(units.tolist()):
            top = HEAD + row * (TILE + GAP)
            draw.line((left, top + TILE, left + BARS, top + TILE), fill=PALE, width=3)
            if left <= zero <= left + BARS:
                draw.line((zero, top, zero, top + TILE), fill=PALE, width=3)
            for bar, height in enumerate(heights[row].tolist()):
                if height > 0:
                    x = left + bar * BARS / BINS
                    draw.rectangle((x, top + TILE - height * TILE, x + BARS / BINS, top + TILE), fill=INK)
            state = "dead" if activity.dead[unit] else "saturated" if activity.saturated[unit] else ""
            colour = {"dead": DEAD, "saturated": SATURATED}.get(state, INK)
            draw.text((TEXT - 12, top + 14), str(unit + 1), fill=colour, font=font, anchor="rm")
            draw.text((TEXT - 12, top + 43), share(float(activity.rate[unit])), fill=INK, font=font, anchor="rm")
            draw.text((TEXT - 12, top + 71), state, fill=colour, font=font, anchor="rm")
        grey = scene.x.shape[1] != 3 and not any(marks(activity, units))
        page = page.convert("L") if grey else page  # less to write
        return bytes_of(page.tobytes(), (page.height, page.width, 1 if grey else 3))


def strokes(changes: Tensor) -> Tensor:
    """Changes [U, C, H, W] over their norm, cut to where any of them is one; those nobody would see stay faint."""
    changes = changes.nan_to_num(0, 0, 0)
    somewhere = (changes.abs() > UNSEEN).flatten(0, 1).any(0)  # [H, W]
    rows, columns = somewhere.any(1).nonzero().flatten().tolist(), somewhere.any(0).nonzero().flatten().tolist()
    if rows and 2 * max(rows[-1] - rows[0], columns[-1] - columns[0]) < min(somewhere.shape):
        changes = changes[:, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return changes / changes.flatten(1).norm(dim=1).clamp_min(FAINT)[:, None, None, None]


def share(rate: float) -> str:
    """A firing rate in percent, with as many digits as tell a rare unit from a silent one."""
    return f"{100 * rate:.1f} %" if 0 < rate < 0.0995 else f"{100 * rate:.0f} %"


def best(scene: Scene, activity: Activity, units: Tensor, count: int) -> Tensor:
    """The images that excite units most, [U, count, C, h, w]: of maps, the part that the channel sees at that place."""
    images, rows, columns = activity.top(units, count)
    sight = scene.sight(activity.tap)
    high, wide = (side.stop - side.start for side in sight)
    height, width = scene.x.shape[2:]
    if (high, wide) == (height, width):
        return scene.x[images]
    maps = activity.values.shape[2:]
    # What the middle of the maps sees, moved by as many pixels as there are to a place.
    top = sight[0].start + (rows - maps[0] // 2) * round(height / maps[0])
    left = sight[1].start + (columns - maps[1] // 2) * round(width / maps[1])
    padded = F.pad(scene.x, (wide, wide, high, high))
    top, left = (top + high).clamp(0, height + high), (left + wide).clamp(0, width + wide)
    down, across = torch.arange(high, device=top.device), torch.arange(wide, device=top.device)
    index = images[..., None, None], (top[..., None] + down)[..., None], (left[..., None] + across)[..., None, :]
    return padded.permute(0, 2, 3, 1)[index].movedim(-1, 2)


def histograms(activity: Activity, units: Tensor) -> tuple[Tensor, float, float]:
    """Heights [U, bins] in [0, 1], and the ends of the scale that all of these units share."""
    values = by_unit(activity.values[:, units]).nan_to_num(0, 0, 0).cpu()
    values = values[:, :: max(1, values.shape[1] // SOME)]
    low, high = float(values.min()), float(values.max())
    if not high > low:
        low, high = low - 1, high + 1
    place = ((values.to(torch.float64) - low) / (high - low) * BINS).long().clamp(0, BINS - 1)
    counts = torch.zeros(len(values), BINS).scatter_add_(1, place, torch.ones_like(place, dtype=torch.float32))
    return (counts / values.shape[1]).sqrt(), low, high
