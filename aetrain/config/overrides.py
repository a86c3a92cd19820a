"""The overrides of the command line: quote paths, name sequences of noise, parse, name runs by them."""

import hashlib
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

from aetrain.config import renames
from aetrain.config.errors import ConfigError, list_choices
from aetrain.config.paths import CONFIG_DIR, GROUPS, GROUPS_WITHOUT_SECTION, default_likelihood
from aetrain.config.settings import role_of

SAVED = "saved"  # the option under which a group offers the section of a saved run
PROVIDER = "aetrain"  # of the options that are offered to Hydra while a command runs
SEQUENCE_GROUP = "noise"  # the group whose options can be given as a list
SEARCH_GROUP = "search"  # the group whose options are spaces of a search
SEQUENCE = "sequence"  # its option whose steps are other options
MAX_NAME_LENGTH = 120
DEFAULT_NAME = "default"  # of a run that overrides nothing

NOT_AN_OPTION = (int, float, dict, list, type(None))  # types of values that cannot name an option

# Settings whose value is a path: of files that a command reads, or of a directory that it may create.
INPUT_PATHS = ("run", "query", "start", "resume", "data_dir", "dataset.path")
OUTPUT_PATHS = ("hydra.run.dir", "hydra.sweep.dir", "mode.out")
PATHS = (*INPUT_PATHS, *OUTPUT_PATHS)

# Modes that read run directories as they are: they start from no run's config and need no torch.
READERS = ("board", "report")

# Overrides with these keys may refer to a saved run.
RUN_KEYS = ("mode", "run", "start", "resume", "query", "user")


def register_resolvers() -> None:
    """Make `${run_name:}`, used below `hydra:` alone, and `${default_likelihood:}` known to configs."""
    OmegaConf.register_new_resolver("run_name", _resolve_run_name, replace=True)
    OmegaConf.register_new_resolver("default_likelihood", _resolve_default_likelihood, replace=True)


def _resolve_default_likelihood(dataset: str) -> str:
    paths = [str(item.path) for item in GlobalHydra.instance().config_loader().get_search_path().get_path()]
    folders = [Path(path.removeprefix("file://")) for path in paths if path.startswith("file://")]
    return default_likelihood(dataset, tuple(folder for folder in folders if folder != CONFIG_DIR))


def _resolve_run_name(*, _root_: DictConfig) -> str:
    hydra = _root_.hydra
    overrides = task_overrides(hydra.overrides.task)
    if hydra.mode != RunMode.MULTIRUN:
        return run_name(overrides)
    # The runs of a sweep are named by all settings that are swept: views, measures and paths, too.
    constant = hydra.job.config.override_dirname.exclude_keys
    return name_in(Path(hydra.sweep.dir), [text for text in overrides if key_of(text) not in constant])


def task_overrides(overrides: Sequence[str]) -> list[str]:
    """Return the overrides of a job as the user typed them; Hydra's own list would resolve `${}` in them."""
    return [str(text) for text in cast(list[Any], OmegaConf.to_container(cast(ListConfig, overrides)))]


def run_name(overrides: Sequence[str]) -> str:
    """Return the name of a run's directory: those of the overrides that change the result of the training."""
    return list_in_name([text for text in overrides if role_of(key_of(text)).in_name])


def evaluation_name(run: Path, overrides: Sequence[str]) -> str:
    """Return the name of an evaluation's directory in `run`/eval: the overrides that change its result."""
    return name_in(run / "eval", [text for text in overrides if role_of(key_of(text)).in_evaluation_name])


def name_in(folder: Path, overrides: Sequence[str]) -> str:
    """Return the name of a directory in `folder` for these overrides: that of version 0.1 where it is there already."""
    text = ",".join(overrides)
    old_name = _as_file_name(text, text, r"\[\]")
    return old_name if (folder / old_name).is_dir() else list_in_name(overrides)


def list_in_name(overrides: Sequence[str]) -> str:
    """Return a folder name that lists all overrides in their order: `model=vae,code_dim=2,penalty=tc+l2`.

    A key of three or more parts is its last two parts, unless two keys of the list would be equal, and a list `[a,b]`
    is `a+b`. A digest follows where the overrides do not fit into a name, so that no two of them share one.
    """
    keys = [key_of(text) for text in overrides]
    names = {key: _shorten_key(key) for key in keys}
    if len({*names.values()}) < len(names):
        names = {}
    parts = [_name_override(text, key, names.get(key, key)) for text, key in zip(overrides, keys, strict=True)]
    return _as_file_name(",".join(parts), ",".join(overrides))


def key_of(text: str) -> str:
    """Return the key of an override, without the `+`, `++` or `~` before it."""
    return text.partition("=")[0].lstrip("+~")


def _shorten_key(key: str) -> str:
    """Return `kl.weight` for `model.penalties.kl.weight`, because TensorBoard cuts off the end of long names."""
    parts = key.split(".")
    return key if len(parts) < 3 or parts[-2] in GROUPS else ".".join(parts[-2:])


def _name_override(text: str, key: str, name: str) -> str:
    """Return an override as it stands in the name of a directory, with `name` in place of its key."""
    prefix, equals, value = text.partition("=")
    items = re.fullmatch(r"\[([\w.-]*(?:, ?[\w.-]+)*)\]", value)
    if items and (key in GROUPS or not re.fullmatch(r"\[[a-zA-Z_][\w.-]*\]", value)):  # `relu` and `[relu]` may differ
        value = re.sub(", ?", "+", items[1]) or "none"
    return f"{prefix[: len(prefix) - len(key)]}{name}{equals}{value}"


def _as_file_name(readable: str, text: str, extra_characters: str = "") -> str:
    """Return `readable` as the name of a folder; a digest of `text` follows where characters were replaced or cut."""
    name = re.sub(rf"[^\w.,=+~\-{extra_characters}]+", "_", readable).strip("_.")[:MAX_NAME_LENGTH]
    if name == readable:
        return name or DEFAULT_NAME
    return f"{name[: MAX_NAME_LENGTH - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def normalize(overrides: Sequence[str]) -> list[str]:
    """Return overrides under current names, with paths in quotes: Hydra would interpret a bare `=` or `,` in them.

    A list of noises becomes one option, which is offered to Hydra: `noise=[masking,gaussian]`, the option
    `masking+gaussian`.
    """
    chosen = parse_assignments(overrides)
    current = []
    for text in overrides:
        key = key_of(text)
        group = key.partition(".")[0]
        options = chosen.get(group, "").split(",")
        own_options = group not in chosen or all(option in GROUPS.get(group, ()) for option in options)
        old = key in renames.SETTINGS or "norm=" in text or "_target_=aetrain." in text
        # An option of the user's own may have settings of the old names.
        current += renames.upgrade_overrides([text]) if old and own_options else [text]
    return [_name_sequences(_quote_path(text)) for text in [*current, *_imply_likelihood(chosen)]]


def _imply_likelihood(chosen: Mapping[str, str]) -> list[str]:
    """Return the likelihood of counts for `dataset.implicit=true`, unless the command line says where it comes from."""
    decided = {"likelihood", "experiment", *RUN_KEYS} & chosen.keys()
    is_implicit = sets_true(f"dataset.implicit={chosen.get('dataset.implicit', '')}")
    return ["likelihood=multinomial"] if is_implicit and not decided else []


def _quote_path(text: str) -> str:
    """Return an override of a path with `~` expanded, in quotes where Hydra would not read the path as it is.

    A path may hold any character. Three things have a meaning: `~` at its start, `${`, which begins an interpolation,
    and quotes around a path that does not exist. A comma separates the values of a sweep where the setting is one of
    INPUT_PATHS, no file has the whole text as its name, and one has a part of it. `run=[A,B]` is a list of paths. The
    value `null` stays.
    """
    typed_key, equals, value = text.partition("=")
    key = typed_key.lstrip("+")
    if key not in PATHS or not equals:
        return text
    if not value:  # a shell variable that is not set, as in run=$RUN
        raise ConfigError(f"{key}= is empty: give a path, or leave it out")
    if key == "run" and value[0] == "[" and value[-1] == "]" and not _exists(value):
        return f"{typed_key}=[{','.join(_quote_items(value[1:-1], typed_key))}]"
    if not _is_utf8(value):  # the shell passes any bytes
        raise ConfigError(f"{key}={value!a} is not text in UTF-8: rename the file or directory")
    parts = value.split(",")
    quoted = value[0] in "'\""
    if key in INPUT_PATHS and len(parts) > 1 and not quoted and not _exists(value) and any(map(_exists, parts)):
        return f"{typed_key}={','.join(map(_quote_value, parts))}"
    if key in INPUT_PATHS and re.fullmatch(r"(choice|shuffle|sort)\(.*\)", value) and not _exists(value):
        return text
    return f"{typed_key}={_quote_value(value)}"


def _quote_items(text: str, key: str) -> list[str]:
    """Return the paths of a list `a,b` in quotes. A comma is part of a path where a file has this name.

    The longest path that exists is taken at each place. Items that are quoted already stay.
    """
    parts, items = text.split(","), list[str]()
    if any(part.strip()[:1] in ("'", '"') and not _exists(part) for part in parts):
        return parts
    while parts:
        ends = [end for end in range(len(parts), 0, -1) if _exists(",".join(parts[:end]).strip())]
        end = ends[0] if ends else 1
        path = ",".join(parts[:end])
        if not path.strip():
            raise ConfigError(f"{key}=[{text}] has an empty place: write {key}=[A,B] with a path in each place")
        items.append(literal(os.path.expanduser(path if _exists(path) else path.strip())))
        parts = parts[end:]
    return items


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _exists(path: str) -> bool:
    return os.path.exists(os.path.expanduser(path))


def _quote_value(value: str) -> str:
    """Return a path with `~` expanded, in quotes unless Hydra reads it as this very text without them."""
    path = os.path.expanduser(value)
    if not os.path.exists(path):
        if value == "null":
            return value
        if value[:1] in "'\"":
            return value[0] + os.path.expanduser(value[1:])
    return path if is_read_as(path, path) else literal(path)


def is_read_as(text: str, value: Any) -> bool:
    """Tell whether Hydra reads the text as this value of a setting."""
    return bool(_read_value(f"key={text}") == value)


def sets_true(text: str) -> bool:
    """Tell whether an override sets true, in any spelling that Hydra accepts, such as `retry=True`."""
    return _read_value(text) is True


def _read_value(text: str) -> Any:
    """Return the value of an override as Hydra reads it; `...`, which equals no setting, where Hydra cannot read it."""
    try:
        return OverridesParser.create().parse_override(text).value()
    except HydraException:
        return ...


def expand_config_dir(flag: str) -> str:
    """Return a flag of the command with `~` expanded in `--config-dir=~/mine`, where no shell does so."""
    name, equals, value = flag.partition("=")
    return f"{name}={os.path.expanduser(value)}" if equals and name in ("--config-dir", "-cd") else flag


def _name_sequences(text: str) -> str:
    """Return `noise=[masking,gaussian],none` as `noise=masking+gaussian,none`, and offer the named option to Hydra.

    The option is a section of the config like any other: it can be swept, it names the run, and its steps have settings
    such as `noise.steps.masking.p`. Other overrides are returned as they are.
    """
    key, equals, value = text.partition("=")
    if key != SEQUENCE_GROUP or not equals:
        return text
    named = re.sub(r"\[([^\[\]]*)\]", lambda match: _join_steps(match[1], text), value)
    for option in re.findall(r"[^\s,()'\"+]+(?:\+[^\s,()'\"+]+)+", named):
        _offer_sequence(option, text)
    return f"{key}={named}"


def _join_steps(items: str, text: str) -> str:
    steps = [item.strip() for item in items.split(",")]
    if not all(steps):
        raise ConfigError(f"{text} has an empty place: write noise=[masking,gaussian], or noise=none for no noise")
    return "+".join(steps)


def _offer_sequence(option: str, text: str) -> None:
    """Make `masking+gaussian` an option of noise: the option `sequence` with these steps."""
    steps = option.split("+")
    if twice := [step for step in steps if steps.count(step) > 1]:
        raise ConfigError(
            f"{text} names {twice[0]} twice: name each kind once, and set its strength by noise.steps.{twice[0]}"
        )
    sections = [{f"/{SEQUENCE_GROUP}@steps.{step}": step} for step in steps]
    node = {"defaults": [SEQUENCE, *sections, "_self_"], "order": steps}
    ConfigStore.instance().store(group=SEQUENCE_GROUP, name=option, node=node, provider=PROVIDER)


def literal(value: Any) -> str:
    """Return a value of a root setting in Hydra's override grammar."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(literal, value))}]"
    return str(value) if isinstance(value, int | float) else QuotedString(str(value), Quote.single).with_quotes()


def parse(overrides: Sequence[str]) -> list[Override]:
    """Parse overrides as Hydra does. Raise ConfigError for those on which Hydra fails without a message."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    for override in parsed:
        if not override.key_or_group:
            raise ConfigError(f"cannot read '{override.input_line}': there is no name before '='")
        options, value = GROUPS.get(override.key_or_group, []), override.value()
        chosen = value if isinstance(value, list) else [] if value is None else [value]
        if (
            options
            and value is None
            and override.key_or_group not in GROUPS_WITHOUT_SECTION
            and not override.is_delete()
        ):
            raise ConfigError(f"{override.input_line}: {override.key_or_group} is one of {list_choices(options)}")
        if options and any(isinstance(item, NOT_AN_OPTION) for item in chosen):
            raise ConfigError(f"{override.input_line}: {override.key_or_group} is one of {list_choices(options)}")
    return parsed


def refuse_space(overrides: Sequence[Override]) -> None:
    """Raise ConfigError for `search=` in a command that is no sweep: a space is not the settings of one run."""
    for override in overrides:
        if override.key_or_group == SEARCH_GROUP and override.value() is not None:
            raise ConfigError(
                f"{override.input_line} is a space of settings for many runs: add -m for a random search, and "
                "hydra/sweeper=optuna for one by Optuna"
            )


def count_combinations(overrides: Sequence[Override]) -> int | None:
    """Return the number of runs of a sweep; None where a pattern or a sampled interval decides it."""
    try:
        sweeps = [[*override.sweep_iterator()] for override in overrides if override.is_sweep_override()]
    except HydraException:
        return None
    return math.prod(map(len, sweeps))


def forget_saved_options() -> None:
    """Remove the sections of a saved run that an earlier command of this process has offered as options."""
    for options in ConfigStore.instance().repo.values():
        if isinstance(options, dict):
            options.pop(f"{SAVED}.yaml", None)


def parse_assignments(overrides: Sequence[str]) -> dict[str, str]:
    """Return the values of overrides by key, as text; deletions are left out."""
    pairs = (text.partition("=") for text in overrides if "=" in text and not text.startswith("~"))
    return {key.lstrip("+"): value for key, _, value in pairs}
