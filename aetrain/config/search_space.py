"""The space of a search: the settings that it varies, each with a distribution, in Hydra's override grammar.

`optimizer.lr=tag(log, interval(1e-4, 1e-2))`, `batch_size=choice(32,64,128)`, `model.code_dim=range(4,33,4)`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from aetrain.config.errors import ConfigError
from aetrain.config.overrides import SEARCH_GROUP, literal

SIGNIFICANT_DIGITS = 4  # of a real number from an interval: commands and names of runs are short


@dataclass(frozen=True)
class Choice:
    """One of several values without an order, as they are written in an override."""

    values: tuple[str, ...]


@dataclass(frozen=True)
class Interval:
    """A number from `low` to `high`, both included."""

    low: float
    high: float
    is_integer: bool = False
    log: bool = False  # uniform in the logarithm
    step: float | None = None  # the numbers are low, low + step, ...; None: all

    def text(self, value: float) -> str:
        """Return a number of the interval as it is written in an override: with `SIGNIFICANT_DIGITS` if it is real."""
        if self.is_integer:
            return str(round(value))
        rounded = float(f"{value:.{SIGNIFICANT_DIGITS}g}")
        return repr(min(max(rounded, self.low), self.high))


Distribution = Choice | Interval
Space = dict[str, Distribution]


def read_space(
    params: Mapping[str, Any], arguments: Sequence[str], loader: ConfigLoader | None = None
) -> tuple[Space, dict[str, str]]:
    """Return the distributions of the settings that a search varies, and the overrides that all of its runs share.

    `params` are `hydra.sweeper.params`, such as those of `search=vae`; `arguments` are the overrides of the command
    line, which replace them. Raise ConfigError for an empty space and an interval without numbers.
    """
    texts = [f"{key}={value if isinstance(value, str) else literal(value)}" for key, value in params.items()]
    parser = OverridesParser.create(config_loader=loader)
    space: Space = {}
    fixed: dict[str, str] = {}
    for override in parser.parse_overrides([*texts, *arguments]):
        key = override.key_or_group
        if key == SEARCH_GROUP:
            if override.is_sweep_override():
                raise ConfigError(f"{override.input_line}: a search has one space: choose one")
            continue
        space.pop(key, None)
        fixed.pop(key, None)
        if override.is_sweep_override():
            space[key] = _distribution(override)
        else:
            fixed[key] = override.input_line or ""
    if not space:
        raise ConfigError(
            "a search needs settings to vary: choose a space (search=vae), or write one, such as "
            "'optimizer.lr=tag(log,interval(1e-4,1e-2))' model.code_dim=8,16,32"
        )
    return space, fixed


def _distribution(override: Override) -> Distribution:
    sweep = override.value()
    if isinstance(sweep, IntervalSweep):
        return _interval(override, sweep)
    if isinstance(sweep, RangeSweep):
        numbers = [float(text) for text in override.sweep_string_iterator()]
        if not numbers:
            raise ConfigError(f"{override.input_line} has no values")
        is_integer = all(isinstance(value, int) for value in (sweep.start, sweep.stop, sweep.step))
        low, high = min(numbers), max(numbers)
        return Interval(low, high, is_integer, step=abs(float(sweep.step))) if low < high else Choice((str(low),))
    values = [*override.sweep_string_iterator()]
    return Choice(tuple(sorted(values) if getattr(sweep, "shuffle", False) else values))


def _interval(override: Override, sweep: IntervalSweep) -> Interval:
    low, high, log = sweep.start, sweep.end, "log" in sweep.tags
    if low is None or high is None or not low < high or not math.isfinite(low) or not math.isfinite(high):
        raise ConfigError(f"{override.input_line}: an interval goes from a number to a larger one")
    if log and low <= 0:
        raise ConfigError(f"{override.input_line}: an interval with the tag log has positive numbers alone")
    is_integer = isinstance(low, int) and isinstance(high, int)
    return Interval(float(low), float(high), is_integer, log)


def space_as_data(space: Space) -> dict[str, dict[str, Any]]:
    """Return a space as plain data, for a JSON file."""
    return {
        key: {"values": list(item.values)} if isinstance(item, Choice) else asdict(item) for key, item in space.items()
    }
