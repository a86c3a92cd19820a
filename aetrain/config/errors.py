"""What a user is told when something is wrong: one short message, the likely fix in it, no traceback."""

import difflib
from collections.abc import Collection, Iterator
from contextlib import contextmanager


class ConfigError(ValueError):
    """A mistake in what the user asked for. Its text is the whole message."""


@contextmanager
def blamed_on(name: str) -> Iterator[None]:
    """A ValueError inside, which is how components refuse a setting, becomes a ConfigError that names the node."""
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error


def did_you_mean(word: str, known: Collection[str]) -> str:
    """`; did you mean 'x'?` for the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def listed(words: Collection[str]) -> str:
    """`a, b or c`."""
    *most, last = sorted(words)
    return f"{', '.join(most)} or {last}" if most else last
