"""The errors that a user sees: one short message with the likely fix in it, and no traceback."""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from aetrain.config.paths import group_settings


class ConfigError(ValueError):
    """A mistake in a config, a command or the data. Its text is the whole message."""


class SigTerm(KeyboardInterrupt):
    """SIGTERM, which ends a run as Ctrl-C does: with a record of the interruption."""


class RunPruned(Exception):
    """A search has stopped the run, which is no failure. Its text is the reason."""


@contextmanager
def error_context(name: str, settings: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Turn a ValueError, which is how a component refuses a setting, into a ConfigError that names the node `name`.

    A component begins its message with `key=value`; the node's name is put before it. `settings` are listed where the
    message names none, as those of third-party components do not.
    """
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(add_context(str(error), name, settings or {})) from error


def add_context(text: str, name: str, settings: Mapping[str, Any]) -> str:
    """Return a component's message with the name of its node before it, and `settings` where it names none."""
    named = re.match(r"([\w.]+)=", text)
    if named is None:
        values = [f"{key}={value}" for key, value in settings.items() if not key.startswith("_")]
        hint = f"\n  {name} has {', '.join(values)}" if values else ""
        return f"{name}: {text}{hint}"
    if "." not in named[1] and named[1] != name:
        sections = [key for key, node in settings.items() if isinstance(node, Mapping) and named[1] in node]
        nested = sections[0] + "." if named[1] not in settings and len(sections) == 1 else ""
        return f"{name}.{nested}{text}"
    return text


def close_matches(word: str, known: Collection[str]) -> list[str]:
    """Return the known words that `word` may be a misspelling of, the likeliest first."""
    lower = {name.lower(): name for name in sorted(known)}
    matches = difflib.get_close_matches(word.lower(), lower, n=3, cutoff=0.6)
    letters = sorted(word.lower())
    transposed_first = sorted(matches, key=lambda name: sorted(name) != letters)
    return [lower[name] for name in transposed_first]


def did_you_mean(word: str, known: Collection[str]) -> str:
    """Return `; did you mean 'x'?` for the closest known word, or an empty string."""
    matches = close_matches(word, known)
    return f"; did you mean '{matches[0]}'?" if matches else ""


def list_choices(words: Collection[str], word: str = "") -> str:
    """Return `a, b or c`: those that `word` may be a misspelling of first, then the others by name."""
    matches = close_matches(word, words)
    *most, last = [*matches, *sorted(set(words) - set(matches))]
    return f"{', '.join(most)} or {last}" if most else last


def unknown_setting(key: str, siblings: Collection[str], target: str = "") -> str:
    """Return the message for a setting that does not exist, given the names of the settings beside it.

    `target` is the name of the class or function that has no such argument.
    """
    parent, _, name = key.rpartition(".")
    known = group_settings()
    if key in known and name not in siblings:
        group = key.partition(".")[0]
        reason = f" ({target} has no argument {name})" if target else ""
        return f"no setting '{key}' with the {group} chosen{reason}: it belongs to {list_choices(known[key])}"
    prefix = f"{parent}." if parent else ""
    matches = [prefix + word for word in close_matches(name, siblings)[:1]] or _settings_that_end_in(name, known)
    hint = f"; did you mean {list_choices([repr(word) for word in matches])}?" if matches else ""
    if not parent:
        return f"no setting or group '{key}'{hint}\n  choose from {list_choices(siblings, name)}"
    choices = list_choices(siblings, name) if siblings else "no settings"
    return f"no setting '{key}'{hint}\n  {parent} has {choices}"


def _settings_that_end_in(name: str, known: Collection[str]) -> list[str]:
    """Return the dotted settings whose last word is `name` or the closest to it, of those the ones of least depth."""
    last_words = {setting: setting.rpartition(".")[2] for setting in known}
    match = close_matches(name, set(last_words.values()))[:1]
    settings = [setting for setting, word in last_words.items() if word in match]
    depth = min((setting.count(".") for setting in settings), default=0)
    return [setting for setting in settings if setting.count(".") == depth]
