"""The estimator of scikit-learn: `from aetrain.sklearn import Autoencoder`."""

import copy
import logging
import numbers
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, OutlierMixin, TransformerMixin
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from torch import Tensor

from aetrain.api import Trained, run
from aetrain.config.keywords import keyword_overrides
from aetrain.data.arrays import BATCH_SIZE
from aetrain.data.pixel_values import to_bytes
from aetrain.data.user_files import Array
from aetrain.evaluation import example_scores
from aetrain.model.autoencoder import Autoencoder as Model
from aetrain.storage.run_directory import RunDirectory

MAX_TEST_ROWS = 1000  # training rows of which a fit writes the test metrics of its run
DATA_FILE = "training.npz"  # the training data in the directory of a run
METRICS = ("sse", "loss")


class Autoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """An autoencoder as a transformer and an outlier detector of scikit-learn.

    X is an array [N, D] of numbers, or of images [N, H, W] or [N, C, H, W]; pixels of uint8 are 0..255. `transform`
    returns codes [N, code_dim], the mean of a random code; `inverse_transform` decodes them in the units of X.
    `score_samples` is the negative `metric` of each example, higher for usual ones. `predict` returns -1 for examples
    whose score is below that of all but a part `contamination` of the training examples, else 1.

    Parameters: `model` is an option of the group `model`; a table [N, D] needs one without convolutions. `code_dim` is
    the number of units of the code, None for that of the option. `overrides` has any other settings of a run, such as
    {"optimizer.lr": 1e-3, "noise": "masking"}; they win over the parameters. `scale="minmax"` maps the range of each
    feature in training to [0, 1], and larger values are clipped for the network, not for the error. With None, X has
    values in [0, 1]. uint8 is divided by 255 in both cases. `scale="standard"`, for rows [N, D] of any numbers, gives
    each feature the mean 0 and the standard deviation 1, with the Gaussian likelihood and without a limit. `metric` is
    "sse", the squared error of an example in these units, or "loss", its negative log-likelihood at the mean code plus
    the KL of a random code, without other penalties. `directory` is a folder in which each fit writes a run directory
    of its own, with the training data; without it nothing is kept but the model. `device` is that of the training.
    `random_state` is the seed. `verbose` shows warnings about the training.

    Training rounds the scaled values to 8 bits, that is to steps of 1/255, and with `scale="standard"` to 32-bit
    floats; `transform` and the scores do not. The test metrics of the run are of the first rows of X: use `score` with
    other rows for held-out data.

    All checks of `sklearn.utils.estimator_checks.check_estimator` pass.

    After `fit`: `model_` (the torch module), `metrics_`, `history_` (a list of dicts), `offset_` (the score that
    separates outliers), `n_features_in_`, `image_shape_` (of one example of X), `config_` and `directory_` (of
    the run).
    """

    def __init__(
        self,
        model: str = "deep",
        *,
        code_dim: int | None = None,
        epochs: int = 20,
        batch_size: int = 128,
        overrides: Mapping[str, Any] | None = None,
        scale: Literal["minmax", "standard"] | None = "minmax",
        metric: Literal["sse", "loss"] = "sse",
        contamination: float = 0.1,
        directory: str | Path | None = None,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.code_dim = code_dim
        self.epochs = epochs
        self.batch_size = batch_size
        self.overrides = overrides
        self.scale = scale
        self.metric = metric
        self.contamination = contamination
        self.directory = directory
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train on all of X; y is ignored. Raise ValueError for values or parameters that do not fit."""
        self._check_parameters()
        rows = self._read(X, reset=True)
        self._bytes = rows.dtype == np.uint8
        if self.scale == "standard" and (self._bytes or len(self.image_shape_) > 1):
            raise ValueError("scale='standard' is for rows [N, D] of floats: use 'minmax' or None for images")
        if self._has_scaler:
            self._scaler = (StandardScaler() if self.scale == "standard" else MinMaxScaler()).fit(rows)
        scaled = self._scaled(rows)
        with tempfile.TemporaryDirectory(prefix="aetrain-") as temporary, self._logging():
            parent = Path(temporary if self.directory is None else self.directory)
            trained = self._train(scaled, parent / f"{datetime.now():%Y%m%d-%H%M%S-%f}-{os.getpid()}")
            self.history_ = RunDirectory(trained.directory).history()
        self.directory_ = None if self.directory is None else trained.directory
        self.model_, self.metrics_, self.config_ = trained.model, trained.metrics, trained.config
        self._n_features_out = trained.model.code_dim
        self.offset_ = float(np.quantile(self._scores(scaled), self.contamination))
        return self

    def transform(self, X: Any) -> Array:
        """Return the codes [N, code_dim] of X."""
        check_is_fitted(self)
        return self._compute(encode, self._scaled(self._read(X)))

    def inverse_transform(self, X: Any) -> Array:
        """Return the examples that codes X [N, code_dim] decode to, in the shape and the units of the training data."""
        check_is_fitted(self)
        codes = check_array(X, dtype=[np.float64, np.float32])
        if codes.shape[1] != self._n_features_out:
            raise ValueError(f"X has {codes.shape[1]} features, but a code has {self._n_features_out} units")
        rows = self._compute(decode, codes)
        if self._bytes:
            rows = rows * 255
        elif self._has_scaler:
            rows = self._scaler.inverse_transform(rows)
        return rows.reshape(len(rows), *self.image_shape_)

    def score_samples(self, X: Any) -> Array:
        """Return the negative `metric` of each example, [N]: higher for usual examples."""
        check_is_fitted(self)
        return self._scores(self._scaled(self._read(X)))

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean of `score_samples`: higher is better. y is ignored."""
        return float(self.score_samples(X).mean())

    def decision_function(self, X: Any) -> Array:
        """Return `score_samples` minus `offset_`, [N]: negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> Array:
        """Return -1 for outliers and 1 for other examples, [N]."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def __sklearn_tags__(self) -> Any:
        """Return the tags of scikit-learn: the codes have the precision of X."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @property
    def _has_scaler(self) -> bool:
        return self.scale == "standard" or (self.scale == "minmax" and not self._bytes)

    def _check_parameters(self) -> None:
        if self.scale not in ("minmax", "standard", None):
            raise ValueError(
                f"scale={self.scale!r} is not possible: use 'minmax', 'standard', or None for values in [0, 1]"
            )
        if self.metric not in METRICS:
            raise ValueError(f"metric={self.metric!r} is not possible: use 'sse' or 'loss'")
        number: Any = self.contamination
        if not isinstance(number, numbers.Real) or not 0 < float(number) <= 0.5:
            raise ValueError(f"contamination={number!r} is not possible: use a part above 0, at most 0.5")

    def _read(self, X: Any, reset: bool = False) -> Array:
        """Return X as rows [N, D] of uint8 or floats, after the checks of scikit-learn."""
        shape: tuple[int, ...] = getattr(X, "shape", ())
        if len(shape) == 4 and shape[1] not in (1, 3) and shape[3] == 3:
            raise ValueError(f"X has the shape {list(shape)}, with the channels last: use images [N, C, H, W]")
        if len(shape) in (3, 4) and 0 not in shape:
            X = np.asarray(X).reshape(len(X), -1)
        types = [np.float64, np.float32, np.uint8]
        rows: Array = validate_data(self, X, reset=reset, dtype=types)
        if reset:
            self.image_shape_ = tuple(shape[1:]) if len(shape) in (3, 4) else (rows.shape[1],)
        return rows

    def _scaled(self, rows: Array) -> Array:
        """Return rows as floats, the range of the training data as [0, 1]; new values may lie outside of it.

        They are float64 where X is, else float32.
        """
        if self._bytes and rows.dtype != np.uint8:
            raise ValueError(f"X has the type {rows.dtype}, but the training data had uint8: use uint8 from 0 to 255")
        if rows.dtype == np.uint8 and (self._bytes or self.scale is None):
            return (rows / 255).astype(np.float32)
        if self._has_scaler:
            rows = self._scaler.transform(rows if rows.dtype != np.uint8 else rows.astype(np.float32))
        elif not (rows.min() >= 0 and rows.max() <= 1):
            raise ValueError(
                f"X has values from {rows.min():g} to {rows.max():g}: use values in [0, 1], uint8 from 0 to 255, or "
                "scale='minmax'"
            )
        return rows

    def _train(self, scaled: Array, folder: Path) -> Trained:
        """Write the training data and a run into a new folder, and return the run."""
        folder.mkdir(parents=True)
        shape = self.image_shape_ if len(self.image_shape_) > 1 else (1, *self.image_shape_)
        is_table = self.scale == "standard"
        values = scaled if is_table else to_bytes(scaled.clip(0, 1), 1.0).reshape(-1, *shape)
        np.savez(folder / DATA_FILE, x_train=values, x_test=values[:MAX_TEST_ROWS])
        settings: dict[str, Any] = {
            "model": self.model,
            "dataset": "table" if is_table else "npz",
            "dataset.path": folder / DATA_FILE,
            **({"dataset.scaling": "none"} if is_table else {}),
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "device": self.device,
            "views": "none",
            "seed": self._seed(),
        }
        if self.code_dim is not None:
            settings["model.code_dim"] = self.code_dim
        overrides = keyword_overrides(self.overrides or {})
        chosen = {text.partition("=")[0] for text in overrides}
        own = keyword_overrides({key: value for key, value in settings.items() if key not in chosen})
        return run([*own, *overrides], directory=folder)

    def _seed(self) -> int:
        """Return `random_state` where it is a seed, else a seed drawn from it as scikit-learn does."""
        state: Any = self.random_state
        if isinstance(state, numbers.Integral):
            return int(state)
        return int(check_random_state(state).randint(np.iinfo(np.int32).max))

    @contextmanager
    def _logging(self) -> Iterator[None]:
        """Keep warnings about the training from the log inside, unless `verbose`."""
        log = logging.getLogger("aetrain")
        level = log.level
        if not self.verbose:
            log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)

    def _scores(self, scaled: Array) -> Array:
        """Return the negative metric of scaled rows [N, D], [N]."""
        return -self._compute(squared_error if self.metric == "sse" else negative_log_likelihood, scaled)

    def _compute(self, function: Callable[[Model, Tensor], Tensor], values: Array) -> Array:
        """Return function(model, batch) of all batches of rows or codes, computed in the precision of the values."""
        model = self.model_ if values.dtype == np.float32 else copy.deepcopy(self.model_).double()
        with torch.no_grad():
            parts = [function(model, batch) for batch in torch.tensor(values).split(BATCH_SIZE)]
        result: Array = torch.cat(parts).numpy()
        return result


def encode(model: Model, rows: Tensor) -> Tensor:
    """Return the codes [B, code_dim] of rows [B, D]; the network sees pixels clipped to [0, 1]."""
    return model.encode(as_inputs(model, rows)).z


def decode(model: Model, codes: Tensor) -> Tensor:
    """Return rows [B, D] of codes [B, code_dim]."""
    return model.decode_pixels(codes).flatten(1)


def squared_error(model: Model, rows: Tensor) -> Tensor:
    """Return the squared error of each of the rows [B, D], [B]; the network sees pixels clipped to [0, 1]."""
    return example_scores.squared_error(model, model(as_inputs(model, rows), as_images(model, rows)))


def negative_log_likelihood(model: Model, rows: Tensor) -> Tensor:
    """Return -log p(x | z) of each of the rows [B, D] at its mean code z, plus the KL of a random code, [B], in nats.

    Pixels are clipped to [0, 1].
    """
    return example_scores.negative_log_likelihood(model, model(as_inputs(model, rows)))


def as_inputs(model: Model, rows: Tensor) -> Tensor:
    """Return rows [B, D] as the network sees them, [B, C, H, W]."""
    x = as_images(model, rows)
    return x.clamp(0, 1) if model.kind == "image" else x


def as_images(model: Model, rows: Tensor) -> Tensor:
    """Return rows [B, D] in the shape of the model's images, [B, C, H, W]."""
    return rows.reshape(len(rows), *model.image_shape)
