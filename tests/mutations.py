"""Inputs that are broken in every way that chance finds, and what must come of each: it works, or one clear message."""

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from command import Outcome, command, everything_in
from conftest import TINY
from PIL import Image

from aetrain.config.paths import group_settings, groups

MOST_LINES = 12  # of five problems, each with a line of advice
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


def materials(place: Path) -> None:
    """A folder with a run, images and arrays to be broken."""
    outcome = command([*LINEAR, "epochs=2", "hydra.run.dir=run"], place)
    assert outcome.code == 0, outcome.err
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8), np.uint8)
    for number, image in enumerate(pixels):
        (place / "images").mkdir(exist_ok=True)
        Image.fromarray(image).save(place / "images" / f"{number}.png")
    np.savez(place / "own.npz", images=pixels)
    (place / "mine" / "model").mkdir(parents=True)
    shutil.copy(Path(__file__).parent.parent / "configs" / "model" / "deep.yaml", place / "mine" / "model" / "own.yaml")


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Bytes cut off, flipped, repeated, replaced or removed."""
    at = chance.randrange(len(content) + 1)
    match chance.randrange(6):
        case 0:
            return content[:at]
        case 1 if content:
            at = min(at, len(content) - 1)
            return content[:at] + bytes([content[at] ^ (1 << chance.randrange(8))]) + content[at + 1 :]
        case 2:
            return content[:at] + chance.randbytes(chance.randrange(1, 40)) + content[at:]
        case 3:
            return content[: chance.randrange(at + 1)] + content[at:]
        case 4:
            return content[:at] + content
        case _:
            return chance.randbytes(chance.randrange(200))


def overrides(place: Path, chance: random.Random) -> list[str]:
    """One to three settings with values that may be anything; not of epochs, which would be trained."""
    options = [f"{group}={option}" for group, names in groups().items() for option in names if group != "dataset"]
    said = []
    for _ in range(chance.randrange(1, 4)):
        key = chance.choice([*group_settings(), *groups(), "batch_size", "seed", "device", "retry", "run"])
        if chance.random() < 0.2:
            key = key[: chance.randrange(len(key))] + chance.choice("xyz._") + key[chance.randrange(len(key)) :]
        word = chance.choice(options) if chance.random() < 0.2 else f"{key}={chance.choice(VALUES)}"
        said.append(chance.choice(["", "", "", "", "+", "++", "~"]) + word)
    return [*LINEAR, *said]


def yaml(place: Path, chance: random.Random) -> list[str]:
    """A model's config of the user's own."""
    file = place / "mine" / "model" / "own.yaml"
    file.write_bytes(damaged(file.read_bytes(), chance))
    return ["--config-dir", "mine", *LINEAR, "model=own"]


def run_config(place: Path, chance: random.Random) -> list[str]:
    """The config that a run directory holds."""
    file = place / "run" / ".hydra" / "config.yaml"
    file.write_bytes(damaged(file.read_bytes(), chance))
    return chance.choice([["mode=eval", "run=run"], ["resume=run", "epochs=3"]])


def checkpoint(place: Path, chance: random.Random) -> list[str]:
    """A file of both checkpoints, or of the newer one."""
    name = chance.choice(["model.safetensors", "training.pt", "journal.jsonl", "state.json"])
    for folder in ("checkpoint", "checkpoint.previous")[: chance.randrange(1, 3)]:
        file = place / "run" / folder / name
        file.write_bytes(damaged(file.read_bytes(), chance))
    return chance.choice([["mode=eval", "run=run"], ["resume=run", "epochs=3"], ["resume=run"]])


def traces(place: Path, chance: random.Random) -> list[str]:
    """What else a run directory holds: figures, history, curves."""
    names = ["metrics.json", "history.jsonl", "aetrain.log", ".hydra/overrides.yaml", "events"]
    name = chance.choice(names)
    (file,) = (place / "run").glob("events.*") if name == "events" else [place / "run" / name]
    file.write_bytes(damaged(file.read_bytes(), chance))
    return chance.choice([["mode=eval", "run=run"], ["resume=run", "epochs=3"], ["resume=run"]])


def images(place: Path, chance: random.Random) -> list[str]:
    """Some of a folder's images."""
    for file in sorted((place / "images").iterdir())[: chance.randrange(1, 4)]:
        match chance.randrange(6):
            case 0:
                file.unlink()
            case 1:
                Image.new(chance.choice(["RGB", "L", "1", "P", "RGBA"]), (chance.randrange(1, 50), 3)).save(file)
            case 2:
                file.rename(file.with_suffix(chance.choice([".txt", ".jpg", ""])))
            case _:
                file.write_bytes(damaged(file.read_bytes(), chance))
    return [*LINEAR, "dataset=folder", "dataset.path=images", "dataset.size=8"]


def arrays(place: Path, chance: random.Random) -> list[str]:
    """An .npz file."""
    file = place / "own.npz"
    file.write_bytes(damaged(file.read_bytes(), chance))
    return [*LINEAR, "dataset=npz", "dataset.path=own.npz"]


KINDS: dict[str, Callable[[Path, random.Random], list[str]]] = {
    "overrides": overrides,
    "config files": yaml,
    "configs of runs": run_config,
    "checkpoints": checkpoint,
    "histories, logs, event files": traces,
    "image folders": images,
    "archives": arrays,
}


def tried(kind: str, whole: Path, place: Path, seed: int) -> str:
    """Break one input and give it to the command: what was not clean about its answer, or nothing."""
    if place.exists():
        shutil.rmtree(place)
    shutil.copytree(whole, place)
    said = KINDS[kind](place, random.Random(seed))
    try:
        outcome = command(said, place)
    except BaseException as error:  # nothing may come out of the command
        return f"{said}: {error!r}"
    return "".join(f"{said}: {problem}\n" for problem in problems(outcome, place))


def problems(outcome: Outcome, place: Path) -> list[str]:
    """What is not clean about an answer."""
    found = []
    err = outcome.err
    if outcome.code not in (0, 1):
        found.append(f"exit code {outcome.code}")
    if "Traceback" in err or "Traceback" in outcome.out:
        found.append("a traceback")
    if outcome.code == 1:
        if not err.startswith("aetrain: ") or len(err.splitlines()) > MOST_LINES:
            found.append(f"no short message: {err[:400]}")
        if "HYDRA_FULL_ERROR" in err:
            found.append(f"an error that nobody has thought of: {err[:300]}")
    names = everything_in(place)
    found += [f"a half-written file: {name}" for name in names if re.search(r"\.(new|tmp)(/|$)", name)]
    if any(name.endswith("was_here") for name in names):
        found.append("foreign code was run")
    for name, content in names.items():
        if outcome.code == 0 and name.startswith("run/") and name.endswith("metrics.json") and "eval/" not in name:
            try:
                json.loads(content or b"")
            except ValueError:
                found.append(f"{name} is not JSON")
    return found
