"""Run each run of a sweep in its own process. torch is imported in those processes alone."""

import sys

from aetrain.config.errors import ConfigError
from aetrain.runs import process
from aetrain.runs.request import RunRequest
from aetrain.storage.saved_config import saved_config
from aetrain.sweeps.devices import own_device


def run_isolated(request: RunRequest) -> None:
    """Do a run of a sweep in its own process; its outcome is recorded however it ends, and the others continue."""
    run_dir = request.run_dir
    if any(name != "format" for name in request.config.get("views") or ()):
        process.preload(process.FIGURE_MODULES)
    if "random_crop" not in request.config.get("dataset", {}):  # a setting of all images
        process.preload(process.VECTOR_MODULES)
    sys.stdout.flush()
    code = process.run(_run, request)
    if code == process.FINISHED or run_dir.outcome_file.is_file() or run_dir.is_locked:
        return
    record_killed(request, "failed", process.describe_exit(code))


def record_killed(request: RunRequest, status: str, cause: str) -> None:
    """Record that the process of a run was killed; a finished run keeps its metrics."""
    from aetrain.runs.entry import write_end

    run_dir = request.run_dir
    if run_dir.status == "finished":
        is_done = _has_all_epochs(request)
        run_dir.record_outcome("finished" if is_done else status, "" if is_done else cause)
        return
    write_end(request, status, cause)
    run_dir.record_outcome(status, cause)
    run_dir.release()


def _has_all_epochs(request: RunRequest) -> bool:
    """Tell whether a finished run is the one of the request, and was not killed before it continued to more epochs."""
    run_dir, epochs = request.run_dir, request.config.epochs
    try:
        return run_dir.metrics().get("epochs", 0) >= epochs or saved_config(run_dir.path).get("epochs") == epochs
    except ConfigError:
        return False


def _run(request: RunRequest) -> None:
    from aetrain.runs.entry import run_request

    with own_device(str(request.config.get("device")), request.run_dir.path.parent):
        run_request(request)
