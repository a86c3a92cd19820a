"""The sections of a report that show pictures: reconstructions side by side, and all other kinds one at a time."""

from collections.abc import Sequence

from aetrain.report.embedded_images import MAX_LARGE_WIDTH, MAX_WIDTH, image_url, strip_row_urls
from aetrain.report.groups import RunGroup
from aetrain.report.html import Html, el, scrollable, section
from aetrain.report.natural_order import Key, natural_key
from aetrain.report.numbers import format_number
from aetrain.report.runs import RunSummary
from aetrain.report.tables import swatch

MAX_RUNS_WITH_PICTURES = 36  # if there are more, one run of each group is shown
CURVES = "curves"  # the figure of learning curves, which the report draws itself
WORDS = "features-"  # begins the figures of units in words, which the report writes itself
LARGE = ("rows", "feature_errors")  # pictures with small texts
STRIP = "strip"  # the picture of test images and reconstructions that compares runs


def reconstructions(groups: Sequence[RunGroup]) -> Html | None:
    """Return a table of the same test images, reconstructed by each run; one table per set of test images."""
    tables: dict[tuple[str, str], list[Html]] = {}
    titles: dict[tuple[str, str], str] = {}
    for group, run in _runs_with_pictures(groups):
        urls = strip_row_urls(run.pictures[STRIP]) if STRIP in run.pictures else None
        if urls is None:
            continue
        clean, noisy, reconstructed = urls
        if (clean, noisy) not in tables:
            tables[clean, noisy] = _test_image_rows(clean, noisy)
            titles[clean, noisy] = group.test_set
        error = run.metrics.get("test/noisy_sse" if noisy != clean else "test/sse")
        label = el("span", swatch(group), group.short_label, _details(run, error), title=group.description or None)
        class_ = None if run is group.runs[0] else "more"
        row = _image_row(label, reconstructed, f"reconstructed by {run.name}", class_=class_, data_group=group.number)
        tables[clean, noisy].append(row)
    if not tables:
        return None
    elements = []
    for images, rows in tables.items():
        heading = el("h3", titles[images]) if len(tables) > 1 else None
        table = scrollable(el("table", el("tbody", *rows), class_="strips"))
        elements.append(el("div", heading, table, data_block=True))
    return section("The same images, reconstructed by every run", "images", _seed_choice(groups), *elements)


def _test_image_rows(clean: str, noisy: str) -> list[Html]:
    """Return the rows above the reconstructions: the test images, and their noisy versions if there is noise."""
    rows = [_image_row(el("b", "test images"), clean, "test images")]
    if noisy != clean:
        rows.append(_image_row(el("span", "with noise: the encoder's input", class_="dim"), noisy, "with noise"))
    return rows


def _image_row(label: Html, url: str, alt: str, **attributes: str | int | None) -> Html:
    return el("tr", el("th", label, scope="row"), el("td", el("img", src=url, alt=alt)), **attributes)


def _details(run: RunSummary, error: float | None = None) -> Html:
    """Return the seed of a run and its error."""
    parts = []
    if run.seed:
        parts.append(f"seed {run.seed}")
    if error is not None:
        parts.append(f"error {format_number(error)}")
    return el("span", f" {', '.join(parts)}", class_="dim")


def _seed_choice(groups: Sequence[RunGroup]) -> Html | None:
    """Return a check box that shows every seed; None if the pictures of all runs, or of one per group, are shown."""
    single = all(len(group.runs) == 1 for group in groups)
    if single or sum(len(group.runs) for group in groups) > MAX_RUNS_WITH_PICTURES:
        return None
    return el("p", el("label", el("input", type="checkbox", data_more="every"), " every seed"), class_="choice")


def _runs_with_pictures(groups: Sequence[RunGroup]) -> list[tuple[RunGroup, RunSummary]]:
    """Return the runs whose pictures are shown: all, or one of each group if there are too many."""
    pairs = [(group, run) for group in groups for run in group.runs]
    if len(pairs) <= MAX_RUNS_WITH_PICTURES:
        return pairs
    return [(group, group.runs[0]) for group in groups][:MAX_RUNS_WITH_PICTURES]


def unit_pictures(groups: Sequence[RunGroup]) -> Html | None:
    """Return the pictures of the runs: all of a single run, else one kind at a time, chosen with buttons."""
    runs = _runs_with_pictures(groups)
    names = [name for _, run in runs for name in run.pictures]
    kinds = {name for name in names if name not in (STRIP, CURVES) and not name.startswith(WORDS)}
    cards_by_kind: dict[str, list[Html]] = {}
    for kind in sorted(kinds, key=_units_first):
        cards = _cards(kind, runs)
        if cards:
            cards_by_kind[kind] = cards
    if not cards_by_kind:
        return None
    title = "Hidden units and other pictures"
    if len(runs) == 1:
        all_cards = [card for cards in cards_by_kind.values() for card in cards]
        return section(title, "units", el("div", *all_cards, class_="cards"))
    buttons, sheets = [], []
    for i, (kind, cards) in enumerate(cards_by_kind.items()):
        pressed = "true" if i == 0 else "false"
        buttons.append(el("button", _as_words(kind), type="button", data_show=kind, aria_pressed=pressed))
        sheets.append(el("div", *cards, class_="cards", data_kind=kind, hidden=i > 0))
    return section(title, "units", el("div", *buttons, class_="kinds"), _seed_choice(groups), *sheets)


def _units_first(kind: str) -> tuple[bool, bool, bool, Key]:
    """Return the sort key of a kind of pictures: those of hidden units come first."""
    return "units" not in kind, not kind.startswith("units"), "hidden" not in kind, natural_key(kind)


def _cards(kind: str, runs: Sequence[tuple[RunGroup, RunSummary]]) -> list[Html]:
    """Return the pictures of one kind with captions: the name of the kind if there is only one run, else the run's."""
    cards = []
    for group, run in runs:
        is_large = kind in LARGE
        width = MAX_LARGE_WIDTH if is_large else MAX_WIDTH
        url = image_url(run.pictures[kind], width) if kind in run.pictures else None
        if url is None:
            continue
        caption = el("figcaption", _as_words(kind))
        if len(runs) > 1:
            caption = el("figcaption", swatch(group), group.label, _details(run))
        image = el("img", src=url, alt=f"{kind} of {run.name}", loading="lazy")
        class_ = "card" if run is group.runs[0] else "card more"
        class_ = f"{class_} large" if is_large else class_
        cards.append(el("figure", caption, image, class_=class_, data_group=group.number))
    return cards


def _as_words(kind: str) -> str:
    """Return the name of a kind of pictures with spaces: `units-hidden1` as `units hidden1`."""
    return kind.replace("_", " ").replace("-", " ")
