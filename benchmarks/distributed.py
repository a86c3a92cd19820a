"""The processor time of an epoch in one process and several: `torchrun --nproc-per-node=2 benchmarks/distributed.py`.

Process 0 trains alone, while the others wait, then all train together. Each has one thread. Processor time is that of
one process and contains its messages; beside other programs it is more stable than the time on the clock.
"""

import itertools
import statistics
import time

import torch

from aetrain import api
from aetrain.data.examples import Batches
from aetrain.runs import entry
from aetrain.runs.build import build
from aetrain.training.backend.setup import backend
from aetrain.training.loop import TrainState, fit
from aetrain.utils import processes
from aetrain.utils.cores import Limit

CASES = (("deep", 128), ("deep", 1024), ("conv", 128))
DATA = ("dataset=mnist", "dataset.subset=8192", "dataset.test_subset=100", "views=none", "device=cpu")
EPOCHS = 5  # the median counts


def seconds_per_epoch(model: str, batch_size: int) -> float:
    """Return the processor time of an epoch, in seconds."""
    config, _, overrides = api.compose_config([*DATA, f"model={model}", f"batch_size={batch_size}"])
    components = build(entry.check(config, overrides))
    batches = Batches(components.dataset.load().train, batch_size, components.dataset.prepare)
    times = [time.process_time()]
    state = TrainState(components.model, 0, EPOCHS)
    with backend(Limit(1, "benchmark")):
        fit(state, components.optimizer_steps, batches, [lambda _: times.append(time.process_time())])
    return statistics.median(end - start for start, end in itertools.pairwise(times))


def main() -> None:
    """Print a line for each network and batch size."""
    torch.set_num_threads(1)
    processes.join()
    is_first = processes.rank() == 0
    for case in CASES:
        with processes.act_alone():
            alone = seconds_per_epoch(*case) if is_first else 0.0
        processes.gather_objects(None)  # the others wait
        together = processes.gather_objects(seconds_per_epoch(*case))
        if processes.rank() == 0:
            print(*case, f"alone {alone:.2f} s; of {len(together)} processes: {max(together):.2f} s each")
    processes.leave()


if __name__ == "__main__":
    main()
