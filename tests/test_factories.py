"""Factories of components are those of Hydra, and components share nothing."""

import sys
from types import ModuleType
from typing import Any

import pytest
from hydra.utils import instantiate
from torch import nn

from aetrain.config.paths import groups, option_config
from aetrain.runs.factories import make_factory


class Stack:
    """A component with a list and with components inside."""

    def __init__(self, sizes: list[int], parts: list[Any] | None = None) -> None:
        self.sizes, self.parts = sizes, parts


def refers(value: Any) -> bool:
    """Return whether a value of a YAML file is missing or refers to another setting."""
    return "${" in str(value) or "???" in str(value)


STACK = f"{Stack.__module__}.{Stack.__qualname__}"


@pytest.mark.parametrize("group", ["dataset", "noise", "optimizer", "schedule", "sparsity", "likelihood"])
def test_factories_have_the_settings_of_hydras(group: str) -> None:
    for option in groups()[group]:
        node = {key: value for key, value in option_config(group, option).items() if not refers(value)}
        if "_target_" not in node:
            continue
        by_hydra = instantiate(node, _partial_=True, _convert_="all")
        for _ in range(2):
            factory = make_factory(node)
            assert factory.func is by_hydra.func
            assert factory.keywords == by_hydra.keywords


def test_components_of_equal_sections_share_no_setting() -> None:
    section = {"_target_": STACK, "sizes": [1, 2]}
    first, second = make_factory(section)(), make_factory(dict(section))()
    first.sizes.append(3)
    assert second.sizes == make_factory(section)().sizes == section["sizes"] == [1, 2]


@pytest.mark.parametrize("parts", [[{"_target_": "torch.nn.ReLU"}], {"a": {"b": {"_target_": "torch.nn.ReLU"}}}])
def test_components_inside_of_equal_sections_are_not_shared(parts: Any) -> None:
    modules = []
    for _ in range(2):
        component = make_factory({"_target_": STACK, "sizes": [], "parts": parts})()
        modules.append(component.parts[0] if isinstance(component.parts, list) else component.parts["a"]["b"])
    assert all(isinstance(module, nn.ReLU) for module in modules)
    assert modules[0] is not modules[1]


def test_settings_of_another_type_are_another_section() -> None:
    values = [make_factory({"_target_": STACK, "sizes": value})().sizes for value in (1, True, 1.0, "1")]
    assert list(map(repr, values)) == ["1", "True", "1.0", "'1'"]


def test_target_that_was_replaced_is_not_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        module = ModuleType("replaced_parts")
        exec(f"def make(): return {number}", vars(module))
        monkeypatch.setitem(sys.modules, "replaced_parts", module)
        assert make_factory({"_target_": "replaced_parts.make"})() == number
