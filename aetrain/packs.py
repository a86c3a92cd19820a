"""A pack of runs, told in order: find those that go together, try whether they do, train them by one `fit`.

Each run has its own directory, event file, checkpoint and figures, as if it had been alone.
"""

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, get_args, get_type_hints

import torch

from aetrain.attempt import Attempt, Job, told_of
from aetrain.build import Parts, build
from aetrain.config.leftovers import drop_leftovers
from aetrain.config.validate import locate
from aetrain.data.dataset import Splits
from aetrain.directory import RunDirectory, Taken, flat
from aetrain.experiment import (
    check_images,
    checked,
    claimed,
    load,
    measure,
    nothing_to_do,
    record_failure,
    train,
    yardstick,
)
from aetrain.sweeps import Asked
from aetrain.training.fit import Run, fit
from aetrain.training.libraries import set_up
from aetrain.training.pack import Member, Pack, PackedBatches, Unpackable
from aetrain.training.rehearsal import rehearse

log = logging.getLogger("aetrain")

# What each run of a pack has to itself; of these, any option goes with any other.
OWN = ("optimizer", "schedule", "pretrain", "views", "measures", "seed", "run", "query", "resume", "retry", "trust")

WRITERS = 8  # checkpoints that are written at a time


def plan(runs: Sequence[Asked], size: int) -> tuple[list[int], list[list[int]], int]:
    """The first pack that is to be had among the runs, shared out among the cores.

    Which runs, by number, are dealt with then: the pack's, those that are finished, and those that go with no other,
    which are left as they are; the runs of each process, at most `size`; and how many threads each may have. On a GPU
    there is one process.
    """
    jobs, taken = _jobs(runs)
    numbers = list(jobs)
    groups = {key: [numbers[i] for i in group] for key, group in _grouped(list(jobs.values()), _shared).items()}
    single = [members[0] for members in groups.values() if len(members) == 1]
    for i in single:
        log.info("%s goes by itself: %s", jobs[i].directory, _why(i, jobs))
    pack = next((members for members in groups.values() if len(members) > 1), [])
    cores = 1 if pack and _on_a_gpu(jobs[pack[0]]) else torch.get_num_threads()
    ways = max(1, min(cores, len(pack) // 2))
    pack = pack[: size * ways]
    shares = [pack[i::ways] for i in range(ways)] if pack else []
    return [*taken, *single, *pack], shares, max(1, cores // ways)


def _on_a_gpu(job: Job) -> bool:
    return job.plain["device"] != "cpu" and torch.cuda.is_available()


def run(runs: Sequence[Asked], threads: int | None = None) -> None:
    """Train runs of a plan together."""
    if threads is not None:
        torch.set_num_threads(threads)
    with set_up():
        jobs, _ = _jobs(runs)
        _train(list(jobs.values()))


def _jobs(runs: Sequence[Asked]) -> tuple[dict[int, Job], list[int]]:
    """The runs that are to be trained, by number, and the numbers of the others, which need no more than a word."""
    jobs: dict[int, Job] = {}
    for i, asked in enumerate(runs):
        try:
            drop_leftovers(asked.config, asked.overrides)
            plain = checked(asked.config, asked.overrides)
            job = Job(asked.config, plain, RunDirectory(asked.directory), asked.overrides, single=False)
            if locate(plain["mode"]["_target_"]) is train and nothing_to_do(job) is None:
                jobs[i] = job
        except Exception:  # it is told when the run is tried by itself
            continue
    return jobs, [i for i in range(len(runs)) if i not in jobs]


def _grouped(jobs: Sequence[Job], settings: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> dict[str, list[int]]:
    """The places of the jobs that are equal in some of their settings."""
    groups: dict[str, list[int]] = {}
    for i, job in enumerate(jobs):
        groups.setdefault(repr(sorted(settings(job.plain).items())), []).append(i)
    return groups


def _common(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are not each run's own, by dotted name."""
    return flat({key: value for key, value in plain.items() if key not in OWN})


def _shared(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in which all runs of a pack are equal: of what they have in common all but what is typed a float."""
    whole = {key: value for key, value in plain.items() if key == "dataset" or not isinstance(value, Mapping)}
    return _common({**{key: _without_numbers(value) for key, value in plain.items() if key not in whole}, **whole})


def _without_numbers(node: Mapping[str, Any]) -> dict[str, Any]:
    kinds: Mapping[str, Any] = {}
    if "_target_" in node:
        target = locate(node["_target_"])
        kinds = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    return {
        name: _without_numbers(value) if isinstance(value, Mapping) else value
        for name, value in node.items()
        if not (_is_number(value) and float in (kinds.get(name), *get_args(kinds.get(name))))
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _why(i: int, jobs: Mapping[int, Job]) -> str:
    """In what a run differs from the one that is nearest to it."""
    if len(jobs) == 1:
        return "no other run is left to be trained"
    own, others = _shared(jobs[i].plain), [_shared(job.plain) for j, job in jobs.items() if j != i]
    differ = [sorted(key for key in own.keys() | other.keys() if own.get(key) != other.get(key)) for other in others]
    keys = min(differ, key=len)
    return f"no other run has its {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}"


class Packed:
    """One run of a pack. What goes wrong with it is its own affair: it is recorded, and the run leaves."""

    def __init__(self, job: Job, parts: Parts) -> None:
        self.job = job
        self.parts = parts
        self.attempt: Attempt
        self.aboard = True
        self._open = ExitStack()

    @property
    def member(self) -> Member:
        """What the pack trains."""
        parts = self.parts
        return Member(parts.model, parts.objective, parts.augment, parts.noise, parts.updates, self.job.plain["seed"])

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Something that it does for itself, told in its own log alone."""
        home = self.job.directory
        try:
            with home.logging(alone=True), told_of(home):
                yield
        except (Exception, SystemExit) as error:
            log.error("%s leaves the pack:", home)
            self.leave(error)

    def begin(self, splits: Splits) -> None:
        """Up to the weights that training begins with."""
        check_images(self.parts, splits)
        self.job = claimed(self.job)
        self.attempt = Attempt(self.job, self.parts, splits)
        self._open.enter_context(self.attempt.opened())
        self.attempt.prepare()

    def show(self, epoch: int, metrics: dict[str, float], seconds: float) -> None:
        """The end of an epoch, but for its checkpoint."""
        state = self.attempt.state
        state.epoch, state.metrics, state.seconds = epoch, metrics, seconds
        self.attempt.show(state)

    def leave(self, error: BaseException | None = None, record: bool = True) -> None:
        """Close what is open; the reason, if there is one, is recorded, unless others are to go on with the run."""
        if not self.aboard:
            return
        self.aboard = False
        self._open.__exit__(type(error) if error else None, error, None)
        home = self.job.directory
        if error is not None and record:
            taken = isinstance(error, Taken)
            recorded = not taken and record_failure(home, self.job.config, self.job.overrides, error)
            if not recorded and isinstance(error, Exception):
                home.refuse(str(error))
        home.release()


class _Fewer(Exception):
    """Some run has left, and the others go on without it."""


def _train(jobs: Sequence[Job]) -> None:
    """All in one pack; where they are refused, those together that are equal in all but what is their own."""
    runs = _tried(jobs)
    if not runs:
        equal = [group for group in _grouped(jobs, _common).values() if 1 < len(group) < len(jobs)]
        for group in equal:
            _train([jobs[i] for i in group])
    try:
        if len(runs) > 1:
            _travel(runs)
    except KeyboardInterrupt as stop:
        for run in runs:
            run.leave(stop)
        raise
    except (Exception, SystemExit) as error:
        log.warning("the pack gives up, and its runs go on one by one: %s: %s", type(error).__name__, error)
        for run in runs:
            run.leave(error, record=False)


def _travel(runs: Sequence[Packed]) -> None:
    """From where the runs' directories stand to their last figures."""
    splits = load(runs[0].parts)
    for run in runs:
        with run.alone():
            run.begin(splits)
    for epoch in sorted({run.attempt.state.epoch for run in runs if run.aboard}):
        same = [run for run in runs if run.aboard and run.attempt.state.epoch == epoch]
        at = epoch
        while same:
            try:
                _fit(same, splits, at)
                break
            except _Fewer:
                same = [run for run in same if run.aboard]
                at = max((run.attempt.state.epoch for run in same), default=at)
    pca = yardstick(runs[0].parts, splits)
    for run in runs:
        if run.aboard:
            with run.alone():
                run.attempt.finish(measure(run.parts, splits, pca))
            run.leave()


def _tried(jobs: Sequence[Job]) -> list[Packed]:
    """The runs of a pack that was rehearsed; none, and a sentence, where it is refused."""
    runs = []
    for job in jobs:
        try:
            runs.append((Packed(job, build(job.plain)), Packed(job, build(job.plain)), Packed(job, build(job.plain))))
        except Exception:  # it is told when the run is tried by itself
            continue
    if len(runs) < 2:
        return []
    try:
        rehearse([run[1].member for run in runs], [run[2].member for run in runs])
    except Unpackable as reason:
        log.info("%d runs are not packed and go one by one: %s", len(runs), reason)
        return []
    if jobs[0].plain["compile"]:
        log.info("compile=true is left out: the steps of a pack are not compiled")
    log.info("%d runs are packed: %s", len(runs), ", ".join(run[0].job.directory.path.name for run in runs))
    return [run[0] for run in runs]


def _fit(runs: Sequence[Packed], splits: Splits, epoch: int) -> None:
    """Train runs that stand at the same epoch, together, to their end; _Fewer after an epoch at which one leaves."""
    pack = Pack([run.member for run in runs])
    plain, prepare = runs[0].job.plain, runs[0].parts.dataset.prepare
    state = Run(pack.model, plain["seed"], plain["epochs"], epoch)

    def record(run: Run) -> None:
        each = run.seconds / len(runs)
        for i, one in enumerate(runs):
            with one.alone():
                one.show(run.epoch, pack.metrics(run, i), each)
        with ThreadPoolExecutor(WRITERS) as pool:  # what takes time is waiting for the disk
            saved = {one: pool.submit(one.attempt.save) for one in runs if one.aboard}
        for one, save in saved.items():
            with one.alone():
                save.result()
        log.info(
            "epoch %d/%d | %d runs | %.2f s, %.3f s a run", state.epoch, state.epochs, len(runs), state.seconds, each
        )
        if not all(run.aboard for run in runs):
            raise _Fewer(state)

    batches = PackedBatches(pack, state, splits.train, plain["batch_size"], prepare)
    fit(state, pack.updates, batches, [record])
