"""An autoencoder with more units than pixels has room to copy; a price on activity keeps it from it."""

import torch
from evidence import corrupted, splits_of, sse, unseen
from experiments import Outcome
from sheets import rows

from aetrain.api import Trained
from aetrain.data.noise import Replace

CLAIM = (
    "784-1000 without a penalty copies: given an image with gaps, it paints the gaps (noisy→clean no better than the "
    "input, within 10 %). With L1 on the code, the code is sparse and useful: damage is repaired that it was never "
    "trained on, and labels are about as easily read from the few active units (nearest neighbour, within 2 points)."
)
RUNS = {
    "sparse": ["experiment=overcomplete"],
    "plain": ["experiment=overcomplete", "sparsity=none"],
    "document": ["experiment=overcomplete", "sparsity=none", "model.tied=false", "model.init=default"],
}
NOISES = {"masking 0.3": Replace(p=0.3, white=0.0), "salt 0.1": Replace(p=0.1, white=1.0)}


def check(runs: dict[str, Trained]) -> Outcome:
    """Noisy to clean against the noisy image itself, L0, and what the nearest code says of the label."""
    sparse, plain = runs["sparse"], runs["plain"]
    x = unseen(sparse)
    said = {"plain": "no penalty", "sparse": "L1", "document": "no penalty, torch's own draw of untied weights"}
    figures: dict[str, float] = {}
    for noise, corrupt in NOISES.items():
        x_in = corrupted(corrupt, x)
        figures[f"{noise}: SSE of the noisy image itself"] = sse(x_in, x)
        for name, text in said.items():
            figures[f"{noise}: noisy→clean SSE, {text}"] = sse(runs[name].reconstruct(x_in), x)
    for name, text in said.items():
        figures[f"clean→clean SSE, {text}"] = runs[name].metrics["test/sse"]
        figures[f"active units of 1000, {text}"] = runs[name].metrics["test/l0"]
        figures[f"dead units, {text}"] = runs[name].metrics["test/dead_units"]
        figures[f"1-NN accuracy of the code, {text}, %"] = neighbours(runs[name])
    x_in = corrupted(NOISES["salt 0.1"], x)
    picture = rows(
        sparse.directory / "rows.png",
        {"clean": x, "noisy": x_in, "plain": plain.reconstruct(x_in), "with L1": sparse.reconstruct(x_in)},
    )
    gaps = {text: figures[f"masking 0.3: noisy→clean SSE, {text}"] for text in said.values()}
    itself = figures["masking 0.3: SSE of the noisy image itself"]
    holds = (
        gaps["no penalty"] > 0.9 * itself
        and gaps["L1"] < 0.8 * itself
        and figures["active units of 1000, L1"] < 100
        and figures["1-NN accuracy of the code, L1, %"] > figures["1-NN accuracy of the code, no penalty, %"] - 2
    )
    repaired = {text: f"{100 * (1 - error / itself):.0f} %" for text, error in gaps.items()}
    note = (
        "Drawn as torch draws them, untied weights are small, and what never varies in the training set (most of the "
        "border) is not learnt to be copied: without any penalty such a network repairs "
        f"{repaired[said['document']]} of the damage that gaps do. From orthogonal tied weights, which begin as a "
        f"copy, training without a penalty repairs {repaired['no penalty']}, with it {repaired['L1']}."
    )
    return Outcome(figures, holds, picture, note)


def neighbours(run: Trained, count: int = 10_000) -> float:
    """Share of the test images, in %, whose nearest code among `count` training images has their label (cosine)."""
    splits = splits_of(run)
    assert splits.train.labels is not None
    assert splits.test.labels is not None
    seen, asked = (
        torch.nn.functional.normalize(run.encode(part.pixels[:n].float() / 255))
        for part, n in ((splits.train, count), (splits.test, len(splits.test)))
    )
    nearest = splits.train.labels[:count][(asked @ seen.t()).argmax(1)]
    return 100 * float((nearest == splits.test.labels).float().mean())
