"""Zeiler & Fergus (2014), section 2.1; Zhao et al. (2016): pool indices put maxima back into their positions."""

import torch
from experiments import Outcome
from measurements import one_of_each_class, pixels, splits_of, sse
from pictures import rows
from torch.nn import functional as F

from aetrain.api import Trained
from aetrain.model.codes import Code

CLAIM = (
    "Unpooling with pool indices puts every maximum back into its position, and therefore decodes sharper images than "
    "decoders that repeat values or deconvolve from the same code size."
)
LESSON = "Pool indices carry most of the image past the code."
RESULT = (
    "SSE {test SSE, unpooling with pool indices}, from pool indices alone {test SSE, unpooling, pool indices alone "
    "(every image's code the mean code)}"
)
RUNS = {
    "unpool": ["experiment=conv_unpool"],
    "nearest": ["experiment=conv_unpool", "model=conv_upsample", "views=none"],
    "transpose": ["experiment=conv_unpool", "model.up=transpose", "views=none"],
}


@torch.no_grad()
def fraction_in_position(trained: Trained, x: torch.Tensor) -> float:
    """Return the fraction of the maxima of 2x2 squares in images x [B, C, H, W] that unpooling puts back.

    Unfolding finds the maxima here, independently of the model.
    """
    out, in_position, count = trained.model(x), 0, 0
    for maps, indices in zip(out.hidden, out.code.pool_indices, strict=True):
        pooled, size = F.max_pool2d(maps, 2, ceil_mode=True), maps.shape[2:]
        unpooled = F.max_unpool2d(pooled, indices, (2, 2), output_size=size)
        padded = [F.pad(m, (0, size[1] % 2, 0, size[0] % 2), value=-1.0) for m in (maps, unpooled)]
        squares, returned = (m.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4) for m in padded)  # [B, C, h, w, 4]
        values = returned.gather(4, squares.argmax(4, keepdim=True)).squeeze(4)
        positive = pooled > 0  # in a square without activation, every position is that of the maximum
        in_position += int((values == pooled)[positive].sum())
        count += int(positive.sum())
    return in_position / count


@torch.no_grad()
def check(runs: dict[str, Trained]) -> Outcome:
    """Check that all maxima are in position, and that the test error is below that of both other decoders."""
    unpool = runs["unpool"]
    data = splits_of(unpool)
    x, examples = pixels(data.test, 2000), one_of_each_class(data.test)
    code = unpool.model.encode(x)
    mean_code = Code(z=code.z.mean(0).expand_as(code.z), pool_indices=code.pool_indices)
    bits = 2 * sum(indices[0].numel() for indices in code.pool_indices)
    metrics = {
        "test SSE, unpooling with pool indices": unpool.metrics["test/sse"],
        "test SSE, repeating values": runs["nearest"].metrics["test/sse"],
        "test SSE, deconvolution": runs["transpose"].metrics["test/sse"],
        "test SSE, unpooling, code alone (each maximum to the top left)": unpool.metrics["test/code_sse"],
        "test SSE, unpooling, pool indices alone (every image's code the mean code)": sse(
            unpool.model.decode_pixels(mean_code), x
        ),
        "fraction of maxima back in their position": fraction_in_position(unpool, x),
        "pool indices of an image, bits": bits,
    }
    without_indices = min(runs["nearest"].metrics["test/sse"], runs["transpose"].metrics["test/sse"])
    holds = metrics["fraction of maxima back in their position"] == 1 and unpool.metrics["test/sse"] < without_indices
    picture = rows(
        unpool.directory / "figures" / "decoders.png",
        {
            "clean": examples,
            "unpool": unpool.reconstruct(examples),
            "code alone": unpool.decode(unpool.encode(examples)),
            "repeat": runs["nearest"].reconstruct(examples),
            "deconv.": runs["transpose"].reconstruct(examples),
        },
    )
    note = (
        "The three share the encoder, the data and the budget. The pool indices carry information past the code, "
        f"{bits:,} bits per image beside 32 numbers, so this is no comparison of equals: with one code for all images, "
        "the pool indices alone already decode into the digit. The network has not learnt to work without them: by the "
        "stated rule for a code alone (every maximum goes to the top left of its square) it decodes worse than the "
        "mean image (SSE 52.9). If only the code is kept, as in a draw from a prior, use the other two decoders."
    )
    return Outcome(metrics, holds, picture, note)
