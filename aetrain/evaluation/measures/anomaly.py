"""Anomalies: how well scores of single examples tell each class that is not normal from the normal ones."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from aetrain.data.class_selection import class_numbers, known_classes
from aetrain.data.examples import Splits
from aetrain.data.user_files import Array
from aetrain.evaluation.evaluator import Metrics
from aetrain.evaluation.example_scores import SCORES, ExampleScorer
from aetrain.evaluation.measures.baselines import anomaly_scores
from aetrain.evaluation.measures.measure import EvalInputs, LabelledMeasure

AREAS: Mapping[str, str] = {
    "roc_auc": "area under the ROC curve",
    "average_precision": "average precision (area under the precision-recall curve)",
}
# The end of the names of metrics by score. The squared error has none, so that the others stand beside it in tables.
SUFFIXES = {"sse": "", "nll": "_nll", "nll_kl": "_nll_kl", "code_distance": "_code_distance"}
SUFFIXES |= {"pca": "_pca", "forest": "_forest"}
SCORE_TEXTS: Mapping[str, str] = {
    **SCORES,
    "pca": "squared error of PCA with as many components as the code has units",
    "forest": "score of an isolation forest of the training examples",
}


def _descriptions() -> dict[str, str]:
    """Return the descriptions of the metrics of all anomalous classes, then of each, whose names end as those."""
    descriptions = {}
    for area, text in AREAS.items():
        for score, suffix in SUFFIXES.items():
            descriptions[area + suffix] = (
                f"{text}, all anomalous classes against the normal ones; score: {SCORE_TEXTS[score]}"
            )
        for score, suffix in reversed(SUFFIXES.items()):  # a pattern without an end matches all names
            descriptions[f"{area}_CLASS{suffix}"] = (
                f"{text}, an anomalous class against the normal ones; score: {SCORE_TEXTS[score]}"
            )
    return descriptions


@final
@dataclass(frozen=True)
class Anomaly(LabelledMeasure):
    """Areas under the ROC and the precision-recall curve of scores of test examples, for the classes not normal.

    `normal` are the normal classes, null for those of the training examples (see `dataset.train_classes`); test
    examples of other classes are anomalies. The area under the ROC curve is the probability that an anomaly has a
    higher score than a normal example (Hanley & McNeil 1982). Average precision depends on the share of anomalies among
    the test examples, which is its value for random scores. The scores are those of
    `aetrain.evaluation.example_scores`, and those of PCA with as many components as the code has units and of an
    isolation forest (Liu et al. 2008), fitted to the training examples.
    """

    descriptions: ClassVar[Mapping[str, str]] = _descriptions()

    normal: Sequence[int | str] | None = None

    def check_images(self, splits: Splits) -> None:
        """Raise ValueError where the test examples have not both normal examples and anomalies."""
        super().check_images(splits)
        anomalous = self.anomalous_classes(splits)
        setting = f"normal={'null' if self.normal is None else list(self.normal)}"
        if not anomalous:
            names = [*known_classes(splits.train, splits.test).values()]
            raise ValueError(
                f"{setting} leaves no anomaly among the test examples: name the normal classes, or train on them "
                f"alone, such as dataset.train_classes=[{names[0]}]"
            )
        if np.isin(_classes(splits), anomalous).all():
            raise ValueError(f"{setting} leaves no normal example among the test examples: add some, or name others")

    def __call__(self, inputs: EvalInputs) -> Metrics:
        """Return `roc_auc` and `average_precision` of every score, of all anomalous classes and of each."""
        from sklearn.metrics import average_precision_score, roc_auc_score

        splits, prepare = inputs.splits, inputs.prepare
        scores = ExampleScorer.fit(inputs.model, splits.train, prepare).score(splits.test, prepare)
        scores |= anomaly_scores(inputs)
        classes, anomalous = _classes(splits), self.anomalous_classes(splits)
        groups = {"": anomalous, **{f"_{name}": [number] for number, name in _names(splits, anomalous).items()}}
        metrics: Metrics = {}
        for area, function in {"roc_auc": roc_auc_score, "average_precision": average_precision_score}.items():
            for ending, numbers in groups.items():
                is_kept = np.isin(classes, numbers) | ~np.isin(classes, anomalous)
                is_anomaly = np.isin(classes, numbers)[is_kept]
                for score, values in scores.items():
                    metrics[area + ending + SUFFIXES[score]] = float(function(is_anomaly, values[is_kept]))
        return metrics

    def anomalous_classes(self, splits: Splits) -> list[int]:
        """Return the numbers of the classes of test examples that are not normal."""
        if self.normal is None:
            normal = splits.train.classes.unique().tolist()
        else:
            normal = class_numbers("normal", self.normal, known_classes(splits.train, splits.test))
        return [number for number in splits.test.classes.unique().tolist() if number not in normal]


def _classes(splits: Splits) -> Array:
    classes: Array = splits.test.classes.cpu().numpy()
    return classes


def _names(splits: Splits, numbers: list[int]) -> dict[int, str]:
    """Return the names of classes as parts of the names of metrics, or their numbers where these would be equal."""
    names = {number: re.sub(r"[^\w.]+", "_", splits.test.class_name(number)) for number in numbers}
    return names if len({*names.values()}) == len(names) else {number: str(number) for number in numbers}
