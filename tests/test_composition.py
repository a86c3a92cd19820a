"""Composition that reuses what Hydra has read and merged before gives the configs of Hydra alone.

A failure of Hydra's own functions means that an upgrade has changed them: adapt aetrain.config.composition.
"""

import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf

from aetrain.config import composition
from aetrain.config.composition import reuse_compositions
from aetrain.config.overrides import register_resolvers
from aetrain.config.paths import CONFIG_DIR

CHOICES: list[list[str]] = [
    [],
    ["model=vae", "dataset=digits", "epochs=3", "model.penalties.kl.weight=0.5"],
    ["experiment=code_2d", "noise=gaussian", "noise.std=0.5", "views=[default,neighbours]"],
    ["penalty=[l2,tc]", "~schedule", "+extra={a: [1, '2'], b: null}", "measures=probes"],
    ["model=vae", "epochs=4", "hydra.run.dir='a=b'"],
]


@pytest.fixture(autouse=True)
def _no_earlier_configs() -> Iterator[None]:
    for entries in (composition._reads, composition._merged, composition._overrides):
        entries.clear()
    register_resolvers()
    yield
    ConfigStore.instance().repo.pop("size", None)


def _compose(overrides: list[str], folder: Path = CONFIG_DIR, *, reused: bool = True) -> Any:
    GlobalHydra.instance().clear()
    with (
        reuse_compositions() if reused else nullcontext(),
        initialize_config_dir(str(folder), job_name="aetrain", version_base="1.3"),
    ):
        return compose("config", overrides, return_hydra_config=True)


def _describe(config: Any) -> tuple[str, list[Any]]:
    """Return all of a config that a program sees: keys in their order, values, interpolations, types and flags."""
    return OmegaConf.to_yaml(config), [*_properties(config)]


def _properties(node: Any) -> Iterator[Any]:
    if OmegaConf.is_config(node):
        yield OmegaConf.get_type(node), OmegaConf.is_struct(node), OmegaConf.is_readonly(node)
    for key in node if OmegaConf.is_dict(node) else ():
        if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
            yield key
            yield from _properties(node[key])


def test_configs_are_those_of_hydra_alone() -> None:
    alone = [_describe(_compose(overrides, reused=False)) for overrides in CHOICES]
    for _ in range(2):  # the second time, all is reused
        assert [_describe(_compose(overrides)) for overrides in CHOICES] == alone


def test_files_are_read_and_choices_merged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _compose(["model=vae", "epochs=1"])
    for name in ("MERGE", "PARSE"):
        monkeypatch.setattr(composition, name, None)  # a call of it would fail
    load, paths = composition.LOAD, list[str]()

    def record(repository: ConfigRepository, path: str) -> ConfigResult | None:
        paths.append(path)
        return load(repository, path)

    monkeypatch.setattr(composition, "LOAD", record)
    assert _compose(["epochs=1", "model=vae"]).epochs == 1
    assert {Path(path).name for path in paths} <= {"None"}  # Hydra looks for the option null of groups without one


def test_change_of_a_config_reaches_no_other_config() -> None:
    first = _compose(["model=vae"])
    text = OmegaConf.to_yaml(first)
    first.epochs = 99
    first.model.penalties.kl.weight = 99
    first.hydra.job.name = "other"
    assert OmegaConf.to_yaml(_compose(["model=vae"])) == text


def test_values_of_overrides_are_not_shared() -> None:
    parse = OverridesParser.create().parse_override
    with reuse_compositions():
        first = parse("epochs=3")
        first.config_loader, first.input_line = object(), "other"  # type: ignore[assignment]
        second = parse("epochs=3")
        assert (second.config_loader, second.input_line, second.value()) == (None, "epochs=3", 3)
        assert parse("a=[1]").value() is not parse("a=[1]").value()
        for text in ("a=[", "a=choice("):
            for _ in range(2):
                with pytest.raises(HydraException):
                    parse(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of configs whose files are old enough to be reused."""
    (tmp_path / "size").mkdir()
    _write(tmp_path / "config.yaml", "defaults: [{size: small}, _self_]\n")
    _write(tmp_path / "size" / "small.yaml", "width: 1\n")
    return tmp_path


def _write(file: Path, text: str, age_s: int = 60) -> None:
    before = file.stat().st_mtime_ns if file.is_file() else None
    file.write_text(text)
    time_ns = file.stat().st_mtime_ns - age_s * 10**9
    os.utime(file, ns=(time_ns, time_ns))
    assert file.stat().st_mtime_ns != before


def test_changed_file_is_read_again(folder: Path) -> None:
    assert _compose([], folder).size.width == 1
    assert len(composition._merged) == 2, "Hydra's own configs, and all"
    _write(folder / "size" / "small.yaml", "width: 2\n")
    assert _compose([], folder).size.width == 2
    _write(folder / "config.yaml", "defaults: [{size: large}, _self_]\n")
    _write(folder / "size" / "large.yaml", "width: 3\n")
    assert _compose([], folder).size.width == 3


def test_new_file_is_not_reused_because_it_may_change_again_at_the_same_time(folder: Path) -> None:
    _write(folder / "size" / "small.yaml", "width: 1\n", age_s=0)
    time_ns = (folder / "size" / "small.yaml").stat().st_mtime_ns
    assert _compose([], folder).size.width == 1
    (folder / "size" / "small.yaml").write_text("width: 2\n")
    os.utime(folder / "size" / "small.yaml", ns=(time_ns, time_ns))
    assert _compose([], folder).size.width == 2
    assert not composition._merged


def test_option_of_the_config_store_is_read_again_after_a_change(folder: Path) -> None:
    for width in (1, 2):
        ConfigStore.instance().store(group="size", name="stored", node={"width": width})
        assert _compose(["size=stored"], folder).size.width == width


def test_schema_of_the_config_store_is_used_as_soon_as_it_is_there(folder: Path) -> None:
    assert "height" not in _compose([], folder).size
    ConfigStore.instance().store(group="size", name="small", node={"width": 0, "height": 7})
    with pytest.warns(UserWarning, match="'size/small' is validated against ConfigStore schema"):  # Hydra's own
        assert _compose([], folder).size.height == 7
    ConfigStore.instance().repo.pop("size")
    assert "height" not in _compose([], folder).size


def test_interpolation_in_a_list_of_defaults(folder: Path) -> None:
    _write(folder / "config.yaml", "defaults: [{size: small}, {colour: '${size}_red'}, _self_]\n")
    (folder / "colour").mkdir()
    for option in ("small_red", "large_red"):
        _write(folder / "colour" / f"{option}.yaml", f"name: {option}\n")
    _write(folder / "size" / "large.yaml", "width: 3\n")
    for size in ("small", "large", "small"):
        assert _compose([f"size={size}"], folder).colour.name == f"{size}_red"


def test_mistake_gets_the_same_error_each_time() -> None:
    texts = []
    for reused in (False, True, True):
        with pytest.raises(HydraException) as error:
            _compose(["model=none_such"], reused=reused)
        texts.append(str(error.value))
    assert len(set(texts)) == 1


def test_old_entries_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composition, "MAX_MERGED", 2)
    monkeypatch.setattr(composition, "MAX_OVERRIDES", 3)
    widths = [_compose([f"model={model}"]).hydra.runtime.choices.model for model in ("vae", "deep", "linear", "vae")]
    assert widths == ["vae", "deep", "linear", "vae"]
    assert len(composition._merged) == 2
    assert len(composition._overrides) <= 3


def test_functions_of_hydra_are_put_back() -> None:
    def current() -> list[Any]:
        owners = (ConfigRepository.load_config, OverridesParser.parse_rule, defaults_list._create_interpolation_map)
        return [*owners, ConfigLoaderImpl._compose_config_from_defaults_list]

    def fail() -> None:
        with reuse_compositions():
            assert not {*current()} & {*own}
            raise ValueError("inside")

    own = current()
    with pytest.raises(ValueError, match="inside"):
        fail()
    assert current() == own
