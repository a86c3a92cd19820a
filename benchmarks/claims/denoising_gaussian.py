"""Vincent et al. (2008, 2010): trained to undo noise, an autoencoder does, and its units become strokes."""

from denoising import check_denoising as check

__all__ = ["CLAIM", "RUNS", "check"]

CLAIM = (
    "Trained on images with gaussian noise and asked for the clean ones, an autoencoder cleans noisy test images "
    "better than one trained without noise, and its first-layer units are smoother: strokes."
)
RUNS = {
    "denoising": ["experiment=denoising_gaussian"],
    "plain": ["experiment=denoising_gaussian", "noise=none"],
}
