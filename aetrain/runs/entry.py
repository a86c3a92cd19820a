"""The entry point of one run: check the config, call its mode, record the outcome."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aetrain.config.errors import ConfigError, RunPruned, SigTerm
from aetrain.config.overrides import SAVED, literal
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
    write = request.run_dir.record_failure
    config, overrides = request.config, request.overrides
    match error:
        case KeyboardInterrupt():
            signal = "SIGTERM" if isinstance(error, SigTerm) else "Ctrl-C"
            return write(config, overrides, "interrupted", f"stopped by {signal}")
        case SystemExit():
            return write(config, overrides, "failed", f"SystemExit: {error.code}")
        case RunPruned():
            return write(config, overrides, "pruned", str(error))
        case Exception() if not isinstance(error, ConfigError):
            return write(config, overrides, "failed", f"{type(error).__name__}: {error}", error)
        case _:
            return write(config, overrides, "failed", str(error) or type(error).__name__)


def with_original_overrides(request: RunRequest) -> RunRequest:
    """Return the request with the overrides that its run began with, where it resumes or starts from a saved run.

    A run from elsewhere that is resumed without trust=true is not signed: it stays one from elsewhere.
    """
    if not any(text.endswith(f"={SAVED}") for text in request.overrides):
        return request
    if request.config.get("trust") is not True:
        request.run_dir.signs_config = False
    return replace(request, overrides=request.run_dir.overrides() or starting_overrides(request))


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
    inherited = {f"{key}={literal(value)}" for key, value in saved.items() if key not in groups()}
    own = [text for text in request.overrides if text not in {*inherited, "trust=true"}]
    return [text for text in own if not text.endswith(f"={SAVED}")]
