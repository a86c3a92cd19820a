"""The run directories of a report: in and below one folder, or those that the user names, symbolic links included."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from aetrain.config.errors import ConfigError
from aetrain.report.natural_order import natural_key
from aetrain.report.runs import RunSummary, read_run, without_evaluations

RUN_FILES = (Path(".hydra", "config.yaml"), Path("aetrain.log"))  # a directory with one of them is a run's


def read_runs(folder: Path, page_folder: Path) -> list[RunSummary]:
    """Return the runs in and below a folder, sorted by path, numbers in it by value.

    Links lead to them from `page_folder`. A directory below a run's, such as that of an evaluation, is not a run unless
    it trains. A run that symbolic links reach as well is returned once, by its path without links if there is one.
    """
    paths = sorted(find_runs(folder), key=lambda path: natural_key(str(path)))
    return without_evaluations([read_run(path, folder, page_folder) for path in paths])


def read_named_runs(folders: Sequence[Path], page_folder: Path) -> list[list[RunSummary]]:
    """Return the runs in and below each of several folders.

    Their names are relative to the folder that holds all of them. Raise ConfigError for a folder without runs, and for
    a run that is named twice.
    """
    absolute = [Path(os.path.abspath(folder)) for folder in folders]  # links stay in names
    common = Path(os.path.commonpath([folder.parent for folder in absolute]))
    owners: dict[str, Path] = {}  # the named folder of each run, by the run's path without links
    runs_by_folder = []
    for typed, folder in zip(folders, absolute, strict=True):
        paths = sorted(find_runs(folder), key=lambda path: natural_key(str(path)))
        runs = without_evaluations([read_run(path, common, page_folder) for path in paths])
        if not runs:
            raise ConfigError(f"run={typed} holds no runs: name a run, a sweep or a folder of runs")
        for run in runs:
            other = owners.setdefault(os.path.realpath(run.path), typed)
            if other is not typed:
                raise ConfigError(f"run=[...] names {run.name} twice, by {other} and by {typed}: drop one of them")
        runs_by_folder.append(runs)
    return runs_by_folder


def find_runs(folder: Path) -> list[Path]:
    """Return the run directories in and below a folder, each once; symbolic links are followed, also in circles."""
    return [path for path in _walk(folder) if any((path / file).is_file() for file in RUN_FILES)]


def _walk(folder: Path) -> Iterator[Path]:
    """Yield a folder and all folders below it, each once: by a path without links, if there is one."""
    pending, links, visited = [folder], list[Path](), set[str]()
    while pending or links:
        current = pending.pop() if pending else links.pop(0)
        real_path = os.path.realpath(current)
        if real_path in visited:
            continue
        visited.add(real_path)
        yield current
        try:
            entries = [entry for entry in os.scandir(current) if entry.is_dir()]
        except OSError:  # no directory, or one that may not be read
            continue
        for entry in entries:
            (links if entry.is_symlink() else pending).append(current / entry.name)
