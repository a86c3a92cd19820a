"""The TensorBoard side of a run: one event file that holds its config, curves, pictures and hyper-parameters."""

import io
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from aetrain.training import disk
from aetrain.training.state import PICTURES
from aetrain.views.exhibits import View
from aetrain.views.scene import Scene

if TYPE_CHECKING:  # importing it takes 0.2 s
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

# The figures that are columns of the HParams table. TensorBoard takes them from one of the runs that it compares, so
# that every run names all of them.
COLUMNS = ("test/sse", "test/nll", "test/neg_elbo", "test/kl", "test/bce", "test/noisy_sse")

PATIENCE = 5.0  # seconds for a broken run's event file to be closed

Curves = Sequence[tuple[int, Mapping[str, float]]]  # an epoch, and its figures by tag

# What `open`, the charts and `close` write anew in each attempt at a run.
ANEW = ("config/", "doctor/", "custom_scalars__", "_hparams_/")


class Logbook:
    """Writes what a run shows: `open`, then `scalars` and `pictures` at each epoch, then `close`.

    `views` may be empty: then no scene is ever set and nothing is drawn.
    """

    def __init__(self, directory: Path, views: Mapping[str, View], scene: Callable[[int], Scene]) -> None:
        self.directory = directory
        self.views = views
        self.scene = scene
        self.epoch = 0
        self.tracked: set[str] = set()  # tags of what `scalars` has written
        self.charted = False

    def open(self, config: str, epoch: int | None = None, curves: Curves = (), last: int | None = None) -> None:
        """Begin the run's one event file, with its config (YAML) as text.

        Taken up again after `epoch` epochs of `last`, it goes on with `curves`, which are what `scalars` was told up
        to there, and with the pictures that an uninterrupted run would have by then, of the old file or of the copies
        beside the checkpoint. All else that an earlier attempt wrote goes.
        """
        from torch.utils.tensorboard import SummaryWriter  # late: it takes 0.2 s

        use_fast_checksums()
        old = event_files(self.directory)
        copies = sorted((self.directory / PICTURES).glob("*"))
        kept = [] if epoch is None else carried_over([*copies, *old], epoch, curves, last)
        # Named apart, as two files of the same second and process would be one.
        self.writer = SummaryWriter(str(self.directory), filename_suffix=f".{len(old)}")
        for event in kept:
            self.writer._get_file_writer().add_event(event, event.step, event.wall_time)
        self.writer.add_text("config", f"```yaml\n{config.rstrip()}\n```", 0)
        for _, figures in curves:
            self.tracked |= figures.keys()
            self._chart(figures)
        self.writer.flush()
        for file in (*old, *(copy for copy in copies if not any(copy.name == str(event.step) for event in kept))):
            file.unlink()
        if epoch is not None and epoch == last:  # figures/ may lack what is in the event file
            self._show(epoch, log=False, save=True)
        self.epoch = epoch or 0

    @contextmanager
    def opened(
        self, config: str, epoch: int | None = None, curves: Curves = (), last: int | None = None
    ) -> Iterator[None]:
        """`open`; what goes wrong inside leaves no thread behind that would go on writing."""
        self.open(config, epoch, curves, last)
        try:
            yield
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        """Close the event file as far as that can be done.

        Ctrl-C may have struck amid the queue of the thread that writes, which would then be waited for in vain.
        """

        def close() -> None:
            with suppress(Exception):  # it may be the file that cannot be written to
                self.writer.close()

        closing = threading.Thread(target=close, daemon=True)
        closing.start()
        closing.join(PATIENCE)

    def scalars(self, epoch: int, figures: Mapping[str, float]) -> None:
        """The figures of an epoch by tag, such as `train/nll` and `test/nll`."""
        self.epoch = epoch
        self.tracked |= figures.keys()
        for tag, value in figures.items():
            self.writer.add_scalar(tag, value, epoch)
        self._chart(figures)
        self.writer.flush()

    def _chart(self, figures: Mapping[str, float]) -> None:
        """Once: a chart for each term that has several curves, with all of them (the page Custom Scalars)."""
        terms = [tag.rpartition("/")[2] for tag in figures]
        shared = [term for term in dict.fromkeys(terms) if terms.count(term) > 1]
        if shared and not self.charted:
            self.writer.add_custom_scalars({"curves": {term: ["Multiline", [rf"^\w+/{term}$"]] for term in shared}})
            self.charted = True

    def pictures(self, epoch: int, last: bool = False) -> None:
        """Every view, at 0, 1, 2, 4, 8, ... epochs and at the last, where pictures are also written to figures/."""
        if not self.views or not (last or zero_or_power_of_two(epoch)):
            return
        with self._copied(epoch):
            self._show(epoch, log=True, save=last)
        self.writer.flush()

    def _show(self, epoch: int, log: bool, save: bool) -> None:
        """Every view of the model as it is, into the event file or to figures/, or both."""
        if not self.views:
            return
        scene = self.scene(epoch)
        written: list[Future[None]] = []
        with ThreadPoolExecutor(1) as pen:  # which writes a view, PNG and all, while the next is drawn; in their order
            for name, view in self.views.items():
                exhibit = view(scene)
                if exhibit is not None and log:
                    written.append(pen.submit(exhibit.log, self.writer, name, epoch))
                if exhibit is not None and save:
                    written.append(pen.submit(exhibit.save, self.directory / "figures" / name))
        for piece in written:
            piece.result()  # which raises what went wrong

    def note(self, tag: str, text: str) -> None:
        """A text (markdown) on the page Text."""
        self.writer.add_text(tag, text, self.epoch)

    @contextmanager
    def _copied(self, epoch: int) -> Iterator[None]:
        """What is shown inside also goes into a file of its own, from which an event file that is lost is made anew.

        It is on the disk before the epoch's checkpoint. A zip file has checksums like an event file.
        """
        shown: list[bytes] = []
        file = self.writer._get_file_writer()
        show = file.add_event

        def show_and_copy(event: "Event", *when: float | None) -> None:
            show(event, *when)  # which gives it its step and time
            shown.append(event.SerializeToString())

        file.add_event = show_and_copy
        try:
            yield
        finally:
            file.add_event = show
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as copies:
            for number, event in enumerate(shown):
                copies.writestr(f"{number:04}", event)
        disk.replace(self.directory / PICTURES / str(epoch), content.getvalue())

    def close(
        self,
        hparams: Mapping[str, int | float | str | bool],
        metrics: Mapping[str, float],
        trial: str,
        columns: Mapping[str, bool] | None = None,
    ) -> None:
        """The run's row in the HParams table, and the end of the file.

        Runs with an equal `trial` are one row of averages, so it and `hparams` leave the seed out. `columns` are the
        hyper-parameters that the table has, those before the others that are True; all of the run's own where nothing
        is said. Of `metrics`, by tag, the main ones are columns, too; one that no epoch has written is written now, or
        its column would be empty.
        """
        from tensorboard.plugins.hparams import summary_v2 as hp

        for tag in COLUMNS:
            if tag in metrics and tag not in self.tracked:
                self.writer.add_scalar(tag, metrics[tag], self.epoch)
        file = self.writer._get_file_writer()
        file.add_summary(_table(dict.fromkeys(hparams, False) if columns is None else columns))
        file.add_summary(hp.hparams_pb(dict(hparams), trial_id=trial))
        self.writer.close()


def use_fast_checksums() -> None:
    """Let TensorBoard leave the checksums of its records (CRC-32C) to a library in C.

    Its own are computed in Python byte by byte, by a thread that runs beside training and takes time from it: as much
    as drawing the pictures did.
    """
    import google_crc32c
    from tensorboard.compat.tensorflow_stub import pywrap_tensorflow

    if google_crc32c.implementation == "c":
        pywrap_tensorflow.crc32c = google_crc32c.value


def _table(columns: Mapping[str, bool]) -> "Summary":
    """What says how the HParams table looks; TensorBoard puts those columns first that are marked as differing."""
    from tensorboard.plugins.hparams import summary_v2 as hp
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    metrics = [hp.Metric(tag, display_name=tag.replace("/", " ")) for tag in COLUMNS]
    summary: Summary = hp.hparams_config_pb(hparams=[hp.HParam(name) for name in columns], metrics=metrics)
    (value,) = summary.value
    table = HParamsPluginData.FromString(value.metadata.plugin_data.content)
    for info in table.experiment.hparam_infos:
        info.differs = columns[info.name]
    value.metadata.plugin_data.content = table.SerializeToString()
    return summary


def zero_or_power_of_two(epoch: int) -> bool:
    """Whether it is one of 0, 1, 2, 4, 8, ..."""
    return epoch & (epoch - 1) == 0


def event_files(directory: Path) -> list[Path]:
    """The event files of a run: one, but for what a kill may leave."""
    return sorted(file for file in directory.glob("events.out.tfevents.*") if file.is_file())


def carried_over(old: Sequence[Path], epoch: int, curves: Curves, last: int | None) -> list["Event"]:
    """The curves as events, at the times when they were written, and the pictures of the old files up to `epoch`.

    A picture in several files is taken from the last.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    # By step and tags, as a picture is in its copy, too, and a kill may have left both an old file and a new one.
    known = {key(event): event for file in old for event in events(file)}
    times = {key: event.wall_time for key, event in known.items()}
    points = [
        Event(
            step=step,
            wall_time=times.get((step, (tag,)), time.time()),
            summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]),
        )
        for step, figures in curves
        for tag, value in figures.items()
    ]
    pictures = [
        event
        for event in known.values()
        if not any(value.HasField("simple_value") for value in event.summary.value)
        if event.step <= epoch and (zero_or_power_of_two(event.step) or event.step == last)
    ]
    return sorted([*points, *pictures], key=lambda event: event.step)


def events(file: Path) -> Iterator["Event"]:
    """What a run itself wrote into an event file or a copy, as far as one that was cut short or damaged can be read."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    try:
        for content in _copied_records(file) if file.parent.name == PICTURES else _records(file):
            event = Event.FromString(content)
            if any(not value.tag.startswith(ANEW) for value in event.summary.value):
                yield event
    except (OSError, ValueError, DecodeError, zipfile.BadZipFile, zlib.error):
        return


def _records(file: Path) -> Iterator[bytes]:
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

    use_fast_checksums()
    yield from RawEventFileLoader(str(file)).Load()


def _copied_records(file: Path) -> Iterator[bytes]:
    with zipfile.ZipFile(file) as copies:
        for name in copies.namelist():
            yield copies.read(name)


def key(event: "Event") -> tuple[int, tuple[str, ...]]:
    """What tells an event from all others of its run."""
    return event.step, tuple(value.tag for value in event.summary.value)
