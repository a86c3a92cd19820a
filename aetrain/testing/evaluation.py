"""Contract checks of measures and views."""

import copy
import math
import tempfile
from pathlib import Path

import torch

from aetrain.data.examples import Prepare, Splits
from aetrain.data.noise import NoNoise, Replace, noise_for
from aetrain.data.noise_of_missing import Hide
from aetrain.evaluation.measures.baselines import BASELINE_DESCRIPTIONS
from aetrain.evaluation.measures.measure import EvalInputs, Measure
from aetrain.evaluation.metric_names import find_pattern
from aetrain.model.autoencoder import Autoencoder
from aetrain.model.bottlenecks import Gaussian
from aetrain.model.pca import PCA
from aetrain.objective.objective import Objective
from aetrain.objective.penalties import KL
from aetrain.testing.common import IMAGE_SHAPE, expect, labelled_images, small_model, unchanged
from aetrain.views.context import ViewContext
from aetrain.views.view import View, ViewOutput, view_kinds


def check_measure(measure: Measure, model: Autoencoder | None = None) -> None:
    """Check a measure on a small model: finite numbers by name, the same at every call, and nothing changed."""
    name = type(measure).__name__
    model = (model or small_model(Gaussian)).eval()
    splits = Splits(labelled_images(120), labelled_images(0), labelled_images(60, seed=1))
    prepare = Prepare()
    pca = PCA.fit([prepare(splits.train.values)], model.code_dim)
    untrained = copy.deepcopy(model)
    measure.check(model)
    measure.check_images(splits)
    results = []
    for _ in range(2):
        with unchanged(name, model):
            objective = Objective({"kl": KL()} if model.bottleneck.emits.is_random else {})
            inputs = EvalInputs(
                model, objective, NoNoise(), splits, prepare, lambda: copy.deepcopy(untrained), seed=0, pca=pca
            )
            results.append(measure(inputs))
    expect(bool(results[0]), f"{name} returns no metric")
    for metric, value in results[0].items():
        expect(isinstance(value, float) and math.isfinite(value), f"{metric} of {name} is {value}, not a finite float")
        described = find_pattern(metric, measure.descriptions) or find_pattern(metric, BASELINE_DESCRIPTIONS)
        expect(bool(described), f"{metric} of {name} has no entry in descriptions")
    expect(not model.training, f"{name} leaves the model in training mode")
    expect(results[0] == results[1], f"{name} gives other metrics at the second call")


def check_view(view: View, model: Autoencoder | None = None) -> None:
    """Check a view on a small model, with and without noise, labels and missing values.

    Its pictures are equal at every call, and it changes nothing.

    A view of other data than images is drawn for each of its kinds.
    """
    if model is not None:
        _check_drawing(view, model.eval())
        return
    for kind in view_kinds(view):
        shape = IMAGE_SHAPE if kind == "image" else (1, 1, math.prod(IMAGE_SHAPE))
        model = small_model(Gaussian, image_shape=shape).eval()
        model.kind = kind
        _check_drawing(view, model)
        if kind != "counts":
            model.has_missing = True
            _check_drawing(view, model, missing=0.2)


def _check_drawing(view: View, model: Autoencoder, missing: float = 0.0) -> None:
    """Check the pictures of images of which a share of the values is `missing` (NaN)."""
    name, images = type(view).__name__, labelled_images(60)
    x = Prepare()(images.values).view(-1, *model.image_shape)
    if missing:
        x = Hide(missing)(x, torch.Generator().manual_seed(0))
    for labels, noise in ((images.labels, noise_for(Replace(0.3, 0.0), model.kind, missing > 0)), (None, NoNoise())):
        files = []
        for _ in range(2):
            with unchanged(name, model):
                output = view(ViewContext(model, x, labels, noise, epoch=1))
            files.append(_written_files(name, output))
        expect(files[0] == files[1], f"{name} draws other pictures at the second call")


def _written_files(name: str, output: ViewOutput | None) -> dict[str, bytes]:
    """Return the files that an output writes into a run's figures/, after logging it to an event file."""
    if output is None:
        return {}
    from torch.utils.tensorboard import SummaryWriter

    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures"
        figures.mkdir()
        output.save(figures / "view")
        writer = SummaryWriter(str(Path(folder) / "events"))
        output.log(writer, "view", 1)
        writer.close()
        files = {file.name: file.read_bytes() for file in sorted(figures.rglob("*")) if file.is_file()}
    for file, content in files.items():
        expect(len(content) > 0, f"{name} writes an empty file {file}")
    return files
