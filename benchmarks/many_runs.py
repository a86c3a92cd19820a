"""Measure sweeps of many runs: `python benchmarks/many_runs.py` prints the rows of the table in docs/clusters.md.

One run is trained; the others are its copies with another seed, another learning rate and other metrics, written as the
command writes them. Each step is a process of its own: time is by the clock, memory the largest of its processes.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from browser import browser
from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parent.parent
BASE = ("model=vae", "dataset=digits", "epochs=10")
LAUNCHER = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
CHANGED = (".hydra/config.yaml", ".hydra/overrides.yaml", "metrics.json", "history.jsonl")
PORT = 6199
REPEATS = 3


@dataclass(frozen=True)
class Cost:
    """The cost of a step."""

    seconds: float
    processor_seconds: float  # without those of the processes of runs
    megabytes: float


def main() -> None:
    """Measure sweeps of 100 and 1,000 runs, each with 10 seeds and with one seed for each setting."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 1], help="of each setting")
    parser.add_argument("--folder", type=Path, default=ROOT / "outputs" / "many_runs")
    parser.add_argument("--steps", nargs="+", default=["launcher", "report", "browser", "tensorboard"])
    options = parser.parse_args()
    template = options.folder / "template"
    if not (template / "metrics.json").is_file():
        aetrain([*BASE, f"hydra.run.dir={template}"])
    for count in options.runs:
        for seeds in options.seeds:
            sweep = options.folder / f"{count}-{seeds}"
            settings = write_sweep(template, sweep, count, seeds)
            for step, seconds, megabytes in measure(sweep, settings, options.steps):
                row = f"| {count} | {count // seeds} | {step} | {seconds:.3g} | {megabytes} |"
                print(row, f"load {os.getloadavg()[0]:.0f}", flush=True)


def measure(sweep: Path, settings: Sequence[str], steps: Sequence[str]) -> Iterator[tuple[str, float, str]]:
    """Yield the steps with their seconds and their memory."""
    if "launcher" in steps:
        cost = aetrain(["-m", *BASE, *settings, *LAUNCHER, f"hydra.sweep.dir={sweep}"])
        yield "launcher, table, report", cost.seconds, f"{cost.megabytes:.0f} MB"
    if "report" in steps:
        cost = aetrain(["mode=report", f"run={sweep}"])
        page = (sweep / "report.html").stat().st_size / 1e6
        yield (
            "report",
            cost.seconds,
            f"{cost.processor_seconds:.1f} s of a processor, {cost.megabytes:.0f} MB, page {page:.1f} MB",
        )
    if "browser" in steps:
        for name, (seconds, processor) in open_page(sweep / "report.html").items():
            yield name, seconds, f"{processor:.2f} s of a processor"
    if "tensorboard" in steps:
        yield from measure_tensorboard(sweep)


def write_sweep(template: Path, sweep: Path, count: int, seeds: int) -> list[str]:
    """Write the directory of a finished sweep, where it is missing; return the overrides that are swept."""
    rates = [f"{1e-4 * 1.01**number:.6g}" for number in range(count // seeds)]
    if not sweep.is_dir():
        config = OmegaConf.load(template / ".hydra" / "config.yaml")
        number = 0
        for rate in rates:
            for seed in range(seeds):
                swept = [f"optimizer.lr={rate}", f"seed={seed}"] if seeds > 1 else [f"optimizer.lr={rate}"]
                config.seed, config.optimizer.lr = seed, float(rate)
                copy_run(template, sweep / ",".join(swept), OmegaConf.to_yaml(config), [*BASE, *swept], number / count)
                number += 1
    return [f"optimizer.lr={','.join(rates)}", f"seed={','.join(map(str, range(seeds)))}"][: 1 + (seeds > 1)]


def copy_run(template: Path, run: Path, config: str, overrides: Sequence[str], share: float) -> None:
    """Copy a run with another config; its metrics grow by up to a tenth, with `share`. Other files are hard links."""
    shutil.copytree(template, run, copy_function=os.link)
    for name in CHANGED:
        (run / name).unlink()
    (run / CHANGED[0]).write_text(config)
    (run / CHANGED[1]).write_text(OmegaConf.to_yaml(OmegaConf.create(list(overrides))))
    metrics = json.loads((template / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(scale(metrics, share)))
    lines = [json.loads(line) for line in (template / "history.jsonl").read_text().splitlines()]
    (run / "history.jsonl").write_text("".join(json.dumps(scale(line, share)) + "\n" for line in lines))


def scale(metrics: dict[str, object], share: float) -> dict[str, object]:
    return {
        key: value * (1 + 0.1 * share) if "/" in key and isinstance(value, float) else value
        for key, value in metrics.items()
    }


def aetrain(arguments: Sequence[str]) -> Cost:
    """Run a command; return its time and the memory of its largest process."""
    start = time.perf_counter()
    program = [sys.executable, "-m", "aetrain", *arguments]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, cwd=ROOT)
    _, code, usage = os.wait4(process.pid, 0)
    if code:
        sys.exit(f"{' '.join(arguments)[:200]}: exit code {code}")
    return Cost(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def open_page(file: Path) -> dict[str, tuple[float, float]]:
    """Return medians of the seconds until a page is loaded and drawn, and of some actions in it.

    The second number is the processor time of all processes of the browser, which other programs do not lengthen: on an
    idle machine, an action takes at most as long.
    """
    times: dict[str, list[tuple[float, float]]] = {}
    with browser() as page:

        def add(name: str, seconds: float, before: float) -> None:
            times.setdefault(f"browser: {name}", []).append((seconds, processor_seconds() - before))

        for _ in range(REPEATS):
            page.send("Page.navigate", url="about:blank")
            page.wait_for("location.href === 'about:blank'")
            before = processor_seconds()
            page.send("Page.navigate", url=file.absolute().as_uri())
            page.wait_for("document.readyState === 'complete' && location.href.startsWith('file:')")
            page.run(DRAWN)
            add("open", page.run("performance.getEntriesByType('navigation')[0].loadEventEnd / 1000"), before)
            for name, script in ACTIONS.items():
                before = processor_seconds()
                milliseconds = page.run(
                    f"(async () => {{const s = performance.now(); {script}; await {DRAWN}; "
                    "return performance.now() - s;})()"
                )
                add(name, milliseconds / 1000, before)
    return {name: tuple(map(statistics.median, zip(*values, strict=True))) for name, values in times.items()}


def processor_seconds() -> float:
    """Return the processor time of all processes that this one has started and that still run: the browser's."""
    return sum(map(processor_seconds_of, descendants(os.getpid())))


def processor_seconds_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that these have."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for file in files for child in file.read_text().split()]
    return children + [other for child in children for other in descendants(child)]


DRAWN = "new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(true))))"
ACTIONS = {
    "sort by the third column": "document.querySelectorAll('#glance th')[2].firstChild.click()",
    "hide a setting": "document.querySelector('[data-toggle]').click()",
}


def measure_tensorboard(sweep: Path) -> Iterator[tuple[str, float, str]]:
    """Yield the time until TensorBoard has read all runs, and its memory then."""
    start = time.perf_counter()
    program = [sys.executable, "-m", "aetrain", "mode=board", f"run={sweep}", f"mode.port={PORT}"]
    server = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    count = len(list(sweep.glob("*/metrics.json")))
    try:
        while read_runs() < count:
            time.sleep(1)
        seconds = time.perf_counter() - start
        yield "TensorBoard", seconds, f"{megabytes_of(server.pid):.0f} MB"
    finally:
        server.terminate()
        server.wait(60)


def read_runs() -> int:
    """Return the number of runs whose curves TensorBoard has."""
    try:
        with urllib.request.urlopen(f"http://localhost:{PORT}/data/plugin/timeseries/tags", timeout=60) as answer:
            return len(json.load(answer)["scalars"]["runTagInfo"])
    except OSError:
        return 0


def megabytes_of(pid: int) -> float:
    """Return the resident memory of a process and of those that it has started."""
    texts = [Path(f"/proc/{number}/status").read_text() for number in (pid, *descendants(pid))]
    return sum(int(text.partition("VmRSS:")[2].split()[0]) for text in texts if "VmRSS:" in text) / 1024


if __name__ == "__main__":
    main()
