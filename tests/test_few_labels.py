"""Fine-tuning on labels: the best epoch, the optimizer, the learning rate of the encoder, and the messages."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from command import command
from conftest import TINY
from test_uses import eval_inputs
from torch.optim import Adam

import aetrain
from aetrain.evaluation.comparability import comparison_kind
from aetrain.evaluation.measures.few_labels import BestEpoch, Classifier, CrossEntropy, FewLabels, accuracy
from aetrain.training.early_stopping import EarlyStopping
from aetrain.training.loop import TrainState
from aetrain.training.optimizers import LBFGS
from aetrain.training.schedules import Decay, MultiStep, Plateau

HELD_OUT = ("dataset.subset=300", "dataset.validation=200", "dataset.test_subset=300")


def measure(**settings: Any) -> FewLabels:
    defaults: dict[str, Any] = {"labels": [100], "steps": 0, "epochs": 6, "lr": 3e-3}
    return FewLabels(**(defaults | settings))


def test_best_epoch_has_the_weights_of_a_training_that_ends_there() -> None:
    """The accuracies of all epochs come from trainings of as many epochs, each with its last weights."""
    inputs = eval_inputs(*HELD_OUT)
    splits, images = inputs.splits, labelled(inputs)
    best = measure(keep="best", epochs=8, lr=0.1)(inputs)
    accuracies = {}
    for epochs in range(1, 9):
        trained = measure(epochs=epochs, lr=0.1).fine_tune(inputs.make_untrained(), images, inputs)
        shares = [accuracy(trained.classifier, part, inputs.prepare) for part in (splits.validation, splits.test)]
        accuracies[epochs] = [100 * share for share in shares]
    epoch = max(accuracies, key=lambda number: accuracies[number][0])
    assert best["finetuned_100_random_epoch"] == epoch
    assert [best["finetuned_100_random_validation"], best["finetuned_100_random"]] == accuracies[epoch]
    assert epoch < 8, "the test needs a training whose last epoch is not the best"


def test_accuracy_on_validation_images_ends_the_training_and_lowers_the_rate() -> None:
    """A training that stops, and one whose rate falls to nearly 0, have the weights of one with as many epochs."""
    inputs = eval_inputs(*HELD_OUT)
    images, kinds = labelled(inputs), {"lr": 0.1, "epochs": 12}
    best = measure(**kinds, keep="best").fine_tune(inputs.make_untrained(), images, inputs)
    rule = EarlyStopping(2)
    accuracies = best.accuracies
    end = next(end for end in range(1, 13) if rule.reason(accuracies[:end], higher_is_better=True))
    assert end < 12, "the test needs accuracies that stop improving"
    plain = measure(**kinds | {"epochs": end}).fine_tune(inputs.make_untrained(), images, inputs)
    stopped = measure(**kinds, stop=rule).fine_tune(inputs.make_untrained(), images, inputs)
    assert stopped.accuracies == accuracies[:end]
    slow = measure(**kinds, schedule=Plateau(1e-12, patience=2)).fine_tune(inputs.make_untrained(), images, inputs)
    assert slow.accuracies[:end] == accuracies[:end]
    assert slow.accuracies[end:] == [accuracies[end - 1]] * (12 - end)
    for name, weight in plain.classifier.named_parameters():
        torch.testing.assert_close(stopped.classifier.get_parameter(name), weight, atol=0, rtol=0)
        torch.testing.assert_close(slow.classifier.get_parameter(name), weight)


def labelled(inputs: Any) -> Any:
    from aetrain.evaluation.measures.few_labels import balanced_subset

    train = inputs.splits.train
    return train[balanced_subset(train.classes, 100, inputs.seed)]


def test_first_of_equal_epochs_is_the_best() -> None:
    inputs = eval_inputs(*HELD_OUT)
    classifier = Classifier(inputs.make_untrained(), 10).eval()
    best = BestEpoch(classifier, inputs.splits.validation, inputs.prepare)
    for epoch in (1, 2):
        best(TrainState(classifier, 0, 2, epoch))
    assert best.epoch == 1


def test_null_stands_for_all_training_images() -> None:
    inputs = eval_inputs(*HELD_OUT)
    metrics = measure(labels=[100, None], epochs=1)(inputs)
    assert set(metrics) == {f"finetuned_{n}{suffix}" for n in (100, 300) for suffix in ("", "_random")}
    assert metrics == measure(labels=[100, 300], epochs=1)(inputs)


def test_learning_rate_of_the_encoder_is_of_the_trained_one_alone() -> None:
    inputs = eval_inputs(*HELD_OUT)
    slow = measure(encoder_lr=1e-12)
    model = inputs.make_untrained()
    before = [weight.clone() for weight in model.parameters()]
    trained = slow.fine_tune(model, labelled(inputs), inputs)
    for old, new in zip(before, model.parameters(), strict=True):
        torch.testing.assert_close(new, old, atol=1e-7, rtol=0)
    assert trained.classifier.linear.weight.grad is not None
    plain, with_slow_encoder = measure()(inputs), slow(inputs)
    assert with_slow_encoder["finetuned_100_random"] == plain["finetuned_100_random"]
    assert with_slow_encoder["finetuned_100"] != plain["finetuned_100"]


def test_step_of_gradient_descent_equals_autograd() -> None:
    """One full batch is one step of w - lr * gradient, with another rate for the encoder."""
    inputs = eval_inputs(*HELD_OUT)
    images = labelled(inputs)
    descent = measure(
        optimizer=partial(torch.optim.SGD, lr=0.5), encoder_lr=0.05, batch_size=100, epochs=1, schedule=Decay()
    )
    torch.manual_seed(0)
    trained = descent.fine_tune(inputs.make_untrained(), images, inputs).classifier
    start = measure(epochs=1, optimizer=partial(torch.optim.SGD, lr=0.0)).fine_tune(
        inputs.make_untrained(), images, inputs
    )
    loss = CrossEntropy(start.classifier, images, inputs.prepare)(torch.arange(100))["loss"]
    names, weights = zip(*start.classifier.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    for name, weight, gradient in zip(names, weights, gradients, strict=True):
        rate = 0.5 if name.startswith("linear") else 0.05
        expected = weight if gradient is None else weight - rate * gradient
        torch.testing.assert_close(trained.get_parameter(name), expected, atol=1e-6, rtol=1e-4)


def test_full_batches_of_lbfgs_classify_all_labelled_images() -> None:
    inputs = eval_inputs(*HELD_OUT)
    images = labelled(inputs)
    settings = measure(optimizer=partial(LBFGS, max_iter=50), batch_size=100, epochs=1)
    trained = settings.fine_tune(inputs.make_untrained(), images, inputs)
    assert accuracy(trained.classifier, images, inputs.prepare) == 1


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"labels": []}, "labels="),
        ({"labels": [None, 1]}, "labels="),
        ({"encoder_lr": 0.0}, "encoder_lr=0"),
        ({"optimizer": "sgd"}, "optimizer@measures.few_labels.optimizer=sgd"),
        ({"optimizer": partial(LBFGS), "encoder_lr": 0.1}, "encoder_lr=0.1 does not fit L-BFGS"),
    ],
)
def test_unsuitable_settings_are_refused(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        measure(**settings)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"keep": "best"}, "keep=best"),
        ({"stop": EarlyStopping(1)}, "stop.patience"),
        ({"schedule": Plateau()}, r"schedule \(Plateau\)"),
    ],
)
def test_comparison_of_epochs_needs_validation_images(settings: dict[str, Any], expected: str) -> None:
    splits = eval_inputs().splits
    with pytest.raises(ValueError, match=f"{expected} compares epochs .*hold training images out"):
        measure(labels=[20], **settings).check_images(splits)
    measure(labels=[20], stop=EarlyStopping(None), schedule=Decay()).check_images(splits)


def test_optimizer_that_refuses_its_settings_is_told_before_training() -> None:
    model = eval_inputs().model
    before = torch.get_rng_state()
    measure(optimizer=partial(Adam, lr=1e-3)).check(model)
    assert torch.equal(torch.get_rng_state(), before)
    wrong: list[dict[str, Any]] = [{"lr": -1.0}, {"betas": (0.9, 1.5)}, {"momentum": 0.9}]
    for settings in wrong:
        with pytest.raises(ValueError, match="the optimizer refuses its settings: "):
            measure(optimizer=partial(Adam, **settings)).check(model)


def test_milestones_of_a_schedule_are_epochs_of_the_fine_tuning() -> None:
    """From the milestone on a rate of nearly 0 changes no accuracy, as in a training that ends there."""
    inputs = eval_inputs(*HELD_OUT)
    kinds: dict[str, Any] = {"lr": 0.1, "keep": "best"}
    images = labelled(inputs)
    plain = measure(**kinds, epochs=6).fine_tune(inputs.make_untrained(), images, inputs)
    assert plain.accuracies[2:] != [plain.accuracies[2]] * 4, "the test needs accuracies that change"
    for run_epochs in (0, 1, 50):  # of the run, which the group's option counts
        schedule = MultiStep([3], gamma=1e-12, epochs=run_epochs)
        slow = measure(**kinds, epochs=6, schedule=schedule).fine_tune(inputs.make_untrained(), images, inputs)
        assert slow.accuracies == [*plain.accuracies[:3], *[plain.accuracies[2]] * 3]


def test_two_measures_of_as_many_labels_are_refused(tmp_path: Path) -> None:
    outcome = command([*TINY, "dataset.subset=100", "measures=[few_labels,fine_tuning]"], tmp_path)
    assert outcome.code == 1
    assert "measures.few_labels and measures.fine_tuning both fine-tune on 100 labels" in outcome.err
    assert not (tmp_path / "outputs").exists()


def test_more_labels_than_images_are_refused() -> None:
    splits = eval_inputs().splits
    measure(labels=[None]).check_images(splits)
    with pytest.raises(ValueError, match="use less"):
        measure(labels=[4000]).check_images(splits)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("measures.few_labels.labels=[a]", "a list of whole numbers or nulls such as [100,null]"),
        ("measures.few_labels.schedule=cosine", "a component (a section with a _target_) or null"),
        (
            "measures.few_labels.stop={_target_: aetrain.training.early_stopping.EarlyStopping, patience: 0}",
            "measures.few_labels.stop.patience=0 is too small",
        ),
    ],
)
def test_message_about_a_wrong_value_names_the_right_ones(override: str, expected: str, tmp_path: Path) -> None:
    outcome = command([*TINY, "measures=few_labels", override], tmp_path)
    assert outcome.code == 1
    assert expected in outcome.err


def test_options_of_the_groups_are_chosen_on_the_command_line(tiny: Callable[..., Path]) -> None:
    directory = tiny(
        "measures=[few_labels]", "optimizer@measures.few_labels.optimizer=lbfgs", "dataset.validation=30",
        "schedule@measures.few_labels.schedule=cosine", "measures.few_labels.optimizer.max_iter=3",
        "measures.few_labels.labels=[20,null]", "measures.few_labels.keep=best", "measures.few_labels.steps=4",
    )  # fmt: skip
    run = aetrain.load(directory)
    assert run.config.measures.few_labels.optimizer._target_ == "aetrain.training.optimizers.LBFGS"
    names = {f"test/finetuned_20{suffix}{name}" for suffix in ("", "_random") for name in ("", "_validation", "_epoch")}
    assert names <= set(run.metrics)
    assert 1 <= run.metrics["test/finetuned_20_epoch"] <= 5


def test_metrics_of_an_earlier_version_are_ranked_with_the_last_epoch() -> None:
    earlier: dict[str, Any] = {"measures.few_labels.lr": 1e-3}
    assert comparison_kind("test/finetuned_100", earlier) == comparison_kind(
        "test/finetuned_100", earlier | {"measures.few_labels.keep": "last", "measures.few_labels.optimizer": None}
    )
    best = earlier | {"measures.few_labels.keep": "best"}
    assert comparison_kind("test/finetuned_100", earlier) != comparison_kind("test/finetuned_100", best)


def test_measure_can_be_listed_twice_with_other_numbers() -> None:
    inputs = eval_inputs(*HELD_OUT)
    few, all_labels = measure(epochs=1), measure(labels=[None], epochs=1)
    assert not set(few(inputs)) & set(replace(all_labels, keep="best")(inputs))
