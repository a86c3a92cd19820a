"""Random overrides and configs with valid syntax: the command trains or prints one clear message; never a traceback.

`python tests/test_fuzz.py 1500 7` tries 1500 of each, at random from seed 7, and prints all problems.
"""

import copy
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

from aetrain.config.paths import CONFIG_DIR, group_settings, groups, option_config
from aetrain.config.settings import Settings

BASE = (*TINY, "model=linear", "model.code_dim=3", "epochs=0", "hydra.run.dir=run")
MAX_SECONDS = 20  # of a command; longer ones are printed

# Options and settings with which a valid run takes long or downloads are left out.
OMITTED = ("dataset", "experiment", "search", "mode")
OPTIONS = {group: options for group, options in groups().items() if group not in OMITTED}
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
            st.sampled_from(["aetrain.data.noise.NoNoise", "aetrain.data.noise.Masking", "builtins.dict"]),
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
    """Return a value in Hydra's grammar, quoted where necessary."""
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
    """Draw one to four overrides: settings to any value, groups to options, misspelt keys, or words."""
    drawn = []
    for _ in range(draw(st.integers(1, 4))):
        group = draw(st.sampled_from(sorted(OPTIONS)))
        key = draw(st.sampled_from([*KEYS, *OPTIONS]))
        misspelt = key[: draw(st.integers(0, len(key)))] + draw(words)
        prefix = draw(st.sampled_from(["", "", "", "", "+", "++", "~"]))
        value = draw(anything)
        candidates = [
            f"{prefix}{key}={as_override(value)}",
            f"{prefix}{key}={as_override(value)}",
            f"{prefix}{key}={value}",
            f"{group}={draw(st.sampled_from(OPTIONS[group]))}",
            f"{group}={draw(st.sampled_from(OPTIONS[group]))}",
            f"{prefix}{misspelt}={as_override(value)}",
            f"{prefix}{key}",
            draw(words),
        ]
        drawn.append(draw(st.sampled_from(candidates)))
    return [text.replace("\n", " ").replace("\0", "") for text in drawn]


@st.composite
def files(draw: st.DrawFn) -> tuple[str, str]:
    """Draw a group and the text of an option of the user: a changed option of aetrain, or any YAML."""
    group = draw(st.sampled_from(sorted(OPTIONS)))
    option = draw(st.sampled_from(OPTIONS[group]))
    own_settings = yaml.safe_load((CONFIG_DIR / group / f"{option}.yaml").read_text()) or {}
    all_settings = copy.deepcopy(option_config(group, option))
    node = draw(st.sampled_from([own_settings, all_settings]))
    for _ in range(draw(st.integers(1, 3))):
        match draw(st.integers(0, 3)):
            case 0:
                return group, yaml.safe_dump(draw(anything), allow_unicode=True)
            case 1 if node:
                node.pop(draw(st.sampled_from(sorted(node))))
            case _:
                node[draw(st.one_of(st.sampled_from([*node, "_target_", "defaults"]), words))] = draw(anything)
    return group, yaml.safe_dump(node, allow_unicode=True)


def problems_of_command(arguments: list[str], texts: dict[str, str] | None = None) -> list[str]:
    """Run a command in a new folder with files of these texts; return all that is wrong with its outcome."""
    folder = Path(tempfile.mkdtemp(prefix="aetrain-fuzz-"))
    try:
        for name, text in (texts or {}).items():
            (folder / name).parent.mkdir(parents=True)
            (folder / name).write_text(text, encoding="utf-8")
        before = everything_in(folder)
        outcome = command(arguments, folder)
        found = problems(outcome, folder)
        after = everything_in(folder)
        if outcome.code == 1 and not any(name.startswith("run/aetrain.log") for name in after):
            new_files = [name for name in after if name not in before]
            found += [f"refused, but it left {new_files}"] if new_files else []
        return [f"{arguments} {texts or ''}: {problem}" for problem in found]
    finally:
        shutil.rmtree(folder)


def problems_of_config(file: tuple[str, str]) -> list[str]:
    """Run a command that chooses an option of the user; return all that is wrong with its outcome."""
    group, text = file
    base = [override for override in BASE if not override.startswith(f"{group}.")]
    return problems_of_command(["--config-dir", "mine", *base, f"{group}=own"], {f"mine/{group}/own.yaml": text})


FEW_EXAMPLES = settings(
    max_examples=25,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],  # shrinking a failing example would take minutes
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@FEW_EXAMPLES
@given(overrides())
def test_any_overrides(drawn: list[str]) -> None:
    assert not problems_of_command([*BASE, *drawn])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@FEW_EXAMPLES
@given(files())
def test_any_config_of_the_user(file: tuple[str, str]) -> None:
    assert not problems_of_config(file)


def search(count: int, seed_: int) -> None:
    """Try `count` overrides and as many configs, and print all problems."""
    import time
    import warnings

    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    many_examples = settings(FEW_EXAMPLES, max_examples=count, derandomize=False)
    num_failed, start = 0, time.monotonic()

    def report(lines: list[str]) -> None:
        nonlocal num_failed, start
        num_failed += bool(lines)
        seconds = time.monotonic() - start
        if seconds > MAX_SECONDS:
            lines = [*lines, f"{seconds:.0f} seconds"]
        start = time.monotonic()
        for line in lines:
            print(line, flush=True)

    @seed(seed_)
    @many_examples
    @given(overrides())
    def try_overrides(drawn: list[str]) -> None:
        report(problems_of_command([*BASE, *drawn]))

    @seed(seed_)
    @many_examples
    @given(files())
    def try_config(file: tuple[str, str]) -> None:
        report(problems_of_config(file))

    try_overrides()
    try_config()
    print(f"{num_failed} of {2 * count} failed")


if __name__ == "__main__":
    search(*map(int, sys.argv[1:]))
