"""Build the components that a config names, and check that they fit together, before any data is read."""

import copy
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch.optim import Optimizer

from aetrain.config.errors import ConfigError, add_context, error_context
from aetrain.config.settings import Settings
from aetrain.config.validate import locate
from aetrain.data.augment import Augment
from aetrain.data.dataset import Dataset
from aetrain.data.noise import Noise, noise_for
from aetrain.evaluation.measures.measure import Measure
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.likelihoods import Likelihood
from aetrain.objective.objective import MODEL_THAT_EMITS, Objective
from aetrain.objective.penalties import Penalty
from aetrain.objective.sparsity import Sparsity
from aetrain.runs.data_kinds import check_augment, check_likelihood, check_network
from aetrain.runs.factories import make_factory
from aetrain.runs.preprocessing import restore_state
from aetrain.storage.checkpoint import TrainingState
from aetrain.training.backend.device import select_device
from aetrain.training.backend.precision import forward_pass
from aetrain.training.best_weights import BestWeights
from aetrain.training.optimizers import LBFGS
from aetrain.training.pretraining.pretrain import Pretrain
from aetrain.training.step import MakeOptimizer, OptimizerStep, TrainingStep, optimizer_steps
from aetrain.training.weight_average import WeightAverage
from aetrain.utils import processes
from aetrain.utils.compat import without_compiler
from aetrain.utils.devices import seed_generators
from aetrain.views.view import view_kinds


@dataclass(frozen=True, kw_only=True)
class Components:
    """The components of a run. No data has been read."""

    dataset: Dataset
    model: Autoencoder
    objective: Objective
    augment: Augment
    noise: Noise
    pretrain: Pretrain
    optimizer_steps: Sequence[OptimizerStep]
    make_optimizer: MakeOptimizer
    weight_average: WeightAverage | None
    best_weights: BestWeights | None
    views: Mapping[str, Any]
    measures: Mapping[str, Measure]
    device: torch.device
    seed: int
    make_untrained: Callable[[], Autoencoder]  # the model with its initial weights; seeds the global generator

    @property
    def training_state(self) -> TrainingState:
        """The modules and optimizers of a run whose state a checkpoint has beside the model's."""
        return TrainingState(self.objective, self.optimizers, self.weight_average, self.best_weights)

    @property
    def optimizers(self) -> list[Optimizer]:
        """The optimizers of the steps, in their order."""
        return [step.optimizer for step in self.optimizer_steps]


def build(settings: Settings, run: Path | None = None) -> Components:
    """Build the components of a run. Raise ConfigError where they do not fit together.

    `run` is the directory of a trained run, whose data set has learnt its conversions.
    """
    device = select_device(settings.device)
    dataset = build_dataset(settings, run)
    likelihood = _make_likelihood(settings, dataset)
    augment: Augment = _make(settings, "augment")
    with error_context("noise"):
        noise = noise_for(_make(settings, "noise"), dataset.kind, dataset.has_missing)
    sparsity: Sparsity = _make(settings, "sparsity")
    pretrain: Pretrain = _make(settings, "pretrain")
    views = {name: _make(settings, f"views.{name}") for name in settings.view_names}
    views = {name: view for name, view in views.items() if dataset.kind in view_kinds(view)}
    measures: dict[str, Measure] = {name: _make(settings, f"measures.{name}") for name in settings.measures}
    check_augment(augment, dataset)

    make_model = _model_factory(settings, dataset, likelihood, sparsity)
    model = make_model()
    check_network(model, dataset)
    objective = Objective(_make_penalties(settings, model, sparsity))
    _check_fit(model, objective, pretrain, noise, measures)

    model, objective = model.to(device), objective.to(device)
    make_optimizer = _optimizer_factory(settings)
    forward = forward_pass(settings.precision, device, model)
    training_step = TrainingStep(model, objective, augment, noise, forward)
    schedule = _make(settings, "schedule")
    steps = optimizer_steps(training_step, make_optimizer, schedule, settings.clip_grad_norm)
    return Components(
        dataset=dataset,
        model=model,
        objective=objective,
        augment=augment,
        noise=noise,
        pretrain=pretrain,
        optimizer_steps=steps,
        make_optimizer=make_optimizer,
        weight_average=_average_weights(settings, model, steps),
        best_weights=BestWeights(model, objective) if settings.keep == "best" else None,
        views=views,
        measures=measures,
        device=device,
        seed=settings.seed,
        make_untrained=lambda: make_model().to(device),
    )


def build_dataset(settings: Settings, run: Path | None = None) -> Dataset:
    """Build a data set, with what that of the trained run in the directory `run` has learnt. No data is read."""
    dataset: Dataset = _make(settings, "dataset")
    if run is not None:
        restore_state(run, dataset)
    return dataset


def _make_likelihood(settings: Settings, dataset: Dataset) -> Likelihood:
    """Build the likelihood and tell it about the data; one that asks for `image_shape` gets that of the examples.

    Raise ConfigError where it is no likelihood of this kind of data.
    """
    parameters = inspect.signature(locate(settings.likelihood["_target_"])).parameters
    with error_context("dataset"):
        shape = {"image_shape": dataset.image_shape} if "image_shape" in parameters else {}
    likelihood = _make(settings, "likelihood", scale=tuple(dataset.scale), **shape)
    if not isinstance(likelihood, Likelihood):
        raise ConfigError(
            f"likelihood={type(likelihood).__name__} is no likelihood: make it a subclass of "
            "aetrain.model.likelihoods.Likelihood, and call super().__init__(reduction)"
        )
    check_likelihood(likelihood, dataset)
    with error_context("dataset"):
        likelihood.has_missing, likelihood.has_integers = dataset.has_missing, dataset.has_integers
    return likelihood


def _model_factory(
    settings: Settings, dataset: Dataset, likelihood: Likelihood, sparsity: Sparsity
) -> Callable[[], Autoencoder]:
    """Return a function that draws the model's initial weights from the run's seed."""
    node = {key: value for key, value in settings.model.items() if key != "penalties"}
    code_activation = node.pop("code_activation", None)
    if sparsity.code_activation is not None and code_activation not in (None, sparsity.code_activation):
        raise ConfigError(
            f"model.code_activation={code_activation} does not fit this sparsity, which needs "
            f"{sparsity.code_activation} units: leave it null, or drop the sparsity"
        )
    code_activation = sparsity.code_activation or code_activation
    activation = _code_activation_argument(node, code_activation)
    with error_context("dataset"):
        image_shape = dataset.image_shape

    def make_model() -> Autoencoder:
        seed_generators(settings.seed)
        model: Autoencoder = _instantiate(
            "model",
            node,
            image_shape=image_shape,
            likelihood=copy.deepcopy(likelihood),
            sparsifier=copy.deepcopy(sparsity.sparsifier),
            scale=tuple(dataset.scale),
            **activation,
        )
        model.kind, model.has_missing = dataset.kind, dataset.has_missing
        return model

    return make_model


def _code_activation_argument(node: Mapping[str, Any], code_activation: str | None) -> dict[str, Any]:
    """Return the argument `code_activation` for a model that has it. Raise ConfigError where another needs one."""
    if "_target_" not in node or "code_activation" in inspect.signature(locate(node["_target_"])).parameters:
        return {"code_activation": code_activation}
    if code_activation is not None:
        raise ConfigError(
            f"this sparsity needs {code_activation} units, but {node['_target_']} has no argument code_activation: add "
            "it, or use sparsity=none"
        )
    return {}


def _make_penalties(settings: Settings, model: Autoencoder, sparsity: Sparsity) -> dict[str, Penalty]:
    """Build the penalties of the model itself, of the group `penalty` and of the sparsity, by name."""
    own = settings.model.get("penalties") or {}
    _check_penalty_targets(settings, own)
    _check_penalty_names(settings.penalty, own, sparsity)
    penalties = {name: _make_penalty(settings, f"model.penalties.{name}", model) for name in own}
    for name in settings.penalty:
        penalties[name] = _make_penalty(settings, f"penalty.{name}", model)
        _check_penalty(name, penalties[name], model)
    return {**penalties, **sparsity.penalties}


def _make_penalty(settings: Settings, key: str, model: Autoencoder) -> Penalty:
    """Build the penalty at a dotted key; one that asks for `code_dim` gets the model's."""
    node = settings.select(key)
    parameters = inspect.signature(locate(node["_target_"])).parameters
    arguments = {"code_dim": model.code_dim} if "code_dim" in parameters else {}
    penalty: Penalty = _make(settings, key, **arguments)
    return penalty


def _check_penalty_targets(settings: Settings, own: Mapping[str, Any]) -> None:
    """Raise ConfigError for all settings of penalties that the model does not have or `penalty=` does not name."""
    problems = []
    for section, nodes, reason in (
        ("model.penalties", own, "this model has no such penalty of its own"),
        ("penalty", settings.penalty, "penalty= does not name it"),
    ):
        void = [f"{section}.{name}" for name, node in nodes.items() if not _is_component(node)]
        problems += [f"{key} has no _target_: {reason}; leave it out with ~{key}" for key in void]
    if problems:
        raise ConfigError("\n  ".join(problems))


def _is_component(node: Any) -> bool:
    return isinstance(node, Mapping) and "_target_" in node


def _check_penalty_names(penalties: Mapping[str, Any], own: Mapping[str, Any], sparsity: Sparsity) -> None:
    """Raise ConfigError where a penalty of the group `penalty` has the name of another term of the loss."""
    for name in penalties:
        if name in own:
            raise ConfigError(
                f"penalty.{name} and model.penalties.{name} have the same name, and each names a metric: drop one with "
                f"~penalty.{name} or ~model.penalties.{name}, and set the weight of the other"
            )
        if name in ("loss", "nll", *sparsity.penalties):
            raise ConfigError(f"penalty.{name} has the name of another term of the loss: use another name")


def _check_penalty(name: str, penalty: Penalty, model: Autoencoder) -> None:
    """Raise ConfigError where a penalty of the group `penalty` does not fit the model."""
    drop = f"drop it with ~penalty.{name}"
    if not issubclass(model.bottleneck.emits, penalty.reads):
        raise ConfigError(
            f"penalty.{name} reads a {penalty.reads.__name__}, but the bottleneck emits a "
            f"{model.bottleneck.emits.__name__}: {drop}, or choose a model with the bottleneck it needs "
            f"({MODEL_THAT_EMITS.get(penalty.reads, 'model=vae')})"
        )
    try:
        Objective({name: penalty}).check(model)
    except ValueError as error:
        raise ConfigError(f"{add_context(str(error), f'penalty.{name}', {})}, or {drop}") from error


def _check_fit(
    model: Autoencoder, objective: Objective, pretrain: Pretrain, noise: Noise, measures: Mapping[str, Measure]
) -> None:
    """Raise ConfigError where the objective, pretraining or a measure does not fit the model or the noise."""
    with error_context("model"):
        objective.check(model)
    check_noise: Callable[[Noise], None] | None = getattr(pretrain, "check_noise", None)  # an optional method
    with error_context("pretrain"):
        pretrain.check(model)
        if check_noise is not None:
            check_noise(noise)
    for name, measure in measures.items():
        with error_context(f"measures.{name}"):
            measure.check(model)


def _optimizer_factory(settings: Settings) -> MakeOptimizer:
    """Return a function from parameters to an optimizer."""
    target: Any = locate(settings.optimizer["_target_"])
    if inspect.isclass(target) and issubclass(target, LBFGS):
        for name, default in (("clip_grad_norm", None), ("accumulate_grad_batches", 1)):
            if (value := getattr(settings, name)) != default:
                raise ConfigError(
                    f"{name}={value} does not fit optimizer=lbfgs, whose line search needs the gradient of one loss: "
                    "use optimizer=adam"
                )
        if not processes.is_alone():
            raise ConfigError(
                f"optimizer=lbfgs does not fit {processes.world_size()} processes: its line search compares losses in "
                "their last digits, which sums over processes change: use optimizer=adam, or leave out torchrun"
            )
    if inspect.isclass(target) and issubclass(target, Optimizer):
        return partial(_instantiate, "optimizer", settings.optimizer, _class=without_compiler(cast(Any, target)))
    return partial(_make, settings, "optimizer")


def _average_weights(settings: Settings, model: Autoencoder, steps: Sequence[OptimizerStep]) -> WeightAverage | None:
    """Return the moving average of the model's weights, updated after each of its steps; None where `ema` is null."""
    if settings.ema is None:
        return None
    weight_average = WeightAverage(model, settings.ema)
    steps[0].after_step.append(weight_average.update)
    return weight_average


def _make(settings: Settings, key: str, *arguments: Any, **named: Any) -> Any:
    """Build the component at a dotted key with the arguments that a config cannot give."""
    return _instantiate(key, settings.select(key), *arguments, **named)


def _instantiate(
    key: str, node: Mapping[str, Any], *arguments: Any, _class: Callable[..., Any] | None = None, **named: Any
) -> Any:
    """Build the component of a node, by `_class` in place of its target where given; errors name the key."""
    try:
        factory = make_factory(node)
        if _class is not None:
            factory = partial(_class, **factory.keywords)
        return factory(*arguments, **named)
    except ConfigError:
        raise
    except TypeError as error:
        raise ConfigError(f"{key}: {error}") from error
    except Exception as error:
        cause = error.__cause__ if isinstance(error.__cause__, ValueError) else error  # Hydra wraps a nested one's
        if isinstance(cause, ConfigError) or not isinstance(cause, ValueError):
            raise cause from None
        inner = re.search(r"full_key: ([\w.]+)", str(error))  # of a component inside the node
        for part in inner[1].split(".") if inner else ():
            section = node.get(part)
            key, node = f"{key}.{part}", section if isinstance(section, Mapping) else {}
        raise ConfigError(add_context(str(cause), key, node)) from cause
