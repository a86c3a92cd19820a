"""Every use of a private interface of Hydra, OmegaConf, torch, TensorBoard or scikit-learn, with its workaround.

`config/composition.py` has those of Hydra's composition.
`tests/test_compat.py` fails with a clear sentence where an upgrade of one of them removes an interface.
"""

import inspect
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from hydra._internal.utils import get_args_parser as hydra_argument_parser
from omegaconf.basecontainer import BaseContainer

__all__ = [
    "add_event",
    "add_summary",
    "cpu_has",
    "event_writer",
    "hparams_plugin",
    "hydra_argument_parser",  # the parser of Hydra's own flags, which Hydra 1.3 does not export
    "load_yaml",
    "omegaconf_resolvers",
    "scikit_learn_file",
    "use_fast_checksums",
    "without_compiler",
]

if TYPE_CHECKING:  # heavy imports
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams.hparams_plugin import HParamsPlugin
    from torch.optim import Optimizer
    from torch.utils.tensorboard import SummaryWriter


def cpu_has(feature: Literal["avx512_bf16", "amx_tile"]) -> bool:
    """Return whether this CPU has bfloat16 instructions for vectors (avx512_bf16) or matrices (amx_tile).

    False where torch does not say: the answer decides about speed alone.
    """
    import torch

    is_supported = vars(torch.cpu).get(f"_is_{feature}_supported")
    return callable(is_supported) and bool(is_supported())


def omegaconf_resolvers() -> dict[str, Any]:
    """Return OmegaConf's own dictionary of resolvers by name, which OmegaConf offers no way to read."""
    return BaseContainer._resolvers


def scikit_learn_file(name: str) -> Path:
    """Return the path of a data file of scikit-learn, without its import, which takes longer than a small run.

    Raise FileNotFoundError where scikit-learn has no such file.
    """
    package = find_spec("sklearn")
    folders = (package.submodule_search_locations if package else None) or []
    files = [Path(folder, "datasets", "data", name) for folder in folders]
    for file in files:
        if file.is_file():
            return file
    raise FileNotFoundError(f"scikit-learn has no data file {name}: {files}")


def event_writer(writer: "SummaryWriter") -> Any:
    """Return the event file writer inside a SummaryWriter, whose `add_event` and `add_summary` take protobufs.

    `add_image` makes RGB of grey images and takes five times as long.
    """
    return writer._get_file_writer()


def add_summary(writer: "SummaryWriter", summary: "Summary", step: int | None = None) -> None:
    """Write a Summary protobuf."""
    event_writer(writer).add_summary(summary, step)


def add_event(writer: "SummaryWriter", event: "Event") -> None:
    """Write an Event protobuf under its own step and time."""
    event_writer(writer).add_event(event, event.step, event.wall_time)


def load_yaml(text: str) -> Any:
    """Return the values that OmegaConf reads from a YAML text, by PyYAML's parser in C where it is there.

    It takes a seventh of the time. Raise yaml.YAMLError, with the message of OmegaConf's own parser in Python.
    """
    import yaml
    from omegaconf._utils import get_yaml_loader

    try:
        return yaml.load(text, _fast_yaml_loader())
    except yaml.YAMLError:
        return yaml.load(text, get_yaml_loader())


@cache
def _fast_yaml_loader() -> Any:
    """Return a loader with the constructors and resolvers of OmegaConf's own; it refuses a repeated key, too."""
    import yaml
    from omegaconf._utils import get_yaml_loader

    own = get_yaml_loader()
    if not yaml.__with_libyaml__:
        return own

    def construct_mapping(loader: Any, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value if key.tag == yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG]
        if len({*keys}) < len(keys):
            raise yaml.constructor.ConstructorError(problem="found duplicate key")
        return yaml.CSafeLoader.construct_mapping(loader, node, deep=deep)

    tables = ("yaml_implicit_resolvers", "yaml_constructors")
    members = {"construct_mapping": construct_mapping, **{name: getattr(own, name) for name in tables}}
    return type("FastLoader", (yaml.CSafeLoader,), members)


def use_fast_checksums() -> None:
    """Let TensorBoard compute the checksums of its records (CRC-32C) with google-crc32c, which is written in C.

    TensorBoard's own are computed in Python byte by byte, in a thread beside training, and take as much time as
    drawing the pictures.
    """
    import google_crc32c
    from tensorboard.compat.tensorflow_stub import pywrap_tensorflow

    if google_crc32c.implementation == "c":
        pywrap_tensorflow.crc32c = google_crc32c.value


def hparams_plugin(metrics: Sequence[str]) -> "type[HParamsPlugin]":
    """Return TensorBoard's HParams plugin with the columns of all runs that it compares, equal at every start.

    TensorBoard's own takes all columns from one run, which differs from start to start, where runs describe them, as
    those of aetrain 0.1 do. It shows every scalar, by name. Here the columns are the settings of all runs, and those of
    `metrics` that a run has, in their order.
    """
    from tensorboard.plugins.hparams import metadata
    from tensorboard.plugins.hparams.backend_context import Context
    from tensorboard.plugins.hparams.hparams_plugin import HParamsPlugin

    class AllRuns(Context):  # type: ignore[misc]
        def hparams_metadata(self, *args: Any, **kwargs: Any) -> dict[str, dict[str, bytes]]:
            runs = super().hparams_metadata(*args, **kwargs)
            for tags in runs.values():
                tags.pop(metadata.EXPERIMENT_TAG, None)
            return cast(dict[str, dict[str, bytes]], runs)

        def _compute_hparam_info_from_values(self, name: str, values: Any) -> Any:
            info = super()._compute_hparam_info_from_values(name, values)
            if info is not None and info.HasField("domain_discrete"):
                domain = sorted(info.domain_discrete)  # those of a set, in another order at each start
                info.domain_discrete.Clear()
                info.domain_discrete.extend(domain)
            return info

        def _compute_metric_names(self, *args: Any) -> list[tuple[str, str]]:
            names = {tag: group for tag, group in super()._compute_metric_names(*args) if not group}
            return [(tag, "") for tag in metrics if tag in names]

    class AllRunsPlugin(HParamsPlugin):  # type: ignore[misc]
        def __init__(self, context: Any) -> None:
            super().__init__(context)
            self._context = AllRuns(context)

    return AllRunsPlugin


OptimizerT = TypeVar("OptimizerT", bound="Optimizer")


@cache
def without_compiler(optimizer_class: "type[OptimizerT]") -> "type[OptimizerT]":
    """Return a subclass of a torch optimizer that does not import torch's compiler, which takes longer than torch.

    torch wraps these methods so that the compiler does not trace them, and the wrappers import it at the first call.
    The subclass has the functions inside the wrappers; nothing of torch is changed. `step` keeps `no_grad`. An
    optimizer class of another package keeps its own `step`.
    """
    import torch
    from torch.optim import Optimizer

    base: Any = optimizer_class
    members: dict[str, Any] = {}
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        if getattr(optimizer_class, name) is getattr(Optimizer, name):
            members[name] = inspect.unwrap(getattr(Optimizer, name))
    if optimizer_class.__module__.startswith("torch.optim."):
        step = torch.no_grad()(inspect.unwrap(base.step))
        step.hooked = True  # torch wraps a step for its profiler unless it is marked so
        members["step"] = step
    subclass: Any = type(base.__name__, (base,), members)
    return cast("type[OptimizerT]", subclass)
