"""The comparison of the runs that a user names: paired differences of errors, as data, as HTML and as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aetrain.evaluation.metric_direction import better_direction
from aetrain.report.embedded_images import MAX_LARGE_WIDTH, image_url
from aetrain.report.html import Html, el, scrollable, section
from aetrain.report.members import Member
from aetrain.report.metrics import metric_name
from aetrain.report.numbers import format_number
from aetrain.report.tables import swatch

if TYPE_CHECKING:  # it imports NumPy
    from aetrain.evaluation.paired_difference import PairedDifference

MINUS = "\N{MINUS SIGN}"
NOTE = (
    "A difference is the mean error of a run minus that of {reference}, over the same {count:,} test examples. In "
    "brackets: the interval of 95 % over the choice of these examples, by the bootstrap of pairs. It knows nothing of "
    "the spread over seeds, which is in the table above."
)


@dataclass(frozen=True)
class Comparison:
    """A member beside the reference."""

    member: Member
    differences: Mapping[str, "PairedDifference"]  # by tag of the metric; empty where it could not be compared
    by_seed: Sequence[tuple[str, float]] = ()  # the difference of the first metric for each seed that both have
    picture: Path | None = None  # the examples on which the two differ most
    reason: str = ""  # for which it could not be compared


@dataclass(frozen=True)
class Comparisons:
    """All members beside the first one that the user named, the reference."""

    reference: Member
    others: Sequence[Comparison]

    @property
    def tags(self) -> list[str]:
        """The metrics that some member shares with the reference."""
        return list(dict.fromkeys(tag for other in self.others for tag in other.differences))


def comparison_section(comparisons: Comparisons | None) -> Html | None:
    """Return a table of the differences, and the pictures of the examples on which members differ most."""
    if comparisons is None:
        return None
    reference, tags = comparisons.reference, comparisons.tags
    head = [el("th", f"difference from {reference.label}", scope="col")]
    head += [el("th", metric_name(tag), scope="col", class_="num") for tag in tags]
    rows, pictures, reasons = [], [], []
    for other in comparisons.others:
        if other.reason:
            reasons.append(el("li", f"{other.member.label} is left out: {other.reason}."))
            continue
        cells = [_difference_cell(tag, other.differences.get(tag)) for tag in tags]
        rows.append(
            el("tr", el("th", swatch(other.member.group), other.member.label, _seeds(other), scope="row"), *cells)
        )
        pictures += _picture(comparisons.reference, other)
    counts = [difference.count for other in comparisons.others for difference in other.differences.values()]
    parts: list[Html | None] = [el("ul", *reasons, class_="short") if reasons else None]
    if rows:
        parts.append(scrollable(el("table", el("thead", el("tr", *head)), el("tbody", *rows), class_="differences")))
        parts.append(el("p", NOTE.format(count=counts[0], reference=reference.label)))
    return section("Paired differences", "differences", *parts, *pictures)


def _difference_cell(tag: str, difference: "PairedDifference | None") -> Html:
    """Return a difference with its interval and both means; its class says which of the two is clearly better."""
    if difference is None:
        return el("td", "-", class_="num")
    class_, title = "num", "the interval holds zero"
    if difference.is_clear:
        is_better = (difference.difference < 0) == (better_direction(tag) == "lower")
        class_ = "num better" if is_better else "num worse"
        title = "clearly better" if is_better else "clearly worse"
    interval = f" [{signed(difference.low)}, {signed(difference.high)}]"
    means = f"{format_number(difference.first)} to {format_number(difference.second)}"
    text = el("b", signed(difference.difference)), el("span", interval, class_="sd")
    return el("td", *text, el("br"), el("span", means, class_="sd"), class_=class_, title=title)


def signed(value: float) -> str:
    """Return a number with its sign and four significant digits."""
    text = format_number(abs(value))
    return text if value == 0 else f"{'+' if value > 0 else MINUS}{text}"


def _seeds(other: Comparison) -> Html | None:
    """Return the differences of the first metric by seed."""
    if len(other.by_seed) < 2:
        return None
    name = metric_name(next(iter(other.differences)))
    text = ", ".join(f"seed {seed} {signed(value)}" for seed, value in other.by_seed)
    return el("span", el("br"), f"{name}: {text}", class_="sd")


def _picture(reference: Member, other: Comparison) -> list[Html]:
    url = image_url(other.picture, MAX_LARGE_WIDTH) if other.picture else None
    if url is None:
        return []
    alt = f"test examples on which {reference.label} and {other.member.label} differ most"
    caption = el("figcaption", f"A: {reference.label}. B: {other.member.label}.")
    return [el("figure", caption, el("img", src=url, alt=alt), class_="pair")]


def differences_csv(comparisons: Comparisons) -> str:
    """Return a CSV table of all differences, a row for each member and metric."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "reference", "metric", "mean", "reference_mean", "difference", "low", "high", "examples"])
    for other in comparisons.others:
        for tag, pair in other.differences.items():
            numbers = (pair.second, pair.first, pair.difference, pair.low, pair.high, pair.count)
            writer.writerow([other.member.label, comparisons.reference.label, tag, *numbers])
    return text.getvalue()


def describe_comparisons(comparisons: Comparisons) -> list[str]:
    """Return a line for each member and metric: `sse: vae minus deep: -1.2 [-1.3, -1.1], from 12.0 to 10.8`."""
    lines = []
    for other in comparisons.others:
        names = f"{other.member.label} minus {comparisons.reference.label}"
        if other.reason:
            lines.append(f"{names}: left out: {other.reason}")
        for tag, pair in other.differences.items():
            interval = f"{signed(pair.difference)} [{signed(pair.low)}, {signed(pair.high)}]"
            means = f"from {format_number(pair.first)} to {format_number(pair.second)}"
            lines.append(f"{metric_name(tag)}: {names}: {interval}, {means}")
    return lines
