"""The errors of each test example of the runs that a report compares, computed from their checkpoints.

Shapes: N examples, K of them.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aetrain.api import compose_config
from aetrain.config.errors import ConfigError
from aetrain.data.digests import digest_data
from aetrain.data.examples import Examples, chosen_with_targets, with_targets
from aetrain.evaluation.comparability import comparison_kind
from aetrain.evaluation.evaluator import Evaluator
from aetrain.evaluation.paired_difference import Values, paired_difference
from aetrain.modes.evaluate import load_trained
from aetrain.report.comparison import Comparison, Comparisons
from aetrain.report.members import Member
from aetrain.report.runs import RunSummary
from aetrain.runs.build import Components
from aetrain.runs.entry import check
from aetrain.runs.global_state import separate_global_state
from aetrain.runs.request import RunRequest
from aetrain.runs.run_data import describe_change
from aetrain.runs.train import load_data
from aetrain.storage.hashing import digest
from aetrain.storage.run_directory import RunDirectory
from aetrain.training.backend.setup import backend
from aetrain.views.annotations import FigureOptions
from aetrain.views.differing_examples import DifferingExamples, choose_differing_examples, draw_differing_examples

log = logging.getLogger("aetrain")

METRICS = ("sse", "noisy_sse", "nll", "neg_elbo")  # that are compared, of those that both runs have
EXAMPLES_SHOWN = {"image": 6, "vector": 4, "counts": 4, "ratings": 4}  # of each half
BATCH_SIZE = 1000


@dataclass(frozen=True, eq=False)
class EvaluatedRun:
    """A saved run with the errors of its test examples."""

    summary: RunSummary
    components: Components
    test: Examples
    digest: str  # of the prepared test examples
    errors: dict[str, Values]  # by name of the metric, [N] each

    @torch.no_grad()
    def reconstruct(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return test examples [K, C, H, W], what they are compared with, and their reconstructions, on the CPU.

        They are prepared as in the evaluation, with the same random values.
        """
        model = self.components.model
        x_in, x = chosen_with_targets(self.test, index, BATCH_SIZE, self.components.dataset.prepare)
        return x.cpu(), model.likelihood.expected(model(x_in, x).decoded, x).cpu()


def evaluate_run(summary: RunSummary) -> EvaluatedRun:
    """Evaluate the checkpoint of a run on its test examples. Raise ConfigError where that is not possible."""
    if summary.status != "finished":
        raise ConfigError(f"{summary.name} is {summary.status}")
    with separate_global_state():
        config, directory, overrides = compose_config([f"run={summary.path}", "mode=eval"])
        settings = check(config, overrides)
        _, components, _ = load_trained(RunRequest(config, RunDirectory(directory), overrides), settings, "report")
        splits = load_data(components)
        if change := describe_change(summary.path, digest_data(splits)):
            raise ConfigError(f"its data are not those of its training: {change}")
        test, prepare = splits.test, components.dataset.prepare
        log.info("errors of %s on %s test %ss", summary.name, f"{len(test):,}", components.dataset.noun)
        with backend():
            evaluator = Evaluator(test, prepare, components.noise, BATCH_SIZE)
            metrics = evaluator.example_metrics(components.model, components.objective)
        parts = [digest(x) for pair in with_targets(test, BATCH_SIZE, prepare) for x in pair]
    return EvaluatedRun(summary, components, test, digest(parts), {name: metrics[name].numpy() for name in metrics})


def compare_members(members: Sequence[Member], folder: Path) -> Comparisons:
    """Compare all members with the first one, and write the pictures of the examples on which they differ to `folder`.

    A comparison that is not possible has the reason.
    """
    reference, *others = members
    comparisons = []
    try:
        first = _evaluate_member(reference)
    except ConfigError as error:
        reason = f"{reference.label}: {first_line(error)}"
        return Comparisons(reference, [Comparison(member, {}, reason=reason) for member in others])
    for number, member in enumerate(others, start=1):
        name = "differences" if len(others) == 1 else f"differences-{number}"
        try:
            comparisons.append(_compare((reference, first), (member, _evaluate_member(member)), folder / name))
        except ConfigError as error:
            comparisons.append(Comparison(member, {}, reason=first_line(error)))
    return Comparisons(reference, comparisons)


def first_line(error: ConfigError) -> str:
    """Return the first line of a message."""
    return str(error).partition("\n")[0]


def _evaluate_member(member: Member) -> list[EvaluatedRun]:
    """Evaluate the finished runs of a member. Raise ConfigError where there are none."""
    finished = [run for run in member.runs if run.status == "finished"]
    if not finished:
        raise ConfigError(f"{member.label} has no finished run")
    return [evaluate_run(run) for run in finished]


Evaluated = tuple[Member, Sequence[EvaluatedRun]]


def _compare(first: Evaluated, second: Evaluated, path: Path) -> Comparison:
    """Return the paired differences of two members, and write their picture to `path`.png."""
    (reference, first_runs), (member, second_runs) = first, second
    if len({run.digest for run in (*first_runs, *second_runs)}) > 1:
        raise ConfigError(f"its test data are not those of {reference.label}")
    differences = {}
    for name in METRICS:
        tag = f"test/{name}"
        all_runs = (*first_runs, *second_runs)
        is_shared = all(name in run.errors for run in all_runs)
        if is_shared and len({comparison_kind(tag, run.summary.settings) for run in all_runs}) == 1:
            differences[tag] = paired_difference(_mean_errors(first_runs, name), _mean_errors(second_runs, name))
    by_seed = _differences_by_seed(first_runs, second_runs, METRICS[0])
    _draw((reference, first_runs), (member, second_runs), path)
    return Comparison(member, differences, by_seed, path.with_name(f"{path.name}.png"))


def _mean_errors(runs: Sequence[EvaluatedRun], name: str) -> Values:
    """Return the errors of the examples, means over the runs, [N]."""
    return np.mean([run.errors[name] for run in runs], axis=0)


def _differences_by_seed(
    first: Sequence[EvaluatedRun], second: Sequence[EvaluatedRun], name: str
) -> list[tuple[str, float]]:
    """Return the difference of the mean errors of the runs with a seed, for each seed that both have."""
    means = [{run.summary.seed: float(run.errors[name].mean()) for run in runs} for runs in (first, second)]
    return [(seed, means[1][seed] - value) for seed, value in means[0].items() if seed in means[1]]


def _draw(first: Evaluated, second: Evaluated, path: Path) -> None:
    """Write the picture of the examples on which two members differ most, reconstructed by the first run of each."""
    (reference, first_runs), (member, second_runs) = first, second
    run = first_runs[0]
    kind, test = run.components.dataset.kind, run.test
    errors = [torch.from_numpy(_mean_errors(runs, METRICS[0])) for runs in (first_runs, second_runs)]
    index = choose_differing_examples(errors[0], errors[1], EXAMPLES_SHOWN[kind])
    if not len(index):
        return
    x, reconstructed = run.reconstruct(index)
    _, other = second_runs[0].reconstruct(index)
    first_errors, second_errors = (values[index].tolist() for values in errors)
    examples = DifferingExamples(
        kind,
        x,
        (reconstructed, other),
        (first_errors, second_errors),
        [_example_name(test, place) for place in index.tolist()],
        (_model_name(reference, first_runs), _model_name(member, second_runs)),
        test.feature_names,
    )
    caption = f"{run.summary.options.get('dataset', '')} · {len(test):,} test {run.components.dataset.noun}s"
    draw_differing_examples(examples).save(path, FigureOptions(caption, noun=run.components.dataset.noun))


def _example_name(examples: Examples, place: int) -> str:
    """Return the class of an example, if it has one, and its place in the data set."""
    row = place if examples.rows is None else int(examples.rows[place])
    if examples.labels is None:
        return f"row {row}"
    return f"{examples.class_name(int(examples.labels[place]))}, row {row}"


def _model_name(member: Member, runs: Sequence[EvaluatedRun]) -> str:
    if len(runs) == 1:
        return member.label
    return f"{member.label} (reconstructions of seed {runs[0].summary.seed}, errors are means of {len(runs)} seeds)"
