"""The loop of a search: ask a study for trials, run them, tell it their outcomes, and keep search.json up to date."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from aetrain.config.errors import ConfigError
from aetrain.report.numbers import format_number
from aetrain.storage.run_directory import RunDirectory, display_path
from aetrain.storage.search_file import SearchRecord, write_search
from aetrain.sweeps.search.optuna_study import SEARCH_LOCK
from aetrain.sweeps.search.study import Outcome, Study, Trial, read_outcome

log = logging.getLogger("aetrain")

MAX_FIRST_FAILURES = 3  # a search whose first trials all fail ends: each would fail for the same reason

Launch = Callable[[Sequence[Trial]], Sequence[Path]]  # run trials; return the directories of their runs


def run_search(directory: Path, record: SearchRecord, study: Study, launch: Launch, batch_size: int) -> None:
    """Run trials until the study has no more, `batch_size` at a time; search.json in `directory` says how they ended.

    A failed trial does not end the search. Raise ConfigError where all of the first trials fail.
    """
    num_ended = sum(trial.status != "running" for trial in study.records())
    if num_ended:
        log.info("search: %d trials have ended before", num_ended)
    failures: list[Outcome] = []
    has_success = any(trial.status in ("finished", "pruned") for trial in study.records())
    while trials := study.ask(batch_size):
        write_search(directory, replace(record, trials=study.records()))
        for trial, run in zip(trials, launch(trials), strict=True):
            outcome = read_outcome(RunDirectory(run), record.objective)
            log.info("search: %s", describe_trial(trial, outcome, record))
            if outcome.status == "interrupted":  # the same search continues it
                continue
            study.tell(trial, outcome, _relative(run, directory))
            has_success |= outcome.status != "failed"
            failures += [outcome] if outcome.status == "failed" else []
        write_search(directory, replace(record, trials=study.records()))
        if not has_success and len(failures) >= MAX_FIRST_FAILURES:
            raise ConfigError(
                f"the search ends because its first {len(failures)} trials failed:\n  {failures[0].cause}"
            )
    write_search(directory, replace(record, trials=study.records()))


def describe_trial(trial: Trial, outcome: Outcome, record: SearchRecord) -> str:
    """Return the end of a trial in a line."""
    if outcome.values is None:
        first_line = outcome.cause.partition("\n")[0]
        return f"trial {trial.number} {outcome.status}: {first_line}"
    pairs = zip(record.objective, outcome.values, strict=True)
    return f"trial {trial.number}: " + ", ".join(f"{name} {format_number(value)}" for name, value in pairs)


def _relative(run: Path, directory: Path) -> str:
    absolute, folder = run.absolute(), directory.absolute()
    return absolute.relative_to(folder).as_posix() if absolute.is_relative_to(folder) else str(absolute)


@contextmanager
def searching_in(directory: Path) -> Iterator[None]:
    """Keep other searches out of the directory of a sweep inside."""
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(directory / SEARCH_LOCK, timeout=0):
            yield
    except Timeout:
        raise ConfigError(
            f"{display_path(directory)} has a search in progress: wait for it, or use another hydra.sweep.dir="
        ) from None
