"""`mode=report`: write one page about a run, a sweep or a folder of runs, or about several that are named."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from aetrain.config.errors import ConfigError
from aetrain.report.comparison import Comparisons, describe_comparisons, differences_csv
from aetrain.report.groups import group_runs
from aetrain.report.members import Member, check_common_test_data, make_members
from aetrain.report.page import FILE_STEM, write_page, write_report
from aetrain.report.run_folders import read_named_runs
from aetrain.report.tables import to_csv
from aetrain.storage import atomic
from aetrain.storage.run_directory import display_path

log = logging.getLogger("aetrain")

OUTPUTS = Path("outputs")
REPORTS = OUTPUTS / "reports"  # the folder of the reports on several folders


def report(run: str | Path | Sequence[str | Path] | None, out: str | Path | None = None, paired: bool = True) -> Path:
    """Write report.html and report.csv, and return the path of the page.

    They are about the runs in and below the folder `run` (outputs/ where it is null), and in that folder, or in `out`.
    Several folders are compared: with `paired`, the errors of their test examples are computed, and the differences are
    in the report and in differences.csv. These reports are in outputs/reports/TIME, or in `out`.
    Raise ConfigError where there is no run, where several folders have nothing in common or a run twice, and where a
    file cannot be written.
    """
    if isinstance(run, Sequence) and not isinstance(run, str):
        page, count = _report_on_folders([Path(folder) for folder in run], out, paired)
    else:
        page, count = _report_on_folder(Path(run or OUTPUTS), out)
    table = display_path(page.with_suffix(".csv"))
    plural = "s"[: count > 1]
    log.info("report: %s (%d run%s)\ntable:  %s", display_path(page), count, plural, table)
    return page


def _report_on_folder(folder: Path, out: str | Path | None) -> tuple[Path, int]:
    target = Path(out) if out else folder
    with _reporting_write_errors(target):
        page, count = write_report(folder, target)
    if not count:
        raise ConfigError(f"run={folder} holds no runs: use a run, a sweep or a folder of runs, such as outputs")
    return page, count


def _report_on_folders(folders: Sequence[Path], out: str | Path | None, paired: bool) -> tuple[Path, int]:
    if len(folders) < 2:
        raise ConfigError("run=[...] compares two or more: for one, use run= without brackets")
    target = Path(out) if out else REPORTS / time.strftime("%Y%m%d-%H%M%S")
    runs_by_folder = read_named_runs(folders, target)
    runs = list(chain(*runs_by_folder))
    check_common_test_data(folders, runs_by_folder)
    groups = group_runs(runs)
    with _reporting_write_errors(target):
        comparisons = _compare(make_members(groups, runs[0]), target) if paired else None
        page = target / f"{FILE_STEM}.html"
        table = page.with_suffix(".csv")
        atomic.replace_text(table, to_csv(groups))
        title = ", ".join(display_path(folder) for folder in folders)
        write_page(page, title, groups, table.name, comparisons=comparisons)
    return page, len(runs)


def _compare(members: Sequence[Member], target: Path) -> Comparisons:
    """Compute the paired differences, write them, and log them."""
    from aetrain.modes.example_errors import compare_members  # imports torch

    comparisons = compare_members(members, target)
    file = target / "differences.csv"
    atomic.replace_text(file, differences_csv(comparisons))
    for line in describe_comparisons(comparisons):
        log.info("%s", line)
    log.info("paired differences: %s", display_path(file))
    return comparisons


@contextmanager
def _reporting_write_errors(target: Path) -> Iterator[None]:
    """Turn an OSError into a ConfigError that names the file and the setting."""
    try:
        yield
    except OSError as error:
        path = error.filename or target
        raise ConfigError(f"{path} cannot be written to: {error.strerror}; use another folder, mode.out=") from error
