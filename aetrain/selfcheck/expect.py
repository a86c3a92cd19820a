"""The outcomes of a check other than passing."""


class CheckFailed(Exception):
    """A result differs from the known answer."""


class CheckSkipped(Exception):
    """A check cannot be done on this machine."""


def expect(condition: bool, message: str) -> None:
    """Raise CheckFailed with a message that states the result unless the condition holds."""
    if not condition:
        raise CheckFailed(message)
