"""boltzmann-machines by Yelysei Bondarenko: features of an RBM, and a classifier that begins with its weights."""

from experiments import Outcome

from aetrain.api import Trained

CLAIM = (
    "The hidden probabilities of an RBM with 1,024 units give errors of at most 2.0 % by logistic regression, 2.0 % by "
    "a linear support vector machine and 3.1 % by nearest neighbours. A classifier that begins with its weights has an "
    "error of at most 1.45 % after training on 55,000 labels; on 1,000 labels it has at least 4 points more than from "
    "random weights."
)
LESSON = "An RBM finds features that linear classifiers can use."
RESULT = (
    "test error of logistic regression {test error, logistic regression, %} %, fine-tuned {test error, fine-tuned, %} "
    "%; published 1.83 % and 1.27 %"
)
RUNS = {"RBM": ["experiment=rbm"]}
MAX_ERRORS = {
    "test error, logistic regression, %": 2.0,
    "test error, linear SVM, %": 2.0,
    "test error, nearest neighbours, %": 3.1,
    "test error, fine-tuned, %": 1.45,
}
MIN_GAIN = 4.0


def check(runs: dict[str, Trained]) -> Outcome:
    """Check the errors and the gain with 1,000 labels."""
    (run,) = runs.values()
    values = {name.removeprefix("test/"): value for name, value in run.metrics.items()}
    metrics = {
        "test error, logistic regression, %": 100 - values["probe_linear"],
        "test error, linear SVM, %": 100 - values["probe_svm"],
        "test error, nearest neighbours, %": 100 - values["probe_knn"],
        "test error, fine-tuned, %": 100 - values["finetuned_55000"],
        "test error, random start, %": 100 - values["finetuned_55000_random"],
        "validation error, fine-tuned, %": 100 - values["finetuned_55000_validation"],
        "1,000 labels: accuracy, fine-tuned, %": values["finetuned_1000"],
        "1,000 labels: accuracy, random start, %": values["finetuned_1000_random"],
    }
    gain = values["finetuned_1000"] - values["finetuned_1000_random"]
    return Outcome(metrics, gain >= MIN_GAIN and all(metrics[name] <= bound for name, bound in MAX_ERRORS.items()))
