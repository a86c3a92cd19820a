"""The entry point of one run: check the config, call its mode, record the outcome."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aetrain.config.errors import ConfigError, RunPruned, SigTerm
from aetrain.config.overrides import SAVED, is_read_as, key_of, sets_true
from aetrain.config.paths import groups
from aetrain.config.renames import upgrade_composed
from aetrain.config.settings import Settings
from aetrain.config.validate import locate, validate
from aetrain.runs.from_saved_run import merge_overrides
from aetrain.runs.request import RunRequest
from aetrain.storage.run_directory import DirectoryLocked, RunDirectory
from aetrain.storage.saved_config import saved_config


def run(config: DictConfig, directory: Path, overrides: Sequence[str] = (), single: bool = True) -> dict[str, Any]:
    """Check a config and call its mode; return the mode's result. The cause of a failure is written to the run's log.

    Raise ConfigError for a mistake. `single` is False for a run of a sweep, whose outcome is recorded for the sweep.
    """
    return run_request(RunRequest(config, RunDirectory(directory), list(overrides), single))


def run_request(request: RunRequest) -> dict[str, Any]:
    """Do what `run` says for a request."""
    run_dir = request.run_dir
    try:
        settings = check(request.config, request.overrides)
        options = dict(settings.mode)
        mode = locate(options.pop("_target_"))
        with run_dir.reporting_write_errors():
            result: dict[str, Any] = mode(request, settings, **options)
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        record_error(request, error)
        if isinstance(error, SystemExit):  # raised by a component; it must neither end a sweep nor look like a success
            raise ConfigError(f"SystemExit: {error.code}") from error
        raise
    finally:
        run_dir.release()
    if not request.single:
        metrics = run_dir.metrics()
        run_dir.record_outcome(str(metrics.get("status", "finished")), str(metrics.get("cause", "")))
    return result


def check(config: DictConfig, overrides: Sequence[str]) -> Settings:
    """Return the settings of a config, its interpolations resolved. Raise ConfigError with all of its problems.

    Sections that `overrides` take from a saved run may name no code but aetrain's and torch's, unless trust=true. A run
    that this user has signed sets trust=true where its config is read (`start_from_run`).
    """
    if any(text.startswith(("experiment=", "+experiment=")) for text in overrides):
        from aetrain.config.experiment_overrides import drop_void_settings, refuse_void_parts

        upgrade_composed(config, overrides)
        drop_void_settings(config, overrides)
        refuse_void_parts(config, overrides)
    try:
        return _validated(config, overrides)
    except ConfigError:
        if upgrade_composed(config, overrides):  # old names, which validation does not know
            return _validated(config, overrides)
        raise


def _validated(config: DictConfig, overrides: Sequence[str]) -> Settings:
    plain = resolve(config)
    from_run = {text for text in overrides if text.endswith(f"={SAVED}")}
    if plain.get("trust") is True:
        from_run = set()
    validate(plain, untrusted=lambda key: f"{key.partition('.')[0]}={SAVED}" in from_run)
    return Settings(**plain)


def resolve(config: DictConfig) -> dict[str, Any]:
    """Return a config as plain data with its interpolations resolved. Raise ConfigError where one cannot be."""
    try:
        return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    except (HydraException, OmegaConfBaseException) as error:
        from aetrain.config.error_messages import explain

        raise ConfigError(explain(error)) from error


def record_error(request: RunRequest, error: BaseException) -> None:
    """Record why a run ended in its own directory; of a run of a sweep that may not write there, in the sweep's."""
    run_dir = request.run_dir
    locked = isinstance(error, DirectoryLocked)
    own = run_dir.is_claimed or not (request.single or locked or run_dir.status == "finished")
    recorded = own and record_failure(request, error)
    if request.single:
        return
    if recorded:
        metrics = run_dir.metrics()
        run_dir.record_outcome(str(metrics["status"]), str(metrics["cause"]))
    elif isinstance(error, Exception):
        run_dir.record_outcome("refused", str(error))


def record_failure(request: RunRequest, error: BaseException) -> bool:
    """Write the cause of a run's end into its directory; return False where that is not possible."""
    match error:
        case KeyboardInterrupt():
            signal = "SIGTERM" if isinstance(error, SigTerm) else "Ctrl-C"
            return write_end(request, "interrupted", f"stopped by {signal}")
        case SystemExit():
            return write_end(request, "failed", f"SystemExit: {error.code}")
        case RunPruned():
            return write_end(request, "pruned", str(error))
        case Exception() if not isinstance(error, ConfigError):
            return write_end(request, "failed", f"{type(error).__name__}: {error}", error)
        case _:
            return write_end(request, "failed", str(error) or type(error).__name__)


def write_end(request: RunRequest, status: str, cause: str, error: Exception | None = None) -> bool:
    """Write that a run has ended without a result into its directory; return False where that is not possible.

    A directory that the run has not claimed yet gets the overrides that it began with.
    """
    try:
        begins = request.config.get("start") is not None and not request.run_dir.is_claimed
        overrides = with_original_overrides(request).overrides if begins else request.overrides
    except ConfigError:  # the run that `start` names is not there any more
        return False
    return request.run_dir.record_failure(request.config, overrides, status, cause, error)


def with_original_overrides(request: RunRequest) -> RunRequest:
    """Return the request with the overrides that its run began with, where it resumes or starts from a saved run.

    A run from elsewhere that is resumed without trust=true is not signed: it stays one from elsewhere.
    """
    if not _takes_sections(request.overrides):
        return request
    if request.config.get("trust") is not True:
        request.run_dir.signs_config = False
    recorded = request.run_dir.overrides()
    if not recorded or _takes_sections(recorded):  # an earlier version recorded such a list where a run failed
        recorded = starting_overrides(request)
    return replace(request, overrides=recorded)


def _takes_sections(overrides: Sequence[str]) -> bool:
    """Tell whether overrides take sections from a saved run: they are not those that a run began with."""
    return any(text.endswith(f"={SAVED}") for text in overrides)


def starting_overrides(request: RunRequest) -> list[str]:
    """Return the overrides of the run that `start` names, and those of the command line; none without `start`."""
    if request.config.get("start") is None:
        return []
    return merge_overrides(Path(request.config.start), typed_overrides(request))


def typed_overrides(request: RunRequest) -> list[str]:
    """Return the overrides of the command line, without the settings that `start` inherits from another run."""
    if request.config.get("start") is None:
        return list(request.overrides)
    saved = saved_config(Path(request.config.start), "start")
    inherited = {key: value for key, value in saved.items() if key not in groups()}

    def is_typed(text: str) -> bool:
        key, _, value = text.partition("=")
        is_permission = key_of(text) == "trust" and sets_true(text)
        return not (is_permission or value == SAVED or (key in inherited and is_read_as(value, inherited[key])))

    return [text for text in request.overrides if is_typed(text)]
