"""aetrain from Python: run a command, and load a run."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor

from aetrain.config import overrides as command_line
from aetrain.config.composition import reuse_compositions
from aetrain.config.error_messages import translate_hydra_errors
from aetrain.config.errors import ConfigError, error_context
from aetrain.config.keywords import keyword_overrides
from aetrain.config.paths import CONFIG_DIR
from aetrain.data.arrays import ImageArray, code_rows, with_columns
from aetrain.data.dataset import Dataset
from aetrain.data.digests import digest_data
from aetrain.data.examples import Splits
from aetrain.data.program_data import passing
from aetrain.data.vector_array import VectorArray
from aetrain.evaluation.console import summary_table
from aetrain.model.autoencoder import Autoencoder
from aetrain.report.embedded_images import image_url
from aetrain.report.html import el
from aetrain.runs import entry
from aetrain.runs.build import Components, build
from aetrain.runs.from_saved_run import start_from_run
from aetrain.runs.global_state import separate_global_state
from aetrain.runs.run_data import describe_change
from aetrain.storage import checkpoint
from aetrain.storage.descriptions import read_descriptions
from aetrain.storage.run_directory import RunDirectory, display_path
from aetrain.storage.saved_config import saved_config

# Metrics in the line of a run, and pictures in a notebook.
REPR_METRICS = ("test/loss", "test/sse")
MAIN_FIGURES = ("curves", "reconstructions", "samples", "features-code", "rows")  # the first of those that there are
MAX_FIGURES = 3

WITHOUT_RUN = ("lr_find", "check")  # modes that write no run


def run(
    overrides: str | Sequence[str] = (),
    *,
    directory: str | Path | None = None,
    data: Any = None,
    labels: Any = None,
    **settings: Any,
) -> "Trained":
    """Run `aetrain overrides...` in this process and load the run that it trains or evaluates.

    Settings can be keywords: `run(model="vae", epochs=3, optimizer={"lr": 1e-3})`, with dotted names as
    `run(**{"optimizer.lr": 1e-3})`; see `keyword_overrides`. They come after `overrides`. `directory` is the run's
    directory, `hydra.run.dir`.
    `data` are the examples in place of a data set: vectors [N, D] (an array of NumPy, a tensor, a pandas DataFrame
    whose texts are categories, a sparse matrix of SciPy), or images of 3 or 4 dimensions; `labels` are their classes,
    [N]. Both may be dicts with the keys train, test and validation. They choose `dataset=array` or `image_array`.
    The global state of the calling program (random numbers, settings of torch, Hydra) is neither used nor changed.
    Raise ConfigError for a mistake, with the message of the command.
    """
    words = [overrides] if isinstance(overrides, str) else [*overrides]
    if data is not None:
        words = [*_data_overrides(data, words, settings), *words]
    words += keyword_overrides(settings)
    if directory is not None:
        words += keyword_overrides({"hydra.run.dir": directory})
    with separate_global_state(), passing(data, labels):
        config, run_dir, full_overrides = compose_config(words)
        mode = HydraConfig.get().runtime.choices.get("mode")
        if mode in command_line.READERS:
            raise ConfigError(f"mode={mode} produces no run to load: call aetrain.modes.{mode}.{mode} instead")
        if mode in WITHOUT_RUN and config.run is None:
            raise ConfigError(f"mode={mode} produces no run to load: use the command `aetrain mode={mode}` instead")
        entry.run(config, run_dir, full_overrides)
        if mode == "train":
            config["device"] = "cpu"
            return _load(RunDirectory(run_dir), build(entry.check(config, []), Path(run_dir)))
        # An untrusted config has been refused above.
        return load(config.run or run_dir, trust=True, data=data, labels=labels)


def _data_overrides(data: Any, words: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    """Return the overrides that choose the data set of a program's data, unless a saved run has chosen it."""
    keys = {word.lstrip("+").partition("=")[0] for word in words} | set(settings)
    if {"run", "resume"} & keys:
        return []
    train: Any = data.get("train") if isinstance(data, dict) else data
    if len(np.shape(train)) in (3, 4):
        return ["dataset=image_array"]
    return ["dataset=array", *(["dataset.scaling=none"] if hasattr(train, "tocsr") else [])]


def compose_config(overrides: Sequence[str]) -> tuple[DictConfig, Path, list[str]]:
    """Return the config of overrides, the directory of its run, and the overrides with those that `run=` adds."""
    command_line.register_resolvers()
    command_line.forget_saved_options()
    GlobalHydra.instance().clear()
    with (
        translate_hydra_errors(),
        reuse_compositions(),
        initialize_config_dir(str(CONFIG_DIR), job_name="aetrain", version_base="1.3"),
    ):
        normalized = command_line.normalize(overrides)
        full_overrides = start_from_run(normalized, command_line.parse(normalized))
        config = compose("config", full_overrides, return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        directory = Path(config.hydra.run.dir)
    with open_dict(config):
        del config["hydra"]
    return config, directory, full_overrides


@dataclass(frozen=True, repr=False, eq=False)
class Trained:
    """A finished run: its model, its config and its metrics.

    `encode`, `decode` and `reconstruct` take arrays of NumPy, torch (on any device) or a pandas DataFrame, and return
    float32 of the same library on the same device; vectors of float64, of integers or in a DataFrame are float64 in
    return. They compute batch by batch. Images are [N, C, H, W], [N, H, W] with one channel, [N, H, W, C] or flat
    [N, C*H*W], uint8 from 0 to 255 or floats in [0, 1]; one image has no axis N. Vectors are [N, D] in original units
    (see `VectorArray`); a DataFrame has the columns of the table in and out.
    """

    model: Autoencoder
    config: DictConfig
    metrics: dict[str, Any]
    directory: Path
    dataset: Dataset = field(kw_only=True)

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.model.parameters()).device

    def encode(self, x: Any) -> Any:
        """Return the codes [N, D] of images or vectors; the mean of a random code.

        A DataFrame has one example per row; its codes are a DataFrame with the same index. Raise ValueError for pixels
        outside of [0, 1] and for a shape that does not fit.
        """
        examples, to_input = self._inputs(x)
        columns = [f"code{unit}" for unit in range(self.model.code_dim)]
        return examples.rows.compute(
            lambda values: self.model.encode(to_input(values)).z, (self.model.code_dim,), with_columns(columns)
        )

    def decode(self, z: Any) -> Any:
        """Return the examples of codes [N, D]; of a DataFrame, one row per code.

        They are pixels in [0, 1], [N, C, H, W], or vectors in original units, [N, number of features]. Raise ValueError
        for a shape that does not fit.
        """
        rows, shape = code_rows(z, self.model.code_dim), self.model.image_shape

        def decode(z: Tensor) -> Tensor:
            return self.model.decode_pixels(z.to(torch.float32).to(self.device))

        if self.model.kind != "image":
            vectors = self.dataset.vector_format

            def features(z: Tensor) -> Tensor:
                return vectors.unscale(decode(z).flatten(1).to(torch.float64))

            return rows.compute(features, (vectors.num_features,), vectors.to_frame, rows.unit_dtype)
        columns = [f"pixel{number}" for number in range(math.prod(shape))]
        return rows.compute(decode, shape, with_columns(columns))

    def reconstruct(self, x: Any) -> Any:
        """Encode and decode examples, and return them in the shape and the units of x: pixels in [0, 1].

        An unpooling decoder receives the encoder's pool indices. Raise ValueError as `encode`.
        """
        examples, to_input = self._inputs(x)
        from_output: Callable[[Tensor], Tensor]
        to_frame: Callable[[Any, Any], Any]
        if isinstance(examples, VectorArray):
            from_output, to_frame = examples.from_values, self.dataset.vector_format.to_frame
        else:
            from_output, to_frame = examples.from_pixels, with_columns(examples.columns)
        return examples.rows.compute(
            lambda values: from_output(self.model.reconstruct(to_input(values))),
            examples.layout,
            to_frame,
            examples.dtype,
        )

    def _inputs(self, x: Any) -> tuple[ImageArray | VectorArray, Callable[[Tensor], Tensor]]:
        """Return the examples of a caller, and a function from a batch of their values to the model's input."""
        if self.model.kind == "image":
            images = ImageArray(x, self.model.image_shape)
            return images, lambda values: images.to_pixels(values).to(self.device)
        vectors = VectorArray(x, self.dataset.vector_format)

        def to_input(values: Tensor) -> Tensor:
            batch = vectors.to_values(values).to(self.device)
            return batch if self.model.has_missing else batch.nan_to_num(0.0)  # as for a model of missing values

        return vectors, to_input

    def sample(self, n: int = 16, seed: int = 0) -> Tensor:
        """Return n examples in the form of `decode`, decoded from codes that are drawn from the prior.

        The global random state is neither used nor changed. Raise ValueError where the model has no prior.
        """
        if n < 0:
            raise ValueError(f"n={n} is negative: use the number of images")
        with torch.no_grad():
            z = self.model.prior(n, torch.Generator(self.device).manual_seed(seed))
        if z is None:
            raise ValueError("this model has no prior to draw codes from: use a model with one, such as model=vae")
        examples: Tensor = self.decode(z)
        return examples

    @property
    def history(self) -> Any:
        """The metrics of every epoch: a DataFrame where pandas is installed, else a list of dicts.

        Epoch 0 is the model before training.
        """
        lines = RunDirectory(self.directory).history()
        try:
            import pandas as pd
        except ImportError:
            return lines
        return pd.DataFrame(lines)

    @cached_property
    def data(self) -> Splits:
        """The examples of the run: `train`, `validation` and `test`, each with `values` and `labels`.

        Values are pixels, uint8 [N, C, H, W], or vectors in the units of the model, float32 [N, 1, 1, D]. They are read
        at the first use. A warning says so where they are not those that the run was trained on.
        """
        with separate_global_state(), error_context("dataset"):
            splits = self.dataset.load()
            change = describe_change(self.directory, digest_data(splits))
        if change:
            warnings.warn(f"{self.directory} was trained on other data: {change}", stacklevel=2)
        return splits

    @property
    def figures(self) -> dict[str, Path]:
        """The pictures after the last epoch by name; empty where the run has drawn none (`views=none`)."""
        return {file.stem: file for file in sorted((self.directory / "figures").glob("*.png"))}

    def __repr__(self) -> str:
        """Return one line: the directory, the epochs and the main metrics."""
        metrics = [f"epochs={self.metrics.get('epochs', 0)}"]
        metrics += [f"{tag}={self.metrics[tag]:.4g}" for tag in REPR_METRICS if tag in self.metrics]
        return f"<aetrain run {display_path(self.directory)}: {', '.join(metrics)}>"

    def _repr_html_(self) -> str:
        """Return the run for a notebook: its line, its metrics and some of its pictures."""
        descriptions = read_descriptions(self.directory)
        numbers = {tag: value for tag, value in self.metrics.items() if tag.startswith("test/")}
        table = (
            summary_table(numbers, descriptions, self.model.code_dim, self.model.kind) if numbers else "no metrics yet"
        )
        pictures = []
        for name, file in self._main_figures().items():
            image = el("img", src=image_url(file), alt=name, style="max-width: 100%")
            pictures.append(el("figure", image, el("figcaption", name)))
        return el("div", el("p", el("code", repr(self))), el("pre", table), pictures)

    def _main_figures(self) -> dict[str, Path]:
        """Return the pictures that a notebook shows: MAIN_FIGURES, or the first ones where there are none of them."""
        figures = self.figures
        names = [name for name in MAIN_FIGURES if name in figures] or [*figures]
        return {name: figures[name] for name in names[:MAX_FIGURES]}


def load(run: str | Path, trust: bool = False, *, data: Any = None, labels: Any = None) -> Trained:
    """Return the model of a run directory on the CPU, in evaluation mode.

    `data` and `labels` are those with which a program has trained the run, for `Trained.data`.

    The global state of the calling program is neither used nor changed.
    A run directory is data: code from outside of aetrain and torch that its config names is refused unless `trust`, or
    unless this user made the run on this machine.
    Raise ConfigError where the directory is not a run's or its checkpoint is damaged.
    """
    run_dir = RunDirectory(Path(run))
    permission = ["trust=true"] if trust else []
    with separate_global_state(), passing(data, labels):
        config, _, overrides = compose_config([f"run={run_dir.path}", "device=cpu", "mode=eval", *permission])
        return _load(run_dir, build(entry.check(config, overrides), run_dir.path))


def _load(run_dir: RunDirectory, components: Components) -> Trained:
    """Return a run whose components have been built, with the weights of its checkpoint."""
    try:
        checkpoint.load(run_dir.path, components.model)
    except checkpoint.CheckpointError as error:
        raise ConfigError(str(error)) from error
    saved = OmegaConf.create(saved_config(run_dir.path))
    assert isinstance(saved, DictConfig)
    return Trained(components.model.eval(), saved, run_dir.metrics(), run_dir.path, dataset=components.dataset)
