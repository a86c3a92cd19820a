"""The sections of a report. Each answers one question and is None if there is nothing to show."""

from collections.abc import Iterable, Sequence

from aetrain.report.best_epochs import best_epoch_of_single_run
from aetrain.report.charts import Scatter, colour_class, draw_rate_distortion
from aetrain.report.groups import RunGroup, by_test_set, shared_settings
from aetrain.report.html import Block, Html, el, headed_blocks, scrollable, section
from aetrain.report.metrics import SECONDS_PER_EPOCH, main_metrics
from aetrain.report.numbers import format_number
from aetrain.report.pca_losses import pca_losses
from aetrain.report.ranking import Ranking, comparable_groups, ranking_notes, rankings, select_groups
from aetrain.report.runs import RunSummary
from aetrain.report.tables import metric_tables, overview_table, run_link, run_table, setting_choice, swatch

MAX_COMPARISONS = 6  # sentences at the top of the page; the rest is in the table
MAX_FIRST_LINE, MAX_MORE_LINES = 1000, 4000  # characters of the cause of a failure

UNFINISHED = ("stopped", "failed", "interrupted", "damaged")


# --- Headlines --------------------------------------------------------------------------------------------------------


def headlines(groups: Sequence[RunGroup], runs: Sequence[RunSummary]) -> Html:
    """Return the main results as a list of sentences."""
    sentences = [*_comparisons(groups), *_single_result(groups), *best_epoch_of_single_run(runs), *pca_losses(groups)]
    sentences += [*_run_states(runs), *_diagnosis(runs)]
    return el("ul", *sentences, class_="short")


def _comparisons(groups: Sequence[RunGroup]) -> Iterable[Html]:
    """Yield the best group and the next one, of those that may be ranked, for metrics of which less is better."""
    titles = {"test/sse": "Lowest squared error", "test/neg_elbo": "Lowest -ELBO"}
    test_sets = by_test_set(groups)
    if len(test_sets) == 1:  # an epoch of another data set takes another time
        titles[SECONDS_PER_EPOCH] = "Fastest"
    sentences = []
    for tag, title in titles.items():
        all_rankings = rankings(tag, groups)
        names = _comparison_names([[group for _, group in ranking] for ranking in all_rankings])
        for ranking, name in zip(all_rankings, names, strict=True):
            where = f" on {name}" if len(test_sets) > 1 or len(all_rankings) > 1 else ""
            sentences.append(el("li", *_comparison(tag, f"{title}{where}", ranking)))
    yield from sentences[:MAX_COMPARISONS]
    if len(sentences) > MAX_COMPARISONS:
        yield el("li", f"{len(sentences) - MAX_COMPARISONS} more comparisons are bold in the ", _link_to_table(), ".")


def _comparison_names(comparisons: Sequence[Sequence[RunGroup]]) -> list[str]:
    """Return the test images of each list of comparable groups, with the likelihood where two have the same images."""
    test_sets = [groups[0].test_set for groups in comparisons]
    names = []
    for groups, test_set in zip(comparisons, test_sets, strict=True):
        likelihood = groups[0].runs[0].options.get("likelihood", "")
        names.append(f"{test_set}, likelihood={likelihood}" if test_sets.count(test_set) > 1 else test_set)
    return names


def _link_to_table() -> Html:
    return el("a", "table", href="#glance")


def _comparison(tag: str, title: str, ranking: Ranking) -> list[Html | str]:
    """Return `Fastest: vae, 1.2 s per epoch; next is deep with 1.3; the difference is within the spread over seeds.`"""
    (best, best_of), (second, second_of) = ranking[:2]
    unit = " s per epoch" if tag == SECONDS_PER_EPOCH else ""
    text: list[Html | str] = [f"{title}: ", swatch(best_of), el("b", best_of.short_label)]
    text += [f", {format_number(best.mean)}{unit}; next is "]
    text += [swatch(second_of), second_of.short_label, f" with {format_number(second.mean)}"]
    if best.count > 1 and second.count > 1:
        relation = "within"
        if abs(second.mean - best.mean) > best.deviation + second.deviation:
            relation = "larger than"
        text.append(f"; the difference is {relation} the spread over seeds")
    return [*text, "."]


def _single_result(groups: Sequence[RunGroup]) -> Iterable[Html]:
    """Yield the error of the only group, beside that of PCA."""
    error = groups[0].metric("test/sse") if len(groups) == 1 else None
    if error is None:
        return
    pca = groups[0].metric("test/pca_sse")
    comparison = f"; PCA with as many units has {format_number(pca.mean)}" if pca else ""
    yield el("li", "Squared error ", el("b", format_number(error.mean)), f" on the test data{comparison}.")


def _run_states(runs: Sequence[RunSummary]) -> Iterable[Html]:
    """Yield the numbers of runs that did not finish or are running."""
    unfinished = [run for run in runs if run.status in UNFINISHED]
    running = [run for run in runs if run.status == "running"]
    if unfinished:
        link = el("a", f"{len(unfinished)} of {len(runs)} runs", href="#failures")
        yield el("li", link, " did not finish.", class_="bad")
    if running:
        yield el("li", f"{len(running)} of {len(runs)} runs are running.")


def _diagnosis(runs: Sequence[RunSummary]) -> Iterable[Html]:
    """Yield the number of runs in which the diagnostics found a problem."""
    with_findings = [run for run in runs if run.findings]
    if with_findings:
        link = el("a", f"{len(with_findings)} of {len(runs)} runs", href="#diagnostics")
        yield el("li", "The diagnostics found problems in ", link, ".", class_="warn")
    elif any(run.diagnosed for run in runs):
        yield el("li", "The diagnostics found no problems.")


# --- Overview, failures, diagnostics ----------------------------------------------------------------------------------


def overview(groups: Sequence[RunGroup]) -> Html:
    """Return means and spreads of the main metrics."""
    tags = main_metrics(tag for group in groups for run in group.finished for tag in run.metrics)
    sentences = ["Metrics of the test data."]
    if any(len(group.runs) > 1 for group in groups):
        sentences.append("Means over seeds, \N{PLUS-MINUS SIGN} their standard deviation.")
    if len(groups) > 1:
        sentences.append("The best value of a column is bold; a click on a heading sorts.")
        sentences += ranking_notes(tags, groups)
    note = el("p", " ".join(sentences))
    return section("At a glance", "glance", setting_choice(groups), overview_table(groups, tags), note)


def failures(groups: Sequence[RunGroup]) -> Html | None:
    """Return the causes for which runs did not finish, each cause once per group."""
    items = []
    for group in groups:
        by_cause: dict[tuple[str, str], list[RunSummary]] = {}
        for run in group.runs:
            if run.status in UNFINISHED:
                by_cause.setdefault((run.status, _cause_without_path(run)), []).append(run)
        for (status, cause), runs in by_cause.items():
            items += _failure(group, status, cause, runs)
    return section("Runs that did not finish", "failures", el("dl", *items)) if items else None


def _cause_without_path(run: RunSummary) -> str:
    """Return the cause without the run's path, so that it is the same text for several runs."""
    return run.cause.replace(str(run.path.absolute()), "its directory").replace(str(run.path), "its directory")


def _failure(group: RunGroup, status: str, cause: str, runs: Sequence[RunSummary]) -> list[Html]:
    """Return a cause, and links to the runs that have it."""
    links = [[" ", run_link(run, f"seed {run.seed}" if run.seed else run.name)] for run in runs]
    label = el("span", status, class_=f"status {status}")
    term = el("dt", label, " ", swatch(group), el("b", group.label), " -", links, data_group=group.number)
    first, _, rest = cause.partition("\n")
    text = first or "no cause is recorded: the process was killed, or the machine went down"
    more = None
    if rest.strip():
        more = el("details", el("summary", "more"), el("pre", rest.strip()[:MAX_MORE_LINES]))
    return [term, el("dd", text[:MAX_FIRST_LINE], more)]


def diagnostics(groups: Sequence[RunGroup]) -> Html | None:
    """Return the findings of the diagnostics, each kind once per group."""
    items = []
    for group in groups:
        by_name: dict[str, list[tuple[str, str]]] = {}
        for run in group.runs:
            for finding in run.findings:
                by_name.setdefault(finding.what, []).append((finding.evidence, finding.remedy))
        for name, findings in by_name.items():
            count = f" ({len(findings)} of {len(group.runs)} runs)" if len(group.runs) > 1 else ""
            evidence, remedy = findings[0]
            items.append(el("dt", swatch(group), el("b", name), f" - {group.label}{count}", data_group=group.number))
            items.append(el("dd", f"{_sentence(evidence)} {_sentence(remedy)}"))
    return section("Diagnostics", "diagnostics", el("dl", *items)) if items else None


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


# --- Charts -----------------------------------------------------------------------------------------------------------


def rates(groups: Sequence[RunGroup]) -> Html | None:
    """Return charts of rate against distortion (Alemi et al. 2018, "Fixing a broken ELBO", arXiv:1711.00464).

    There is one for each kind of likelihood and set of test images. None if no two runs of one have a KL.
    """
    blocks: list[Block] = []
    comparisons = comparable_groups("test/neg_elbo", groups)
    for members, name in zip(comparisons, _comparison_names(comparisons), strict=True):
        scatters = [Scatter(group.short_label, group.number, _rate_points(group)) for group in members]
        scatters = [scatter for scatter in scatters if scatter.points]
        if sum(len(scatter.points) for scatter in scatters) > 1:
            chart = draw_rate_distortion(scatters, f"clip-rate-{len(blocks)}")
            blocks.append((name, [el("figure", chart)]))
    if not blocks:
        return None
    note = (
        "Each point is a run. Farther right, the code carries more information about its input; farther down, the "
        "reconstruction is better. On a dashed line the two sum to the same -ELBO, its label; lower left is better."
    )
    charts = el("div", *headed_blocks(blocks), class_="charts")
    return section("Rate against distortion", "rates", el("p", note), charts)


def _rate_points(group: RunGroup) -> list[tuple[float, float, str]]:
    """Return the rate and the distortion of each run that has a KL, and a tooltip."""
    points = []
    for run in group.finished:
        if {"test/kl", "test/neg_elbo"} <= run.metrics.keys():
            kl, neg_elbo = run.metrics["test/kl"], run.metrics["test/neg_elbo"]
            points.append((kl, neg_elbo - kl, f"{run.name}: -ELBO {format_number(neg_elbo)}"))
    return points


# --- Speed, details ---------------------------------------------------------------------------------------------------


def speed(groups: Sequence[RunGroup]) -> Html | None:
    """Return the training time and the number of weights of each group."""
    spreads = [(spread, group) for group in groups if (spread := group.metric(SECONDS_PER_EPOCH)) is not None]
    if len(spreads) < 2:
        return None
    slowest = max(spread.mean for spread, _ in spreads) or 1.0
    rows = []
    for spread, group in spreads:
        style = f"width:{100 * spread.mean / slowest:.1f}%"
        bar = el("div", class_=f"bar {colour_class(group.number)}", style=style)
        weights = group.metric("weights")
        text = f"{format_number(spread.mean)} s"
        if weights:
            text += f", {weights.mean:,.0f} weights"
        cells = (
            el("th", group.label, scope="row", title=group.description or None),
            el("td", bar),
            el("td", text, class_="dim"),
        )
        rows.append(el("tr", *cells, data_group=group.number))
    note = el("p", "Seconds per training epoch on the machine of the run, median over epochs.")
    return section("Speed", "speed", scrollable(el("table", el("tbody", *rows), class_="bars")), note)


def details(groups: Sequence[RunGroup], runs: Sequence[RunSummary], csv_name: str) -> Html:
    """Return the tables of all runs, of all metrics and of the shared settings, the last two folded."""
    tags = main_metrics(tag for run in runs for tag in run.metrics)
    table = el("details", el("summary", f"All runs ({len(runs)})"), run_table(groups, tags), open=True)
    drawn, choice = select_groups(groups)
    note = el("p", choice) if choice else None
    metrics = el("details", el("summary", "All metrics"), note, *metric_tables(drawn))
    title = "Settings that are the same in all runs" if len(runs) > 1 else "Settings"
    settings = el("details", el("summary", title), _setting_table(runs))
    link = el("p", "As a table: ", el("a", csv_name, href=csv_name), ".")
    return section("Details", "details", setting_choice(groups), table, metrics, settings, link)


def _setting_table(runs: Sequence[RunSummary]) -> Html:
    """Return a table of the settings that all runs share."""
    rows = [el("tr", el("th", key, scope="row"), el("td", value)) for key, value in shared_settings(runs).items()]
    return scrollable(el("table", el("tbody", *rows), class_="plain"))
