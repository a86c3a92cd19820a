"""Settings as keywords of Python: `run(model="vae", epochs=3)` as the overrides of a command."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from aetrain.config.errors import ConfigError
from aetrain.config.overrides import is_read_as, literal


def keyword_overrides(settings: Mapping[str, Any]) -> list[str]:
    """Return the overrides `key=value` of settings by name, each value in Hydra's grammar.

    A value is None, a bool, a number, a text, a path, or a list of these. A dict has the settings of a section: `{
    "optimizer": {"lr": 1e-3}}` and `{"optimizer.lr": 1e-3}` are the same. A text is one value, whatever it contains;
    `${...}` alone refers to another setting. Raise ConfigError for another value.
    """
    return list(_assignments(settings, ""))


def _assignments(settings: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, value in settings.items():
        key = f"{prefix}{name}"
        if not isinstance(name, str) or not name or set(name) & set("= \t\n,'\"[]{}()"):
            raise ConfigError(f"{key!r} is not the name of a setting: use a dotted name such as optimizer.lr")
        if isinstance(value, Mapping) and value:
            yield from _assignments(value, f"{key}.")
        else:
            yield f"{key}={_format(value, key)}"


def _format(value: Any, key: str) -> str:
    """Return a value in Hydra's grammar."""
    if callable(item := getattr(value, "item", None)) and getattr(value, "ndim", 1) == 0:  # a NumPy or torch scalar
        value = item()
    elif callable(to_list := getattr(value, "tolist", None)):
        value = to_list()
    if value is None or isinstance(value, bool | int | float):
        return literal(value)
    if isinstance(value, str | os.PathLike):
        return _format_text(str(os.fspath(value)))
    if isinstance(value, list | tuple):
        return f"[{','.join(_format(item, key) for item in value)}]"
    if isinstance(value, Mapping):  # an empty one
        return "{}"
    kind = type(value).__name__
    raise ConfigError(f"{key} has a value of the type {kind}: use None, a bool, a number, a text, a list or a dict")


def _format_text(text: str) -> str:
    """Return a text as it is where Hydra reads it as this very text, alone and in a list; else in quotes."""
    return text if is_read_as(f"[{text}]", [text]) and is_read_as(text, text) else literal(text)
