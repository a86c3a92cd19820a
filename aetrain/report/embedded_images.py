"""Images inside the page: a run's PNG files are decoded, reduced and encoded again as data: URLs."""

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_WIDTH = 560  # pixels; a card on the page is about a third narrower
MAX_LARGE_WIDTH = 1120  # of a card as wide as the page
MAX_STRIP_ROW_HEIGHT = 512  # pixels
MAX_FILE_PIXELS = 40_000_000  # larger files are not opened


def image_url(file: Path, max_width: int = MAX_WIDTH) -> str | None:
    """Return an image file as a data: URL, at most `max_width` wide; None if it is not a PNG image."""
    from PIL import Image

    image = _read_image(file)
    if image is None:
        return None
    if image.width > max_width:
        size = (max_width, max(1, image.height * max_width // image.width))
        image = image.resize(size, Image.Resampling.BOX if image.width % max_width else Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "WEBP", quality=82, method=2)
    return _data_url("webp", content.getvalue())


def strip_row_urls(file: Path) -> tuple[str, str, str] | None:
    """Return the rows of a thumbnail strip as data: URLs: clean images, inputs of the encoder, reconstructions.

    None if the file is not a strip (see aetrain.views.thumbnail_strip).
    """
    image = _read_image(file)
    if image is None or image.height % 3 or image.height > 3 * MAX_STRIP_ROW_HEIGHT:
        return None
    height = image.height // 3
    rows = []
    for top in (0, height, 2 * height):
        content = io.BytesIO()
        image.crop((0, top, image.width, top + height)).save(content, "PNG", optimize=True)
        rows.append(_data_url("png", content.getvalue()))
    return rows[0], rows[1], rows[2]


def _read_image(file: Path) -> "Image | None":
    """Return the image in a PNG file, in grey or RGB; None if it is damaged or too large."""
    from PIL import Image

    try:
        with Image.open(file, formats=["PNG"]) as image:
            if image.width * image.height > MAX_FILE_PIXELS:
                return None
            return image.convert("L" if image.mode in ("1", "L", "I;16", "I") else "RGB")
    except Exception:  # a decoder may raise any exception on a damaged file
        return None


def _data_url(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
