"""An autoencoder that was trained on normal rows alone reconstructs anomalies with a larger error."""

from experiments import Outcome

from aetrain.api import Trained

CLAIM = (
    "Trained on the normal class of Statlog Shuttle alone, the squared error of a row tells anomalies from normal "
    "test rows: the area under the ROC curve is above 0.99, above that of PCA with as many components as the code has "
    "units, and above that of an isolation forest."
)
LESSON = "A model of normal rows finds anomalies by their error."
RESULT = (
    "area under the ROC curve {area under the ROC curve}, PCA {of PCA of the same size}, isolation forest "
    "{of an isolation forest}"
)
RUNS = {"normal": ["experiment=table_outliers"]}


def check(runs: dict[str, Trained]) -> Outcome:
    """Check the area under the ROC curve against those of PCA and of the forest."""
    values = runs["normal"].metrics
    metrics = {
        "area under the ROC curve": values["test/roc_auc"],
        "of PCA of the same size": values["test/roc_auc_pca"],
        "of an isolation forest": values["test/roc_auc_forest"],
        "squared error of the test rows": values["test/sse"],
    }
    auc, *baselines = list(metrics.values())[:3]
    return Outcome(metrics, auc > 0.99 and auc > max(baselines))
