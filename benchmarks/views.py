"""What looking costs a default run: `python benchmarks/views.py` (or `... model=vae`) trains and looks in turn.

An epoch with the figures after it, a look with the default views and one with all of them follow each other in one
process, so that a busy machine is equally busy for each; of each the middle one of `--rounds` counts. A run of ten
epochs looks six times: at 0, 1, 2, 4, 8 and 10 epochs.
"""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from aetrain import api
from aetrain.data.images import Batches
from aetrain.evaluation.evaluator import Evaluator
from aetrain.runs import train
from aetrain.runs.build import build
from aetrain.training.backend.setup import set_up
from aetrain.training.loop import Run, fit
from aetrain.views.context import context_factory
from aetrain.views.tensorboard import TensorBoardWriter, zero_or_power_of_two

EPOCHS = 10
LOOKS = sum(zero_or_power_of_two(epoch) or epoch == EPOCHS for epoch in range(EPOCHS + 1))


def timed(action: Callable[[], object]) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


@set_up()  # as the command does
def main() -> None:
    """Train and look in turn; print what a run with views takes longer than one without."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("settings", nargs="*")
    asked = parser.parse_args()
    built = {}
    for views in ("default", "all"):
        config, _, said = api.composed([*asked.settings, f"views={views}"])
        built[views] = build(train.checked(config, said))
    parts = built["all"]
    splits = parts.dataset.load().to(parts.device)
    prepare = parts.dataset.prepare
    batches, evaluator = Batches(splits.train, 128, prepare), Evaluator(splits.test, prepare, parts.noise)
    run = Run(parts.model, seed=0, epochs=0)

    def epoch() -> None:
        run.epochs += 1
        fit(run, parts.updates, batches)
        evaluator.evaluate_epoch(parts.model, parts.objective)

    seconds: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        books = {
            views: TensorBoardWriter(
                Path(folder) / views, of_views.views, context_factory(parts.model, splits.test, prepare, parts.noise)
            )
            for views, of_views in built.items()
        }
        for book in books.values():
            book.open("")
        for _ in range(asked.rounds):
            seconds["epoch"].append(timed(epoch))
            for views, book in books.items():
                seconds[views].append(timed(lambda book=book: book.add_pictures(1)))
                seconds[f"{views}, last"].append(timed(lambda book=book: book.add_pictures(EPOCHS, last=True)))
        for book in books.values():
            book.writer.close()
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    for views in books:
        looks = (LOOKS - 1) * middle[views] + middle[f"{views}, last"]  # the last is also written to figures/
        share = looks / (EPOCHS * middle["epoch"])
        print(
            f"views={views}: {100 * share:.1f} % longer ({middle[views]:.2f} s a look, {middle['epoch']:.2f} an epoch)"
        )


if __name__ == "__main__":
    main()
