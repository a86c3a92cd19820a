"""Outliers: how well the error of a reconstruction tells examples of other classes from those of training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from aetrain.data.class_selection import class_numbers, known_classes
from aetrain.data.examples import Splits
from aetrain.data.user_files import Array
from aetrain.evaluation.evaluator import Metrics
from aetrain.evaluation.example_scores import reconstruction_scores
from aetrain.evaluation.measures.baselines import anomaly_scores
from aetrain.evaluation.measures.measure import EvalInputs, LabelledMeasure


@final
@dataclass(frozen=True)
class Outliers(LabelledMeasure):
    """Area under the ROC curve of the squared error: of an outlier it is larger than that of a normal test example.

    It is the probability of that for one of each (Hanley & McNeil 1982). `normal` are the normal classes, null for
    those of the training examples (see `dataset.train_classes`); test examples of other classes are outliers. Baselines
    are the error of PCA with as many components as the code has units, and the isolation forest (Liu et al. 2008) of
    scikit-learn, both fitted to the training examples. `Anomaly` has other scores, and each class alone.
    """

    descriptions: ClassVar[Mapping[str, str]] = {
        "outlier_auc": "area under the ROC curve of the squared error of test examples, for those of other classes",
        "outlier_auc_pca": "area under the ROC curve of the squared error of PCA with as many components as the code",
        "outlier_auc_forest": "area under the ROC curve of an isolation forest of the training examples",
    }

    normal: Sequence[int | str] | None = None

    def check_images(self, splits: Splits) -> None:
        """Raise ValueError where the test examples have not both normal examples and outliers."""
        super().check_images(splits)
        is_outlier = self._outliers(splits)
        if is_outlier.all() or not is_outlier.any():
            kind = "normal examples" if is_outlier.all() else "outliers"
            raise ValueError(
                f"normal={'null' if self.normal is None else list(self.normal)} leaves no {kind} among the test "
                "examples: name the normal classes, or train on them alone with dataset.train_classes="
            )

    def __call__(self, inputs: EvalInputs) -> Metrics:
        """Return `outlier_auc`, `outlier_auc_pca` where PCA was fitted, and `outlier_auc_forest`."""
        from sklearn.metrics import roc_auc_score

        is_outlier = self._outliers(inputs.splits)
        scores = {"outlier_auc": reconstruction_scores(inputs.model, inputs.splits.test, inputs.prepare)["sse"]}
        scores |= {f"outlier_auc_{name}": score for name, score in anomaly_scores(inputs).items()}
        return {name: float(roc_auc_score(is_outlier, score)) for name, score in scores.items()}

    def _outliers(self, splits: Splits) -> Array:
        """Tell for each test example whether it is an outlier, [N]."""
        if self.normal is None:
            normal = splits.train.classes.unique().tolist()
        else:
            normal = class_numbers("normal", self.normal, known_classes(splits.train, splits.test))
        is_outlier: Array = ~np.isin(splits.test.classes.cpu().numpy(), normal)
        return is_outlier
