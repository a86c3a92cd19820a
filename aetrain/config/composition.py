"""Reuse in Hydra's composition of configs: a process reads each file once, and merges each choice of options once.

Hydra reads and merges some thirty files for a config, twice for a command and again for every job of a sweep. Merging
takes most of the time, and it depends on the chosen options alone, not on the values that the command line sets.
"""

import copy
import os
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import dropwhile
from typing import Any, cast

from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import DictConfig, OmegaConf

HYDRA = "hydra/config"  # the schema of Hydra's own settings

MAX_MERGED = 64  # choices of options, each some 100 kB
MAX_OVERRIDES = 1024
MIN_FILE_AGE_NS = 2_000_000_000  # a younger file may change again without a new time of change

PLAIN = (str, int, float, bool, QuotedString, type(None))  # values of overrides that nothing can change

# Hydra's own functions.
LOAD = ConfigRepository.load_config
MERGE = ConfigLoaderImpl._compose_config_from_defaults_list
PARSE = OverridesParser.parse_rule
INTERPOLATION_MAP = defaults_list._create_interpolation_map

NO_OPTIONS = OmegaConf.create()  # Hydra reads it alone


@dataclass
class _Read:
    """A config that Hydra has read, and the state of its source then."""

    state: Any
    result: ConfigResult


@dataclass
class _Merged:
    """A merged config, and the configs inside it, which live as long, so that none has the `id` of another."""

    config: DictConfig
    results: Sequence[ConfigResult]


_reads: dict[tuple[str, ...], _Read] = {}
_merged: OrderedDict[Hashable, _Merged] = OrderedDict()
_overrides: OrderedDict[Hashable, Override] = OrderedDict()


@contextmanager
def reuse_compositions() -> Iterator[None]:
    """Let Hydra reuse inside what it has read, merged and parsed in this process; the configs are the same."""
    with ExitStack() as stack:
        for owner, name, reusing, own in (
            (ConfigRepository, "load_config", _load, LOAD),
            (ConfigLoaderImpl, "_compose_config_from_defaults_list", _merge, MERGE),
            (OverridesParser, "parse_rule", _parse, PARSE),
            (defaults_list, "_create_interpolation_map", _create_interpolation_map, INTERPOLATION_MAP),
        ):
            setattr(owner, name, reusing)
            stack.callback(setattr, owner, name, own)
        yield


def _load(repository: ConfigRepository, config_path: str) -> ConfigResult | None:
    """Return a config as Hydra reads it: the same object while its source is in the same state."""
    source = repository._find_object_source(config_path, ObjectType.CONFIG)
    state = None if source is None else _state_of(source, config_path)
    if source is None or state is None:
        return LOAD(repository, config_path)
    key = (source.scheme(), source.path, source.provider, config_path)
    read = _reads.get(key)
    if read is None or read.state != state:
        result = LOAD(repository, config_path)
        assert result is not None
        read = _reads[key] = _Read(state, result)
    return read.result


def _state_of(source: ConfigSource, config_path: str) -> Any:
    """Return a value that differs after a change of a config; None where a change could not be noticed."""
    name, scheme = source._normalize_file_name(config_path), source.scheme()
    if scheme == "pkg":  # a file of an installed package
        return scheme
    if scheme == "structured":
        node = ConfigStore.instance()._load(name)
        return id(node), node  # the first decides: comparing nodes takes long
    if scheme != "file":
        return None
    stat = os.stat(os.path.join(source.path, name))
    is_old = abs(time.time_ns() - stat.st_mtime_ns) > MIN_FILE_AGE_NS
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino) if is_old else None


def _merge(loader: ConfigLoaderImpl, defaults: list[Any], repo: Any) -> DictConfig:
    """Return the merged config of a list of options, a new object."""
    results = [repo.load_config(default.config_path) for default in defaults]
    if not _are_reusable(results, defaults, repo):
        return MERGE(loader, defaults, cast(Any, _Copies(repo)))
    parts = zip(defaults, results, strict=True)
    key = tuple((one.config_path, one.package, one.primary, one.is_self, id(result)) for one, result in parts)
    merged = _merged.pop(key, None) or _Merged(_merge_anew(loader, defaults, repo), results)
    _keep(_merged, key, merged, MAX_MERGED)
    return copy.deepcopy(merged.config)


def _merge_anew(loader: ConfigLoaderImpl, defaults: list[Any], repo: Any) -> DictConfig:
    """Merge options; Hydra's own, which come first and take half of the time, are merged once for all choices."""
    others = list(dropwhile(lambda default: default.config_path.startswith("hydra/"), defaults))
    own = defaults[: len(defaults) - len(others)]
    stand_in = next((replace(default, package="") for default in own if default.config_path == HYDRA), None)
    if stand_in is None or not others:
        return MERGE(loader, defaults, cast(Any, _Copies(repo)))
    return MERGE(loader, [stand_in, *others], cast(Any, _Copies(repo, _merge(loader, own, repo))))


def _are_reusable(results: Sequence[ConfigResult], defaults: Sequence[Any], repo: Any) -> bool:
    """Return whether no config can change unnoticed, or is checked against a schema that could."""
    known = {id(read.result) for read in _reads.values()}
    schemas = repo.get_schema_source()
    return all(
        id(result) in known and (result.is_schema_source or not schemas.is_config(default.config_path))
        for result, default in zip(results, defaults, strict=True)
    )


@dataclass
class _Copies:
    """The configs of a repository, each as a copy, because merging changes them; `merged` stands for all of Hydra's."""

    repository: Any
    merged: DictConfig | None = None

    def load_config(self, config_path: str) -> ConfigResult | None:
        result: ConfigResult | None = self.repository.load_config(config_path)
        if result is None:
            return None
        if config_path == HYDRA and self.merged is not None:
            return replace(result, config=self.merged, header={"package": None})
        return replace(result, config=copy.deepcopy(result.config))

    def get_schema_source(self) -> ConfigSource:
        return cast(ConfigSource, self.repository.get_schema_source())


def _parse(parser: OverridesParser, text: str, rule: str) -> Any:
    """Return what Hydra's grammar makes of a text; an override with a plain value is parsed once."""
    key = (text, rule, *parser.functions.functions.values())
    override = _overrides.pop(key, None)
    if override is None:
        parsed = PARSE(parser, text, rule)
        if not isinstance(parsed, Override) or not isinstance(parsed._value, PLAIN):
            return parsed
        override = parsed
    _keep(_overrides, key, override, MAX_OVERRIDES)
    return copy.copy(override)


def _create_interpolation_map(overrides: Any, defaults: list[Any], self_added: bool) -> DictConfig:
    """Return the options to which interpolations in a list of defaults refer; none where there are none."""
    if any(default.is_interpolation() for default in defaults):
        return INTERPOLATION_MAP(overrides, defaults, self_added)
    return NO_OPTIONS


def _keep(entries: OrderedDict[Hashable, Any], key: Hashable, entry: Any, limit: int) -> None:
    """Add an entry as the newest, and drop the oldest above the limit."""
    entries[key] = entry
    if len(entries) > limit:
        entries.popitem(last=False)
