"""The record of one diagnostic finding. It is stored in a run directory, and reports read it without torch."""

from dataclasses import dataclass

# The findings that the reconstructions are no better than those of a baseline.
NO_BETTER_THAN_PCA = "no better than PCA"
BELOW_BASELINE = (NO_BETTER_THAN_PCA, "no better than the mean image", "no better than the mean")


@dataclass(frozen=True)
class Finding:
    """One problem of a trained model. The field names are the keys in `findings.json`."""

    what: str  # name of the problem, such as "posterior collapse"
    evidence: str  # the metrics that show it
    remedy: str  # settings to try

    def __str__(self) -> str:
        return f"{self.what}: {self.evidence}; {self.remedy}"
