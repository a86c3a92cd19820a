"""Factories of components: the target of a section with the section's settings.

Hydra copies and checks a section in one or two milliseconds. It does so once for all equal sections of a process: a
program that makes many small runs builds the same components again and again.
"""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

from hydra.utils import instantiate

from aetrain.config.validate import locate

MAX_FACTORIES = 256


@dataclass(frozen=True)
class _Section:
    """A section and its target. Two are equal where their targets are the same object and their texts are equal."""

    target: Callable[..., Any]
    text: str
    content: Mapping[str, Any] = field(compare=False)


def make_factory(section: Mapping[str, Any]) -> "partial[Any]":
    """Return the target of a section with the section's settings and the components inside as keywords.

    All of them are new objects. Raise what Hydra's `instantiate` raises.
    """
    if "_target_" in section and not any(map(_has_component, section.values())):
        target = locate(section["_target_"])
        if inspect.isclass(target) or inspect.isfunction(target):  # which copying does not change
            return copy.deepcopy(_reuse_factory(_Section(target, repr(section), section)))
    return _make_factory(section)


@lru_cache(MAX_FACTORIES)
def _reuse_factory(section: _Section) -> "partial[Any]":
    return _make_factory(section.content)


def _make_factory(section: Mapping[str, Any]) -> "partial[Any]":
    # With `_convert_` as an argument, Hydra would merge the section once more.
    factory: partial[Any] = instantiate({**section, "_partial_": True, "_convert_": "all"})
    return factory


def _has_component(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(_has_component, value.values()))
    return isinstance(value, Sequence) and not isinstance(value, str) and any(map(_has_component, value))
