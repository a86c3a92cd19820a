"""From a config to the cast of an experiment: every component built, and known to fit, before any data is read."""

import copy
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import Any

import torch
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.optim import Optimizer

from aetrain.config.errors import ConfigError, blamed_on
from aetrain.config.validate import locate
from aetrain.data.augment import Augment
from aetrain.data.dataset import Dataset
from aetrain.data.noise import Noise
from aetrain.evaluation.measures import Measure
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.layers import Paced, Settled
from aetrain.objective.objective import Objective, Terms
from aetrain.objective.penalties import Critic
from aetrain.training.fit import Update
from aetrain.training.precision import arithmetic
from aetrain.training.pretrain import Pretrain

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]


@dataclass(frozen=True)
class Parts:
    """The cast of an experiment. No data has been read."""

    dataset: Dataset
    model: Autoencoder
    objective: Objective
    augment: Augment
    noise: Noise
    pretrain: Pretrain
    updates: Sequence[Update]
    make_optimizer: MakeOptimizer
    views: Mapping[str, Any]
    measures: Mapping[str, Measure]
    device: torch.device
    seed: int
    untrained: Callable[[], Autoencoder]  # the model as it was first drawn; seeds the global generator

    @property
    def optimizers(self) -> list[Optimizer]:
        """The optimizers of the updates, in their order."""
        return [update.optimizer for update in self.updates]


def build(plain: Mapping[str, Any]) -> Parts:
    """Build what a validated config names; a ConfigError where parts do not fit."""
    device = _device(plain["device"])
    dataset = _make("dataset", plain)()
    likelihood = _make("likelihood", plain)(scale=tuple(dataset.scale))
    augment = _make("augment", plain)()
    if augment.blends and dataset.binarize != "none":
        raise ConfigError(
            f"augment={type(augment).__name__.lower()} would make grey pixels of black and white ones: use "
            f"augment=none, or dataset.binarize=none (it is {dataset.binarize})"
        )
    noise = _make("noise", plain)()
    sparsity = _make("sparsity", plain)()
    schedule = _make("schedule", plain)()
    pretrain = _make("pretrain", plain)()
    views = {name: _make(f"views.{name}", plain)() for name in plain["views"]}
    measures: dict[str, Measure] = {name: _make(f"measures.{name}", plain)() for name in plain["measures"]}

    net = {key: value for key, value in plain["model"].items() if key != "penalties"}
    own = net.pop("code_activation", None)
    if sparsity.code_activation is not None and own not in (None, sparsity.code_activation):
        raise ConfigError(
            f"model.code_activation={own} does not go with this sparsity, which needs {sparsity.code_activation} "
            "units: leave it null, or drop the sparsity"
        )
    with blamed_on("dataset"):
        image_shape = dataset.image_shape

    def draw() -> Autoencoder:
        torch.manual_seed(plain["seed"])
        drawn: Autoencoder = _make("model", {"model": net})(
            image_shape=image_shape,
            likelihood=likelihood,
            sparsifier=copy.deepcopy(sparsity.sparsifier),
            scale=tuple(dataset.scale),
            code_activation=sparsity.code_activation or own,
        )
        return drawn

    model = draw()
    names = plain["model"].get("penalties") or {}
    for name, node in names.items():
        if "_target_" not in (node or {}):  # such as an experiment's settings of a penalty that another model has
            raise ConfigError(f"model.penalties.{name} has no _target_: this model has no such penalty of its own")
    penalties = {name: _make(f"model.penalties.{name}", plain)(**_asked(name, plain, model)) for name in names}
    objective = Objective({**penalties, **sparsity.penalties})
    with blamed_on("model"):
        objective.check(model)
    with blamed_on("pretrain"):
        pretrain.check(model)
    for name, measure in measures.items():
        with blamed_on(f"measures.{name}"):
            measure.check(model)

    model, objective = model.to(device), objective.to(device)
    make_optimizer = _make("optimizer", plain)
    compute = arithmetic(plain["precision"], device, model)
    settle = [module.settle for module in model.modules() if isinstance(module, Settled)]
    pace = [module.pace for part in (model, objective) for module in part.modules() if isinstance(module, Paced)]

    def descend(parameters: Iterable[nn.Parameter], terms: Callable[[Tensor], Terms], name: str = "") -> Update:
        optimizer = make_optimizer(parameters)
        return Update(terms, optimizer, [*schedule.hooks(optimizer), *pace], settle, name)

    def autoencode(x: Tensor) -> Terms:
        x = augment(x)
        return objective(model, compute(model, noise(x), x))

    def criticise(name: str, critic: Critic) -> Update:
        return descend(critic.parameters(), lambda x: critic.terms(model, noise(augment(x))), name)

    updates = [descend(model.parameters(), autoencode), *starmap(criticise, objective.critics.items())]

    def untrained() -> Autoencoder:
        return draw().to(device)

    cast = (dataset, model, objective, augment, noise, pretrain, updates, make_optimizer, views, measures, device)
    return Parts(*cast, plain["seed"], untrained)


def _asked(name: str, plain: Mapping[str, Any], model: Autoencoder) -> dict[str, int]:
    """What a penalty's signature asks for that only the model can say."""
    parameters = inspect.signature(locate(plain["model"]["penalties"][name]["_target_"])).parameters
    return {"code_dim": model.code_dim} if "code_dim" in parameters else {}


def _make(key: str, plain: Mapping[str, Any]) -> Callable[..., Any]:
    """The component at a key, waiting for what only the experiment can give it; refusals name the key."""
    node: Any = plain
    for name in key.split("."):
        node = node[name]

    def make(*given: Any, **named: Any) -> Any:
        with blamed_on(key, node):
            try:
                return instantiate({**node, "_partial_": True}, _convert_="all")(*given, **named)
            except TypeError as error:
                raise ConfigError(f"{key}: {error}") from error
            except Exception as error:  # Hydra wraps what a nested component raises
                if isinstance(error.__cause__, ValueError):
                    raise error.__cause__ from None
                raise

    return make


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda: torch finds no CUDA device here: use device=auto or device=cpu")
    device = torch.device("cuda" if name == "auto" and torch.cuda.is_available() else name.replace("auto", "cpu"))
    if device.type == "cuda":  # the same sums in the same order each time, or no run could be gone on with exactly
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic = True
    return device
