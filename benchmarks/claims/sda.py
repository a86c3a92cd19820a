"""The Deep Learning Tutorials of LISA lab, "Stacked denoising autoencoders": fine-tuning after layer-wise denoising."""

from experiments import Outcome

from aetrain.api import Trained

CLAIM = (
    "784-1000-1000-1000-10, pretrained layer by layer as denoising autoencoders and then fine-tuned on 50,000 labels, "
    "has an error of at most 1.45 % of the test images, and a lower one than from random weights."
)
LESSON = "A stack of denoising autoencoders is a good start for a classifier."
RESULT = "test error {test error, pretrained, %} %, random start {test error, random start, %} %; published 1.30 %"
RUNS = {"stacked denoising autoencoder": ["experiment=sda"]}
MAX_ERROR = 1.45


def check(runs: dict[str, Trained]) -> Outcome:
    """Check the error of the epoch with the best validation error."""
    (run,) = runs.values()
    name = "finetuned_50000"
    metrics = {
        "test error, pretrained, %": 100 - run.metrics[f"test/{name}"],
        "test error, random start, %": 100 - run.metrics[f"test/{name}_random"],
        "validation error, pretrained, %": 100 - run.metrics[f"test/{name}_validation"],
        "validation error, random start, %": 100 - run.metrics[f"test/{name}_random_validation"],
        "best epoch, pretrained": run.metrics[f"test/{name}_epoch"],
        "best epoch, random start": run.metrics[f"test/{name}_random_epoch"],
    }
    error, random = metrics["test error, pretrained, %"], metrics["test error, random start, %"]
    return Outcome(metrics, error <= MAX_ERROR and error < random)
