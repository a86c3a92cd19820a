"""The weights that training begins with: drawn from the seed, and pretrained."""

from collections.abc import Callable, Mapping

from aetrain.config.errors import error_context
from aetrain.data.examples import Batches
from aetrain.runs.build import Components
from aetrain.training.loop import seed_epoch
from aetrain.training.pretraining.pretrain import PretrainContext


def pretrain(
    components: Components, batches: Batches, record: Callable[[int, Mapping[str, float]], None] = lambda *_: None
) -> None:
    """Pretrain the model of a run; `record` takes each epoch of a stage and its metrics."""
    seed_epoch(components.seed, 0)
    context = PretrainContext(
        batches=batches,
        noise=components.noise,
        objective=components.objective,
        make_optimizer=components.make_optimizer,
        seed=components.seed,
        record=record,
    )
    with error_context("pretrain"):
        components.pretrain(components.model, context)
