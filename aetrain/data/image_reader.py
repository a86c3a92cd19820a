"""The reading of a user's image files as squares of bytes."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aetrain.data.pixel_values import StoredValues, scale_to_255
from aetrain.data.user_files import Array

if TYPE_CHECKING:
    from PIL import Image

GREY_MODES = ("1", "L", "LA", "La", "F")  # and all that begin with I
ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue in grey, as in PIL (ITU-R 601-2)


@dataclass
class ImageReader:
    """Read image files as uint8 [channels, size, size], and remember what they were.

    An image is rotated as its EXIF tag states, converted to grey (`channels=1`) or RGB (3), scaled until its shorter
    side has `size` pixels, and cropped to the central square. Transparent parts become white. `white` is the stored
    value that becomes white; None is 255 in files of 8 bits and 65535 in grey files of 16 or 32 bits.
    """

    size: int
    channels: int
    white: float | None = None
    values: StoredValues = field(default_factory=StoredValues)
    num_colour: int = 0  # files in colour, also those whose colours are grey
    num_paged: int = 0  # files with several pages or frames, of which the first is read
    sizes: set[tuple[int, int]] = field(default_factory=set)  # width and height of the files

    def __post_init__(self) -> None:
        self.values.white = self.white

    def __call__(self, path: Path) -> Array:
        """Return the image; raise any exception where it cannot be decoded safely, inside `decoder_warnings`."""
        from PIL import Image, ImageOps

        with Image.open(path) as file:
            self._remember(file)
            file.draft(self.mode, (2 * self.size, 2 * self.size))  # a JPEG is decoded no larger than needed
            image: Image.Image = ImageOps.exif_transpose(file)
            if self.white is None and not is_deep(image):
                return self._bytes(image)
            return self._scaled_bytes(image)

    def fresh(self) -> "ImageReader":
        """Return a reader of the same settings that has read nothing."""
        return ImageReader(self.size, self.channels, self.white)

    def add(self, later: "ImageReader") -> None:
        """Remember the files that another reader has read after those of this one."""
        self.values.extend(later.values)
        self.num_colour += later.num_colour
        self.num_paged += later.num_paged
        self.sizes |= later.sizes

    def state(self) -> dict[str, Any]:
        """Return what the reader remembers, as JSON."""
        return {
            "values": asdict(self.values),
            "num_colour": self.num_colour,
            "num_paged": self.num_paged,
            "sizes": sorted(self.sizes),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Remember what another reader did."""
        self.values = StoredValues(**state["values"])
        self.num_colour, self.num_paged = int(state["num_colour"]), int(state["num_paged"])
        self.sizes = {(int(width), int(height)) for width, height in state["sizes"]}

    @property
    def num_bytes(self) -> int:
        """The size of a decoded image."""
        return self.channels * self.size**2

    @property
    def mode(self) -> str:
        """The mode of PIL that the image is converted to."""
        return "L" if self.channels == 1 else "RGB"

    def describe_conversion(self, count: int) -> str | None:
        """Return a description of what `count` images lost; None where they are as stored."""
        loses_colour = self.channels == 1 and self.num_colour > 0
        if self.sizes <= {(self.size, self.size)} and not loses_colour:
            return None
        kept = [f"{self.channels}x{self.size}x{self.size}{' (grey)' if self.channels == 1 else ''}"]
        smallest, largest = (f"{width}x{height}" for width, height in (min(self.sizes), max(self.sizes)))
        stored = smallest if smallest == largest else f"{smallest} to {largest}"
        kinds = f"{count:,} images ({self.num_colour:,} in colour)" if loses_colour else f"{count:,} images"
        if loses_colour:
            kept.append("dataset.channels=3 keeps colour")
        if any(min(size) > self.size for size in self.sizes):
            kept.append("a larger dataset.size keeps more detail")
        return f"{kinds} of {stored} pixels become {'; '.join(kept)}"

    def describe_pages(self) -> str | None:
        """Return the message about files with several pages; None where there are none."""
        if not self.num_paged:
            return None
        return f"images have several pages or frames, of which the first is read: {self.num_paged:,} files"

    def _remember(self, file: "Image.Image") -> None:
        is_grey = file.mode in GREY_MODES or file.mode.startswith("I")
        self.num_colour += not is_grey
        # A photograph of a camera (MPO) has a preview as its second picture.
        self.num_paged += file.format != "MPO" and bool(getattr(file, "is_animated", False))
        self.sizes.add(file.size)
        has_16_bits = any(";16" in str(tile[3]) for tile in getattr(file, "tile", ()))
        if self.white is not None and has_16_bits and not is_deep(file):  # PIL reads 8 bits of it
            raise ValueError(
                "of a 16-bit image with colour or transparency only 8 bits can be read, and dataset.white is in 16: "
                "save the images as uint16 in an .npz file for dataset=npz"
            )

    def _bytes(self, image: "Image.Image") -> Array:
        """Return an image of 8 bits."""
        from PIL import Image, ImageOps

        if has_transparency(image):
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert(self.mode)
        self.values.add_largest(max(np.ravel(image.getextrema()).tolist()), 255.0)
        square = np.array(ImageOps.fit(image, (self.size, self.size)))  # [size, size] or [size, size, 3]
        return square.reshape(self.size, self.size, self.channels).transpose(2, 0, 1)

    def _scaled_bytes(self, image: "Image.Image") -> Array:
        """Return an image of 16 or 32 bits, or one with a white of its own; it is rounded once, after resizing."""
        from PIL import Image, ImageOps

        squares = []
        for plane in self._planes(image):
            grey = Image.fromarray(plane.astype(np.float32))
            squares.append(np.asarray(ImageOps.fit(grey, (self.size, self.size))))
        pixels = np.rint(np.clip(np.stack(squares), 0, 255)).astype(np.uint8)
        return pixels.repeat(self.channels // len(pixels), axis=0)

    def _planes(self, image: "Image.Image") -> list[Array]:
        """Return the channels [H, W] of an image in [0, 255], not rounded; one where all channels are equal."""
        if is_deep(image):
            return [self._scale(deep_values(image, self.white))]
        if image.mode == "1":
            return [np.asarray(image.convert("L")).astype(np.float64)]
        if not has_transparency(image) and image.mode == "L":
            return [self._scale(np.asarray(image))]
        rgba = np.asarray(image.convert("RGBA"))
        opacity = rgba[..., 3:] / 255
        colours = self._scale(rgba[..., :3]) * opacity + 255 * (1 - opacity)
        planes = [colours[..., channel] for channel in range(3)]
        if self.channels == 3:
            return planes
        return [sum((weight * plane for weight, plane in zip(LUMA, planes, strict=True)), np.zeros(()))]

    def _scale(self, values: Array) -> Array:
        white = 65535.0 if self.white is None else self.white
        scaled = scale_to_255(values, white)
        self.values.add(values, white)
        return scaled


def is_deep(image: "Image.Image") -> bool:
    """Tell whether a grey image has more than 8 bits."""
    return image.mode == "F" or image.mode.startswith("I")


def has_transparency(image: "Image.Image") -> bool:
    """Tell whether parts of an image may be transparent."""
    return image.mode in ALPHA_MODES or "transparency" in image.info


def deep_values(image: "Image.Image", white: float | None) -> Array:
    """Return the values [H, W] of a grey image with more than 8 bits; PIL's own conversion would clip them at 255.

    Raise ValueError where `white` is None and they are not of 16 bits.
    """
    values: Array = np.asarray(image)
    if white is None and (values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535):
        raise ValueError("pixels are neither 8 nor 16 bits: name the value that is white with dataset.white")
    return values


def read_image(path: Path, size: int, channels: int, white: float | None = None) -> Array:
    """Return an image file as uint8 [channels, size, size]; raise any exception where it cannot be decoded safely."""
    with decoder_warnings():
        return ImageReader(size, channels, white)(path)


@contextmanager
def decoder_warnings() -> Iterator[None]:
    """Refuse images of a suspicious size, and ignore the other warnings of Pillow, such as about unknown tags.

    The filters are those of the process: threads that decode share them.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield
