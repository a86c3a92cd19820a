"""Plan packs: find the runs of a sweep that differ only in numbers that change no shape."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, get_args

from aetrain.config.settings import Settings, flatten, role_of
from aetrain.config.validate import locate, parameter_types
from aetrain.runs.entry import check
from aetrain.runs.request import RunRequest
from aetrain.runs.train import already_done, train
from aetrain.training.backend.threads import available_threads
from aetrain.utils.devices import accelerator

log = logging.getLogger("aetrain")

MAX_DIFFERENCES_SHOWN = 3


@dataclass(frozen=True)
class PackRequest:
    """A run to be trained, with its checked settings."""

    request: RunRequest
    settings: Settings


def plan(requests: Sequence[RunRequest], size: int) -> tuple[list[int], list[list[int]], int]:
    """Plan the first pack among the runs and divide it among the cores.

    Return the numbers of the runs that this plan covers (those of the pack, those without work, and those that fit no
    other), the runs of each process, at most `size` each, and the threads of each process. On a GPU there is one
    process.
    """
    trainable = trainable_runs(requests)
    untrainable = [i for i in range(len(requests)) if i not in trainable]
    numbers = list(trainable)
    groups = list(group_by(list(trainable.values()), pack_settings).values())
    single = [numbers[members[0]] for members in groups if len(members) == 1]
    for i in single:
        log.info("run individually: %s: %s", trainable[i].request.run_dir, _describe_difference(i, trainable))
    pack = next(([numbers[i] for i in members] for members in groups if len(members) > 1), [])
    cores = _count_threads(trainable[pack[0]]) if pack else available_threads().number
    processes = max(1, min(cores, len(pack) // 2))
    pack = pack[: size * processes]
    shares = [pack[i::processes] for i in range(processes)] if pack else []
    return [*untrainable, *single, *pack], shares, max(1, cores // processes)


def trainable_runs(requests: Sequence[RunRequest]) -> dict[int, PackRequest]:
    """Return the runs that have training left, by number; a run by itself reports the problems of the others."""
    trainable: dict[int, PackRequest] = {}
    for i, request in enumerate(requests):
        try:
            settings = check(request.config, request.overrides)
            if locate(settings.mode["_target_"]) is not train:
                continue
            metrics = already_done(request, settings)
            if metrics is None:
                trainable[i] = PackRequest(request, settings)
            else:
                request.run_dir.record_outcome(str(metrics["status"]), str(metrics.get("cause", "")))
        except Exception:  # reported when the run is tried by itself
            continue
    return trainable


def group_by(requests: Sequence[PackRequest], key: Callable[[Settings], Mapping[str, Any]]) -> dict[str, list[int]]:
    """Return the numbers of the requests whose `key` settings are equal."""
    groups: dict[str, list[int]] = {}
    for i, request in enumerate(requests):
        groups.setdefault(repr(sorted(key(request.settings).items())), []).append(i)
    return groups


def common_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings that all runs of a pack share or that change in the vectorised model, by dotted name."""
    return flatten(_common_sections(settings))


def pack_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings in which all runs of a pack are equal: the common ones except numbers typed as float."""
    sections = _common_sections(settings)
    return flatten(
        {
            key: _without_floats(value) if key != "dataset" and isinstance(value, Mapping) else value
            for key, value in sections.items()
        }
    )


def _common_sections(settings: Settings) -> dict[str, Any]:
    names = [item.name for item in fields(settings)]
    return {name: getattr(settings, name) for name in names if role_of(name).same_in_pack}


def _without_floats(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return a node without the numbers that its target's signature annotates as float."""
    hints: Mapping[str, Any] = {}
    if "_target_" in node:
        hints = parameter_types(locate(node["_target_"]))
    rest: dict[str, Any] = {}
    for name, value in node.items():
        if isinstance(value, Mapping):
            rest[name] = _without_floats(value)
        elif not (_is_number(value) and float in (hints.get(name), *get_args(hints.get(name)))):
            rest[name] = value
    return rest


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _count_threads(request: PackRequest) -> int:
    """Return the number of threads of all processes of a pack."""
    if _uses_gpu(request):
        return 1
    threads = request.settings.threads
    return available_threads().number if threads == "auto" else threads


def _uses_gpu(request: PackRequest) -> bool:
    return request.settings.device != "cpu" and accelerator() is not None


def _describe_difference(i: int, requests: Mapping[int, PackRequest]) -> str:
    """Return the settings in which a run differs from the one closest to it."""
    if len(requests) == 1:
        return "no other run is left to train"
    own = pack_settings(requests[i].settings)
    differences = []
    for j, request in requests.items():
        if j != i:
            other = pack_settings(request.settings)
            differences.append(sorted(key for key in own.keys() | other.keys() if own.get(key) != other.get(key)))
    keys = min(differences, key=len)
    more = ", ..." if len(keys) > MAX_DIFFERENCES_SHOWN else ""
    return f"no other run has its {', '.join(keys[:MAX_DIFFERENCES_SHOWN])}{more}"
