"""Shapes of known size, orientation and position: images whose generative factors are known."""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from aetrain.data.dataset import SPLIT_SEED
from aetrain.data.examples import Examples
from aetrain.data.image_dataset import ImageDataset

SHAPE_NAMES = ("square", "ellipse", "heart")
FACTOR_NAMES = ("shape", "scale", "orientation", "x", "y")
NUM_VALUES = (6, 40, 32, 32)  # of scale, orientation, x and y, as in dSprites
NUM_IMAGES = math.prod(NUM_VALUES)  # of one shape

MAX_RADIUS = 0.25  # of the circle around a shape of scale 1, as a share of the image's side
ELLIPSE_RATIO = 0.5  # of the short axis to the long one
TEST_FRACTION = 1 / 7
CHUNK = 1024  # images drawn at a time, which fit into the cache of a processor


@final
@dataclass(kw_only=True)
class Shapes(ImageDataset):
    """White squares, ellipses and hearts on black after dSprites (Matthey et al. 2017), with their factors.

    The factors are shape (0, 1, 2), scale (0.5 to 1), orientation (0 to 2 pi, counted clockwise), x and y (0 to 1, left
    to right and top to bottom), on the grid of dSprites: 6 scales, 40 orientations, 32 positions a side. dSprites has
    the orientations 0 and 2 pi twice; here there are 40 different ones. No two images have the same factors, but a
    square looks the same after each quarter turn and an ellipse after each half turn. Each shape has the same number of
    images, up to one. The class is the shape.

    `size` is the side in pixels. `count` images are drawn, the same ones in every run; a seventh of them are for
    testing. `binary` draws black and white pixels as in dSprites; otherwise an edge is grey by the share of its pixel
    that the shape covers.
    """

    size: int = 32
    count: int = 14000
    binary: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 8:
            raise ValueError(f"size={self.size} is too small: use at least 8 pixels")
        least, most = 7 * len(SHAPE_NAMES), len(SHAPE_NAMES) * NUM_IMAGES
        if not least <= self.count <= most:
            raise ValueError(f"count={self.count} is not possible: use a number from {least} to {most}")

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(1, size, size)."""
        return 1, self.size, self.size

    def read(self) -> tuple[Examples, Examples]:
        """Draw the training and the test images."""
        num_test = round(self.count * TEST_FRACTION)
        factors = draw_factors(self.count)
        pixels = torch.cat([draw_images(part, self.size, self.binary) for part in factors.split(CHUNK)])
        images = Examples(pixels, factors[:, 0].long(), SHAPE_NAMES, factors, FACTOR_NAMES, torch.arange(self.count))
        return images[num_test:], images[:num_test]


def draw_factors(count: int) -> Tensor:
    """Return different factors [count, 5] of `count` images, the same ones in every run; the shapes alternate."""
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    shape = torch.arange(count) % len(SHAPE_NAMES)
    rank = torch.arange(count) // len(SHAPE_NAMES)  # among the images of its shape
    combinations = torch.stack([torch.randperm(NUM_IMAGES, generator=generator) for _ in SHAPE_NAMES])
    combination = combinations[shape, rank]
    scale, orientation, x, y = torch.unravel_index(combination, NUM_VALUES)
    num_scales, num_orientations, num_x, num_y = NUM_VALUES
    values = [
        shape,
        0.5 + 0.5 * scale / (num_scales - 1),
        2 * math.pi * orientation / num_orientations,
        x / (num_x - 1),
        y / (num_y - 1),
    ]
    return torch.stack([value.to(torch.float32) for value in values], 1)


def draw_images(factors: Tensor, size: int, binary: bool = False) -> Tensor:
    """Return the images [N, 1, size, size] uint8 of factors [N, 5]."""
    pixels = torch.empty(len(factors), 1, size, size, dtype=torch.uint8)
    for number, distance_to in enumerate((distance_to_square, distance_to_ellipse, distance_to_heart)):
        rows = (factors[:, 0] == number).nonzero().flatten()
        _, scale, orientation, x, y = factors[rows, :, None, None].unbind(1)  # [M, 1, 1] each
        right, down = _relative_positions(orientation, x, y, size)
        radius = MAX_RADIUS * size * scale  # in pixels
        distance = radius * distance_to(right / radius, down / radius)  # [M, size, size] in pixels
        # A straight edge at this distance from the middle of a pixel covers about this share of the pixel.
        covered = (distance < 0).to(torch.float32) if binary else (0.5 - distance).clamp_(0, 1)
        pixels[rows, 0] = covered.mul_(255).round_().to(torch.uint8)
    return pixels


def _relative_positions(orientation: Tensor, x: Tensor, y: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the positions [M, size, size] of the pixels to the right of and below the middle of each shape, in pixels.

    The axes turn with the shape, whose `orientation`, `x` and `y` are [M, 1, 1]. The middle is at least MAX_RADIUS
    from each side.
    """
    middle_of_pixel = torch.arange(size) + 0.5
    column = middle_of_pixel - size * (MAX_RADIUS + (1 - 2 * MAX_RADIUS) * x)  # [M, 1, size]
    row = middle_of_pixel[:, None] - size * (MAX_RADIUS + (1 - 2 * MAX_RADIUS) * y)  # [M, size, 1]
    cos, sin = orientation.cos(), orientation.sin()
    return cos * column + sin * row, cos * row - sin * column


# The signed distance, negative inside, from points (`right`, `down`) to the edge of a shape in a circle of radius 1.


def distance_to_square(right: Tensor, down: Tensor) -> Tensor:
    """Return the signed distance to a square whose corners are on the circle."""
    return _distance_to_box(right, down, math.sqrt(0.5))


def distance_to_ellipse(right: Tensor, down: Tensor) -> Tensor:
    """Return the signed distance, in first order, to an ellipse whose long axis is horizontal.

    The distance is level / |gradient| with level = sqrt(right^2 + (down / ratio)^2) - 1.
    """
    tiny = 1e-6  # at the middle the gradient has no direction
    level = torch.hypot(right, down / ELLIPSE_RATIO).clamp_min(tiny)
    gradient = torch.hypot(right, down / ELLIPSE_RATIO**2).clamp_min(tiny) / level
    return (level - 1) / gradient


def distance_to_heart(right: Tensor, down: Tensor) -> Tensor:
    """Return the signed distance to a heart with its tip below: a square on its corner and two discs.

    In units of the square's diagonal, the square has the corners (0, 0), (1/2, 1/2), (0, 1) and (-1/2, 1/2), and each
    disc has one of its upper sides as diameter: the middle is (1/4, 3/4) and the radius sqrt(2) / 4. The circle around
    them has its middle at height h above the tip with h = |(1/4, 3/4 - h)| + sqrt(2) / 4.
    """
    disc_radius = math.sqrt(2) / 4
    circle_radius = 0.5 / (1.5 - 2 * disc_radius)
    across, up = circle_radius * right.abs(), circle_radius * (1 - down)
    square = _distance_to_box((across + up - 0.5) / math.sqrt(2), (across - up + 0.5) / math.sqrt(2), disc_radius)
    disc = torch.hypot(across - 0.25, up - 0.75) - disc_radius
    return torch.minimum(square, disc) / circle_radius


def _distance_to_box(right: Tensor, down: Tensor, half_side: float) -> Tensor:
    """Return the signed distance to a square with sides along the axes."""
    beyond_right, beyond_down = right.abs() - half_side, down.abs() - half_side
    inside = torch.maximum(beyond_right, beyond_down).clamp_max(0)
    return inside + torch.hypot(beyond_right.clamp_min(0), beyond_down.clamp_min(0))
