"""What a user is told when something is wrong: one short message, the likely fix in it, no traceback."""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from aetrain.config.paths import group_settings


class ConfigError(ValueError):
    """A mistake in what the user asked for. Its text is the whole message."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, which is to end a run as Ctrl-C does: with a record of it."""


@contextmanager
def blamed_on(name: str, settings: Mapping[str, Any] | None = None) -> Iterator[None]:
    """A ValueError inside, which is how components refuse a setting, becomes a ConfigError that names the node.

    `settings` are listed where the error names none, as those of other people's components do not.
    """
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        text = str(error)
        named = re.match(r"([\w.]+)=", text)
        if named is None:
            said = [f"{key}={value}" for key, value in (settings or {}).items() if not key.startswith("_")]
            text = f"{name}: {text}" + (f"\n  {name} has {', '.join(said)}" if said else "")
        elif "." not in named[1] and named[1] != name:
            text = f"{name}.{text}"
        raise ConfigError(text) from error


def nearest(word: str, known: Collection[str]) -> list[str]:
    """The known words that `word` may be a slip of, the likeliest first."""
    lower = {name.lower(): name for name in sorted(known)}
    near = difflib.get_close_matches(word.lower(), lower, n=3, cutoff=0.6)
    swapped = sorted(near, key=lambda name: sorted(name) != sorted(word.lower()))  # letters in another order first
    return [lower[name] for name in swapped]


def did_you_mean(word: str, known: Collection[str]) -> str:
    """`; did you mean 'x'?` for the nearest known word, or nothing."""
    near = nearest(word, known)
    return f"; did you mean '{near[0]}'?" if near else ""


def listed(words: Collection[str], word: str = "") -> str:
    """`a, b or c`: those that `word` may be a slip of first, then the others by name."""
    near = nearest(word, words)
    *most, last = [*near, *sorted(set(words) - set(near))]
    return f"{', '.join(most)} or {last}" if most else last


def unknown_setting(key: str, beside: Collection[str]) -> str:
    """What to say of a setting that is not there, given the names of those that are, beside it."""
    parent, _, name = key.rpartition(".")
    known = group_settings()
    if key in known and name not in beside:
        return f"no setting '{key}' with the {key.partition('.')[0]} chosen: it belongs to {listed(known[key])}"
    inside = f"{parent}." if parent else ""
    near = [inside + word for word in nearest(name, beside)[:1]] or _namesakes(name, known)
    hint = f"; did you mean {listed([repr(word) for word in near])}?" if near else ""
    if not parent:
        return f"no setting or group '{key}'{hint}\n  choose from {listed(beside, name)}"
    return f"no setting '{key}'{hint}\n  {parent} has {listed(beside, name) if beside else 'no settings'}"


def _namesakes(name: str, known: Collection[str]) -> list[str]:
    """The dotted settings that end in `name`, or in the nearest to it; of those only the ones nearest to the root."""
    last = {setting: setting.rpartition(".")[2] for setting in known}
    near = nearest(name, set(last.values()))[:1]
    found = [setting for setting, word in last.items() if word in near]
    depth = min((setting.count(".") for setting in found), default=0)
    return [setting for setting in found if setting.count(".") == depth]
