"""The record of one diagnostic finding. It is stored in a run directory, and reports read it without torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One problem of a trained model. The field names are the keys in `findings.json`."""

    what: str  # name of the problem, such as "posterior collapse"
    evidence: str  # the metrics that show it
    remedy: str  # settings to try

    def __str__(self) -> str:
        return f"{self.what}: {self.evidence}; {self.remedy}"
