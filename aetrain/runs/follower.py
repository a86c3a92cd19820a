"""A process that follows process 0: it takes the same steps of training on other shards of the batches.

The counterparts of its calls, in the same order, are in `runs/train.py`.
"""

import logging
import signal
import sys
import warnings
from functools import partial
from typing import NoReturn

from aetrain.config.error_messages import explain
from aetrain.config.settings import Settings
from aetrain.data.examples import Batches
from aetrain.runs.build import build
from aetrain.runs.initial_weights import pretrain
from aetrain.runs.process_group import (
    LeaderFailed,
    check_same_weights,
    compile_if_set,
    load_together,
    share_end_of_epoch,
    share_state,
    together,
)
from aetrain.runs.shard_check import check_shards
from aetrain.runs.train import load_data
from aetrain.training.backend.denormals import flush_denormals
from aetrain.training.backend.setup import backend
from aetrain.training.loop import Callback, TrainState, fit
from aetrain.utils import processes
from aetrain.utils.processes import ProcessLost, describe_process


def follow() -> NoReturn:
    """Train beside process 0 what it trains, until it ends; then end this process.

    It logs and writes nothing. An error is told to the user by the first process that notices it, in one message.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # ends also a process that waits for another one
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    try:
        while (settings := processes.broadcast(None)) is not None:
            _train_beside(settings)
    except LeaderFailed:
        pass
    except ProcessLost as error:
        processes.exit_with_message(f"{describe_process()}: another process has ended ({error})", quiet_code=0)
    except Exception as error:
        processes.exit_with_message(f"{describe_process()}: {explain(error)}")
    processes.leave()
    sys.exit(0)


@flush_denormals()  # as process 0
def _train_beside(settings: Settings) -> None:
    """Take the steps of process 0 on shards of its batches."""
    components = together(lambda: build(settings))
    together(lambda: check_shards(settings, components))
    splits = load_together(components, load_data)
    with backend(processes.broadcast(None)):
        state = TrainState(components.model, settings.seed, settings.epochs)
        batches = Batches(splits.train, settings.batch_size, components.dataset.prepare)
        if processes.broadcast(None):
            pretrain(components, batches)
        steps = components.optimizer_steps
        share_state(state, components.training_state, steps)
        compile_if_set(settings, components, batches, state)
        callbacks: list[Callback] = [check_same_weights, partial(share_end_of_epoch, steps=steps)]
        fit(state, steps, batches, callbacks, accumulate=settings.accumulate_grad_batches)
