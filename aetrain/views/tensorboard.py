"""The TensorBoard event file of a run, which holds its config, curves, pictures and hyperparameters."""

import io
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from aetrain.config.renames import TAGS
from aetrain.evaluation.metric_names import HPARAM_METRICS, find_pattern
from aetrain.storage import atomic
from aetrain.storage.checkpoint_state import PICTURES
from aetrain.utils import compat
from aetrain.views.annotations import DEFAULT_OPTIONS, FigureOptions
from aetrain.views.context import ViewContext
from aetrain.views.view import View, describe_view, selects_units

if TYPE_CHECKING:  # the import takes 0.2 s
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

MAX_CLOSE_SECONDS = 5.0  # to wait for the event file of a failed run to close

Curves = Sequence[tuple[int, Mapping[str, float]]]  # an epoch, and its metrics by tag

# Tags that each start of a run writes again, with their names in runs of earlier versions.
REWRITTEN_TAGS = ("config/", "diagnostics/", "best_epoch/", *TAGS, "custom_scalars__", "_hparams_/")


class TensorBoardWriter:
    """Writes a run's event file: `open`, then `add_scalars` and `add_pictures` at each epoch, then `close`.
    An error after `open` is raised in `closed_on_error`.

    `make_context` returns the context of an epoch for the views. It is not called where `views` is empty.
    `descriptions` are those of metrics, by name or pattern. TensorBoard shows them, and those of the views.
    `figure_options` returns the caption and the formats of the figures of an epoch. `noun` is the word for an example.
    """

    def __init__(
        self,
        directory: Path,
        views: Mapping[str, View],
        make_context: Callable[[int], ViewContext],
        descriptions: Mapping[str, str] | None = None,
        figure_options: Callable[[int], FigureOptions] = lambda epoch: DEFAULT_OPTIONS,
        noun: str = "image",
    ) -> None:
        self.directory = directory
        self.views = views
        self.make_context = make_context
        self.descriptions = descriptions or {}
        self.figure_options = figure_options
        self.noun = noun
        self.epoch = 0
        self.written_tags: set[str] = set()  # of scalars
        self.has_charts = False

    def open(
        self,
        config: str,
        epoch: int | None = None,
        curves: Curves = (),
        last: int | None = None,
        redraw: bool = False,
    ) -> None:
        """Begin the run's event file, with its config (YAML) as text.

        A run that resumes after `epoch` of `last` epochs gets `curves`, the scalars up to that epoch, and the pictures
        that an uninterrupted run would have by then, from the old event file or from the copies beside the checkpoint.
        Nothing else of an earlier start is kept. `redraw` draws the pictures of `epoch` again, from the model.
        """
        from torch.utils.tensorboard import SummaryWriter  # takes 0.2 s

        compat.use_fast_checksums()
        old_files = event_files(self.directory)
        copies = sorted((self.directory / PICTURES).glob("*"))
        replayed = [] if epoch is None else replayed_events([*copies, *old_files], epoch - redraw, curves, last)
        # Without the suffix, two files of the same second and process would have one name.
        self.writer = SummaryWriter(str(self.directory), filename_suffix=f".{len(old_files)}")
        self._describe_events()
        for event in replayed:
            compat.add_event(self.writer, event)
        self.writer.add_text("config", f"```yaml\n{config.rstrip()}\n```", 0)
        for _, metrics in curves:
            self.written_tags |= metrics.keys()
            self._add_charts(metrics)
        self.writer.flush()
        replayed_steps = {str(event.step) for event in replayed}
        for file in (*old_files, *(copy for copy in copies if copy.name not in replayed_steps)):
            file.unlink()
        if epoch is not None and epoch == last:  # figures/ may lack pictures that the event file has
            self._draw_views(epoch, log=False, save=True)
        elif epoch is not None and redraw:
            self.add_pictures(epoch)
        self.epoch = epoch or 0

    @contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Close the event file where the block raises, so that no thread continues to write to it."""
        try:
            yield
        except BaseException:
            self._abort()
            raise

    def _abort(self) -> None:
        """Close the event file, within `MAX_CLOSE_SECONDS`.

        An interrupt (Ctrl-C) inside the queue of the writing thread may block the queue, so that `close` never returns.
        """

        def close() -> None:
            with suppress(Exception):  # the failure may be that the file cannot be written
                self.writer.close()

        closing = threading.Thread(target=close, daemon=True)
        closing.start()
        closing.join(MAX_CLOSE_SECONDS)

    def _describe_events(self) -> None:
        """Add its description to the first value of each tag, from which TensorBoard reads it."""
        event_writer = compat.event_writer(self.writer)
        add_event = event_writer.add_event
        described_tags: set[str] = set()

        def describe_and_add_event(event: "Event", *step_and_time: float | None) -> None:
            for value in event.summary.value:
                text = "" if value.tag in described_tags else self._description(value.tag)
                if text:
                    describe_value(value, text)
                    described_tags.add(value.tag)
            add_event(event, *step_and_time)

        event_writer.add_event = describe_and_add_event

    def _description(self, tag: str) -> str:
        """Return the description of a metric such as `test/sse`, or of the view `views/NAME` or `views_NAME/LAYER`."""
        group, _, name = tag.partition("/")
        if group == "views":
            return describe_view(self.views.get(name), self.noun)
        if group.startswith("views_"):
            return describe_view(self.views.get(group.removeprefix("views_")), self.noun)
        return self.descriptions.get(find_pattern(name, self.descriptions), "")

    def add_scalars(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics of an epoch by tag, such as `train/nll` and `test/nll`."""
        self.epoch = epoch
        self.written_tags |= metrics.keys()
        for tag, value in metrics.items():
            self.writer.add_scalar(tag, value, epoch)
        self._add_charts(metrics)
        self.writer.flush()

    def _add_charts(self, metrics: Mapping[str, float]) -> None:
        """Add the page Custom Scalars, once: a chart for each metric that several splits have, with their curves."""
        names = [tag.rpartition("/")[2] for tag in metrics]
        shared = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if shared and not self.has_charts:
            self.writer.add_custom_scalars({"curves": {name: ["Multiline", [rf"^\w+/{name}$"]] for name in shared}})
            self.has_charts = True

    def add_pictures(self, epoch: int, last: bool = False) -> None:
        """Draw every view at epochs 0, 1, 2, 4, 8, ... and at the last, where figures/ is written, too."""
        if not self.views or not (last or zero_or_power_of_two(epoch)):
            return
        with self._copy_events(epoch):
            self._draw_views(epoch, log=True, save=last)
        self.writer.flush()

    def _draw_views(self, epoch: int, log: bool, save: bool) -> None:
        """Draw every view; `log` the outputs to the event file, `save` them to figures/."""
        if not self.views:
            return
        context, options = self.make_context(epoch), self.figure_options(epoch)
        final_context = context.for_figures() if save else context
        writes: list[Future[None]] = []
        # One thread compresses and writes outputs, in order, while this thread draws the next view.
        with ThreadPoolExecutor(1) as executor:
            for name, view in self.views.items():
                has_final_form = save and selects_units(view)
                output = view(context) if log or not has_final_form else None
                if output is not None and log:
                    writes.append(executor.submit(output.log, self.writer, name, epoch))
                final_output = view(final_context) if has_final_form else output
                if final_output is not None and save:
                    described = replace(options, description=describe_view(view, self.noun))
                    writes.append(executor.submit(final_output.save, self.directory / "figures" / name, described))
        for write in writes:
            write.result()  # raises the thread's exception

    def add_note(self, tag: str, text: str) -> None:
        """Write a text (Markdown) on the page Text."""
        self.writer.add_text(tag, text, self.epoch)

    @contextmanager
    def _copy_events(self, epoch: int) -> Iterator[None]:
        """Copy the events that the block writes to a file of their own, from which a lost event file can be rebuilt.

        The copy is on the disk before the epoch's checkpoint. It is a zip file, which has checksums like an event file.
        """
        contents: list[bytes] = []
        event_writer = compat.event_writer(self.writer)
        add_event = event_writer.add_event

        def add_and_copy_event(event: "Event", *step_and_time: float | None) -> None:
            add_event(event, *step_and_time)  # sets the event's step and time
            contents.append(event.SerializeToString())

        event_writer.add_event = add_and_copy_event
        try:
            yield
        finally:
            event_writer.add_event = add_event
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as copies:
            for number, content in enumerate(contents):
                copies.writestr(f"{number:04}", content)
        atomic.replace(self.directory / PICTURES / str(epoch), archive.getvalue())

    def close(self, hparams: Mapping[str, int | float | str | bool], metrics: Mapping[str, float], group: str) -> None:
        """Write the run's row of the HParams table, and close the file.

        Runs with an equal `group` are averaged in one row, so `group` and `hparams` leave out the seed. TensorBoard
        finds the columns in the runs that it compares: no run describes the table, because TensorBoard would use the
        description of any one of them for all. If no epoch has written one of `HPARAM_METRICS`, it is written here,
        because its column would otherwise be empty.
        """
        from tensorboard.plugins.hparams import summary_v2 as hp

        for tag in HPARAM_METRICS:
            if tag in metrics and tag not in self.written_tags:
                self.writer.add_scalar(tag, metrics[tag], self.epoch)
        compat.add_summary(self.writer, hp.hparams_pb(dict(hparams), trial_id=group))
        self.writer.close()


def describe_value(value: "Summary.Value", text: str) -> None:
    """Set the description of a scalar, a picture or a histogram.

    TensorBoard's default reader ignores it, unless the plugin and the class of the data are set as well.
    """
    from tensorboard.compat.proto import summary_pb2

    plugins = {
        "simple_value": ("scalars", summary_pb2.DATA_CLASS_SCALAR),
        "image": ("images", summary_pb2.DATA_CLASS_BLOB_SEQUENCE),
        "histo": ("histograms", summary_pb2.DATA_CLASS_TENSOR),
    }
    kind = value.WhichOneof("value")
    if kind in plugins:
        value.metadata.plugin_data.plugin_name, value.metadata.data_class = plugins[kind]
        value.metadata.summary_description = text


def zero_or_power_of_two(epoch: int) -> bool:
    """Return whether `epoch` is one of 0, 1, 2, 4, 8, ..."""
    return epoch & (epoch - 1) == 0


def event_files(directory: Path) -> list[Path]:
    """Return the event files of a run: one, or more where a run was killed."""
    return sorted(file for file in directory.glob("events.out.tfevents.*") if file.is_file())


def replayed_events(old_files: Sequence[Path], epoch: int, curves: Curves, last: int | None) -> list["Event"]:
    """Return `curves` as events with their original times, and the pictures of `old_files` up to `epoch`, by step.

    A picture in several files is taken from the last file.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    # A picture is in the event file and in its copy, and a kill may leave two event files: the key removes duplicates.
    old_events = {event_key(event): event for file in old_files for event in read_events(file)}
    times = {key: event.wall_time for key, event in old_events.items()}
    points = [
        Event(
            step=step,
            wall_time=times.get((step, (tag,)), time.time()),
            summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]),
        )
        for step, metrics in curves
        for tag, value in metrics.items()
    ]
    pictures = [
        event
        for event in old_events.values()
        if not _has_scalar(event) and event.step <= epoch and (zero_or_power_of_two(event.step) or event.step == last)
    ]
    return sorted([*points, *pictures], key=lambda event: event.step)


def _has_scalar(event: "Event") -> bool:
    return any(value.HasField("simple_value") for value in event.summary.value)


def read_events(file: Path) -> Iterator["Event"]:
    """Yield the scalars and pictures of an event file or of a copy, up to the first damaged record."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    try:
        for content in _read_copies(file) if file.parent.name == PICTURES else _read_records(file):
            event = Event.FromString(content)
            if any(not value.tag.startswith(REWRITTEN_TAGS) for value in event.summary.value):
                yield event
    except (OSError, ValueError, DecodeError, zipfile.BadZipFile, zlib.error):
        return


def _read_records(file: Path) -> Iterator[bytes]:
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

    compat.use_fast_checksums()
    yield from RawEventFileLoader(str(file)).Load()


def _read_copies(file: Path) -> Iterator[bytes]:
    with zipfile.ZipFile(file) as copies:
        for name in copies.namelist():
            yield copies.read(name)


def event_key(event: "Event") -> tuple[int, tuple[str, ...]]:
    """Return the step and the tags of an event, which no two events of a run share."""
    return event.step, tuple(value.tag for value in event.summary.value)
