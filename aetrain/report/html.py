"""HTML with escaping: text is escaped where it enters an element; only `Html` is inserted as it is."""

from collections.abc import Sequence
from html import escape
from typing import Any


class Html(str):
    """Markup that needs no escaping."""

    __slots__ = ()


Block = tuple[str, list[Html]]  # a title, such as the name of test images, and elements about it

MAX_ROWS = 40  # a table with more rows scrolls inside its own container
VOID_ELEMENTS = ("img", "meta", "input", "br")  # elements without content and without an end tag


def el(name: str, /, *children: Any, **attributes: Any) -> Html:
    """Return `<name attributes>children</name>`. Children are text, Html, or lists of these.

    `class_` is the attribute class, `data_v` is data-v. None and False omit an attribute, True writes it without a
    value.
    """
    tag = f"<{name}{_attribute_text(attributes)}>"
    return Html(tag if name in VOID_ELEMENTS else f"{tag}{join(*children)}</{name}>")


def _attribute_text(attributes: dict[str, Any]) -> str:
    """Return attributes as they stand in a tag, each with a space before it."""
    texts = []
    for key, value in attributes.items():
        name = key.rstrip("_").replace("_", "-")
        if value is True:
            texts.append(f" {name}")
        elif value is not None and value is not False:
            texts.append(f' {name}="{escape(_clean(str(value)))}"')
    return "".join(texts)


def join(*children: Any) -> Html:
    """Return texts (escaped) and elements in their order as one piece of markup; None is left out."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, Html):
            parts.append(child)
        elif isinstance(child, list | tuple):
            parts.append(join(*child))
        elif child is not None:
            parts.append(escape(_clean(str(child))))
    return Html("".join(parts))


def _clean(text: str) -> str:
    """Remove characters that HTML does not allow: control characters and lone surrogates, as in damaged names."""
    text = text.encode("utf-8", "replace").decode()
    return "".join(c for c in text if c in "\n\t" or (c.isprintable() or c == "\xa0"))


def section(title: str, name: str, *children: Html | None) -> Html:
    """Return a section with a heading; `name` is its id, None is left out."""
    return el("section", el("h2", title), [child for child in children if child is not None], id=name)


def scrollable(table: Html, num_rows: int = 0) -> Html:
    """Return a table in a container that scrolls where the table is larger than the window, unlike the page.

    A table with more than MAX_ROWS rows scrolls vertically as well.
    """
    return el("div", table, class_="wide long" if num_rows > MAX_ROWS else "wide", tabindex="0")


def headed_blocks(blocks: Sequence[Block]) -> list[Html]:
    """Return blocks as elements, each with its title if there are several."""
    several = len(blocks) > 1
    return [el("div", el("h3", title) if several else None, parts, data_block=True) for title, parts in blocks]
