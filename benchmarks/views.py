"""Measure the cost of views: `python benchmarks/views.py` (or `... model=vae`) trains and draws in turn.

One process takes turns: an epoch with its metrics, the default views, all views. Other load on the machine therefore
affects all three equally. The median of `--rounds` rounds counts. A run of ten epochs draws its views six times: after
0, 1, 2, 4, 8 and 10 epochs.
"""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from aetrain.api import compose_config
from aetrain.data.examples import Batches
from aetrain.evaluation.evaluator import Evaluator
from aetrain.runs.build import Components, build
from aetrain.runs.entry import check
from aetrain.training.backend.setup import backend
from aetrain.training.loop import TrainState, fit
from aetrain.views.context import context_factory
from aetrain.views.tensorboard import TensorBoardWriter, zero_or_power_of_two

EPOCHS = 10
NUM_DRAWINGS = sum(zero_or_power_of_two(epoch) or epoch == EPOCHS for epoch in range(EPOCHS + 1))


def measure_seconds(action: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def train_and_draw(components: Mapping[str, Components], rounds: int, folder: Path) -> dict[str, list[float]]:
    """Train the model of the last components and draw the views of all; return seconds by name."""
    *_, trained = components.values()
    splits, prepare = trained.dataset.load().to(trained.device), trained.dataset.prepare
    batches, evaluator = Batches(splits.train, 128, prepare), Evaluator(splits.test, prepare, trained.noise)
    state = TrainState(trained.model, seed=0, epochs=0)

    def train_epoch() -> None:
        state.epochs += 1
        fit(state, trained.optimizer_steps, batches)
        evaluator.evaluate_epoch(trained.model, trained.objective)

    writers = {}
    for name, each in components.items():
        make_context = context_factory(trained.model, splits.test, prepare, trained.noise)
        writers[name] = TensorBoardWriter(folder / name, each.views, make_context)
        writers[name].open("")
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        seconds["epoch"].append(measure_seconds(train_epoch))
        for name, writer in writers.items():
            seconds[name].append(measure_seconds(partial(writer.add_pictures, 1)))
            seconds[f"{name}, last"].append(measure_seconds(partial(writer.add_pictures, EPOCHS, last=True)))
    for writer in writers.values():
        writer.writer.close()
    return seconds


@backend()  # as in a run
def main() -> None:
    """Train and draw in turn; print the increase of a run's time by its views."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("settings", nargs="*", metavar="OVERRIDE")
    arguments = parser.parse_args()
    components = {}
    for views in ("default", "all"):
        config, _, overrides = compose_config([*arguments.settings, f"views={views}"])
        components[views] = build(check(config, overrides))
    with tempfile.TemporaryDirectory() as folder:
        seconds = train_and_draw(components, arguments.rounds, Path(folder))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    for views in components:
        drawing = (NUM_DRAWINGS - 1) * median[views] + median[f"{views}, last"]  # the last is also written to figures/
        share = drawing / (EPOCHS * median["epoch"])
        print(
            f"views={views}: {100 * share:.1f} % longer "
            f"({median[views]:.2f} s per drawing, {median['epoch']:.2f} s per epoch)"
        )


if __name__ == "__main__":
    main()
