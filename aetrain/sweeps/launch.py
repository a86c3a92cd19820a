"""Run each run of a sweep in its own process. torch is imported in those processes alone."""

import sys

from aetrain.runs import process
from aetrain.runs.request import RunRequest
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
    if run_dir.status == "finished":  # killed after its last file was written
        run_dir.record_outcome("finished")
        return
    cause = process.describe_exit(code)
    run_dir.record_failure(request.config, request.overrides, "failed", cause)
    run_dir.record_outcome("failed", cause)
    run_dir.release()


def _run(request: RunRequest) -> None:
    from aetrain.runs.entry import run_request

    with own_device(str(request.config.get("device")), request.run_dir.path.parent):
        run_request(request)
