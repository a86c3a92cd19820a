"""HTML that cannot be broken out of: text is escaped where it enters an element, and only elements are not text."""

from html import escape
from typing import Any


class Html(str):
    """Markup that is known to be good."""

    __slots__ = ()


VOID = ("img", "meta", "input", "br")


def el(name: str, /, *inside: Any, **attributes: Any) -> Html:
    """`<name attributes>inside</name>`; what is inside is text unless it is Html, or a list of such.

    `class_` is the attribute class, `data_v` data-v; None and False leave an attribute out, True gives it no value.
    """
    said = []
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            said.append(f" {key}")
        elif value is not None and value is not False:
            said.append(f' {key}="{escape(_clean(str(value)))}"')
    return Html(f"<{name}{''.join(said)}>" if name in VOID else f"<{name}{''.join(said)}>{join(*inside)}</{name}>")


def join(*inside: Any) -> Html:
    """Texts and elements, one after the other."""
    parts = []
    for item in inside:
        if isinstance(item, Html):
            parts.append(str.__str__(item))
        elif isinstance(item, list | tuple):
            parts.append(str.__str__(join(*item)))
        elif item is not None:
            parts.append(escape(_clean(str(item))))
    return Html("".join(parts))


def _clean(text: str) -> str:
    """Without what no HTML file may hold: control characters, and halves of characters, as in damaged names."""
    text = text.encode("utf-8", "replace").decode()
    return "".join(c for c in text if c in "\n\t" or (c.isprintable() or c == "\xa0"))
