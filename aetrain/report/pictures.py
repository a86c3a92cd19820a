"""Pictures for a page of its own: drawn anew from a run's PNG files, and small, so that the page stays so, too."""

import base64
import io
from pathlib import Path

WIDEST = 560  # pixels; a card shows a third fewer

LARGEST = 40_000_000  # pixels of a file that is opened


def embedded(file: Path) -> str | None:
    """A picture file as a data: address, or None where it is no picture."""
    from PIL import Image

    picture = _opened(file)
    if picture is None:
        return None
    if picture.width > WIDEST:
        size = (WIDEST, max(1, picture.height * WIDEST // picture.width))
        picture = picture.resize(size, Image.Resampling.BOX if picture.width % WIDEST else Image.Resampling.LANCZOS)
    content = io.BytesIO()
    picture.save(content, "WEBP", quality=82, method=2)
    return _address("webp", content.getvalue())


def strip_rows(file: Path) -> tuple[str, str, str] | None:
    """The rows of a strip as data: addresses: clean, seen, reconstructed (see aetrain.views.strip)."""
    picture = _opened(file)
    if picture is None or picture.height % 3 or picture.height > 3 * 512:
        return None
    tall = picture.height // 3
    rows = []
    for top in (0, tall, 2 * tall):
        content = io.BytesIO()
        picture.crop((0, top, picture.width, top + tall)).save(content, "PNG", optimize=True)
        rows.append(_address("png", content.getvalue()))
    return rows[0], rows[1], rows[2]


def _opened(file: Path):  # type: ignore[no-untyped-def]  # an image of PIL, which is imported late
    from PIL import Image

    try:
        with Image.open(file, formats=["PNG"]) as picture:
            if picture.width * picture.height > LARGEST:
                return None
            return picture.convert("L" if picture.mode in ("1", "L", "I;16", "I") else "RGB")
    except Exception:  # whatever a decoder may raise on a damaged file
        return None


def _address(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
