"""Anomalies: how well scores of single examples tell each class that was held out of training from the others."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from aetrain.data.class_selection import known_classes
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
    """Return the descriptions of the metrics of all held-out classes, then of each class, whose names end as those."""
    descriptions = {}
    for area, text in AREAS.items():
        for score, suffix in SUFFIXES.items():
            descriptions[area + suffix] = (
                f"{text}, all held-out classes against those of training; score: {SCORE_TEXTS[score]}"
            )
        for score, suffix in reversed(SUFFIXES.items()):  # a pattern without an end matches all names
            descriptions[f"{area}_CLASS{suffix}"] = (
                f"{text}, a held-out class against those of training; score: {SCORE_TEXTS[score]}"
            )
    return descriptions


@final
@dataclass(frozen=True)
class Anomaly(LabelledMeasure):
    """Areas under the ROC and the precision-recall curve of scores of test examples, for the classes held out.

    A class is held out where `dataset.train_classes` leaves it out; test examples of training classes are the normal
    ones. The area under the ROC curve is the probability that an anomaly has a higher score than a normal example
    (Hanley & McNeil 1982). Average precision depends on the share of anomalies among the test examples, which is its
    value for random scores. The scores are those of `aetrain.evaluation.example_scores`, and those of PCA with as many
    components as the code has units and of an isolation forest (Liu et al. 2008), fitted to the training examples.
    """

    descriptions: ClassVar[Mapping[str, str]] = _descriptions()

    def check_images(self, splits: Splits) -> None:
        """Raise ValueError where no class is held out, or none of training has test examples."""
        super().check_images(splits)
        held_out = held_out_classes(splits)
        if not held_out:
            names = [*known_classes(splits.train, splits.test).values()]
            raise ValueError(
                "no class is held out of training, so there is no anomaly to find: train on some classes alone, such "
                f"as dataset.train_classes=[{names[0]}]"
            )
        if np.isin(_classes(splits), held_out).all():
            raise ValueError("no test example is of a class of training: add some to the test examples")

    def __call__(self, inputs: EvalInputs) -> Metrics:
        """Return `roc_auc` and `average_precision` of every score, of all held-out classes and of each."""
        from sklearn.metrics import average_precision_score, roc_auc_score

        splits, prepare = inputs.splits, inputs.prepare
        scores = ExampleScorer.fit(inputs.model, splits.train, prepare).score(splits.test, prepare)
        scores |= anomaly_scores(inputs)
        classes, held_out = _classes(splits), held_out_classes(splits)
        groups = {"": held_out, **{f"_{name}": [number] for number, name in _names(splits, held_out).items()}}
        metrics: Metrics = {}
        for area, function in {"roc_auc": roc_auc_score, "average_precision": average_precision_score}.items():
            for ending, numbers in groups.items():
                is_kept = np.isin(classes, numbers) | ~np.isin(classes, held_out)
                is_anomaly = np.isin(classes, numbers)[is_kept]
                for score, values in scores.items():
                    metrics[area + ending + SUFFIXES[score]] = float(function(is_anomaly, values[is_kept]))
        return metrics


def held_out_classes(splits: Splits) -> list[int]:
    """Return the numbers of the classes that test examples have and training examples have not."""
    normal = splits.train.classes.unique().tolist()
    return [number for number in splits.test.classes.unique().tolist() if number not in normal]


def _classes(splits: Splits) -> Array:
    classes: Array = splits.test.classes.cpu().numpy()
    return classes


def _names(splits: Splits, numbers: list[int]) -> dict[int, str]:
    """Return the names of classes as parts of the names of metrics, or their numbers where these would be equal."""
    names = {number: re.sub(r"[^\w.]+", "_", splits.test.class_name(number)) for number in numbers}
    return names if len({*names.values()}) == len(names) else {number: str(number) for number in numbers}
