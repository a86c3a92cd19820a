"""Where the project's configs lie: inside an installed wheel, or beside the package in a checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
CONFIG_DIR = next(d for d in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if (d / "config.yaml").is_file())


def groups() -> dict[str, list[str]]:
    """The project's own options by group, such as {"noise": ["gaussian", "masking", ...]}; Hydra's groups left out."""
    folders = sorted(d for d in CONFIG_DIR.iterdir() if d.is_dir() and d.name != "hydra")
    return {d.name: sorted(file.stem for file in d.glob("*.yaml")) for d in folders}
