"""Words that make no sense, in the shapes that sensible ones have: one clear message, or a run; never a traceback.

`python tests/test_fuzz.py 1500 7` tries more of each, at random from that seed, and prints what is not so.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import command, everything_in
from conftest import TINY
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from mutations import problems

from aetrain.config.paths import group_settings, groups
from aetrain.config.settings import Settings

BASE = (*TINY, "model=linear", "model.code_dim=3", "epochs=0", "hydra.run.dir=run")
CONFIGS = Path(__file__).resolve().parent.parent / "configs"

# What would be trained, downloaded or checked for long, rightly so, is not said.
OPTIONS = {group: options for group, options in groups().items() if group not in ("dataset", "experiment", "mode")}
KEYS = sorted({*group_settings(), *Settings.__annotations__} - {"epochs", "data_dir"} - set(groups()))

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
numbers = st.one_of(
    st.integers(-3, 40),
    st.sampled_from([10**12, 2**31, 2**32, 2**63, 2**64, -(2**63), 10**30, 10**400]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.5, 1.0, 1e-300, 1e300, -0.0]),
)
interpolations = st.one_of(
    st.sampled_from(
        ["${seed}", "${model}", "${nothing}", "${oc.env:NOT_SET}", "${oc.env:PATH}", "${", "${}", "${run}"]
    ),
    st.sampled_from(["${model.code_dim}", "${.nothing}", "${..seed}", "${hydra:run.dir}", "${run_name:}", "${now:%Y}"]),
)
components = st.fixed_dictionaries(
    {
        "_target_": st.one_of(
            st.sampled_from(
                ["os.system", "torch.nn.Linear", "torch.optim.SGD", "torch.nn.init", "aetrain", "", "x.y.z"]
            ),
            st.sampled_from(["aetrain.data.noise.Clean", "aetrain.data.noise.Masking", "builtins.dict"]),
            words,
        )
    },
    optional={"p": numbers, "command": st.just("x"), "_partial_": st.booleans()},
)
scalars = st.one_of(
    st.none(), st.booleans(), numbers, words, interpolations, st.sampled_from(["???", "null", "abc", "x" * 5000])
)
anything = st.recursive(
    st.one_of(scalars, components),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)),
    max_leaves=6,
)


def as_override(value: Any) -> str:
    """A value as Hydra's grammar writes it, quoted where that is needed."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case str() if value.startswith("${"):
            return value
        case str():
            return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
        case list():
            return "[" + ",".join(map(as_override, value)) + "]"
        case dict():
            return "{" + ",".join(f"{as_override(k)}: {as_override(v)}" for k, v in value.items()) + "}"
    raise TypeError(value)


@st.composite
def overrides(draw: st.DrawFn) -> list[str]:
    """One to four: of settings to anything, of groups to options, of keys that are nearly right, or just words."""
    said = []
    for _ in range(draw(st.integers(1, 4))):
        group = draw(st.sampled_from(sorted(OPTIONS)))
        key = draw(st.sampled_from([*KEYS, *OPTIONS]))
        bent = key[: draw(st.integers(0, len(key)))] + draw(words)
        prefix = draw(st.sampled_from(["", "", "", "", "+", "++", "~"]))
        value = draw(anything)
        said.append(
            draw(
                st.sampled_from(
                    [
                        f"{prefix}{key}={as_override(value)}",
                        f"{prefix}{key}={as_override(value)}",
                        f"{prefix}{key}={value}",
                        f"{group}={draw(st.sampled_from(OPTIONS[group]))}",
                        f"{group}={draw(st.sampled_from(OPTIONS[group]))}",
                        f"{prefix}{bent}={as_override(value)}",
                        f"{prefix}{key}",
                        draw(words),
                    ]
                )
            )
        )
    return [word.replace("\n", " ").replace("\0", "") for word in said]


@st.composite
def files(draw: st.DrawFn) -> tuple[str, str]:
    """A group, and the text of an option of the user's own: one of aetrain's, changed, or anything."""
    group = draw(st.sampled_from(sorted(OPTIONS)))
    option = draw(st.sampled_from(OPTIONS[group]))
    node = yaml.safe_load((CONFIGS / group / f"{option}.yaml").read_text()) or {}
    for _ in range(draw(st.integers(1, 3))):
        match draw(st.integers(0, 3)):
            case 0:
                return group, yaml.safe_dump(draw(anything), allow_unicode=True)
            case 1 if node:
                node.pop(draw(st.sampled_from(sorted(node))))
            case _:
                node[draw(st.one_of(st.sampled_from([*node, "_target_", "defaults"]), words))] = draw(anything)
    return group, yaml.safe_dump(node, allow_unicode=True)


def unclean(said: list[str], texts: dict[str, str] | None = None) -> list[str]:
    """What is not clean about the answer to a command line, in a folder of its own with configs of the user's own."""
    place = Path(tempfile.mkdtemp(prefix="aetrain-fuzz-"))
    try:
        for name, text in (texts or {}).items():
            (place / name).parent.mkdir(parents=True)
            (place / name).write_text(text, encoding="utf-8")
        before = everything_in(place)
        outcome = command(said, place)
        found = problems(outcome, place)
        if outcome.code == 1 and not any(name.startswith("run/aetrain.log") for name in everything_in(place)):
            left = [name for name in everything_in(place) if name not in before]
            found += [f"refused, but it left {left}"] if left else []
        return [f"{said} {texts or ''}: {problem}" for problem in found]
    finally:
        shutil.rmtree(place)


def unclean_file(file: tuple[str, str]) -> list[str]:
    """The same of an option of the user's own."""
    group, text = file
    said = ["--config-dir", "mine", *(word for word in BASE if not word.startswith(f"{group}.")), f"{group}=own"]
    return unclean(said, {f"mine/{group}/own.yaml": text})


CALM = settings(
    max_examples=25,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],  # to make a failing example shorter would take minutes
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.filterwarnings("ignore")
@CALM
@given(overrides())
def test_any_overrides(said: list[str]) -> None:
    assert not unclean([*BASE, *said])


@pytest.mark.filterwarnings("ignore")
@CALM
@given(files())
def test_any_config_of_the_users_own(file: tuple[str, str]) -> None:
    assert not unclean_file(file)


def search(count: int, seed_: int) -> None:
    """Try many, and print all that is found."""
    import time
    import warnings

    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    loud = settings(CALM, max_examples=count, derandomize=False)
    found, began = 0, time.monotonic()

    def told(problems: list[str]) -> None:
        nonlocal found, began
        found += bool(problems)
        slow = [f"{time.monotonic() - began:.0f} seconds"] if time.monotonic() - began > 20 else []
        began = time.monotonic()
        print(*problems, *slow, sep="\n", end="\n" if problems or slow else "", flush=True)

    @seed(seed_)
    @loud
    @given(overrides())
    def words(said: list[str]) -> None:
        told(unclean([*BASE, *said]))

    @seed(seed_)
    @loud
    @given(files())
    def texts(file: tuple[str, str]) -> None:
        told(unclean_file(file))

    words()
    texts()
    print(f"{found} of {2 * count} unclean")


if __name__ == "__main__":
    search(*map(int, sys.argv[1:]))
