"""Train a pack: check that the vectorised model is equivalent to its runs, then train all of them by one `fit`.

Each run has its own directory, event file, checkpoint and metrics, as if it had been trained alone.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from aetrain.config.errors import RunPruned
from aetrain.config.settings import Settings
from aetrain.data.digests import DataDigests, digest_data
from aetrain.data.examples import Splits
from aetrain.model.pca import PCA
from aetrain.runs.build import Components, build
from aetrain.runs.entry import record_error
from aetrain.runs.epoch_selection import check_names, check_pruned, check_split
from aetrain.runs.request import RunRequest
from aetrain.runs.run_data import check_same_data
from aetrain.runs.start_weights import find_start_weights
from aetrain.runs.train import (
    check_measures,
    check_training_images,
    claim_directory,
    evaluate_components,
    load_data,
    log_data,
    pca_baseline,
)
from aetrain.runs.training_run import TrainingRun, reporting_disk_errors
from aetrain.sweeps.packed.equivalence import check_equivalence
from aetrain.sweeps.packed.plan import PackRequest, common_settings, group_by, trainable_runs
from aetrain.sweeps.packed.vectorized import NotVectorizable, Pack, PackedRun, VectorizedBatches
from aetrain.training.backend.setup import backend
from aetrain.training.loop import TrainState, fit
from aetrain.utils.cores import Limit

log = logging.getLogger("aetrain")

MAX_PARALLEL_WRITES = 8  # checkpoints that are written at a time


def train_requests(requests: Sequence[RunRequest], threads: int | None = None) -> None:
    """Train runs of a plan together."""
    with backend(None if threads is None else Limit(threads, "this process's share of the cores")):
        _train(list(trainable_runs(requests).values()))


class PackedTrainingRun:
    """One run of a pack. An error in it is recorded, the run is dropped, and the others continue."""

    def __init__(self, request: RunRequest, settings: Settings, components: Components) -> None:
        self.request = request
        self.settings = settings
        self.components = components
        self.training_run: TrainingRun
        self.active = True
        self._open = ExitStack()

    @property
    def packed_run(self) -> PackedRun:
        """The modules of the run that the pack vectorises."""
        components = self.components
        return PackedRun(
            components.model,
            components.objective,
            components.augment,
            components.noise,
            components.optimizer_steps,
            self.settings.seed,
        )

    @property
    def is_training(self) -> bool:
        """Tell whether training continues: the run was not dropped, and neither its epochs nor its patience end."""
        return self.active and not self.training_run.state.is_last

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Log to the run's own file alone inside, and drop the run where an error is raised."""
        run_dir = self.request.run_dir
        try:
            with run_dir.logging(exclusive=True), reporting_disk_errors(run_dir):
                yield
        except RunPruned as reason:
            self.drop(reason)
        except (Exception, SystemExit) as error:
            log.error("%s is dropped from its pack:", run_dir)
            self.drop(error)

    def begin(self, splits: Splits, data: DataDigests, fit_pca: Callable[[], PCA | None]) -> None:
        """Claim the directory and make the weights that training begins with; `fit_pca` is for all runs of the pack."""
        check_training_images(self.components, splits)
        check_measures(self.components, splits)
        check_split(self.request, self.settings, self.components, splits.held_out[0])
        start_weights = find_start_weights(self.settings, self.components, self.request.run_dir.path)
        check_same_data(self.request.run_dir, data)
        self.request = claim_directory(self.request)
        self.training_run = TrainingRun(self.request, self.settings, self.components, splits, data, fit_pca)
        self._open.enter_context(self.training_run.event_file())
        self.training_run.prepare(start_weights)

    def show(self, epoch: int, metrics: dict[str, float], seconds: float) -> None:
        """Evaluate an epoch and write its metrics and pictures, without a checkpoint."""
        state = self.training_run.state
        state.epoch, state.metrics, state.seconds = epoch, metrics, seconds
        self.training_run.show(state)

    def finish(self, metrics: dict[str, float]) -> None:
        """Write the final metrics and the outcome."""
        self.training_run.finish(metrics)
        self.request.run_dir.record_outcome("finished")

    def drop(self, error: BaseException | None = None, record: bool = True) -> None:
        """Close the run's files; record the error, unless the run is to continue by itself."""
        if not self.active:
            return
        self.active = False
        self._open.__exit__(type(error) if error else None, error, None)
        if error is not None and record:
            record_error(self.request, error)
        self.request.run_dir.release()


class PackChanged(Exception):
    """A run has left the pack, because it was dropped or has stopped early; the others continue without it."""


def _train(requests: Sequence[PackRequest]) -> None:
    """Train all runs in one pack; where that is not possible, those that are equal in all common settings."""
    runs = equivalent_runs(requests)
    if not runs:
        for group in group_by(requests, common_settings).values():
            if 1 < len(group) < len(requests):
                _train([requests[i] for i in group])
    try:
        if len(runs) > 1:
            train_pack(runs)
    except KeyboardInterrupt as interrupt:
        for run in runs:
            run.drop(interrupt)
        raise
    except (Exception, SystemExit) as error:
        log.warning("the pack failed, and its runs continue individually: %s: %s", type(error).__name__, error)
        for run in runs:
            run.drop(error, record=False)


def train_pack(runs: Sequence[PackedTrainingRun]) -> None:
    """Train the runs of a pack from their checkpoints, or from the start, to their final metrics."""
    splits = load_data(runs[0].components)
    data = digest_data(splits)
    log_data(runs[0].components, splits)
    fit_pca = pca_baseline(runs[0].components, splits)
    for run in runs:
        # The settings of the data are those of the pack, and this data set has learnt its conversions.
        run.components = replace(run.components, dataset=runs[0].components.dataset)
        with run.isolated():
            run.begin(splits, data, fit_pca)
            log_data(runs[0].components, splits)  # once more, in the run's own file
    for epoch in sorted({run.training_run.state.epoch for run in runs if run.active}):
        _fit_from(runs, splits, epoch)
    for run in runs:
        if run.active:
            with run.isolated():
                check_pruned(run.training_run.journal, run.training_run.state.stop_reason)
                with run.training_run.final_weights():
                    run.finish(evaluate_components(run.components, splits, fit_pca))
            run.drop()


def _fit_from(runs: Sequence[PackedTrainingRun], splits: Splits, epoch: int) -> None:
    """Train the runs whose checkpoints are of the same epoch to their end; one that leaves stops no other."""
    same = [run for run in runs if run.is_training and run.training_run.state.epoch == epoch]
    while same:
        try:
            _fit(same, splits, epoch)
            return
        except PackChanged:
            same = [run for run in same if run.is_training]
            epoch = max((run.training_run.state.epoch for run in same), default=epoch)


def equivalent_runs(requests: Sequence[PackRequest]) -> list[PackedTrainingRun]:
    """Return the runs of a pack whose equivalence was checked; log the reason and return none where it fails."""
    if reason := _why_individual(requests[0].settings):
        log.info("run individually: %d runs: %s", len(requests), reason)
        return []
    runs, separate, vectorized = [], [], []
    for request in requests:
        try:
            copies = [PackedTrainingRun(request.request, request.settings, build(request.settings)) for _ in range(3)]
            check_names(request.request, request.settings, copies[0].components)
        except Exception:  # reported when the run is tried by itself
            continue
        runs.append(copies[0])
        separate.append(copies[1].packed_run)
        vectorized.append(copies[2].packed_run)
    if len(runs) < 2:
        return []
    try:
        check_equivalence(separate, vectorized)
    except NotVectorizable as reason:
        log.info("run individually: %d runs: %s", len(runs), reason)
        return []
    if requests[0].settings.compile:
        log.info("compile=true is ignored: the steps of a pack are not compiled")
    names = ", ".join(run.request.run_dir.path.name for run in runs)
    log.info("%d runs are trained as one pack: %s", len(runs), names)
    return runs


def _why_individual(settings: Settings) -> str:
    """Return the setting that a pack does not support; an empty string for none."""
    off = {"clip_grad_norm": None, "ema": None, "accumulate_grad_batches": 1}
    used = [name for name, value in off.items() if getattr(settings, name) != value]
    return f"a pack does not support {used[0]}" if used else ""


def _fit(runs: Sequence[PackedTrainingRun], splits: Splits, epoch: int) -> None:
    """Train runs from the same epoch to their end. Raise PackChanged after an epoch in which one left the pack."""
    pack = Pack([run.packed_run for run in runs])
    settings, prepare = runs[0].settings, runs[0].components.dataset.prepare
    state = TrainState(pack.model, settings.seed, settings.epochs, epoch)

    def record(state: TrainState) -> None:
        seconds = state.seconds / len(runs)
        for i, run in enumerate(runs):
            with run.isolated():
                run.show(state.epoch, pack.metrics(state, i), seconds)
        with ThreadPoolExecutor(MAX_PARALLEL_WRITES) as pool:  # most of the time is waiting for the disk
            saves = {run: pool.submit(run.training_run.save) for run in runs if run.active}
        for run, save in saves.items():
            with run.isolated():
                save.result()
        values = (state.epoch, state.epochs, len(runs), state.seconds, seconds)
        log.info("epoch %d/%d | %d runs | %.2f s, %.3f s a run", *values)
        if not state.is_last and not all(run.is_training for run in runs):
            raise PackChanged

    loader = VectorizedBatches(pack, state, splits.train, settings.batch_size, prepare)
    fit(state, pack.optimizer_steps, loader, [record])
