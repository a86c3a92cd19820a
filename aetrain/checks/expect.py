"""What a check says when it does not pass."""


class Wrong(Exception):
    """An answer that is not the known one."""


class Skipped(Exception):
    """A check that has nothing to look at on this machine."""


def expect(holds: bool, text: str) -> None:
    """Wrong, with what was found, unless it holds."""
    if not holds:
        raise Wrong(text)
