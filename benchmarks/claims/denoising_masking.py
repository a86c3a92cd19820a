"""Vincent et al. (2008, 2010): an autoencoder learns to remove noise, and its units become strokes."""

from denoising import check_denoising as check

__all__ = ["CLAIM", "LESSON", "RESULT", "RUNS", "check"]

CLAIM = (
    "Trained with masking noise on the input and the clean image as target, an autoencoder cleans noisy test images "
    "better than one trained without noise, and its first-layer units are smoother: strokes."
)
LESSON = "Training on masking noise teaches the filling of gaps."
RESULT = "noisy→clean SSE {noisy→clean SSE, denoising}, plain {noisy→clean SSE, plain}"
RUNS = {
    "denoising": ["experiment=denoising_masking"],
    "plain": ["experiment=denoising_masking", "noise=none"],
}
