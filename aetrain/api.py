"""aetrain from Python: run a command, and load a run."""

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

from aetrain.config import overrides as command_line
from aetrain.config.error_messages import translate_hydra_errors
from aetrain.config.errors import ConfigError
from aetrain.config.paths import CONFIG_DIR
from aetrain.model.autoencoder import Autoencoder
from aetrain.runs import entry
from aetrain.runs.build import build
from aetrain.runs.from_saved_run import start_from_run
from aetrain.runs.global_state import separate_global_state
from aetrain.storage import checkpoint
from aetrain.storage.run_directory import RunDirectory
from aetrain.storage.saved_config import saved_config


def run(overrides: Sequence[str] = ()) -> "Trained":
    """Run `aetrain overrides...` in this process and load the run that it trains or evaluates.

    The global state of the calling program (random numbers, settings of torch, Hydra) is neither used nor changed.
    Raise ConfigError for a mistake, with the message of the command.
    """
    with separate_global_state():
        config, directory, overrides = compose_config(overrides)
        if (mode := HydraConfig.get().runtime.choices.get("mode")) in command_line.READERS:
            raise ConfigError(f"mode={mode} produces no run to load: call aetrain.modes.{mode}.{mode} instead")
        entry.run(config, directory, overrides)
        return load(config.run or directory, trust=True)  # an untrusted config has been refused above


def compose_config(overrides: Sequence[str]) -> tuple[DictConfig, Path, list[str]]:
    """Return the config of overrides, the directory of its run, and the overrides with those that `run=` adds."""
    command_line.register_resolvers()
    command_line.forget_saved_options()
    GlobalHydra.instance().clear()
    with translate_hydra_errors(), initialize_config_dir(str(CONFIG_DIR), job_name="aetrain", version_base="1.3"):
        normalized = command_line.normalize(overrides)
        full_overrides = start_from_run(normalized, command_line.parse(normalized))
        config = compose("config", full_overrides, return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        directory = Path(config.hydra.run.dir)
    with open_dict(config):
        del config["hydra"]
    return config, directory, full_overrides


@dataclass(frozen=True)
class Trained:
    """A finished run: its model, its config and its metrics."""

    model: Autoencoder
    config: DictConfig
    metrics: dict[str, Any]
    directory: Path

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Return the codes [B, D] of pixels in [0, 1], [B, C, H, W]; the mean of a random code."""
        return self.model.encode(x).z

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Return the pixels in [0, 1], [B, C, H, W], of codes [B, D]."""
        return self.model.decode_pixels(z)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """Encode and decode pixels [B, C, H, W]; an unpooling decoder receives the encoder's pool indices."""
        return self.model.reconstruct(x)


def load(run: str | Path, trust: bool = False) -> Trained:
    """Return the model of a run directory on the CPU, in evaluation mode.

    The global state of the calling program is neither used nor changed.
    A run directory is data: code from outside of aetrain and torch that its config names is refused unless `trust`, or
    unless this user made the run on this machine.
    Raise ConfigError where the directory is not a run's or its checkpoint is damaged.
    """
    run_dir = RunDirectory(Path(run))
    permission = ["trust=true"] if trust else []
    with separate_global_state():
        config, _, overrides = compose_config([f"run={run_dir.path}", "device=cpu", "mode=eval", *permission])
        components = build(entry.check(config, overrides))
        try:
            checkpoint.load(run_dir.path, components.model)
        except checkpoint.CheckpointError as error:
            raise ConfigError(str(error)) from error
    saved = OmegaConf.create(saved_config(run_dir.path))
    assert isinstance(saved, DictConfig)
    return Trained(components.model.eval(), saved, run_dir.metrics(), run_dir.path)
