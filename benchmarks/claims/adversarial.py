"""Makhzani et al. (2016): a critic shapes the codes of all images into the prior, and draws from it become digits."""

from experiments import Outcome
from matching import check_matched

from aetrain.api import Trained
from aetrain.storage.run_directory import RunDirectory

CLAIM = (
    "With a critic the codes of all test images together are close to the prior N(0, I), and draws from it are painted "
    "as digits of every kind; without it the codes are elsewhere, and draws paint few digits."
)
RUNS = {
    "adversarial": ["experiment=adversarial"],
    "without": ["experiment=adversarial", "model.penalties.critic.weight=0"],
}


def check(runs: dict[str, Trained]) -> Outcome:
    """Means below 0.3, variances within 0.5 and 1.5, an MMD a tenth of the control's, no walk-over for the critic."""
    matched = check_matched(runs, ("with the critic", "without"))
    last = RunDirectory(runs["adversarial"].directory).history()[-1]
    accuracy = last["train/critic_accuracy"]
    matched.figures["critic's accuracy in the last epoch (one half is a guess)"] = accuracy
    note = (
        "Smaller than the paper's network (784-1000-1000-8), with one step of the optimizer for reconstruction and "
        "regularisation together. The agreement is that of the 10 nearest training images; of test digits it is 0.95."
    )
    return Outcome(matched.figures, matched.holds and 0.5 <= accuracy < 0.9, matched.picture, note)
