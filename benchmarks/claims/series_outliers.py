"""An autoencoder that was trained on normal windows of a time series finds each kind of anomaly."""

from experiments import Outcome

from aetrain.api import Trained

KINDS = ("spike", "shift", "frequency")
CLAIM = (
    "Trained on the normal windows of a generated series alone, the squared error of a test window tells spikes, level "
    "shifts and changes of frequency from normal windows: for each kind, the area under the ROC curve is above that of "
    "PCA with as many components as the code has units, and for all kinds together above that of an isolation forest."
)
LESSON = "Windows of a series are rows: a model of the normal ones finds anomalies by their error."
RESULT = (
    "area under the ROC curve of the error {all kinds, squared error}, of the distance of codes "
    "{all kinds, distance of codes}; PCA {all kinds, PCA}, isolation forest {all kinds, isolation forest}"
)
RUNS = {"normal": ["experiment=series_outliers"]}
SCORES = {"squared error": "", "distance of codes": "_code_distance", "PCA": "_pca", "isolation forest": "_forest"}


def check(runs: dict[str, Trained]) -> Outcome:
    """Check the area of each kind of anomaly against PCA's, and that of all kinds against the forest's."""
    values = runs["normal"].metrics
    areas = {
        f"{kind}, {score}": values[f"test/roc_auc{ending}{suffix}"]
        for kind, ending in {"all kinds": "", **{kind: f"_{kind}" for kind in KINDS}}.items()
        for score, suffix in SCORES.items()
    }
    beats_pca = all(areas[f"{kind}, squared error"] > areas[f"{kind}, PCA"] for kind in ("all kinds", *KINDS))
    holds = beats_pca and areas["all kinds, squared error"] > areas["all kinds, isolation forest"]
    note = (
        "Metrics are areas under the ROC curve. A window is anomalous if any of its 64 rows is, and one with the first "
        "or the last rows of an anomaly looks normal. The settings were not tuned."
    )
    return Outcome(areas, holds, note=note)
