"""What each figure is, in a line; tables, reports and the README quote this. The ruler measures them."""

import re

MEANING = {
    "loss": "what training descends, as it does (noise on, random codes drawn), but of images that are not augmented",
    "nll": "negative log-likelihood of the image given its mean code, nats",
    "kl": "KL from the code's distribution to the prior, nats",
    "neg_elbo": "nll with the code drawn at random, plus kl, nats",
    "iwae": "what the importance-weighted bound has above nll, in place of kl, nats",
    "sparsity": "the sparsity penalty, without its weight",
    "critic": "-log of the chance that the critic gives a code of being a draw from the prior, nats",
    "mmd": "squared distance of the codes to draws from the prior, without bias (so it may be below 0)",
    "l2": "squared length of the code",
    "codebook": "squared distance of the codewords to what they stand for",
    "commitment": "the same distance, as the encoder descends it",
    "sse": "squared error summed over an image's pixels",
    "mean_sse": "the same of the mean training image, in place of every picture",
    "shuffled_sse": "the same of images whose pixels are shuffled, all alike, which only a copying network reproduces",
    "code_sse": "the same from the code alone, without the max-pool switches that an unpooling decoder is also given",
    "pca_sse": "the same of PCA with as many units",
    "pca_angle": "largest angle between PCA's directions and those of the reconstructions, degrees",
    "mse": "squared error per pixel",
    "bce": "cross-entropy of the pixels, nats",
    "bce_excess": "bce above the entropy of the grey pixels, which nothing can undercut, nats",
    "psnr": "peak signal-to-noise ratio, dB",
    "ssim": "structural similarity, 1 where equal",
    "noisy_sse": "squared error from a noisy image to the clean one",
    "noisy_bce": "cross-entropy from a noisy image to the clean one, nats",
    "noisy_psnr": "peak signal-to-noise ratio from a noisy image to the clean one, dB",
    "input_sse": "squared error of the noisy image itself",
    "noisy_sse_NOISE_LEVEL": "squared error from an image with that noise to the clean one",
    "input_sse_NOISE_LEVEL": "squared error of the image with that noise",
    "code_mean": "mean activation of the code's units",
    "l0": "units of an image's code that are not zero",
    "dead_units": "units of the code that no image moves (standard deviation below 0.001)",
    "dead_hidden": "share of the encoder's hidden units that no image moves (by 0.001 of its layer's most moved)",
    "saturated": "share of the sigmoid and tanh units that nearly all images leave at an end (within 1 %)",
    "used_codewords": "codewords that some image uses",
    "perplexity": "how many codewords are in use, each counted by how often: exp of the entropy of their use",
    "MEASURE_pixels": "the same of raw pixels in place of the code",
    "MEASURE_pca": "the same of PCA with as many units",
    "probe_linear": "test images whose class logistic regression reads from the code, %",
    "probe_svm": "test images whose class a linear support vector machine reads from the code, %",
    "probe_knn": "test images of the class that most of the nearest training codes have, %",
    "probe_kmeans": "test images in the cluster of codes that stands for their class, %",
    "probe_nmi": "normalised mutual information of the codes' clusters and the classes, 0 to 1",
    "precision_K": "of the K training images whose codes are nearest to a test image's, those of its class, %",
    "finetuned_N_random": "the same from the random weights that the run began with",
    "finetuned_N": "test images that encoder and classifier get right, trained together on N labels, %",
    "frechet_reconstructions": "Frechet distance of reconstructions to test images, in a classifier's features",
    "frechet_samples": "Frechet distance of samples from the prior to test images",
    "frechet_floor": "Frechet distance of training images to test images: real against real",
    "is_nll_K": "negative log-likelihood by importance sampling, K draws of the code, nats; of grey pixels it is none",
    "active_units": "units whose mean moves with the image (variance above 0.01; Burda et al. 2016)",
}


def explained(name: str) -> str:
    """The name under which a figure is explained: `is_nll_K` for `test/is_nll_50`; capitals stand for any word."""
    own = name.partition("/")[2]
    patterns = (key for key in MEANING if re.fullmatch(re.sub("[A-Z]+", r"[\\w.]+", key), own))
    return own if own in MEANING else next(patterns, own)
