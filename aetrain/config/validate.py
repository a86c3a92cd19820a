"""The signature is the schema: every node of a config against the annotated signature of its `_target_`."""

import importlib
import inspect
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from aetrain.config.errors import ConfigError, did_you_mean, listed, unknown_setting
from aetrain.config.paths import groups, targets
from aetrain.config.settings import Settings

# What a run directory that somebody else made may name without being trusted, beside what aetrain's own configs name.
# Not all of torch and aetrain: torch.utils.collect_env.run takes any shell command, torch.hub.load any code.
TRUSTED = ("torch.nn.", "torch.optim.")

MANY = 5  # problems that are told at once

# Settings of a group that its target does not take because the experiment hands them elsewhere.
SET_APART = {"model": ("penalties",)}

# Settings that the experiment gives itself: a config's would be ignored.
GIVEN = {
    "mode": ("job", "run"),
    "model": ("image_shape", "likelihood", "sparsifier", "scale"),
    "likelihood": ("scale",),
    "optimizer": ("params",),
}

# What a signature may name that no config can say, and so only a component can fill.
Node = Mapping[str, Any]


def validate(config: Node, untrusted: Callable[[str], bool] = lambda key: False) -> None:
    """Refuse a config with everything that is wrong with it at once, as a ConfigError.

    `config` is plain data, interpolations resolved. `untrusted(key)` says whether the node at that dotted key comes
    from somebody else, and so may name no code but aetrain's and torch's.
    """
    problems = [*_problems_of_root(config), *_problems_of_nodes(config, "", untrusted)]
    if problems:
        count = [] if len(problems) == 1 else [f"the config has {len(problems)} problems"]
        more = [] if len(problems) <= MANY else ["..."]
        raise ConfigError("\n  ".join([*count, *problems[:MANY], *more]))


def _problems_of_root(config: Node) -> Iterator[str]:
    missing = [
        f"{key} is missing: it can be changed, but not dropped" for key in Settings.__annotations__.keys() - config
    ]
    sections = [
        f"{key} is no section with settings of its own: it is {_shown(config[key])}"
        for key in Settings.__annotations__.keys() & groups().keys()
        if not isinstance(config.get(key, {}), Mapping)
    ]
    problems = [*sorted(missing), *sorted(sections), *_problems_of_signature("", config, Settings)]
    yield from problems
    if not problems:
        try:
            Settings(**config)
        except ValueError as error:
            yield str(error)


def _problems_of_nodes(node: Node, key: str, untrusted: Callable[[str], bool]) -> Iterator[str]:
    """The problems of every component at and below a node, found without building any."""
    if "_target_" in node:
        name = node["_target_"]
        if untrusted(key) and not str(name).startswith(TRUSTED) and name not in targets():
            yield (
                f"{key}._target_={name} would run code that aetrain's own configs do not use, and comes from a run "
                "directory: say trust=true if you trust whoever made it"
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
            yield f"{key}._target_={name} has no signature that settings could be checked against"
            return
        apart = SET_APART.get(key, ())
        settings = {k: v for k, v in node.items() if k not in ("_target_", "_partial_", *apart)}
        yield from _problems_of_signature(key, settings, target, apart, GIVEN.get(key, ()))
    for name, child in node.items():
        if not isinstance(name, str) or not name or "." in name:
            yield f"{key or 'the config'} has a setting named {name!r}: a name is a word without dots"
        else:
            for inner, place in _sections(child, f"{key}.{name}" if key else name):
                yield from _problems_of_nodes(inner, place, untrusted)


def _sections(value: Any, key: str) -> Iterator[tuple[Node, str]]:
    """A value itself or, of a list, all of it that are sections: what stands in a list is built as well."""
    if isinstance(value, Mapping):
        yield value, key
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for number, each in enumerate(value):
            yield from _sections(each, f"{key}[{number}]")


def locate(name: str) -> Callable[..., Any]:
    """The class or function of a dotted name."""
    module, _, attribute = str(name).rpartition(".")
    if not module:
        raise ValueError("it must be a dotted name such as aetrain.model.dense.dense")
    target = getattr(importlib.import_module(module), attribute)
    if not callable(target):
        raise ValueError("it is neither a class nor a function")
    return target


def _problems_of_signature(
    key: str, settings: Node, target: Callable[..., Any], apart: Sequence[str] = (), given: Sequence[str] = ()
) -> Iterator[str]:
    parameters = {name: p for name, p in inspect.signature(target).parameters.items() if name not in given}
    hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for setting, value in settings.items():
        full = f"{key}.{setting}" if key else setting
        if setting not in parameters:
            if not anything or setting in given:
                yield unknown_setting(full, [*parameters, *apart])
        elif value == "???":
            yield f"{full} must be given: {full}=..."
        elif not fits(value, hints.get(setting, Any)):
            kind = hints[setting]
            wanted = _named(kind) or "a component (a section with a _target_)"
            yield f"{full}={_shown(value)} is not {wanted}{_near_literal(value, kind)}"


def fits(value: Any, kind: Any) -> bool:
    """Whether plain data may stand where an annotation says `kind`."""
    if isinstance(value, Mapping) and "_target_" in value:
        return not isinstance(kind, type) or kind not in (int, float, str, bool)  # it is built, and checked itself
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


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


def _named(kind: Any) -> str:
    """An annotation as a user would say it."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_named(member) for member in inner if _named(member))
    if origin is Literal:
        return f"one of {listed([str(member) for member in inner])}"
    if origin is not None and isinstance(origin, type) and issubclass(origin, Sequence):
        if get_origin(inner[0]) is Literal:
            return f"a list of such, as in [{','.join(map(str, get_args(inner[0])[:2]))}]"
        each = _named(inner[0]).removeprefix("a ") or "component"
        many = inner[-1] is ... or len(inner) == 1
        example = f" such as {EXAMPLES[inner[0]]}" if inner[0] in EXAMPLES else ""
        return f"a list of {each}s{example}" if many else f"a list of {len(inner)} {each}s"
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", types.NoneType: "null"}
    return names.get(kind, "")


EXAMPLES = {int: "[512,256]", float: "[0.5,1]", str: "[a,b]"}


def _near_literal(value: Any, kind: Any) -> str:
    members = [str(m) for k in (kind, *get_args(kind)) if get_origin(k) is Literal for m in get_args(k)]
    return did_you_mean(str(value), members)
