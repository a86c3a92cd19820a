"""The structure of the package: dependencies point one way, few packages know Hydra, files stay small."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "aetrain"

# Each package or module may import the ones before it. A module is ranked by its longest prefix in this list.
ORDER = [
    "aetrain.utils",
    "aetrain.config.settings",
    "aetrain.config.paths",
    "aetrain.config.errors",
    "aetrain.config.renames",
    "aetrain.config.overrides",
    "aetrain.config",
    "aetrain.storage",
    "aetrain.model.codes",
    "aetrain.model.records",
    "aetrain.model.layers",
    "aetrain.model.likelihoods",
    "aetrain.model.bottlenecks",
    "aetrain.model",
    "aetrain.data",
    "aetrain.objective",
    "aetrain.training.early_stopping",
    "aetrain.training.schedules",
    "aetrain.training.step",
    "aetrain.training.loop",
    "aetrain.training",
    "aetrain.evaluation",
    "aetrain.views",
    "aetrain.testing",
    "aetrain.report",
    "aetrain.runs",
    "aetrain.api",
    "aetrain.sklearn",
    "aetrain.modes",
    "aetrain.selfcheck",
    "aetrain.sweeps",
    "aetrain.sweeps.packed",
    "aetrain.sweeps.clusters",
    "aetrain.cli",
    "aetrain.__main__",
]

# The packages that import Hydra or OmegaConf.
HYDRA_PACKAGES = (
    "aetrain.utils.compat",
    "aetrain.config",
    "aetrain.storage",
    "aetrain.runs",
    "aetrain.api",
    "aetrain.selfcheck",
    "aetrain.cli",
)

MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 50

TOP_MODULES = {"__init__", "__main__", "api", "cli", "sklearn"}


def modules() -> dict[str, ast.Module]:
    """Return the syntax tree of every module by its dotted name."""
    trees = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        trees[name] = ast.parse(file.read_text(encoding="utf-8"))
    return trees


MODULES = modules()


def imports(tree: ast.Module) -> set[str]:
    """Return the modules that a module imports anywhere, in functions as well, except for type checking alone."""
    names: set[str] = set()
    for node in runtime_nodes(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            dotted = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = dotted & MODULES.keys()
            names |= submodules
            if len(submodules) < len(dotted):
                names.add(node.module)
    return names


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        type_checking = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        if not type_checking:
            yield child
            yield from runtime_nodes(child)


def rank(module: str) -> int:
    matches = [name for name in ORDER if module == name or module.startswith(f"{name}.")]
    return ORDER.index(max(matches, key=len)) if matches else -1


def test_dependencies_point_one_way() -> None:
    wrong = []
    for module, tree in MODULES.items():
        if module == "aetrain":  # exports `load` and `run` lazily
            continue
        later = [name for name in imports(tree) if name.startswith("aetrain.") and rank(name) > rank(module)]
        wrong += [f"{module} imports {name}" for name in later]
    assert not wrong, wrong
    assert not cycles(), cycles()


def cycles() -> list[set[str]]:
    """Return the sets of modules that import each other, directly or through others."""
    graph = {module: imports(tree) & MODULES.keys() - {"aetrain"} for module, tree in MODULES.items()}
    reachable: dict[str, set[str]] = {}
    for start in graph:
        reached: set[str] = set()
        pending = [start]
        while pending:
            new = graph[pending.pop()] - reached
            reached |= new
            pending += new
        reachable[start] = reached
    circles = []
    for module, reached in reachable.items():
        if module in reached:
            circles.append({other for other in reached if module in reachable[other]})
    return circles


def test_few_packages_know_hydra() -> None:
    wrong = []
    for module, tree in MODULES.items():
        if not module.startswith(HYDRA_PACKAGES):
            wrong += [module for name in imports(tree) if name.split(".")[0] in ("hydra", "omegaconf")]
    assert not wrong, wrong


def test_files_and_functions_stay_small() -> None:
    wrong = []
    for file in sorted(PACKAGE.rglob("*.py")):
        lines = len(file.read_text(encoding="utf-8").splitlines())
        if lines > MAX_FILE_LINES:
            wrong.append(f"{file.name}: {lines} lines")
    for module, tree in MODULES.items():
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        wrong += [f"{module}.{node.name} is long" for node in functions if num_lines(node) > MAX_FUNCTION_LINES]
    assert not wrong, wrong
    assert {file.stem for file in PACKAGE.glob("*.py")} == TOP_MODULES


def num_lines(node: ast.FunctionDef) -> int:
    return (node.end_lineno or 0) - node.lineno + 1
