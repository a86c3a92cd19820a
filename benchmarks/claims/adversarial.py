"""Makhzani et al. (2016): a critic shapes the codes of all images into the prior, whose draws decode into digits."""

from experiments import Outcome
from prior_matching import check_matched

from aetrain.api import Trained
from aetrain.storage.run_directory import RunDirectory

CLAIM = (
    "With a critic, the codes of all test images together are close to the prior N(0, I), and draws from the prior "
    "are decoded into digits of every class. Without the critic the codes lie elsewhere, and draws are decoded into "
    "few digits."
)
LESSON = "A critic shapes the codes into the prior."
RESULT = "MMD² to the prior {squared MMD to the prior, with the critic}, without {squared MMD to the prior, without}"
RUNS = {
    "adversarial": ["experiment=adversarial"],
    "without": ["experiment=adversarial", "model.penalties.critic.weight=0"],
}


def check(runs: dict[str, Trained]) -> Outcome:
    """Check `check_matched`, and that the critic is right for 50 to 90 % of the codes in the last epoch."""
    matched = check_matched(runs, ("with the critic", "without"))
    last = RunDirectory(runs["adversarial"].directory).history()[-1]
    accuracy = last["train/critic_accuracy"]
    matched.metrics["critic's accuracy in the last epoch (chance: one half)"] = accuracy
    note = (
        "Smaller than the paper's network (784-1000-1000-8), with one step of the optimizer for reconstruction and "
        "regularisation together. The agreement is that of the 10 nearest training images; of test digits it is 0.95."
    )
    return Outcome(matched.metrics, matched.holds and 0.5 <= accuracy < 0.9, matched.picture, note)
