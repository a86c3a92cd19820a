"""Measure the layout of the package: `python benchmarks/walk.py [ROOT] [--json FILE]`.

ROOT is a checkout, by default the one of this script. The script traces one small training run. A walk lists the files
that Python enters, in order of first entry: "a batch" from the loader that yields the first batch of training to the
loss of that batch, "a config" from `aetrain.cli.main` to the first call of an `__init__` in a component package. Calls
that an import makes do not count. A read is an attempt to open a file of the run directory, successful or not.
"""

import argparse
import ast
import contextlib
import importlib.util
import inspect
import io
import json
import os
import sys
import tempfile
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import torch

PACKAGE = "aetrain"
OVERRIDES = (
    "model=deep noise=masking dataset=digits dataset.subset=64 dataset.test_subset=64 batch_size=32 epochs=1 "
    "views=none device=cpu"
)
COMPONENTS = tuple(f"{PACKAGE}.{name}." for name in ("data", "model", "objective", "views"))


@dataclass
class Row:
    """A row of the table: a number, and the names behind it."""

    count: int | None
    items: list[str] = field(default_factory=list)


class Trace:
    """The calls into the package up to the first backward pass, and the files that are read."""

    def __init__(self, package: Path) -> None:
        self.prefix = f"{package}{os.sep}"
        self.files: list[str] = []  # of the calls in their order, relative to the package
        self.reads: list[str] = []  # absolute paths in their order, of the whole process
        self.config_end: int | None = None  # number of calls before the first component is constructed
        self.config_reads = 0  # number of reads before the same
        self.batch_start: int | None = None  # number of calls before the loader is resumed for the latest batch
        sys.addaudithook(self.record_read)

    def record_read(self, event: str, args: tuple[Any, ...]) -> None:
        """Record an audit event if it is a file opened for reading only."""
        if event == "open" and isinstance(args[0], str) and not args[2] & (os.O_WRONLY | os.O_RDWR):
            self.reads.append(os.path.abspath(args[0]))

    def record_event(self, frame: FrameType, event: str, _: object) -> None:
        """Record an event of `sys.setprofile`; stop at the first backward pass."""
        code, module = frame.f_code, str(frame.f_globals.get("__name__"))
        if event != "call" or not code.co_flags & inspect.CO_OPTIMIZED:  # a module or a class body has no such flag
            return
        if code is torch.autograd.backward.__code__:
            sys.setprofile(None)
        if not f"{module}.".startswith(f"{PACKAGE}.") or is_import(frame):
            return
        # The generated __init__ of a dataclass lies in no file, but it constructs a component all the same.
        if self.config_end is None and code.co_name == "__init__" and module.startswith(COMPONENTS):
            self.config_end, self.config_reads = len(self.files), len(self.reads)
        is_generator = code.co_flags & inspect.CO_GENERATOR and code.co_name != "<genexpr>"
        if is_generator and module.startswith(COMPONENTS[0]):  # the loader
            self.batch_start = len(self.files)
        if code.co_filename.startswith(self.prefix):
            self.files.append(code.co_filename.removeprefix(self.prefix))


def is_import(frame: FrameType | None) -> bool:
    """Return whether the frame runs because a module is imported."""
    while frame is not None and frame.f_globals.get("__name__") != "importlib._bootstrap":
        frame = frame.f_back
    return frame is not None


def measure_run(package: Path, folder: Path) -> dict[str, Row]:
    """Return the two walks and the reads of a run inside the folder; SystemExit if the run fails or has no walk."""
    train = importlib.import_module(f"{PACKAGE}.cli").main
    trace, output, command = Trace(package), io.StringIO(), [PACKAGE, *OVERRIDES.split()]
    with contextlib.chdir(folder), mock.patch.multiple(sys, argv=command, stdout=output, stderr=output):
        sys.setprofile(trace.record_event)
        train()
        sys.setprofile(None)  # there may be no backward pass
    if trace.config_end is None or trace.batch_start is None:
        raise SystemExit(f"no component or no batch was seen: are there still {', '.join(COMPONENTS)}?")
    config = list(dict.fromkeys(trace.files[: trace.config_end]))
    batch = list(dict.fromkeys(trace.files[trace.batch_start :]))
    run = next(folder.rglob(".hydra")).parent
    return {
        "a batch: files": Row(len(batch), batch),
        "a config: files": Row(len(config), config),
        "a config: reads of the run's files": count_reads(trace.reads[: trace.config_reads], run),
        "status of a finished run: reads": measure_status(package, trace, run),
        "status of a new run: reads": measure_status(package, trace, folder / "new"),
    }


def measure_status(package: Path, trace: Trace, run: Path) -> Row:
    """Return the reads of one `RunDirectory(run).status`; no number if the package has no such class."""
    files = [file for file in package.rglob("*.py") if "\nclass RunDirectory" in file.read_text()]
    if not files:
        return Row(None)
    directory = importlib.import_module(name_module(package, files[0])).RunDirectory(run)
    start, status = len(trace.reads), directory.status
    if callable(status):
        status()
    return count_reads(trace.reads[start:], run)


def count_reads(reads: list[str], run: Path) -> Row:
    """Return the reads of files inside a run's directory."""
    inside = [path.removeprefix(f"{run}{os.sep}") for path in reads if path.startswith(f"{run}{os.sep}")]
    return Row(len(inside), inside)


def name_module(package: Path, file: Path) -> str:
    """Return the dotted name of a file of the package."""
    return ".".join(file.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")


def find_imports(file: Path, module: str, modules: set[str]) -> set[str]:
    """Return the modules that a file imports, inside functions too, but not under TYPE_CHECKING."""
    tree, imported = ast.parse(file.read_text()), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            node.body.clear()
    parent = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), parent)
            names = {f"{base}.{alias.name}" for alias in node.names}
            imported |= names if names <= modules else {base, *names}
    return imported & modules


def find_cycles(package: Path) -> list[str]:
    """Return the largest sets of modules that import each other, directly or through others."""
    files = {name_module(package, file): file for file in sorted(package.rglob("*.py"))}
    reachable = {module: find_imports(file, module, set(files)) for module, file in files.items()}
    for middle in files:  # Warshall, 1962: the transitive closure
        for module in files:
            if middle in reachable[module]:
                reachable[module] |= reachable[middle]
    cycles = set()
    for module in files:
        cycles.add(" <-> ".join(other for other in sorted(reachable[module]) if module in reachable[other]))
    return sorted(cycle for cycle in cycles if "<->" in cycle)


def measure_layout(root: Path) -> dict[str, Row]:
    """Return the rows that need no run."""
    package, cycles = root / PACKAGE, find_cycles(root / PACKAGE)
    loose = sorted(file.name for file in package.glob("*.py") if file.stem not in ("__init__", "__main__"))
    lines, functions = 0, [(0, "")]
    for file in package.rglob("*.py"):
        lines += len(file.read_text().splitlines())
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{node.name} in {file.relative_to(package)}"
                functions.append(((node.end_lineno or node.lineno) - node.lineno + 1, name))
    length, name = max(functions)
    return {
        "loose modules": Row(len(loose), loose),
        "import cycles": Row(len(cycles), cycles),
        "lines of README.md": Row(len((root / "README.md").read_text().splitlines())),
        "lines of Python in the package": Row(lines),
        "lines of the longest function": Row(length, [name]),
    }


def main() -> None:
    """Print the table; write it as JSON if the command line asks for it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).parent.parent, help="a checkout")
    parser.add_argument("--json", type=Path, metavar="FILE", help="a file to write the table to")
    arguments = parser.parse_args()
    root = arguments.root.resolve()
    sys.path.insert(0, str(root))
    with tempfile.TemporaryDirectory() as folder:
        rows = measure_run(root / PACKAGE, Path(folder).resolve()) | measure_layout(root)
    for name, row in rows.items():
        line = f"{name:<36}{row.count!s:>6}  {', '.join(row.items)}"
        print(textwrap.fill(line, 120, subsequent_indent=" " * 44, break_on_hyphens=False))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, default=vars, indent=1) + "\n")


if __name__ == "__main__":
    main()
