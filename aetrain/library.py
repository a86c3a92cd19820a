"""aetrain from Python: run what the command runs, and load what it left."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor

from aetrain import experiment
from aetrain.build import build
from aetrain.config.compose import READERS, quoted_paths, register_resolvers, saved_config, starting_from_run
from aetrain.config.errors import ConfigError
from aetrain.config.explain import explained
from aetrain.config.paths import CONFIG_DIR
from aetrain.directory import RunDirectory
from aetrain.model.autoencoder import Autoencoder
from aetrain.training import checkpoint


def run(overrides: Sequence[str] = ()) -> "Trained":
    """What `aetrain overrides...` does, in this process: train and `load` the run, or `mode=eval` it.

    Raises ConfigError for a mistake, with the message that the command prints.
    """
    config, directory, overrides = composed(overrides)
    if (mode := HydraConfig.get().runtime.choices.get("mode")) in READERS:
        raise ConfigError(f"mode={mode} leaves no run to be loaded: call aetrain.modes.{mode}.{mode} instead")
    experiment.run(config, directory, overrides)
    return load(config.run or directory, trust=True)  # what was not to be trusted has been refused above


def composed(overrides: Sequence[str]) -> tuple[DictConfig, Path, list[str]]:
    """The config that overrides make, the directory its run goes to, and the overrides with those of `run=`."""
    register_resolvers()
    GlobalHydra.instance().clear()
    with explained(), initialize_config_dir(str(CONFIG_DIR), job_name="aetrain", version_base="1.3"):
        overrides = starting_from_run(quoted_paths(overrides))
        config = compose("config", overrides, return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        directory = Path(config.hydra.run.dir)
    with open_dict(config):
        del config["hydra"]
    return config, directory, overrides


@dataclass(frozen=True)
class Trained:
    """A finished run: its model, and what it was and became."""

    model: Autoencoder
    config: DictConfig
    metrics: dict[str, Any]
    directory: Path

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Pixels in [0, 1], [B, C, H, W], to codes [B, D]; the mean of a random code."""
        return self.model.encode(x).z

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Codes [B, D] to pixels in [0, 1], [B, C, H, W]."""
        return self.model.paint(z)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """Pixels [B, C, H, W] through the code and back; an unpooling decoder is given the encoder's switches."""
        return self.model.reconstruct(x)


def load(run: str | Path, trust: bool = False) -> Trained:
    """The model of a run directory, on the CPU and in evaluation mode.

    A run directory is data: code named in it from outside of aetrain and torch is refused unless `trust`. ConfigError
    where the directory is not a run's or its checkpoint is damaged.
    """
    home = RunDirectory(Path(run))
    overrides = [f"run={home.path}", "device=cpu", f"trust={str(trust).lower()}", "mode=eval"]
    config, _, overrides = composed(overrides)
    parts = build(experiment.checked(config, overrides))
    try:
        checkpoint.load(home.path, parts.model)
    except checkpoint.CheckpointError as error:
        raise ConfigError(str(error)) from error
    saved = OmegaConf.create(saved_config(home.path))
    assert isinstance(saved, DictConfig)
    return Trained(parts.model.eval(), saved, home.metrics(), home.path)
