"""`mode=score`: the scores of examples, a threshold above which they are flagged, and pictures of the extremes."""

import csv
import io
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aetrain.config.chosen_options import run_caption
from aetrain.config.errors import ConfigError, error_context
from aetrain.config.overrides import SAVED
from aetrain.config.settings import Settings, flatten
from aetrain.data.columns import numbered_names
from aetrain.data.dataset import Dataset
from aetrain.data.digests import digest_data
from aetrain.data.examples import Examples, Splits, in_order
from aetrain.data.user_files import Array
from aetrain.data.vector_dataset import VectorDataset
from aetrain.evaluation.example_scores import BATCH_SIZE, ExampleScorer, prepare_chosen, score_names
from aetrain.modes.evaluate import load_trained, output_directory, separate_changed_data, separate_data
from aetrain.modes.other_data import chooses_data, load_all
from aetrain.runs import entry
from aetrain.runs.build import Components, build_dataset
from aetrain.runs.request import RunRequest
from aetrain.runs.run_data import describe_change
from aetrain.runs.train import load_data, log_data
from aetrain.storage import atomic
from aetrain.storage.run_directory import RunDirectory, display_path
from aetrain.storage.saved_config import saved_config
from aetrain.training.backend.setup import backend
from aetrain.views.annotations import FigureOptions
from aetrain.views.scored_examples import feature_errors_picture, image_errors_picture, window_errors_picture
from aetrain.views.view import Picture

log = logging.getLogger("aetrain")

FOLDER = "score"
MAX_CLASSES = 20  # whose share of flagged examples is logged
NUM_LOGGED = 5  # examples in the log, the most unusual first


@dataclass(frozen=True, eq=False)
class Ranking:
    """Examples and their scores [N] by name, in the order of the score `by`, the highest first.

    Examples are flagged where this score is above the threshold. `order` [N] are their places among those scored.
    """

    examples: Examples
    order: Tensor
    scores: dict[str, Array]
    by: str
    threshold: float

    @classmethod
    def of(cls, examples: Examples, scores: dict[str, Array], by: str, threshold: float) -> "Ranking":
        """Return the ranking of examples in any order."""
        places = np.argsort(-scores[by], kind="stable")
        order = torch.from_numpy(places).to(examples.device)
        return cls(examples[order], order, {name: values[places] for name, values in scores.items()}, by, threshold)

    @property
    def is_flagged(self) -> Array:
        """Tell for each example whether it is flagged, [N]."""
        flagged: Array = self.scores[self.by] > self.threshold
        return flagged

    def keys(self) -> tuple[str, list[str]]:
        """Return `file` and the names of the examples, or `row` and their places in the data set."""
        if names := self.examples.names:
            return "file", names
        assert self.examples.rows is not None  # of every loaded data set
        return "row", [str(row) for row in self.examples.rows.tolist()]

    def classes(self) -> list[str]:
        """Return the name of the class of each example; empty where there are no classes."""
        if self.examples.labels is None:
            return []
        return [self.examples.class_name(label) for label in self.examples.labels.tolist()]


def score(
    request: RunRequest,
    settings: Settings,
    score: str = "sse",
    false_positive_rate: float = 0.01,
    count: int = 8,
) -> dict[str, Any]:
    """Write the scores of the test examples of a run, or of all examples of another data set, and pictures of some.

    `scores.csv` has every score of `aetrain.evaluation.example_scores`, the most unusual example first. An example is
    flagged where `score` is above the threshold that a part `false_positive_rate` of the run's validation examples
    exceeds, or of its training examples where there are no others. `feature_errors.csv` has the squared error of each
    feature of vectors. The pictures show the `count` most and least unusual examples. Return the threshold and the
    number of flagged examples.
    """
    check_settings(false_positive_rate, count)
    source, components, epoch = load_trained(request, settings, "score")
    model = components.model
    if score not in (names := score_names(model)):
        raise ConfigError(f"mode.score={score} is no score of this model: use {', '.join(names[:-1])} or {names[-1]}")
    if chooses_data(request):
        dataset, own = load_own_data(request, source, components)
        examples = load_all(request, components)
        request = separate_data(request, source, digest_data(Splits(examples[:0], examples[:0], examples)))
    else:
        dataset, own = components.dataset, load_data(components)
        examples = own.test
        request = separate_changed_data(request, source, own)
        log_data(components, own)
    with output_directory(request, source, epoch), backend():
        scorer = ExampleScorer.fit(model, own.train, dataset.prepare)
        reference = reference_scores(scorer, own, dataset, score)
        threshold = choose_threshold(reference, false_positive_rate)
        if not np.isfinite(threshold):
            raise ConfigError(f"the scores of {source} are not finite: its training has diverged; train it again")
        scores = scorer.score(examples, components.dataset.prepare)
        ranking = Ranking.of(examples, scores, score, threshold)
        log_threshold(score, threshold, false_positive_rate, own, components.dataset.noun)
        folder = request.run_dir.path / FOLDER
        write_tables(folder, components, ranking)
        caption = run_caption(flatten(saved_config(source.path)), source.overrides(), epoch, settings.seed)
        options = FigureOptions(caption, settings.figure_formats, noun=components.dataset.noun)
        draw_extremes(folder, components, examples, ranking, count, options)
        log_ranking(ranking, components.dataset.noun, folder)
    return {"threshold": threshold, "flagged": int(ranking.is_flagged.sum())}


def check_settings(false_positive_rate: float, count: int) -> None:
    """Raise ConfigError for settings of the mode that are out of range."""
    if not 0 < false_positive_rate < 1:
        raise ConfigError(
            f"mode.false_positive_rate={false_positive_rate} is out of range: use a part between 0 and 1, such as 0.01"
        )
    if count < 1:
        raise ConfigError(f"mode.count={count} shows nothing: use 1 or more examples")


def load_own_data(request: RunRequest, source: RunDirectory, components: Components) -> tuple[Dataset, Splits]:
    """Return the data set that a run was trained on, and its examples, where the command line chooses another one."""
    config = request.config.copy()
    config["dataset"] = saved_config(source.path)["dataset"]
    settings = entry.check(config, [*request.overrides, f"dataset={SAVED}"])
    dataset = build_dataset(settings, source.path)
    with error_context("dataset"):
        splits = dataset.load()
    if change := describe_change(source.path, digest_data(splits)):
        log.warning("the data are not those that %s was trained on: %s", source, change)
    return dataset, splits.to(components.device)


def reference_scores(scorer: ExampleScorer, own: Splits, dataset: Dataset, score: str) -> Array:
    """Return the scores [N] of the validation examples, or of the training examples where there are none."""
    if len(own.validation):
        return scorer.score(own.validation, dataset.prepare)[score]
    return scorer.score(own.train, dataset.prepare, are_training=True)[score]


def choose_threshold(reference: Array, false_positive_rate: float) -> float:
    """Return the smallest of the reference scores [N] that at most a part `false_positive_rate` of them exceeds."""
    return float(np.quantile(reference, 1 - false_positive_rate, method="inverted_cdf"))


def log_threshold(score: str, threshold: float, rate: float, own: Splits, noun: str) -> None:
    """Log the threshold and the examples that it was estimated from."""
    has_validation = len(own.validation) > 0
    split, count = ("validation", len(own.validation)) if has_validation else ("training", len(own.train))
    log.info(
        "threshold of %s: %.4g, exceeded by at most %g%% of %s %s %ss",
        score,
        threshold,
        100 * rate,
        f"{count:,}",
        split,
        noun,
    )
    if not has_validation:
        log.warning(
            "there are no validation %ss, and the model fits training %ss better than new ones: more than %g%% of the "
            "usual ones will be flagged; train with dataset.validation= for a threshold of held-out %ss",
            *(noun, noun, 100 * rate, noun),
        )
    if rate * count < 1:
        log.warning(
            "mode.false_positive_rate=%g is less than one of %d %ss: the threshold is their highest score; use a "
            "higher rate or more %ss",
            *(rate, count, noun, noun),
        )


def log_ranking(ranking: Ranking, noun: str, folder: Path) -> None:
    """Log how many examples are flagged, also by class, the most unusual ones, and the folder of the files."""
    flagged, classes = ranking.is_flagged, ranking.classes()
    log.info("flagged: %s of %s %ss (%.1f%%)", f"{flagged.sum():,}", f"{len(flagged):,}", noun, 100 * flagged.mean())
    names = sorted(set(classes))
    if 1 < len(names) <= MAX_CLASSES:
        shares = [flagged[np.array(classes) == name].mean() for name in names]
        log.info(
            "flagged by class: %s",
            ", ".join(f"{name} {100 * share:.1f}%" for name, share in zip(names, shares, strict=True)),
        )
    key, values = ranking.keys()
    lines = [
        f"  {ranking.scores[ranking.by][place]:10.4g}  {describe_example(key, values, classes, place)}"
        for place in range(min(NUM_LOGGED, len(values)))
    ]
    log.info("the most unusual by %s:\n%s\nfiles: %s", ranking.by, "\n".join(lines), display_path(folder))


def describe_example(key: str, values: Sequence[str], classes: Sequence[str], place: int) -> str:
    """Return the class of an example, where it is known, and its file or row."""
    name = values[place] if key == "file" else f"row {values[place]}"
    return f"{classes[place]}, {name}" if classes else name


def write_tables(folder: Path, components: Components, ranking: Ranking) -> None:
    """Write scores.csv and, of vectors, feature_errors.csv."""
    key, values = ranking.keys()
    columns: dict[str, Sequence[Any]] = {key: values}
    if classes := ranking.classes():
        columns["class"] = classes
    for name, scores in ranking.scores.items():
        columns[name] = [f"{value:.7g}" for value in scores]
    columns["flagged"] = ranking.is_flagged.astype(int).tolist()
    write_csv(folder / "scores.csv", [*columns], zip(*columns.values(), strict=True))
    if components.dataset.kind == "vector":
        lines = zip(values, feature_errors(components, ranking.examples), strict=True)
        names = feature_names(ranking.examples)
        write_csv(folder / "feature_errors.csv", [key, *names], ([value, *errors] for value, errors in lines))


def write_csv(file: Path, header: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    """Replace a .csv file as a whole."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    atomic.replace_text(file, text.getvalue())


@torch.no_grad()
def feature_errors(components: Components, examples: Examples) -> Iterator[list[str]]:
    """Yield the squared error of each feature of each example, in the units of the model; empty for a missing value."""
    model = components.model
    for x in in_order(examples, BATCH_SIZE, components.dataset.prepare):
        errors = (model.likelihood.expected(model(x).decoded, x) - x).square().flatten(1)  # [B, D]
        for row in errors.tolist():
            yield ["" if math.isnan(error) else f"{error:.5g}" for error in row]


def feature_names(examples: Examples) -> Sequence[str]:
    """Return the names of the features of vectors."""
    return examples.feature_names or numbered_names(examples.values.shape[-1])


@torch.no_grad()
def draw_extremes(
    folder: Path, components: Components, examples: Examples, ranking: Ranking, count: int, options: FigureOptions
) -> None:
    """Write the pictures of the `count` most and least unusual of the scored examples, with their scores and errors."""
    ranks = range(len(examples))
    if not ranks[:count]:
        return
    extremes = {"most_unusual": ranks[:count], "least_unusual": ranks[::-1][:count]}
    places = ranking.order[[rank for chosen in extremes.values() for rank in chosen]]
    inputs = prepare_chosen(examples, places, components.dataset.prepare).chunk(len(extremes))
    for (name, chosen), x in zip(extremes.items(), inputs, strict=True):
        title = f"The {len(chosen)} {name.replace('_', ' ')} {components.dataset.noun}s by {ranking.by}"
        labels = picture_labels(ranking, chosen, components.dataset.kind == "image")
        draw_scored(components, title, x, labels, feature_names(examples)).save(folder / name, options)


def draw_scored(components: Components, title: str, x: Tensor, labels: Sequence[str], names: Sequence[str]) -> Picture:
    """Return the picture of examples x [K, C, H, W] and their errors."""
    model = components.model
    if model.kind == "image":
        return image_errors_picture(title, x, model.reconstruct(x), labels)
    expected = model.likelihood.expected(model(x).decoded, x).flatten(1)  # [K, D]
    x = x.flatten(1)
    dataset, errors = components.dataset, (expected - x).square()
    if isinstance(dataset, VectorDataset):
        x, expected = map(dataset.vector_format.unscale, (x, expected))
        if (window := dataset.rows_per_example) > 1:
            columns = [name.removesuffix("[t]") for name in names[window - 1 :: window]]
            x, expected = (values.unflatten(1, (-1, window)) for values in (x, expected))  # [K, C, W]
            return window_errors_picture(title, x, expected, labels, columns)
    return feature_errors_picture(title, errors, x, expected, labels, names)


def picture_labels(ranking: Ranking, places: Sequence[int], are_short: bool) -> list[str]:
    """Return the score of each example with its class, or its name where there are no classes or there is room."""
    key, values = ranking.keys()
    classes = ranking.classes()
    labels = []
    for place in places:
        name = classes[place] if are_short and classes else describe_example(key, values, classes, place)
        labels.append(f"{name}: {ranking.scores[ranking.by][place]:.3g}")
    return labels
