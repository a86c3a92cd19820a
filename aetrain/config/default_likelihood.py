"""The default option of the group `likelihood`, which depends on the kind of data: `${default_likelihood:OPTION}`."""

from functools import cache

from omegaconf import DictConfig, OmegaConf

from aetrain.config.paths import CONFIG_DIR, groups

# The default likelihood of the data sets that inherit from a base.
OF_BASES = {
    "/base_images@_here_": "bernoulli",
    "/base_vectors@_here_": "gaussian",
    "/base_counts@_here_": "multinomial",
    "/base_ratings@_here_": "gaussian",
}
OF_OTHERS = "bernoulli"  # such as a data set outside of the project


@cache
def default_likelihood(dataset: str) -> str:
    """Return the likelihood that an option of the group `dataset` has by default.

    It follows from the base that the option's `defaults` name, or from that of the option from which it inherits.
    """
    if dataset not in groups()["dataset"]:
        return OF_OTHERS
    config = OmegaConf.load(CONFIG_DIR / "dataset" / f"{dataset}.yaml")
    assert isinstance(config, DictConfig)
    for entry in config.get("defaults", []):
        if entry in OF_BASES:
            return OF_BASES[entry]
        if entry in groups()["dataset"]:
            return default_likelihood(entry)
    return OF_OTHERS
