"""An autoencoder with more units than pixels can copy the image; an L1 penalty on the code prevents it."""

import torch
from experiments import Outcome
from measurements import corrupted, splits_of, sse, unseen
from pictures import rows

from aetrain.api import Trained
from aetrain.data.noise import Replace

CLAIM = (
    "784-1000 without a penalty copies: an image with gaps is reconstructed with its gaps (noisy→clean no better than "
    "the input, within 10 %). With L1 on the code, the code is sparse and useful: it repairs damage on which it was "
    "never trained, and labels are about as easily read from the few active units (nearest neighbour, within 2 "
    "points)."
)
LESSON = "More units than pixels copy the image; L1 makes the code useful."
RESULT = (
    "noisy→clean SSE {masking 0.3: noisy→clean SSE, no penalty} without penalty, {masking 0.3: noisy→clean SSE, L1} "
    "with L1"
)
RUNS = {
    "sparse": ["experiment=overcomplete"],
    "plain": ["experiment=overcomplete", "sparsity=none"],
    "document": ["experiment=overcomplete", "sparsity=none", "model.tied=false", "model.init=default"],
}
NOISES = {"masking 0.3": Replace(p=0.3, white=0.0), "salt 0.1": Replace(p=0.1, white=1.0)}


def check(runs: dict[str, Trained]) -> Outcome:
    """Check the error against that of the noisy images themselves, the L0, and the 1-NN accuracy of the code."""
    sparse, plain = runs["sparse"], runs["plain"]
    x = unseen(sparse)
    titles = {
        "plain": "no penalty",
        "sparse": "L1",
        "document": "no penalty, torch's default initialisation of untied weights",
    }
    metrics: dict[str, float] = {}
    for noise, corrupt in NOISES.items():
        x_in = corrupted(corrupt, x)
        metrics[f"{noise}: SSE of the noisy image itself"] = sse(x_in, x)
        for name, text in titles.items():
            metrics[f"{noise}: noisy→clean SSE, {text}"] = sse(runs[name].reconstruct(x_in), x)
    for name, text in titles.items():
        metrics[f"clean→clean SSE, {text}"] = runs[name].metrics["test/sse"]
        metrics[f"active units of 1000, {text}"] = runs[name].metrics["test/l0"]
        metrics[f"dead units, {text}"] = runs[name].metrics["test/dead_units"]
        metrics[f"1-NN accuracy of the code, {text}, %"] = nearest_code_accuracy(runs[name])
    x_in = corrupted(NOISES["salt 0.1"], x)
    picture = rows(
        sparse.directory / "rows.png",
        {"clean": x, "noisy": x_in, "plain": plain.reconstruct(x_in), "with L1": sparse.reconstruct(x_in)},
    )
    gap_sse = {text: metrics[f"masking 0.3: noisy→clean SSE, {text}"] for text in titles.values()}
    input_sse = metrics["masking 0.3: SSE of the noisy image itself"]
    holds = (
        gap_sse["no penalty"] > 0.9 * input_sse
        and gap_sse["L1"] < 0.8 * input_sse
        and metrics["active units of 1000, L1"] < 100
        and metrics["1-NN accuracy of the code, L1, %"] > metrics["1-NN accuracy of the code, no penalty, %"] - 2
    )
    repaired = {text: f"{100 * (1 - error / input_sse):.0f} %" for text, error in gap_sse.items()}
    note = (
        "With torch's default initialisation, untied weights are small, and pixels that never vary in the training set "
        "(most of the border) are not learnt to be copied: without any penalty such a network repairs "
        f"{repaired[titles['document']]} of the damage by gaps. From orthogonal tied weights, which begin as a "
        f"copy, training without a penalty repairs {repaired['no penalty']}, with it {repaired['L1']}."
    )
    return Outcome(metrics, holds, picture, note)


def nearest_code_accuracy(run: Trained, count: int = 10_000) -> float:
    """Return the percentage of test images whose nearest code of `count` training images (cosine) has their label."""
    splits = splits_of(run)
    assert splits.train.labels is not None
    assert splits.test.labels is not None
    train_codes, test_codes = (
        torch.nn.functional.normalize(run.encode(part.pixels[:n].float() / 255))
        for part, n in ((splits.train, count), (splits.test, len(splits.test)))
    )
    nearest = splits.train.labels[:count][(test_codes @ train_codes.t()).argmax(1)]
    return 100 * float((nearest == splits.test.labels).float().mean())
