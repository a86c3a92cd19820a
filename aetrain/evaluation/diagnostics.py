"""Diagnostics: rules that find the common problems of a trained model, with evidence and settings to try.

A rule is a function of metrics that every run has anyway, at the end of training and after each epoch. It finds nothing
where its metrics are missing. A threshold lies where a model is clearly bad. For each rule a test trains a model with
the problem, and models of every family without problems get no finding.
"""

import re
from collections.abc import Callable, Sequence

from aetrain.data.pixel_values import MAX_DARK
from aetrain.evaluation.diagnostic_inputs import DiagnosticInputs
from aetrain.evaluation.finding import NO_BETTER_THAN_PCA, Finding

MIN_LOSS_RISE = 0.05  # of the error before training: the least rise of the loss that counts as divergence
MIN_KL = 0.5  # nats of a random code
MIN_ACTIVE_SHARE = 0.1  # of the units of a random code
MAX_DEAD_CODE_SHARE = 0.25  # of the units of a code
MAX_DEAD_SPARSE_CODE_SHARE = 0.75  # of the units of a sparse code, in which dead units are partly intended
MAX_DEAD_HIDDEN_SHARE = 0.75  # of the encoder's hidden units
MAX_SATURATED_SHARE = 0.25  # of the sigmoid and tanh units
MAX_COPIED_SHARE = 0.25  # error on shuffled pixels, as a share of the error of the mean image
MIN_CODEBOOK_SHARE = 0.1  # perplexity of the codewords, as a share of their number
MAX_CRITIC_ACCURACY = 0.95
MAX_DARKEST, MIN_BRIGHTEST = 0.01, 0.99  # pixels that the decoder must be able to output
MIN_ZERO_SHARE = 0.01  # of the units of a code that is meant to have zeros
MAX_TARGET_RATIO = 2.0  # of the mean activation of the code to its target
MAX_MEAN_IMAGE_SHARE = 0.9  # squared error, as a share of the error of the mean image
MAX_PCA_RATIO = 1.1  # of the squared error to that of PCA


def diagnose(inputs: DiagnosticInputs) -> list[Finding]:
    """Return the findings, in the order of RULES; an empty list for a model without problems."""
    return [finding for rule in RULES if (finding := rule(inputs)) is not None]


def dark_images(inputs: DiagnosticInputs) -> Finding | None:
    """Find training images that use less than about a quarter of the range of pixels, so that all errors are small."""
    if inputs.largest_byte > MAX_DARK:
        return None
    if "dataset.white" in inputs.settings:
        remedy = "choose as dataset.white the stored value that is white"
    else:
        remedy = "try images with pixels up to 255"
    return Finding(
        "nearly black images",
        f"the largest pixel of the training images is {inputs.largest_byte} of 255, so that all errors are small",
        remedy,
    )


def training_diverges(inputs: DiagnosticInputs) -> Finding | None:
    """Find a loss that ends far above its lowest value, or above its value before training."""
    initial_metrics = inputs.history[0] if inputs.history else {}
    held_out = "test/loss" if "test/loss" in initial_metrics else "validation/loss"
    # The held-out loss has the full weights, and is of the same values as its value before training.
    tag = held_out if inputs.weights_rise or inputs.has_targets else "train/loss"
    losses = [metrics[tag] for metrics in inputs.history[1:] if tag in metrics]
    initial = initial_metrics.get(held_out)
    if initial is None or not losses:
        return None
    lowest, constant = min(initial, *losses), inputs.loss_constant
    mean_image_error = inputs.nll_weight * inputs.metrics.get("mean_sse", 0.0)
    scale = max(abs(initial - constant), mean_image_error)  # a constant is no error
    min_rise = max(abs(lowest - constant), MIN_LOSS_RISE * scale)
    if losses[-1] - lowest < min_rise:
        return None
    current_lr = "" if inputs.lr is None else f" (it is {inputs.lr:g})"
    return Finding(
        "training diverges",
        f"the loss is {losses[-1]:.4g} after {len(losses)} epochs, and its lowest value was {lowest:.4g}",
        f"try a smaller optimizer.lr{current_lr}",
    )


def posterior_collapse(inputs: DiagnosticInputs) -> Finding | None:
    """Find a random code that carries almost no information, or in which under 10 % of the units are active."""
    kl, active = inputs.metrics.get("kl"), inputs.metrics.get("active_units")
    if kl is None or active is None or (kl >= MIN_KL and active >= MIN_ACTIVE_SHARE * inputs.code_dim):
        return None
    return Finding(
        "posterior collapse",
        f"the code carries {kl:.3g} nats, and {active:.0f} of its {inputs.code_dim} units depend on the {inputs.noun}",
        inputs.advice(
            "a smaller model.penalties.kl.weight",
            "model.penalties.kl.warmup=1",
            "more epochs",
            "a smaller optimizer.lr",
        ),
    )


def codebook_collapse(inputs: DiagnosticInputs) -> Finding | None:
    """Find a codebook of which under 10 % are in use."""
    perplexity, used = inputs.metrics.get("perplexity"), inputs.metrics.get("used_codewords")
    if perplexity is None or used is None or not inputs.num_codewords:
        return None
    if perplexity >= MIN_CODEBOOK_SHARE * inputs.num_codewords:
        return None
    return Finding(
        "codebook collapse",
        f"{used:.0f} of {inputs.num_codewords} codewords are used, with a perplexity of {perplexity:.1f}",
        inputs.advice(
            "a smaller model.bottleneck.reset_after", "a smaller optimizer.lr", "fewer model.bottleneck.num_codewords"
        ),
    )


def critic_wins(inputs: DiagnosticInputs) -> Finding | None:
    """Find a critic that separates codes from prior samples almost always, and so teaches the encoder nothing."""
    last = inputs.history[-1] if inputs.history else {}
    accuracies = {tag: value for tag, value in last.items() if re.fullmatch("train/.+_accuracy", tag)}
    for tag, accuracy in accuracies.items():
        if accuracy > MAX_CRITIC_ACCURACY:
            name = tag.removeprefix("train/").removesuffix("_accuracy")
            in_model, in_group = f"model.penalties.{name}", f"penalty.{name}"  # `advice` drops the one that is missing
            return Finding(
                "the critic has won",
                f"the critic tells {accuracy:.1%} of codes and prior samples apart, so codes do not follow the prior",
                inputs.advice(
                    f"a larger {in_model}.weight",
                    f"a larger {in_group}.weight",
                    f"a smaller {in_model}.units",
                    f"a smaller {in_group}.units",
                    "more epochs",
                ),
            )
    return None


def output_range_mismatch(inputs: DiagnosticInputs) -> Finding | None:
    """Find an output activation of the decoder that cannot output black, or cannot output white."""
    low, high = inputs.output_range
    if low <= MAX_DARKEST and high >= MIN_BRIGHTEST:
        return None
    return Finding(
        "the output's range does not fit",
        f"the decoder can output pixels from {max(low, 0):.2g} to {min(high, 1):.2g}, and images need 0 to 1",
        "choose likelihood.output and dataset.scale that go together: sigmoid and [0,1], tanh and [-1,1], or identity",
    )


def code_is_not_sparse(inputs: DiagnosticInputs) -> Finding | None:
    """Find a code that is meant to be sparse and is not: without zeros, or far more active than its target."""
    l0, mean, goal = inputs.metrics.get("l0"), inputs.metrics.get("code_mean"), inputs.sparsity_goal
    if goal.zeroed_by is not None and l0 is not None and l0 > (1 - MIN_ZERO_SHARE) * inputs.code_dim:
        evidence = f"{goal.zeroed_by} leaves {l0:.0f} of the code's {inputs.code_dim} units different from 0 (l0)"
        idea = "model.code_activation=relu" if goal.is_code_linear else f"a larger {goal.zeroed_by}.weight"
        remedy = inputs.advice(idea, "a smaller sparsity.k", "sparsity=topk")
        return Finding("the code is not sparse", evidence, remedy)
    for setting, target in goal.target_activations.items():
        if mean is not None and mean > MAX_TARGET_RATIO * target:
            evidence = f"the mean activation of the code is {mean:.2g}, and {setting}.target is {target:g}"
            remedy = inputs.advice(f"a larger {setting}.weight", "more epochs", "sparsity=topk")
            return Finding("the code is not sparse", evidence, remedy)
    return None


def many_dead_units(inputs: DiagnosticInputs) -> Finding | None:
    """Find units that are constant over images: over 25 % of the code, or over 75 % of the encoder's hidden units.

    The threshold of hidden units is high because 45 to 59 % of the rectifiers are dead in good runs of model=vae and
    model=vqvae on Fashion-MNIST.
    """
    groups = []
    dead = inputs.metrics.get("dead_units", 0.0)
    max_dead_share = MAX_DEAD_SPARSE_CODE_SHARE if inputs.sparse else MAX_DEAD_CODE_SHARE
    # In a random code the prior makes units inactive: `posterior_collapse` judges those.
    if "active_units" not in inputs.metrics and dead > max_dead_share * inputs.code_dim:
        groups.append(f"{dead:.0f} of the code's {inputs.code_dim} units")
    if (hidden := inputs.metrics.get("dead_hidden", 0.0)) > MAX_DEAD_HIDDEN_SHARE:
        groups.append(f"{hidden:.0%} of the hidden units")
    if not groups:
        return None
    return Finding(
        "dead units",
        f"{' and '.join(groups)} are constant over {inputs.noun}s",
        inputs.advice(
            "a smaller optimizer.lr", "a smaller sparsity.weight", "model.activation=leaky_relu", "fewer units"
        ),
    )


def many_saturated_units(inputs: DiagnosticInputs) -> Finding | None:
    """Find a model in which over 25 % of the sigmoid and tanh units stay near a bound, where gradients vanish."""
    share = inputs.metrics.get("saturated")
    if share is None or share <= MAX_SATURATED_SHARE or inputs.sparse:
        return None
    return Finding(
        "saturated units",
        f"{share:.0%} of the sigmoid and tanh units stay at an end of their range for nearly all {inputs.noun}s",
        inputs.advice("a smaller optimizer.lr", "model.init=xavier", "model.activation=relu"),
    )


def code_copies(inputs: DiagnosticInputs) -> Finding | None:
    """Find a network that reconstructs shuffled pixels, in which there is no structure to learn."""
    share = inputs.share_of_mean_image_error("shuffled_sse")
    if share is None or share >= MAX_COPIED_SHARE:
        return None
    values = "pixels" if inputs.kind == "image" else "values"
    return Finding(
        "the code copies",
        f"{inputs.noun}s with shuffled {values} are reconstructed, too, with {share:.1%} of the squared error of the "
        f"{inputs.mean_noun}",
        inputs.advice(f"a smaller model.code_dim (it is {inputs.code_dim})", "noise=masking", "sparsity=topk"),
    )


def no_better_than_mean_image(inputs: DiagnosticInputs) -> Finding | None:
    """Find reconstructions that are hardly better than the mean image.

    A likelihood of counts weighs their errors in another way than the squared error does, which is not judged there.
    """
    share = inputs.share_of_mean_image_error("sse")
    if share is None or share < MAX_MEAN_IMAGE_SHARE or inputs.kind == "counts":
        return None
    return Finding(
        f"no better than the {inputs.mean_noun}",
        f"the squared error is {share:.0%} of the error of the {inputs.mean_noun}",
        inputs.advice("another optimizer.lr", "more epochs", "a larger model.code_dim", "less weight on the penalties"),
    )


def no_better_than_pca(inputs: DiagnosticInputs) -> Finding | None:
    """Find reconstructions of clean images that are worse than those of PCA with as many units.

    A denoising model is not judged, because it learns to reconstruct noisy images, nor a model of counts. Of
    reconstructions that are no better than the mean image, `no_better_than_mean_image` says more.
    """
    error, pca_error = inputs.metrics.get("sse"), inputs.metrics.get("pca_sse")
    if inputs.kind == "counts":
        return None
    if error is None or pca_error is None or not inputs.is_pca_comparable or "noisy_sse" in inputs.metrics:
        return None
    if error <= MAX_PCA_RATIO * pca_error or no_better_than_mean_image(inputs) is not None:
        return None
    return Finding(
        NO_BETTER_THAN_PCA,
        f"the squared error is {error:.4g}, and PCA with as many units ({inputs.code_dim}) has {pca_error:.4g}",
        inputs.advice("more epochs", "another optimizer.lr", "a smaller model.penalties.kl.weight"),
    )


# The most telling first.
RULES: Sequence[Callable[[DiagnosticInputs], Finding | None]] = (
    dark_images,
    training_diverges,
    posterior_collapse,
    codebook_collapse,
    critic_wins,
    output_range_mismatch,
    code_is_not_sparse,
    many_dead_units,
    many_saturated_units,
    code_copies,
    no_better_than_mean_image,
    no_better_than_pca,
)
