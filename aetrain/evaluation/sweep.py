"""A sweep at a glance: every run's differences and main figures, failures with their cause."""

import csv
import io
import logging
from pathlib import Path
from typing import Any

from aetrain.config.compose import saved_config
from aetrain.config.errors import ConfigError
from aetrain.directory import RunDirectory, flat, write

log = logging.getLogger("aetrain")

COLUMNS = ("test/sse", "test/bce", "test/nll", "test/neg_elbo", "test/kl", "test/ssim", "train/seconds_per_epoch")


def summarise(directory: Path) -> None:
    """Print a table of the sweep's runs, and write all of their figures to sweep.csv in its directory."""
    runs = [RunDirectory(file.parent.parent) for file in sorted(directory.glob("*/.hydra/config.yaml"))]
    if not runs:
        return
    settings = [_settings(run) for run in runs]
    keys = {key: None for one in settings for key in one}
    varying = [key for key in keys if len({str(one.get(key)) for one in settings}) > 1]
    metrics = [run.metrics() for run in runs]
    figures = list({key: None for one in metrics for key in one if key not in ("status", "cause")})

    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["run", *varying, "status", *figures, "cause"])
    for run, one, known in zip(runs, settings, metrics, strict=True):
        status, cause = known.get("status", "running"), known.get("cause", "")
        row = [one.get(key, "") for key in varying], [known.get(key, "") for key in figures]
        writer.writerow([run.path.name, *row[0], status, *row[1], cause])
    write(directory / "sweep.csv", table.getvalue())

    shown = [key for key in COLUMNS if key in figures]
    rows = [["run", *(key.removeprefix("test/").removeprefix("train/") for key in shown), "status"]]
    for run, known in zip(runs, metrics, strict=True):
        status = known.get("status", "running")
        cells = [f"{known[key]:.4g}" if isinstance(known.get(key), int | float) else "-" for key in shown]
        rows.append([run.path.name, *cells, status if "cause" not in known else f"{status}: {_short(known['cause'])}"])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    lines = [
        "  "
        + "  ".join(
            [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:-1], widths[1:], strict=True)), row[-1]]
        )
        for row in rows
    ]
    log.info(
        "\n%s\n\ntable:   %s\ncompare: tensorboard --logdir %s --samples_per_plugin images=500,scalars=50000",
        "\n".join(lines),
        directory / "sweep.csv",
        directory,
    )


def _settings(run: RunDirectory) -> dict[str, Any]:
    try:
        return {key: value for key, value in flat(saved_config(run.path)).items() if not key.startswith("views.")}
    except ConfigError:
        return {}


def _short(cause: str) -> str:
    line = str(cause).splitlines()[0] if cause else ""
    return line if len(line) <= 100 else line[:97] + "..."
