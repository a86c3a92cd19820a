"""Inputs with random damage: each must work, or give one clear message."""

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from command import Outcome, command, everything_in
from conftest import TINY
from omegaconf import OmegaConf
from PIL import Image

from aetrain.config.paths import group_settings, groups, option_config

MAX_MESSAGE_LINES = 12  # of a message: five problems, each with a line of advice
LINEAR = (*TINY, "model=linear", "model.code_dim=3", "epochs=0")

VALUES = (
    *("-1", "0", "1", "2.5", "1e400", "nan", "-inf", "abc", "null", "true", "''", "[]", "[1,2]", "{}", "{a: 1}"),
    *(
        "[[1],[2]]",
        "99999999999999999999",
        "${seed}",
        "${nothing}",
        "${oc.env:NOT_SET}",
        "é",
        "a=b",
        "a b",
        "'",
        "[",
        "}",
    ),
    *(
        "{_target_: os.system, command: 'touch was_here'}",
        "{_target_: nothing.there}",
        "????",
        "???",
        "\\",
        "1,2",
        "-",
        ".",
    ),
)


def materials(folder: Path) -> None:
    """Write a run, images and arrays into a folder, to be damaged later."""
    outcome = command([*LINEAR, "epochs=2", "hydra.run.dir=run"], folder)
    assert outcome.code == 0, outcome.err
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8), np.uint8)
    for number, image in enumerate(pixels):
        (folder / "images").mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
    np.savez(folder / "own.npz", images=pixels)
    (folder / "mine" / "model").mkdir(parents=True)
    own_model = OmegaConf.create(option_config("model", "deep"))  # with the settings that deep.yaml inherits
    OmegaConf.save(own_model, folder / "mine" / "model" / "own.yaml")


def damaged(content: bytes, generator: random.Random) -> bytes:
    """Return bytes that are cut off, flipped, inserted, removed, repeated or replaced."""
    at = generator.randrange(len(content) + 1)
    match generator.randrange(6):
        case 0:
            return content[:at]
        case 1 if content:
            at = min(at, len(content) - 1)
            return content[:at] + bytes([content[at] ^ (1 << generator.randrange(8))]) + content[at + 1 :]
        case 2:
            return content[:at] + generator.randbytes(generator.randrange(1, 40)) + content[at:]
        case 3:
            return content[: generator.randrange(at + 1)] + content[at:]
        case 4:
            return content[:at] + content
        case _:
            return generator.randbytes(generator.randrange(200))


def random_overrides(folder: Path, generator: random.Random) -> list[str]:
    """Return one to three overrides with arbitrary values; none for epochs, which would take time."""
    options = [f"{group}={option}" for group, names in groups().items() for option in names if group != "dataset"]
    overrides = []
    for _ in range(generator.randrange(1, 4)):
        key = generator.choice([*group_settings(), *groups(), "batch_size", "seed", "device", "retry", "run"])
        if generator.random() < 0.2:
            start, character, end = (
                generator.randrange(len(key)),
                generator.choice("xyz._"),
                generator.randrange(len(key)),
            )
            key = key[:start] + character + key[end:]
        word = generator.choice(options) if generator.random() < 0.2 else f"{key}={generator.choice(VALUES)}"
        overrides.append(generator.choice(["", "", "", "", "+", "++", "~"]) + word)
    return [*LINEAR, *overrides]


def model_config(folder: Path, generator: random.Random) -> list[str]:
    """Damage a config file of the user."""
    file = folder / "mine" / "model" / "own.yaml"
    file.write_bytes(damaged(file.read_bytes(), generator))
    return ["--config-dir", "mine", *LINEAR, "model=own"]


def run_config(folder: Path, generator: random.Random) -> list[str]:
    """Damage the config in a run directory."""
    file = folder / "run" / ".hydra" / "config.yaml"
    file.write_bytes(damaged(file.read_bytes(), generator))
    return generator.choice([["mode=eval", "run=run"], ["resume=run", "epochs=3"]])


def checkpoint(folder: Path, generator: random.Random) -> list[str]:
    """Damage a file of both checkpoints, or of the newer one."""
    name = generator.choice(["model.safetensors", "training.pt", "journal.jsonl", "state.json"])
    for checkpoint_folder in ("checkpoint", "checkpoint.previous")[: generator.randrange(1, 3)]:
        file = folder / "run" / checkpoint_folder / name
        file.write_bytes(damaged(file.read_bytes(), generator))
    return generator.choice([["mode=eval", "run=run"], ["resume=run", "epochs=3"], ["resume=run"]])


def records(folder: Path, generator: random.Random) -> list[str]:
    """Damage another file of a run directory: metrics, history, log, curves."""
    names = ["metrics.json", "findings.json", "history.jsonl", "aetrain.log", ".hydra/overrides.yaml", "events"]
    name = generator.choice(names)
    (file,) = (folder / "run").glob("events.*") if name == "events" else [folder / "run" / name]
    file.write_bytes(damaged(file.read_bytes(), generator))
    return generator.choice([["mode=eval", "run=run"], ["resume=run", "epochs=3"], ["resume=run"]])


def images(folder: Path, generator: random.Random) -> list[str]:
    """Damage some images of a folder."""
    for file in sorted((folder / "images").iterdir())[: generator.randrange(1, 4)]:
        match generator.randrange(6):
            case 0:
                file.unlink()
            case 1:
                Image.new(generator.choice(["RGB", "L", "1", "P", "RGBA"]), (generator.randrange(1, 50), 3)).save(file)
            case 2:
                file.rename(file.with_suffix(generator.choice([".txt", ".jpg", ""])))
            case _:
                file.write_bytes(damaged(file.read_bytes(), generator))
    return [*LINEAR, "dataset=folder", "dataset.path=images", "dataset.size=8"]


def arrays(folder: Path, generator: random.Random) -> list[str]:
    """Damage an .npz file."""
    file = folder / "own.npz"
    file.write_bytes(damaged(file.read_bytes(), generator))
    return [*LINEAR, "dataset=npz", "dataset.path=own.npz"]


KINDS: dict[str, Callable[[Path, random.Random], list[str]]] = {
    "overrides": random_overrides,
    "config files": model_config,
    "configs of runs": run_config,
    "checkpoints": checkpoint,
    "histories, logs, event files": records,
    "image folders": images,
    "archives": arrays,
}


def tried(kind: str, originals: Path, folder: Path, seed: int) -> str:
    """Damage one input in a copy of `originals` and run the command on it; return its problems, if any."""
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(originals, folder)
    arguments = KINDS[kind](folder, random.Random(seed))
    try:
        outcome = command(arguments, folder)
    except BaseException as error:  # the command must catch everything
        return f"{arguments}: {error!r}"
    return "".join(f"{arguments}: {problem}\n" for problem in problems(outcome, folder))


def problems(outcome: Outcome, folder: Path) -> list[str]:
    """Return the problems of the answer of a command."""
    descriptions = []
    err = outcome.err
    if outcome.code not in (0, 1):
        descriptions.append(f"exit code {outcome.code}")
    if "Traceback" in err or "Traceback" in outcome.out:
        descriptions.append("a traceback")
    if outcome.code == 1:
        if not err.startswith("aetrain: ") or len(err.splitlines()) > MAX_MESSAGE_LINES:
            descriptions.append(f"no short message: {err[:400]}")
        if "HYDRA_FULL_ERROR" in err:
            descriptions.append(f"an unexpected error: {err[:300]}")
    files = everything_in(folder)
    descriptions += [f"a half-written file: {name}" for name in files if re.search(r"\.(new|tmp)(/|$)", name)]
    if any(name.endswith("was_here") for name in files):
        descriptions.append("code of the config was run")
    for name, content in files.items():
        if outcome.code == 0 and name.startswith("run/") and name.endswith("metrics.json") and "eval/" not in name:
            try:
                json.loads(content or b"")
            except ValueError:
                descriptions.append(f"{name} is not JSON")
    return descriptions
