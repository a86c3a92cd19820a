"""Several processes of one command without `torchrun`, and the components and the comparison that they run."""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from command import Outcome
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch's annotations do not export it

from aetrain import cli
from aetrain.config.errors import ConfigError
from aetrain.config.settings import Settings
from aetrain.data.augment import NoAugmentation
from aetrain.data.examples import Batches, Examples
from aetrain.data.image_dataset import ImageDataset
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.records import Forward
from aetrain.objective.penalties import Penalty
from aetrain.runs import process
from aetrain.runs.build import Components, build
from aetrain.runs.initial_weights import pretrain
from aetrain.runs.shard_check import check_shards
from aetrain.selfcheck.fingerprint import digest
from aetrain.training.loop import TrainState, fit
from aetrain.utils import processes

TIMEOUT_S = 600.0  # time after which a process counts as hanging


def launch(
    count: int,
    task: Callable[..., Any],
    *arguments: Any,
    folder: Path,
    local_ranks: Sequence[int] = (),
    extra: Mapping[str, str] | None = None,
) -> list[Outcome]:
    """Run `task(*arguments)` in several processes, as `torchrun` would, and return their outcomes by rank.

    `extra` are more variables of the environment.
    """
    folder.mkdir(parents=True, exist_ok=True)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # as the agent of torchrun has one
    common = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
    common |= {"MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    started = []
    for rank in range(count):
        local_rank = str(local_ranks[rank] if local_ranks else rank)
        own = {"RANK": str(rank), "LOCAL_RANK": local_rank, "OMP_NUM_THREADS": "1"}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**common, **own, **(extra or {})}.items():
                patch.setenv(name, value)
            started.append(process.start(run_task, folder, task, *arguments))
    for one in started:
        one.join(TIMEOUT_S)
    late = [rank for rank, one in enumerate(started) if one.is_alive()]
    for one in started:
        one.kill()
    assert not late, f"processes {late} do not end"
    return [_outcome(folder, rank, one.exitcode) for rank, one in enumerate(started)]


def _outcome(folder: Path, rank: int, exit_code: int | None) -> Outcome:
    out, err = ((folder / f"{name}{rank}").read_text() for name in ("out", "err"))
    file = folder / f"code{rank}"
    code = int(file.read_text()) if file.exists() else exit_code
    assert code is not None
    return Outcome(code, out, err)


def run_task(folder: Path, task: Callable[..., Any], *arguments: Any) -> None:
    """Run a task with its output in files `out<rank>` and `err<rank>`, and its exit code in `code<rank>`."""
    os.chdir(folder)
    rank = os.environ["RANK"]
    for stream, name in ((1, "out"), (2, "err")):
        file = os.open(f"{name}{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, stream)
    Path(f"code{rank}").unlink(missing_ok=True)
    code: object = 0
    try:
        task(*arguments)
    except SystemExit as error:
        code = error.code or 0
    if isinstance(code, str):  # as the interpreter does
        print(code, file=sys.stderr)
        code = 1
    Path(f"code{rank}").write_text(str(code))


def command(*arguments: str) -> None:
    """Run `aetrain arguments...`."""
    torch.set_num_threads(1)
    sys.argv = ["aetrain", *arguments]
    cli.main()


@dataclass(frozen=True)
class Faulty(NoAugmentation):
    """No augmentation, which in process FAULTY_RANK does FAULT once as many batches as `after` have passed."""

    calls: ClassVar[list[None]] = []
    after: int = 5

    def __call__(self, x: Tensor) -> Tensor:
        self.calls.append(None)
        fault = os.environ.get("FAULT")
        if fault and len(self.calls) > self.after and os.environ["FAULTY_RANK"] == os.environ["RANK"]:
            if fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("the memory is full")
        return x


class UnknownDraws(Penalty):
    """A penalty whose random numbers are those of a shard, not of the batch."""

    description = "a random number per image"

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        z = out.code.z
        return (z * torch.randn_like(z) if self.training else z).sum(1)


class UnknownMean(Penalty):
    """A penalty that depends on the examples of a batch together, and does not say so."""

    description = "the squared mean of the code"

    def forward(self, model: Autoencoder, out: Forward) -> Tensor:
        return out.code.z.mean(0).square().sum()


@dataclass(frozen=True)
class Comparison:
    """The largest differences between training in one process and in several; the reason if several are refused."""

    refused: str = ""
    weights: float = 0.0  # relative to the largest weight of a tensor
    metrics: float = 0.0
    same_in_all: bool = True  # whether the weights of all processes are equal bit for bit


def train(settings: Settings) -> tuple[Components, Mapping[str, float]]:
    """Return the trained components and the metrics of the last epoch, without an evaluation."""
    components = build(settings)
    batches = Batches(components.dataset.load().train, settings.batch_size, components.dataset.prepare)
    pretrain(components, batches)
    state = TrainState(components.model, settings.seed, settings.epochs)
    fit(state, components.optimizer_steps, batches, accumulate=settings.accumulate_grad_batches)
    return components, state.metrics


def compare(cases: Mapping[str, Settings]) -> None:
    """Compare training alone and together in each case; process 0 writes the `Comparison` of each as JSON."""
    torch.set_num_threads(1)
    with in_group():
        results = {name: asdict(_compare(settings)) for name, settings in cases.items()}
        if processes.rank() == 0:
            Path("comparisons.json").write_text(json.dumps(results))


@contextlib.contextmanager
def in_group() -> Iterator[None]:
    processes.join()
    try:
        yield
    finally:
        processes.leave()


def _compare(settings: Settings) -> Comparison:
    try:
        check_shards(settings, build(settings))
    except ConfigError as error:
        return Comparison(refused=str(error))
    together, metrics = train(settings)
    tensors = {**together.model.state_dict(), **together.objective.state_dict()}
    same = len(set(processes.gather_objects(digest(tensors)))) == 1
    if processes.rank() > 0:
        return Comparison()
    with processes.act_alone():
        alone, expected = train(settings)
    pairs = zip({**alone.model.state_dict(), **alone.objective.state_dict()}.values(), tensors.values(), strict=True)
    errors = [_error(a, b) for a, b in pairs if a.is_floating_point()]
    differences = [abs(metrics[name] - value) / max(abs(value), 1e-3) for name, value in expected.items()]
    return Comparison("", max(errors), max(differences), same)


def _error(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / a.abs().max().clamp_min(1e-3)) if a.numel() else 0.0


@dataclass(kw_only=True)
class DataOfMachine(ImageDataset):
    """Random images, of which process 1 has other ones than process 0."""

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        return 1, 8, 8

    def read(self) -> tuple[Examples, ...]:
        generator = torch.Generator().manual_seed(int(os.environ["RANK"]))
        pixels = torch.randint(256, (20, 1, 8, 8), generator=generator, dtype=torch.uint8)
        return Examples(pixels), Examples(pixels[:5].clone().fill_(9))
