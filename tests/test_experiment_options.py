"""Experiments with another option than their own: each command trains, or its message has an override that mends it.

`python tests/test_experiment_options.py` builds every experiment with every model and prints those without a mend.
"""

import re
from collections.abc import Sequence

import pytest
from hydra.core.global_hydra import GlobalHydra

from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.config.paths import groups
from aetrain.runs import entry
from aetrain.runs.build import build

MAX_MENDS = 3  # messages after which a command must work

# Experiments with settings of a penalty or a bottleneck, or with values, that these models do not take.
PAIRS = [
    *[("beta_vae", model) for model in ("deep", "conv", "vqvae")],
    *[("contractive", model) for model in ("linear", "categorical")],
    *[("sparse_coding", model) for model in ("aae", "vae", "vqvae")],
    *[("vqvae", model) for model in ("deep", "lstm", "categorical")],
    *[("conv", model) for model in ("deep", "conv_vae")],
    *[("overcomplete", "lstm"), ("hinton_rbm", "conv"), ("sparse_kl", "iwae"), ("latent_grid", "vqvae")],
]


def compose_and_build(overrides: Sequence[str]) -> None:
    GlobalHydra.instance().clear()
    config, _, full_overrides = api.compose_config([*overrides, "device=cpu", "views=none", "measures=none"])
    build(entry.check(config, full_overrides))


def mends_in(message: str) -> list[str]:
    """Return the overrides that a message advises: deletions, and values that it does not begin with."""
    refused = re.match(r"[\w.]+=", message)
    advised = re.findall(r"~[\w.]+[\w]|(?<![\w.])[a-z][\w.]*=[^\s,;:]+", message)
    advice = [text for text in advised if "~" in text or not refused or not message.startswith(text)]
    return [text for text in advice if not text.startswith(("experiment=", "model=", "model.bottleneck."))]


def messages_until_built(overrides: Sequence[str]) -> list[str]:
    """Return the messages of a command to which the advice of each is added until it works."""
    messages: list[str] = []
    while len(messages) <= MAX_MENDS:
        try:
            compose_and_build(overrides)
        except ConfigError as error:
            messages.append(str(error))
            overrides = [*overrides, *mends_in(messages[-1])]
        else:
            return messages
    raise AssertionError("\n".join([" ".join(overrides), *messages]))


@pytest.mark.slow
@pytest.mark.parametrize(("experiment", "model"), PAIRS)
def test_message_about_an_experiment_with_another_model_mends_it(experiment: str, model: str) -> None:
    assert messages_until_built([f"experiment={experiment}", f"model={model}"])


@pytest.mark.slow
def test_all_parts_that_a_model_lacks_are_named_at_once() -> None:
    (message,) = messages_until_built(["experiment=beta_vae", "model=deep"])
    assert message == "settings of the experiment do not fit model=deep: add ~model.penalties.kl"
    (message,) = messages_until_built(["experiment=vqvae", "model=deep"])
    assert message.endswith("add ~model.bottleneck.groups ~model.bottleneck.num_codewords")
    (message,) = messages_until_built(["experiment=conv", "model=deep"])
    assert message.endswith("add model.code_dim=32")


def test_setting_of_a_penalty_that_the_model_lacks_is_refused_where_it_was_typed() -> None:
    overrides = ["experiment=beta_vae", "model=deep", "model.penalties.kl.weight=2"]
    with pytest.raises(ConfigError, match=r"no such penalty of its own; leave it out with ~model\.penalties\.kl"):
        compose_and_build(overrides)


if __name__ == "__main__":
    for experiment in groups()["experiment"]:
        for model in groups()["model"]:
            try:
                messages_until_built([f"experiment={experiment}", f"model={model}"])
            except AssertionError as error:
                print(error, flush=True)
