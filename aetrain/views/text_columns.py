"""The columns of an atlas for data without pictures: the features of a unit and its best examples, as words.

Lengths are pixels.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from aetrain.views.annotations import PlacedText
from aetrain.views.context import ViewContext
from aetrain.views.feature_scores import (
    Strongest,
    feature_names,
    strongest_features,
    unit_correlations,
    unit_effects,
)
from aetrain.views.render import INK, fit_text, load_font
from aetrain.views.unit_activations import UnitActivations

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

WORDS_WIDTH, EXAMPLES_WIDTH = 460, 240
GAP = 18  # right of a column
FONT_SIZE = 20
LINES = 3
LINE_HEIGHT = 28
NUM_FEATURES = 10
MAX_WORD_WIDTH = 200  # of a feature's name
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class TextColumn:
    """A column of the page: a list of words for each unit, wrapped into a few lines."""

    heading: str
    cells: Sequence[Sequence[str]]  # [U][words]
    text_width: int

    @property
    def width(self) -> int:
        """The width of the texts and of the gap behind them."""
        return self.text_width + GAP

    def texts(self, left: int, tops: Sequence[int]) -> list[PlacedText]:
        """Return the lines of the cells, whose upper left corners are at `left` and `tops`."""
        font = load_font(FONT_SIZE)
        texts = []
        for words, top in zip(self.cells, tops, strict=True):
            for number, line in enumerate(wrap_words(words, font, self.text_width)):
                y = top + (number + 0.5) * LINE_HEIGHT
                texts.append(PlacedText(left, y, line, "lm", INK, FONT_SIZE))
        return texts


def text_columns(
    context: ViewContext, activations: UnitActivations, units: Tensor, num_examples: int
) -> list[TextColumn]:
    """Return the columns of `units` [U'] of a layer: active with, produces, and the classes of the best examples.

    A feature of which there is less has a minus sign. A dead unit has no best examples, because they would be random.
    """
    names = feature_names(context)
    columns = []
    for heading, scores in (("active with", unit_correlations), ("produces", unit_effects)):
        strongest = strongest_features(scores(context, activations.tap, units), names, NUM_FEATURES)
        columns.append(TextColumn(heading, [signed_names(features) for features in strongest], WORDS_WIDTH))
    best, _, _ = activations.top_positions(units, num_examples)  # [U', k]
    dead = activations.dead[units].tolist()
    cells = [[] if is_dead else name_examples(context, row) for row, is_dead in zip(best, dead, strict=True)]
    return [*columns, TextColumn("best examples", cells, EXAMPLES_WIDTH)]


def signed_names(features: Strongest) -> list[str]:
    """Return the names of features, the strongest first, with a minus sign where there is less of them."""
    pairs = sorted(zip(features.names, features.scores, strict=True), key=lambda pair: -abs(pair[1]))
    return [name if score > 0 else MINUS + name for name, score in pairs]


def name_examples(context: ViewContext, index: Tensor) -> list[str]:
    """Return the classes of examples `index` [K] with their counts, or their rows without labels."""
    classes = Counter(context.class_labels(index))
    if not classes:
        return [context.example_name(number) for number in index.tolist()]
    return [name if count == 1 else f"{name} ×{count}" for name, count in classes.most_common()]  # noqa: RUF001


def wrap_words(words: Sequence[str], font: "FreeTypeFont", width: int) -> list[str]:
    """Return words with commas in at most `LINES` lines of `width` pixels; the words that do not fit are left out."""
    lines: list[str] = []
    for word in words:
        short = fit_text(word, font, min(width, MAX_WORD_WIDTH))
        longer = f"{lines[-1]}, {short}" if lines else short
        if not lines or font.getlength(longer) > width:
            if len(lines) == LINES:
                break
            lines.append(short)
        else:
            lines[-1] = longer
    return lines
