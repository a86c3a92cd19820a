"""Validate a config: the annotated signature of each `_target_` is the schema of its node."""

import importlib
import inspect
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, Unpack, get_args, get_origin, get_type_hints

from aetrain.config.errors import ConfigError, did_you_mean, list_choices, unknown_setting
from aetrain.config.paths import GROUPS, targets
from aetrain.config.settings import Node, Settings, root_settings

# Code that an untrusted run directory may name, beside the targets of aetrain's own configs. Not all of torch:
# torch.utils.collect_env.run takes any shell command, torch.hub.load any code.
TRUSTED_PREFIXES = ("torch.nn.", "torch.optim.")

MAX_PROBLEMS_SHOWN = 5

# Settings of a group that are not arguments of its target: `runs/build.py` reads them.
EXTRA_SETTINGS = {"model": ("penalties",)}

# Arguments of a group's target that `runs/build.py` passes: a config cannot set them.
BUILDER_ARGUMENTS = {
    "mode": ("request", "settings", "run"),
    "model": ("image_shape", "likelihood", "sparsifier", "scale"),
    "likelihood": ("scale", "image_shape"),
    "optimizer": ("params",),
}

COMPONENT = "a component (a section with a _target_)"

SETTINGS_IN_LISTS = ("views.format",)  # settings, not components, in the sections below
COMPONENTS = (  # sections that are one component each
    *("augment", "dataset", "likelihood", "mode", "model", "noise", "optimizer", "pretrain", "schedule", "sparsity"),
    "stop",
)
COMPONENT_LISTS = ("measures", "model.penalties", "penalty", "views")  # sections with one component per name


def validate(
    config: Node,
    untrusted: Callable[[str], bool] = lambda key: False,
    components: Sequence[str] = COMPONENTS,
) -> None:
    """Raise a ConfigError that lists all problems of a config.

    `config` is plain data with interpolations resolved. `untrusted(key)` tells whether the node at a dotted key comes
    from a run directory that may not name code outside of aetrain and torch. `components` are the sections that need a
    target: those of a mode that reads finished runs are empty but its own.
    """
    problems = [*_problems_of_root(config, components), *_problems_of_nodes(config, "", untrusted)]
    if not problems:
        return
    count = [] if len(problems) == 1 else [f"the config has {len(problems)} problems"]
    more = [] if len(problems) <= MAX_PROBLEMS_SHOWN else ["..."]
    raise ConfigError("\n  ".join([*count, *problems[:MAX_PROBLEMS_SHOWN], *more]))


def _problems_of_root(config: Node, components: Sequence[str]) -> Iterator[str]:
    names = root_settings()
    missing = [f"{key} is missing: it can be changed, but not deleted" for key in names if key not in config]
    sections = {key for key in names if key in GROUPS and not isinstance(config.get(key, {}), Mapping)}
    not_sections = [f"{key} must be a section with settings: it is {_format(config[key])}" for key in sections]
    not_sections += [
        f"{key} has no _target_: name the class or function whose settings it has"
        for key in components
        if key in config and key not in sections and "_target_" not in config[key]
    ]
    rest = {key: value for key, value in config.items() if key not in sections}
    problems = [*sorted(missing), *sorted(not_sections), *_problems_of_signature("", rest, Settings)]
    yield from problems
    if not problems:
        try:
            Settings(**config)
        except ValueError as error:
            yield str(error)


def _problems_of_nodes(node: Node, key: str, untrusted: Callable[[str], bool]) -> Iterator[str]:
    """Yield the problems of every component at and below a node, without building any."""
    if "_target_" in node:
        name = node["_target_"]
        if not isinstance(name, str):
            yield f"{key}._target_={_format(name)} is no name: use that of a class or function, such as torch.nn.ReLU"
            return
        if untrusted(key) and not str(name).startswith(TRUSTED_PREFIXES) and name not in targets():
            yield (
                f"{key}._target_={name} would run code that aetrain's own configs do not use, and comes from a run "
                "directory that was made elsewhere or whose config was changed: use trust=true if you trust its author"
            )
            return
        try:
            target = locate(name)
        except (ImportError, AttributeError, ValueError) as error:
            yield f"{key}._target_={name} cannot be imported: {error}"
            return
        try:
            inspect.signature(target)
        except (ValueError, TypeError):  # such as of a builtin
            yield f"{key}._target_={name} has no signature: settings cannot be checked"
            return
        extra = EXTRA_SETTINGS.get(key, ())
        settings = {k: v for k, v in node.items() if k not in ("_target_", "_partial_", *extra)}
        yield from _problems_of_signature(key, settings, target, extra, BUILDER_ARGUMENTS.get(key, ()))
    for name, child in node.items():
        if child is None and key in COMPONENT_LISTS and f"{key}.{name}" not in SETTINGS_IN_LISTS:
            yield f"{key}.{name}=null is no component: use ~{key}.{name} to leave it out"
            continue
        if not isinstance(name, str) or not name or "." in name:
            parent = key or "the config"
            yield f"{parent} has a setting named {name!r}: a name is a word without dots"
            continue
        for inner, inner_key in _sections(child, f"{key}.{name}" if key else name):
            yield from _problems_of_nodes(inner, inner_key, untrusted)


def _sections(value: Any, key: str) -> Iterator[tuple[Node, str]]:
    """Yield the sections in a value: itself, or those in a list, whose components are built as well."""
    if isinstance(value, Mapping):
        yield value, key
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for number, item in enumerate(value):
            yield from _sections(item, f"{key}[{number}]")


def locate(name: str) -> Callable[..., Any]:
    """Import the class or function at a dotted path. Raise ImportError, AttributeError or ValueError."""
    module, _, attribute = str(name).rpartition(".")
    if not module:
        raise ValueError("use a dotted path such as aetrain.model.dense.dense")
    target = getattr(importlib.import_module(module), attribute)
    if not callable(target):
        raise ValueError("it is neither a class nor a function")
    return target


def parameter_names(target: Callable[..., Any]) -> tuple[list[str], bool]:
    """Return the names of a target's parameters, and whether it takes any other, too.

    `**settings: Unpack[T]` counts as the keys of the TypedDict T.
    """
    names, takes_any, types = [], False, _own_types(target)
    for name, parameter in inspect.signature(target).parameters.items():
        kind = types.get(name)
        if parameter.kind is not parameter.VAR_KEYWORD:
            names.append(name)
        elif get_origin(kind) is Unpack:
            names += get_type_hints(get_args(kind)[0])
        else:
            takes_any = True
    return names, takes_any


def parameter_types(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a target's parameters by name, with the keys of an unpacked TypedDict."""
    types = _own_types(target)
    unpacked = [get_args(kind)[0] for kind in types.values() if get_origin(kind) is Unpack]
    return {**types, **{name: kind for keys in unpacked for name, kind in get_type_hints(keys).items()}}


def _own_types(target: Callable[..., Any]) -> dict[str, Any]:
    return get_type_hints(target.__init__ if inspect.isclass(target) else target)


def _problems_of_signature(
    key: str, settings: Node, target: Callable[..., Any], extra: Sequence[str] = (), reserved: Sequence[str] = ()
) -> Iterator[str]:
    """Yield the settings of a node that its target's signature does not allow."""
    names, takes_any = parameter_names(target)
    parameters = [name for name in names if name not in reserved]
    hints = parameter_types(target)
    for setting, value in settings.items():
        full = f"{key}.{setting}" if key else setting
        if setting not in parameters:
            if not takes_any or setting in reserved:
                yield unknown_setting(full, [*parameters, *extra], getattr(target, "__name__", ""))
        elif value == "???":
            yield f"{full} is required: {full}=..."
        elif not fits(value, hints.get(setting, Any)):
            kind = hints[setting]
            wanted = _describe_type(kind) or COMPONENT
            yield f"{full}={_format(value)} is not {wanted}{_suggest_literal(value, kind)}"


def fits(value: Any, kind: Any) -> bool:
    """Return whether plain data is a valid value for an annotation `kind`."""
    if isinstance(value, Mapping) and "_target_" in value:
        return not isinstance(kind, type) or kind not in (int, float, str, bool)  # it is built and checked by itself
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(fits(value, member) for member in inner)
    if origin is Literal:
        return value in inner and type(value) in {type(member) for member in inner}
    if origin is not None and isinstance(origin, type) and issubclass(origin, tuple) and inner[-1] is not ...:
        sized = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == len(inner)
        return sized and all(fits(v, k) for v, k in zip(value, inner, strict=True))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(fits(v, inner[1]) for v in value.values())
    if origin is not None and isinstance(origin, type) and issubclass(origin, Sequence):
        return isinstance(value, Sequence) and not isinstance(value, str) and all(fits(v, inner[0]) for v in value)
    match kind:
        case _ if kind is Any:
            return True
        case types.NoneType | None:
            return value is None
        case _ if kind is bool:
            return isinstance(value, bool)
        case _ if kind is int:
            return isinstance(value, int) and not isinstance(value, bool)
        case _ if kind is float:
            return isinstance(value, int | float) and not isinstance(value, bool)
        case _ if kind in (str, Path):
            return isinstance(value, str)
        case _ if isinstance(kind, type):
            return kind is object  # only a component can be an instance of any other class
        case _:
            return True  # a protocol or a type variable: the target itself must refuse it


def _format(value: Any) -> str:
    return "null" if value is None else str(value)


def _describe_type(kind: Any) -> str:
    """Return an annotation in plain words, such as `a whole number`."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe_type(member) or COMPONENT for member in inner)
    if origin is Literal:
        return f"one of {list_choices([str(member) for member in inner])}"
    if origin is not None and isinstance(origin, type) and issubclass(origin, Sequence):
        if get_origin(inner[0]) is Literal:
            examples = ",".join(map(str, get_args(inner[0])[:2]))
            return f"a list such as [{examples}]"
        words = (_describe_type(inner[0]) or "component").split(" or ")
        items = " or ".join(f"{word.removeprefix('a ')}s" for word in words)
        many = inner[-1] is ... or len(inner) == 1
        example = f" such as {EXAMPLES[inner[0]]}" if inner[0] in EXAMPLES else ""
        return f"a list of {items}{example}" if many else f"a list of {len(inner)} {items}"
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", types.NoneType: "null"}
    return names.get(kind, "")


EXAMPLES: dict[Any, str] = {int: "[512,256]", float: "[0.5,1]", str: "[a,b]", int | None: "[100,null]"}


def _suggest_literal(value: Any, kind: Any) -> str:
    members: list[str] = []
    for option in (kind, *get_args(kind)):
        if get_origin(option) is Literal:
            members += map(str, get_args(option))
    return did_you_mean(str(value), members)
