"""The sections of a report, each about one question, and left out where there is nothing to say."""

from collections.abc import Callable, Sequence
from itertools import count

from aetrain.report.charts import Dots, Line, colour, curves, number, rate_distortion
from aetrain.report.html import Html, el
from aetrain.report.pictures import embedded, strip_rows
from aetrain.report.runs import Entry
from aetrain.report.settings import Group, constants
from aetrain.report.tables import at_a_glance, best, every_figure, every_run, linked, main_figures, meaning_of, name_of

SHOWN = 36  # runs whose pictures are shown, at most; of more, one of each group

CHARTS = 4
STRIP = "strip"  # the picture that puts runs side by side
SPACED = str.maketrans("_-", "  ")  # of the names of pictures


def section(title: str, name: str, *inside: Html | bool | None) -> Html:
    """A part of the page with a heading that can be led to; what is no element is left out."""
    return el("section", el("h2", title), [part for part in inside if isinstance(part, Html)], id=name)


def in_short(groups: Sequence[Group], runs: Sequence[Entry]) -> Html:
    """What to take home, in sentences."""
    said = []
    for tag, begin in (
        ("test/sse", "Lowest squared error"),
        ("test/neg_elbo", "Lowest -ELBO"),
        ("train/seconds_per_epoch", "Fastest"),
    ):
        if sentence := _leading(tag, begin, groups):
            said.append(el("li", *sentence))
    if len(groups) == 1 and (error := groups[0].figure("test/sse")) is not None:
        pca = groups[0].figure("test/pca_sse")
        beside = f"; PCA with as many units has {number(pca.mean)}" if pca else ""
        said.append(el("li", "Squared error ", el("b", number(error.mean)), f" on the test images{beside}."))
    if failed := [run for run in runs if run.status not in ("finished", "running")]:
        link = el("a", f"{len(failed)} of {len(runs)} runs", href="#failures")
        said.append(el("li", link, " did not finish.", class_="bad"))
    if going := [run for run in runs if run.status == "running"]:
        said.append(el("li", f"{len(going)} of {len(runs)} runs are still going on."))
    if warned := [run for run in runs if run.findings]:
        link = el("a", f"{len(warned)} of {len(runs)} runs", href="#doctor")
        said.append(el("li", "The training doctor has something to say of ", link, ".", class_="warn"))
    elif any(run.examined for run in runs):
        said.append(el("li", "The training doctor found nothing wrong."))
    return el("ul", *said, class_="short")


def _leading(tag: str, begin: str, groups: Sequence[Group]) -> list[Html | str] | None:
    """`Lowest squared error: vae, 12.1; next is deep with 13.0, by more than seeds differ.`"""
    winner = best(tag, groups)
    if winner is None:
        return None
    rest = sorted(
        ((spread.mean, group) for group in groups if group is not winner and (spread := group.figure(tag))),
        key=lambda pair: pair[0],
    )
    mine, theirs = winner.figure(tag), rest[0][1].figure(tag)
    assert mine is not None
    assert theirs is not None
    unit = " s an epoch" if tag.startswith("train/") else ""
    text: list[Html | str] = [f"{begin}: ", swatch(winner), el("b", winner.label), f", {number(mine.mean)}{unit}"]
    text += ["; next is ", swatch(rest[0][1]), rest[0][1].label, f" with {number(theirs.mean)}"]
    if mine.count > 1 and theirs.count > 1:
        more = theirs.mean - mine.mean > mine.deviation + theirs.deviation
        text.append(", by more than seeds differ." if more else ", which is no more than seeds differ.")
    else:
        text.append(".")
    return text


def swatch(group: Group) -> Html:
    """The group's colour."""
    return el("i", class_=f"swatch {colour(group.number)}")


def glance(groups: Sequence[Group]) -> Html:
    """Means and spreads of the main figures."""
    tags = main_figures(tag for group in groups for run in group.finished for tag in run.figures)
    said = ["On the test images."]
    if any(len(group.runs) > 1 for group in groups):
        said.append("Means over seeds, \N{PLUS-MINUS SIGN} their standard deviation.")
    if len(groups) > 1:
        said.append("The best of a column is bold; a click on a heading sorts.")
    return section("At a glance", "glance", at_a_glance(groups, tags), el("p", " ".join(said)))


def failures(groups: Sequence[Group]) -> Html | None:
    """Why runs did not finish, each cause once for every group."""
    items = []
    for group in groups:
        bad: dict[tuple[str, str], list[Entry]] = {}
        for run in group.runs:
            if run.status not in ("finished", "running"):
                cause = run.cause.replace(str(run.path.absolute()), "its directory").replace(
                    str(run.path), "its directory"
                )
                bad.setdefault((run.status, cause), []).append(run)
        for (status, cause), runs in bad.items():
            first, _, rest = cause.partition("\n")
            more = el("details", el("summary", "more"), el("pre", rest.strip()[:4000])) if rest.strip() else None
            said = first or "it left no cause: its process was killed, or the machine went down"
            where = [[" ", linked(run, f"seed {run.seed}" if run.seed else run.name)] for run in runs]
            told = el("span", status, class_=f"status {status}"), " ", swatch(group), el("b", group.label), " -", where
            items += [el("dt", *told, data_group=group.number), el("dd", said[:1000], more)]
    return section("Runs that did not finish", "failures", el("dl", *items)) if items else None


def doctor(groups: Sequence[Group]) -> Html | None:
    """What ails the runs, each disease once for every group that has it."""
    items = []
    for group in groups:
        for what in dict.fromkeys(finding.what for run in group.runs for finding in run.findings):
            ill = [(run, finding) for run in group.runs for finding in run.findings if finding.what == what]
            first, of = ill[0][1], f" ({len(ill)} of {len(group.runs)} runs)" if len(group.runs) > 1 else ""
            items.append(el("dt", swatch(group), el("b", what), f" - {group.label}{of}", data_group=group.number))
            items.append(el("dd", f"{_sentence(first.evidence)} {_sentence(first.remedy)}"))
    return section("The training doctor", "doctor", el("dl", *items)) if items else None


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def legend(groups: Sequence[Group]) -> Html:
    """Which colour is which; a click hides a group everywhere."""
    keys = [
        el("button", swatch(group), group.label, type="button", data_toggle=group.number, aria_pressed="true")
        for group in groups
    ]
    styles = el(
        "span",
        Html("<svg viewBox='0 0 30 12' class='key'><path class='line' d='M2,6H26'/></svg> test"),
        Html("<svg viewBox='0 0 30 12' class='key'><path class='line dashed' d='M2,6H26'/></svg> train"),
        class_="styles",
    )
    return el("div", *keys, styles, class_="legend")


def learning(groups: Sequence[Group]) -> Html | None:
    """Curves over epochs: what has both a train and a test curve first."""
    tags = dict.fromkeys(tag for group in groups for run in group.runs for line in run.history for tag in line)
    tests = {split for split in ("test", "validation") if any(tag.startswith(f"{split}/") for tag in tags)}
    watched = "validation" if "validation" in tests else "test"
    terms = dict.fromkeys(tag.partition("/")[2] for tag in tags if tag.startswith(f"{watched}/"))
    order: list[str] = [term for term in ("loss", "neg_elbo", "sse", "kl", "nll", "noisy_sse") if term in terms]
    order += [term for term in terms if term not in order]
    charts = []
    for term in order[:CHARTS]:
        lines = [line for group in groups for line in _lines(group, term, watched)]
        if lines and max(len(line.points) for line in lines) > 1:
            title = el("figcaption", el("b", name_of(f"{watched}/{term}")), f" {meaning_of(f'/{term}')}")
            charts.append(el("figure", title, curves(term, lines, f"clip-{term}".replace("/", "-"))))
    if not charts:
        return None
    note = el("p", "Lines are means over seeds, bands reach from the lowest to the highest.")
    seeds = any(len(group.runs) > 1 for group in groups)
    return section("Learning curves", "curves", legend(groups), el("div", *charts, class_="charts"), seeds and note)


def _lines(group: Group, term: str, watched: str) -> list[Line]:
    found = []
    for tag, dashed in ((f"{watched}/{term}", False), (f"train/{term}", True)):
        values: dict[float, list[float]] = {}
        for run in group.runs:
            for line in run.history:
                if tag in line:
                    values.setdefault(line["epoch"], []).append(line[tag])
        epochs = sorted(values)
        if epochs:
            points = [(epoch, sum(values[epoch]) / len(values[epoch])) for epoch in epochs]
            band = [(epoch, min(values[epoch]), max(values[epoch])) for epoch in epochs]
            shown = band if not dashed and len(group.runs) > 1 else []
            found.append(Line(group.label, group.number, points, shown, dashed))
    return found


def rates(groups: Sequence[Group]) -> Html | None:
    """Rate against distortion (Alemi et al. 2018, "Fixing a broken ELBO", arXiv:1711.00464), where there is a KL."""
    dots = []
    for group in groups:
        points = [
            (
                run.figures["test/kl"],
                run.figures["test/neg_elbo"] - run.figures["test/kl"],
                f"{run.name}: -ELBO {number(run.figures['test/neg_elbo'])}",
            )
            for run in group.finished
            if {"test/kl", "test/neg_elbo"} <= run.figures.keys()
        ]
        if points:
            dots.append(Dots(group.label, group.number, points))
    if sum(len(each.points) for each in dots) < 2:
        return None
    note = (
        "Each point is a run: right, its code carries more of the image; down, the image comes back better. "
        "On a dashed line the two add up to the same -ELBO, which is written there; lower left is better."
    )
    chart = el("figure", rate_distortion(dots, "clip-rate"))
    return section("Rate against distortion", "rates", el("div", chart, el("p", note), class_="beside"))


def side_by_side(groups: Sequence[Group]) -> Html | None:
    """The same test images, reconstructed by every run."""
    blocks: dict[tuple[str, str], list[Html]] = {}
    for group, run in _pictured(groups):
        rows = strip_rows(run.pictures[STRIP]) if STRIP in run.pictures else None
        if rows is None:
            continue
        clean, seen, made = rows
        lines = blocks.setdefault((clean, seen), [])
        if not lines:
            lines.append(_row(el("b", "test images"), clean, "test images"))
            if seen != clean:
                lines.append(_row(el("span", "with noise, as encoders see them", class_="dim"), seen, "with noise"))
        extra = None if run is group.runs[0] else "more"
        error = run.figures.get("test/noisy_sse" if seen != clean else "test/sse")
        told = [swatch(group), group.label, el("span", _seed_and_error(run, error), class_="dim")]
        lines.append(_row(el("span", *told), made, f"reconstructed by {run.name}", class_=extra, group=group.number))
    if not blocks:
        return None
    tables = [el("table", el("tbody", *lines), class_="strips") for lines in blocks.values()]
    return section("The same images, reconstructed by every run", "images", _fewer(groups), *tables)


def _seed_and_error(run: Entry, error: float | None) -> str:
    said = [f"seed {run.seed}"] if run.seed else []
    return f" {', '.join([*said, *([] if error is None else [f'error {number(error)}'])])}"


def _row(name: Html, address: str, alt: str, class_: str | None = None, group: int | None = None) -> Html:
    return el(
        "tr", el("th", name, scope="row"), el("td", el("img", src=address, alt=alt)), class_=class_, data_group=group
    )


def _fewer(groups: Sequence[Group]) -> Html | None:
    if all(len(group.runs) == 1 for group in groups) or sum(len(group.runs) for group in groups) > SHOWN:
        return None
    return el("p", el("label", el("input", type="checkbox", data_more=True), " every seed"), class_="choice")


def _pictured(groups: Sequence[Group]) -> list[tuple[Group, Entry]]:
    """The runs whose pictures are shown: all, or of many one of each group."""
    every = [(group, run) for group in groups for run in group.runs]
    return every if len(every) <= SHOWN else [(group, group.runs[0]) for group in groups][:SHOWN]


def units(groups: Sequence[Group]) -> Html | None:
    """The pictures that runs have left, one kind at a time: hidden units first."""
    shown = _pictured(groups)
    kinds = dict.fromkeys(name for _, run in shown for name in run.pictures if name != STRIP)
    kinds = dict.fromkeys(
        sorted(kinds, key=lambda name: ("units" not in name, not name.startswith("units"), "hidden" not in name, name))
    )
    buttons, sheets, fresh = [], [], count()
    alone: list[Html] = []
    for kind in kinds:
        cards = []
        for group, run in shown:
            address = embedded(run.pictures[kind]) if kind in run.pictures else None
            if address is None:
                continue
            title = el("figcaption", swatch(group), group.label, el("span", _seed_and_error(run, None), class_="dim"))
            image = el("img", src=address, alt=f"{kind} of {run.name}", loading="lazy")
            if len(shown) == 1:
                title = el("figcaption", kind.translate(SPACED))
            extra = "card" if run is group.runs[0] else "card more"
            cards.append(el("figure", title, image, class_=extra, data_group=group.number))
        if cards:
            first = next(fresh) == 0
            pressed = "true" if first else "false"
            words = kind.translate(SPACED)
            buttons.append(el("button", words, type="button", data_show=kind, aria_pressed=pressed))
            sheets.append(el("div", *cards, class_="cards", data_kind=kind, hidden=not first))
            alone += cards
    if not sheets:
        return None
    if len(shown) == 1:  # all kinds of pictures of the one run
        return section("Hidden units and other pictures", "units", el("div", *alone, class_="cards"))
    return section(
        "Hidden units and other pictures", "units", el("div", *buttons, class_="kinds"), _fewer(groups), *sheets
    )


def speed(groups: Sequence[Group]) -> Html | None:
    """What each group costs."""
    known = [(spread, group) for group in groups if (spread := group.figure("train/seconds_per_epoch"))]
    if len(known) < 2:
        return None
    most = max(spread.mean for spread, _ in known) or 1.0
    rows = []
    for spread, group in known:
        bar = el("div", class_=f"bar {colour(group.number)}", style=f"width:{100 * spread.mean / most:.1f}%")
        weights = group.figure("weights")
        told = f"{number(spread.mean)} s" + (f", {weights.mean:,.0f} weights" if weights else "")
        rows.append(
            el(
                "tr",
                el("th", group.label, scope="row"),
                el("td", bar),
                el("td", told, class_="dim"),
                data_group=group.number,
            )
        )
    note = el("p", "Seconds an epoch of training takes on the machine where it ran; the median over epochs.")
    return section("Speed", "speed", el("table", el("tbody", *rows), class_="bars"), note)


def details(groups: Sequence[Group], runs: Sequence[Entry], table: str) -> Html:
    """Everything else, for those who look for it."""
    tags = main_figures(tag for run in runs for tag in run.figures)
    same = [el("tr", el("th", key, scope="row"), el("td", value)) for key, value in constants(runs).items()]
    those = "Settings that are the same in all runs" if len(runs) > 1 else "Settings"
    parts: list[tuple[str, Callable[[], Html]]] = [
        (f"Every run ({len(runs)})", lambda: every_run(groups, tags)),
        ("Every figure", lambda: every_figure(groups)),
        (those, lambda: el("table", el("tbody", *same), class_="plain")),
    ]
    folded = [el("details", el("summary", title), make(), open=i == 0) for i, (title, make) in enumerate(parts)]
    return section("Details", "details", *folded, el("p", "All of it as a table: ", el("a", table, href=table), "."))
