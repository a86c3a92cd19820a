"""The UFLDL course of Ng et al., exercise "Implement deep networks for digit classification": two sparse layers."""

from experiments import Outcome

from aetrain.api import Trained

CLAIM = (
    "A softmax on the features of 784-200-200, two sparse autoencoders trained one after the other, classifies at "
    "least 87 % of the test images, and the whole network at least 97 % after fine-tuning."
)
LESSON = "Fine-tuning a stack of sparse autoencoders corrects more than half of the errors of its features."
RESULT = (
    "{test accuracy, softmax on the features, %} % and {test accuracy, fine-tuned, %} %; a course's solution: 87 and 97"
)
RUNS = {"two sparse layers": ["experiment=ufldl_stacked"]}
MIN_BEFORE, MIN_AFTER = 87.0, 97.0


def check(runs: dict[str, Trained]) -> Outcome:
    """Check the accuracy before and after fine-tuning."""
    (run,) = runs.values()
    metrics = {
        "test accuracy, softmax on the features, %": run.metrics["test/probe_linear"],
        "test accuracy, fine-tuned, %": run.metrics["test/finetuned_60000"],
        "test accuracy, random start, %": run.metrics["test/finetuned_60000_random"],
    }
    before, after = list(metrics.values())[:2]
    return Outcome(metrics, before >= MIN_BEFORE and after >= MIN_AFTER)
