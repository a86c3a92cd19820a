"""The parameters of matplotlib for all figures: its defaults, whatever the user's style is. Imports no torch."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

METADATA = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None},
}
# Texts remain texts, and files are the same at every run.
PARAMETERS = {"svg.fonttype": "none", "svg.hashsalt": "aetrain", "pdf.fonttype": 42, "axes.formatter.useoffset": False}


@contextmanager
def drawing_parameters() -> Iterator[None]:
    """Draw with matplotlib's default parameters and `PARAMETERS` inside, whatever the user's are."""
    import matplotlib

    # Glyphs that the font lacks are drawn as boxes, without a warning.
    with matplotlib.rc_context(_parameters()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


@cache
def _parameters() -> Any:
    import matplotlib

    prefixes = ("axes", "figure", "font", "grid", "image", "lines", "patch", "path", "pdf", "svg", "text", "xtick")
    chosen = (*prefixes, "ytick", "savefig", "legend", "hist", "mathtext", "scatter", "markers", "agg")
    defaults: dict[str, Any] = {
        str(key): value for key, value in matplotlib.rcParamsDefault.items() if key.startswith(chosen)
    }
    return {**defaults, **PARAMETERS}
