"""Tasks of Ray, one for each run of a sweep."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from aetrain.sweeps.clusters.jobs import Job, Lost, check_package

log = logging.getLogger("aetrain")

CANCEL_TIMEOUT_S = 30  # in which runs record that they were interrupted


def run_on_ray(jobs: Sequence[Job], settings: Mapping[str, Any]) -> list[Any]:
    """Run tasks and return the result of each, or `Lost`, once all have ended. An interruption cancels them.

    Ray itself starts a task again whose worker was killed, `max_retries` times.
    """
    check_package("ray", "ray")
    import ray

    started_here = not ray.is_initialized()
    if started_here:
        ray.init(**{"log_to_driver": False, "logging_level": "warning"} | settings["init"])
    try:
        task = ray.remote(**settings["remote"])(_run)
        references = [task.remote(job) for job in jobs]
        try:
            return [_result(reference) for reference in references]
        except BaseException:
            for reference in references:
                ray.cancel(reference)
            ray.wait(references, num_returns=len(references), timeout=CANCEL_TIMEOUT_S)
            raise
    finally:
        if started_here:
            ray.shutdown()


def _run(job: Job) -> Any:
    return job()


def _result(reference: Any) -> Any:
    """Wait for a task and return its result, or why it has none."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        return Lost(f"its Ray task ended: {str(error).strip().splitlines()[0]}")
