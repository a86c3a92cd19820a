"""TensorBoard's HParams page: one row for each config, and the same typed columns at every start."""

import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from aetrain.config.hparams import config_digest, hparams
from aetrain.config.overrides import parse_assignments
from aetrain.config.settings import flatten
from aetrain.evaluation.metric_names import HPARAM_METRICS
from aetrain.utils.compat import hparams_plugin
from aetrain.views.context import ViewContext
from aetrain.views.tensorboard import TensorBoardWriter

# TensorBoard's own copy of html5lib warns at its import.
pytestmark = pytest.mark.filterwarnings("ignore:html5lib's sanitizer:DeprecationWarning")

OLD_RUNS = Path(__file__).parent / "data" / "runs-0.1.0"


def test_hparams_are_the_options_and_the_settings_that_change_the_result() -> None:
    flat = {"optimizer.lr": 0.01, "optimizer._target_": "x", "model.hidden": [4, 2], "seed": 3, "views.units.count": 1}
    overrides = ["model=vae", "optimizer.lr=0.01", "seed=3", "~views.units"]
    values = hparams({**flat, "epochs": 7, "data_dir": "/data", "dataset.path": "/data"}, overrides)
    assert values["model"] == "vae"
    assert values["dataset"] == "mnist", "the default option"
    assert values["model.hidden"] == "[4, 2]"
    assert values["epochs"] == 7
    assert values["optimizer.lr"] == 0.01
    assert not {"seed", "views.units.count", "optimizer._target_", "dataset.path", "data_dir"} & values.keys()
    assert hparams({"data_dir": "/data", "dataset.path": "own.npz"}, [])["dataset.path"] == "own.npz"
    options = hparams(flat, ["experiment=conv", "model=conv_vae"])
    assert (options["dataset"], options["model"], options["likelihood"]) == ("fashion", "conv_vae", "gaussian")
    assert "dataset" not in hparams(flat, ["experiment=mine"]), "an option that the user's own experiment may choose"
    assert parse_assignments(["+a=1", "b.c=x=y", "~d", "~e=2"]) == {"a": "1", "b.c": "x=y"}


def test_the_digest_is_that_of_a_config_without_its_seed() -> None:
    config = {
        "epochs": 1,
        "seed": 0,
        "device": "cpu",
        "data_dir": "/data",
        "dataset": {"path": "own.npz", "subset": None},
        "model": {"_target_": "a.A", "hidden": [4], "code_dim": 2},
        "views": {"units": {"count": 3}},
        "measures": {},
    }

    def digest(pixels: str = "1f", **changes: Any) -> str:
        return config_digest({**flatten(config), **changes}, {"test": {"images": 5, "pixels": pixels}})

    same: list[dict[str, Any]] = [
        {"seed": 1},
        {"device": "cuda"},
        {"data_dir": "/elsewhere"},
        {"dataset.path": "copy.npz"},
        {"views.units.count": 9},
        {"measures.probes.k": 5},
    ]
    assert {digest(**changes) for changes in same} == {digest()}
    other: list[dict[str, Any]] = [
        {"epochs": 10},
        {"pixels": "2f"},
        {"dataset.subset": 5},
        {"model._target_": "a.B"},
        {"model.hidden": [4, 4]},
        {"model.code_dim": 3},
        {"model.new": None},
    ]
    assert len({digest(), *(digest(**changes) for changes in other)}) == 1 + len(other)


class Page:
    """The HParams page of TensorBoard's own backend for a folder, with the runs loaded in a given order."""

    def __init__(self, folder: Path, runs: Sequence[str], own_plugin: bool) -> None:
        from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
        from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
        from tensorboard.context import RequestContext
        from tensorboard.plugins.base_plugin import TBContext
        from tensorboard.plugins.hparams import api_pb2, get_experiment, list_session_groups
        from tensorboard.plugins.hparams.hparams_plugin import HParamsPlugin

        multiplexer = EventMultiplexer()
        for name in runs:
            multiplexer.AddRun(str(folder / name), name)
        multiplexer.Reload()
        context = TBContext(data_provider=MultiplexerDataProvider(multiplexer, str(folder)))
        plugin = (hparams_plugin(HPARAM_METRICS) if own_plugin else HParamsPlugin)(context)
        arguments = (RequestContext(), plugin._context, "")
        self.experiment = get_experiment.Handler(*arguments, api_pb2.GetExperimentRequest()).run()
        request = api_pb2.ListSessionGroupsRequest(allowed_statuses=[0, 1, 2, 3], slice_size=1000)
        self.rows = list_session_groups.Handler(*arguments, request).run().session_groups

    @property
    def columns(self) -> list[Any]:
        return list(self.experiment.hparam_infos)

    @property
    def metrics(self) -> list[str]:
        return [info.name.tag for info in self.experiment.metric_infos]

    def values(self, hparam: str, metric: str) -> list[tuple[float, float]]:
        """Return the value of a hyper-parameter and of a metric, of each row, sorted."""
        pairs = []
        for row in self.rows:
            (value,) = [item.value for item in row.metric_values if item.name.tag == metric]
            pairs.append((row.hparams[hparam].number_value, value))
        return sorted(pairs)


def write_event_file(folder: Path, group: str, values: dict[str, Any], metrics: dict[str, float]) -> None:
    def no_context(epoch: int) -> ViewContext:
        raise AssertionError("there are no views")

    tensorboard = TensorBoardWriter(folder, {}, no_context)
    tensorboard.open("a: 1")
    tensorboard.add_scalars(1, {"train/nll": 1.0, "test/mse": 0.5})
    tensorboard.close(values, metrics, group)


@pytest.mark.parametrize("own_plugin", [False, True])
def test_columns_are_typed_and_equal_in_any_order_of_the_runs(own_plugin: bool, tmp_path: Path) -> None:
    """Three sweeps over different settings: `model`, `optimizer.lr`, and `epochs` with `compile`."""
    from tensorboard.plugins.hparams.api_pb2 import DataType

    constant = {"batch_size": 32, "noise": "none"}
    first = {"model": "vae", "optimizer.lr": 0.1, "epochs": 1, "compile": False}
    changes: list[dict[str, Any]] = [{}, {"model": "deep"}, {"optimizer.lr": 10}, {"optimizer.lr": 2}]
    changes += [{"epochs": 10, "compile": True}]
    names: list[str] = []
    for i, change in enumerate(changes):
        name = f"sweep{i // 2}/{i}"
        metrics = {"test/sse": float(i), "test/nll": 1.0} if i else {"test/kl": 3.0, "test/sse": 0.0}
        write_event_file(tmp_path / name, f"group{i}", constant | first | change, metrics)
        names.append(name)
    pages = [Page(tmp_path, order, own_plugin) for order in (names, names[::-1], [*names[2:], *names[:2]])]
    for page in pages[1:]:
        assert [column.name for column in page.columns] == [column.name for column in pages[0].columns]
        assert page.metrics == pages[0].metrics
    by_name = {column.name: column for column in pages[0].columns}
    assert list(by_name) == ["compile", "epochs", "model", "optimizer.lr", "batch_size", "noise"], "those that differ"
    differs = [column.differs for column in pages[0].columns]
    assert differs == [True] * 4 + [False] * 2
    types = {name: DataType.Name(column.type).removeprefix("DATA_TYPE_") for name, column in by_name.items()}
    numbers = dict.fromkeys(("epochs", "optimizer.lr", "batch_size"), "FLOAT64")
    assert types == numbers | {"compile": "BOOL", "model": "STRING", "noise": "STRING"}
    lr = by_name["optimizer.lr"].domain_interval
    assert (lr.min_value, lr.max_value) == (0.1, 10)
    domain = list(by_name["model"].domain_discrete)
    assert (domain if own_plugin else sorted(domain)) == ["deep", "vae"]
    expected = ["test/sse", "test/nll", "test/kl"]
    assert pages[0].metrics == (expected if own_plugin else sorted([*expected, "test/mse", "train/nll"]))
    assert len(pages[0].rows) == len(changes)


def test_board_compares_old_runs_by_the_columns_of_all(tmp_path: Path) -> None:
    """Runs of 0.1.0 describe a table, each another one, and TensorBoard's own plugin takes any."""
    names = ["deep", "vae", "sweep/seed=0"]
    for name in names:
        shutil.copytree(OLD_RUNS / name, tmp_path / name)
    orders = list(itertools.permutations(names))
    own = {tuple(column.name for column in Page(tmp_path, order, own_plugin=True).columns) for order in orders}
    other = {tuple(column.name for column in Page(tmp_path, order, own_plugin=False).columns) for order in orders}
    assert len(own) == 1
    assert len(other) > 1, "otherwise the plugin is not needed"
    assert set().union(*other) >= {"model", "model.code_dim"}
    assert {"model", "model.code_dim", "batch_size"} <= set(*own)


@pytest.mark.slow
def test_runs_of_one_config_are_averaged_and_others_are_not(tiny: Callable[..., Path], tmp_path: Path) -> None:
    """Two seeds of `epochs=0`, with validation images, and a run of `epochs=1` that is continued to 2."""

    def train(epochs: int, seed: int) -> float:
        settings = [f"epochs={epochs}", f"seed={seed}", "dataset.validation=16", "dataset.binarize=static"]
        run = tiny("model=linear", *settings, name=str(seed))
        return float(json.loads((run / "metrics.json").read_text())["test/sse"])

    first, second = train(0, 0), train(0, 1)
    longer = train(1, 2)
    page = Page(tmp_path, sorted(path.name for path in tmp_path.iterdir()), own_plugin=True)
    (epochs, mean), (more_epochs, single) = page.values("epochs", "test/sse")
    assert (epochs, more_epochs) == (0, 1)
    assert mean == pytest.approx((first + second) / 2)
    assert single == pytest.approx(longer)
    assert [column.name for column in page.columns if column.differs] == ["epochs"]
    train(2, 2)
    page = Page(tmp_path, sorted(path.name for path in tmp_path.iterdir()), own_plugin=True)
    assert [epochs for epochs, _ in page.values("epochs", "test/sse")] == [0, 2], "a run that is continued has one row"
