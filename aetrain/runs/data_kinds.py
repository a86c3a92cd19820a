"""Check that components fit the kind of data of a data set."""

from collections.abc import Mapping

from aetrain.config.errors import ConfigError
from aetrain.data.augment import Augment, NoAugmentation
from aetrain.data.dataset import Dataset
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.likelihoods import Likelihood, option_name
from aetrain.model.records import DATA_WORDS, Kind

# The likelihoods of each kind of data, in messages; the first one is the default.
LIKELIHOODS: Mapping[Kind, str] = {
    "image": "bernoulli or gaussian",
    "vector": "gaussian or laplace",
    "counts": "multinomial, poisson or gaussian",
    "ratings": "gaussian or laplace",
}


def check_augment(augment: Augment, dataset: Dataset) -> None:
    """Raise ConfigError where the augmentation would change data that it must not change."""
    if dataset.kind != "image" and not isinstance(augment, NoAugmentation):
        raise ConfigError(
            f"augment={type(augment).__name__.lower()} changes images, but the data set has "
            f"{DATA_WORDS[dataset.kind]}: use augment=none"
        )
    if augment.blends and dataset.binarize != "none":
        raise ConfigError(
            f"augment={type(augment).__name__.lower()} would turn black and white pixels grey: use augment=none, or "
            f"dataset.binarize=none (it is {dataset.binarize})"
        )
    if augment.blends and dataset.has_missing:
        raise ConfigError(
            f"augment={type(augment).__name__.lower()} would spread missing pixels over their neighbours: use "
            f"augment=none, or dataset.missing=0 (it is {dataset.missing:g})"
        )


def check_likelihood(likelihood: Likelihood, dataset: Dataset) -> None:
    """Raise ConfigError where the likelihood is not of this kind of data."""
    if dataset.kind not in likelihood.kinds:
        raise ConfigError(
            f"likelihood={option_name(likelihood)} is not a distribution of {DATA_WORDS[dataset.kind]}: use "
            f"likelihood={LIKELIHOODS[dataset.kind]}"
        )


def check_network(model: Autoencoder, dataset: Dataset) -> None:
    """Raise ConfigError where the encoder reads images and the data are none."""
    if model.encoder.needs_images and dataset.kind != "image":
        raise ConfigError(
            f"this model reads images, but the data set has {DATA_WORDS[dataset.kind]}: use model=deep, vae or another "
            "model of dense layers"
        )
