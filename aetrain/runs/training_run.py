"""The state of one training run and all that it writes: at its start, at the end of every epoch, at its end.

Between `prepare` and `finish`, `fit` trains the weights and calls `record` after every epoch.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, fields
from typing import Any

from omegaconf import OmegaConf

from aetrain.config.chosen_options import run_caption
from aetrain.config.errors import ConfigError
from aetrain.config.hparams import config_digest, hparams
from aetrain.config.settings import Settings, flatten
from aetrain.data.digests import DataDigests
from aetrain.data.examples import Batches, Splits, in_order
from aetrain.evaluation.console import epoch_line, final_table, metrics_table, repeated_metrics
from aetrain.evaluation.evaluator import Evaluator, Metrics
from aetrain.evaluation.finding import Finding
from aetrain.evaluation.metric_descriptions import collect_descriptions, describe_metrics
from aetrain.evaluation.sparsity_goal import sparsity_goal
from aetrain.model.pca import PCA
from aetrain.objective.objective import loss_constants, mean_data_constant, recorded_losses
from aetrain.runs.build import Components
from aetrain.runs.epoch_selection import EpochSelection
from aetrain.runs.extension import check_epochs, describe_extension
from aetrain.runs.initial_weights import pretrain
from aetrain.runs.preprocessing import write_state
from aetrain.runs.request import RunRequest
from aetrain.runs.run_data import write_files
from aetrain.runs.run_result import find_problems, log_result
from aetrain.runs.start_weights import StartWeights, apply_start_weights
from aetrain.storage import checkpoint
from aetrain.storage.checkpoint_state import latest_state
from aetrain.storage.descriptions import write_descriptions
from aetrain.storage.old_metrics import NLL_CONSTANT
from aetrain.storage.run_directory import TIMING_METRICS, RunDirectory
from aetrain.training.loop import TrainState
from aetrain.utils import processes
from aetrain.views.annotations import FigureOptions
from aetrain.views.context import ViewContext, context_factory
from aetrain.views.learning_curves import save_learning_curves
from aetrain.views.tensorboard import TensorBoardWriter
from aetrain.views.thumbnail_strip import write_thumbnail_strip

log = logging.getLogger("aetrain")


@contextmanager
def reporting_disk_errors(run_dir: RunDirectory) -> Iterator[None]:
    """Turn a damaged checkpoint, and a disk that cannot be written to, into a ConfigError."""
    try:
        with run_dir.reporting_write_errors():
            yield
    except checkpoint.CheckpointError as error:
        raise ConfigError(str(error)) from error


class TrainingRun:
    """A run from the checkpoint in its directory, which must be claimed, or from the start."""

    def __init__(
        self,
        request: RunRequest,
        settings: Settings,
        components: Components,
        splits: Splits,
        data: DataDigests,
        fit_pca: Callable[[], PCA | None],
    ) -> None:
        model, prepare = components.model, components.dataset.prepare
        self.request = request
        self.run_dir = request.run_dir
        self.settings = settings
        self.components = components
        self.config_yaml = OmegaConf.to_yaml(request.config)
        self.data = data
        self.batches = Batches(splits.train, settings.batch_size, prepare)
        self.held_out_name, held_out = splits.held_out
        self.evaluator = Evaluator(held_out, prepare, components.noise)
        make_context = context_factory(
            model, held_out, prepare, components.noise, split=self.held_out_name, train=splits.train, fit_pca=fit_pca
        )
        measures, noun = components.measures.values(), components.dataset.noun
        self.descriptions = collect_descriptions(components.objective.penalties, measures, noun)
        self.tensorboard = self._tensorboard_writer(make_context)
        self.training_state = components.training_state
        self.state = TrainState(model, settings.seed, settings.epochs)
        self.selection = EpochSelection(request, settings, self.held_out_name)
        self.extension = ""  # of the training by a change of epochs, in words
        self.saved = self._load_checkpoint()
        self.journal = [*self.saved.journal] if self.saved else []
        self.state.stop_reason = self.selection.recorded_stop_reason(self.training_lines)
        self.selection.set_rates(components.optimizer_steps, self.training_lines)
        self.train_constant = mean_data_constant(model, in_order(splits.train, settings.batch_size, prepare))
        self.nll_constant = {NLL_CONSTANT: loss_constants(model)["nll"]}
        self.num_parameters = sum(p.numel() for p in model.parameters())
        self.start_time = time.perf_counter()
        write_files(self.run_dir.path, data)
        write_state(self.run_dir.path, components.dataset)
        self.run_dir.write_history(self.training_lines)
        self.repeated = repeated_metrics(components, self.held_out_name)
        log.info("%s: %s weights, %s", self.run_dir, f"{self.num_parameters:,}", components.device)
        for text in sparsity_goal(model, components.objective.penalties, flatten_settings(settings)).warnings():
            log.warning("%s", text)
        if self.extension:
            log.warning("%s", self.extension)

    def _tensorboard_writer(self, make_context: Callable[[int], ViewContext]) -> TensorBoardWriter:
        return TensorBoardWriter(
            self.run_dir.path,
            self.components.views,
            lambda epoch: make_context(self._epoch_of_weights(epoch)),
            self.descriptions,
            lambda epoch: self._figure_options(self._epoch_of_weights(epoch)),
            self.components.dataset.noun,
        )

    @property
    def training_lines(self) -> list[checkpoint.JournalLine]:
        """The records of the epochs of training, without those of pretraining."""
        return [line for line in self.journal if _is_training_epoch(line)]

    def _load_checkpoint(self) -> checkpoint.Progress | None:
        """Restore the weights, optimizers and epoch of the run's checkpoint, where there is one."""
        saved = checkpoint.resume(self.run_dir.path, self.components.model, self.training_state)
        if saved is None:
            return None
        if self.components.best_weights is not None:  # the checkpoint's model has them
            self.components.best_weights.swap()
        if self.components.weight_average is not None:  # the checkpoint's model has the averaged weights
            self.components.weight_average.swap()
        check_epochs(self.run_dir, saved.epoch, self.state.epochs)
        self.state.epoch = saved.epoch
        if (checkpoint_state := latest_state(self.run_dir.path)) is not None:
            self.extension = describe_extension(self.components, checkpoint_state, self.state)
        return saved

    def _figure_options(self, epoch: int) -> FigureOptions:
        settings = flatten_settings(self.settings)
        caption = run_caption(settings, self.request.overrides, epoch, self.settings.seed)
        return FigureOptions(caption, self.settings.figure_formats, noun=self.components.dataset.noun)

    @contextmanager
    def event_file(self) -> Iterator[None]:
        """Open the run's event file inside."""
        state = self.state
        epoch = state.epoch if self.saved else None
        last = state.epoch if state.is_last else state.epochs
        # The end of a shorter training may have drawn the weights that it kept.
        redraw = self.components.best_weights is not None and not state.is_last
        with self.final_weights() if state.is_last else self.averaged_weights():
            self.tensorboard.open(self.config_yaml, epoch, _curves(self.journal), last, redraw)
        with self.tensorboard.closed_on_error():
            self.start_time = time.perf_counter()
            yield

    def prepare(self, start_weights: StartWeights | None = None) -> None:
        """Make the weights that training begins with and record them as epoch 0; do nothing in a resumed run.

        `start_weights` are those of another run.
        """
        if self.saved is not None:
            return
        components = self.components
        pretrain(components, self.batches, self._record_pretraining)
        if start_weights is not None:
            apply_start_weights(start_weights, components, self.run_dir.path)
        if components.weight_average is not None:
            components.weight_average.store()
        self.record(self.state)

    def _record_pretraining(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record an epoch of pretraining in the journal and the event file."""
        self.journal.append({"epoch": epoch, **metrics, **self.nll_constant})
        self.tensorboard.add_scalars(epoch, metrics)

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Put the moving average of the weights into the model inside, where the run has one."""
        average = self.components.weight_average
        with nullcontext() if average is None else average.applied():
            yield

    @contextmanager
    def final_weights(self) -> Iterator[None]:
        """Put the weights that the run ends with into the model inside: those of the best epoch, or their average."""
        with self.averaged_weights(), self._best_weights():
            yield

    @contextmanager
    def _best_weights(self) -> Iterator[None]:
        best_weights = self.components.best_weights
        with nullcontext() if best_weights is None else best_weights.applied():
            yield

    @property
    def kept_epoch(self) -> int:
        """The epoch whose weights the run ends with, as far as it has come."""
        best = None if self.components.best_weights is None else self.selection.best_epoch(self.training_lines)
        return self.state.epoch if best is None else best

    def _epoch_of_weights(self, epoch: int) -> int:
        """Return the epoch of the weights that the pictures of an epoch show: at the end, those that are kept."""
        return self.kept_epoch if self.state.is_last and epoch == self.state.epoch else epoch

    def record(self, state: TrainState) -> None:
        """Evaluate an epoch, write its metrics and pictures, and save a checkpoint; epoch 0 is before training."""
        with self.averaged_weights():
            with processes.act_alone():  # the others wait, also where a measure trains a classifier
                self.show(state)
            self.save()

    def save(self) -> None:
        """Write the checkpoint of the epoch that was shown last."""
        progress = checkpoint.Progress(self.journal[-1]["epoch"], self.journal)
        with self._best_weights():
            checkpoint.save(
                self.run_dir.path,
                self.components.model,
                self.training_state,
                progress,
                self.config_yaml,
                self.request.overrides,
                self.data.splits,
            )

    def show(self, state: TrainState) -> None:
        """Evaluate an epoch and write its metrics and pictures, without a checkpoint."""
        metrics = self._evaluate_epoch(state)
        line: checkpoint.JournalLine = {"epoch": state.epoch, **metrics, **self.nll_constant}
        line["seconds"] = round(state.seconds, 4)
        self.journal.append(line)
        state.stop_reason = self.selection.record(self.training_lines)
        if self.components.best_weights is not None and self.kept_epoch == state.epoch:
            self.components.best_weights.store()
        self.run_dir.append_history(line)
        self.tensorboard.add_scalars(state.epoch, metrics)
        with self._best_weights() if state.is_last else nullcontext():
            self.tensorboard.add_pictures(state.epoch, last=state.is_last)
        own = {tag: value for tag, value in metrics.items() if tag not in self.repeated}
        noun = self.components.dataset.noun
        log.info("%s", epoch_line(state, own, self.held_out_name, self.batches.num_images, noun))
        self.selection.set_rates(self.components.optimizer_steps, self.training_lines)
        if state.stop_reason:
            log.info("training stops in epoch %d: %s", state.epoch, state.stop_reason)

    def _evaluate_epoch(self, state: TrainState) -> Metrics:
        """Return the metrics of an epoch by tag. Raise ConfigError where one is not finite."""
        model = self.components.model.eval()
        losses = recorded_losses(model, state.metrics, self.train_constant)
        metrics = {f"train/{name}": value for name, value in losses.items()}
        if all(map(math.isfinite, metrics.values())):
            held_out = self.evaluator.evaluate_epoch(model, self.components.objective)
            metrics |= {f"{self.held_out_name}/{name}": value for name, value in held_out.items()}
        for name, value in metrics.items():
            if not math.isfinite(value):
                lr = self.settings.optimizer.get("lr")
                raise ConfigError(
                    f"training diverged in epoch {state.epoch}: {name} is {value}; try a smaller optimizer.lr "
                    f"(it is {lr}); the last good checkpoint is kept in {self.run_dir.path}"
                )
        return metrics

    def finish(self, metrics: Metrics) -> dict[str, Any]:
        """Write the final metrics, their descriptions, findings and pictures; return the content of metrics.json.

        `metrics` are the standard metrics of the trained model and its measures.
        """
        run_dir, state = self.run_dir, self.state
        settings = flatten_settings(self.settings)
        history = [line for line in self.training_lines if line["epoch"] <= self.kept_epoch]
        findings = find_problems(self.components, self.evaluator, self.batches.values, metrics, history, settings)
        if lines := run_dir.history()[1:]:
            metrics["train/seconds_per_epoch"] = sorted(line["seconds"] for line in lines)[len(lines) // 2]
        if self.components.views:
            figures = run_dir.path / "figures"
            if self.components.dataset.kind == "image":
                write_thumbnail_strip(self.tensorboard.make_context(state.epoch), figures / "strip")
            options = self._figure_options(state.epoch)
            noun = self.components.dataset.noun
            save_learning_curves(run_dir.history(), self.descriptions, figures / "curves", options, noun)
        self._close_event_file(metrics, findings, settings)
        run_dir.write_findings([asdict(finding) for finding in findings])
        tags = [tag for line in run_dir.history() for tag in line if "/" in tag]
        descriptions = describe_metrics([*metrics, *tags], self.descriptions)
        write_descriptions(run_dir.path, descriptions)
        run_dir.write_metrics_table(metrics_table(metrics, descriptions))
        content = {
            "status": "finished",
            "epochs": state.epoch,
            "weights": self.num_parameters,
            "seconds": round(time.perf_counter() - self.start_time, 3),
            **self.selection.summary(self.training_lines, state.stop_reason),
            **self.nll_constant,
            **metrics,
        }
        run_dir.write_metrics(content)
        if best := self.selection.describe_best(self.training_lines):
            log.info("%s", best)
        table = final_table(metrics, descriptions, self.components, self.settings.verbose)
        log_result(run_dir, table, findings, bool(self.components.views), self.request.single)
        return content

    def _close_event_file(self, metrics: Metrics, findings: Sequence[Finding], settings: Mapping[str, Any]) -> None:
        """Write the findings and the run's row of the HParams table, and close the event file."""
        text = "\n".join(f"- **{finding.what}**: {finding.evidence}; {finding.remedy}" for finding in findings)
        self.tensorboard.add_note("diagnostics", text or "No findings.")
        if best := self.selection.describe_best(self.training_lines):
            self.tensorboard.add_note("best_epoch", best)
        group = config_digest(settings, self.data.splits)
        self.tensorboard.close(hparams(settings, self.request.overrides), metrics, group)


def flatten_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings of a run by dotted name."""
    return flatten({item.name: getattr(settings, item.name) for item in fields(settings)})


def _is_training_epoch(line: checkpoint.JournalLine) -> bool:
    """Return whether a line of the journal is an epoch of training, not of pretraining."""
    return "seconds" in line


def _curves(journal: Sequence[checkpoint.JournalLine]) -> list[tuple[int, dict[str, float]]]:
    """Return the epochs of a journal, each with its metrics by tag, without timings."""
    curves = []
    for line in journal:
        metrics = {tag: value for tag, value in line.items() if "/" in tag and tag not in TIMING_METRICS}
        curves.append((line["epoch"], metrics))
    return curves
