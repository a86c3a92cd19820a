"""What the training doctor finds, as runs keep it and reports read it: a record that needs no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    what: str  # in a few words
    evidence: str  # the figures that show it
    remedy: str  # settings to try

    def __str__(self) -> str:
        return f"{self.what}: {self.evidence}; {self.remedy}"
