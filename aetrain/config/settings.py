"""The settings at the root of a config: their names, their types and the roles that they play, in one place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Annotated, Any, Literal, get_type_hints

FIGURE_FORMATS = ("png", "svg", "pdf")

Node = Mapping[str, Any]  # a section of a config as plain data: a component has `_target_` in it
FlatSettings = Mapping[str, Any]  # the settings of a run by dotted name, as `flatten` returns them


@dataclass(frozen=True)
class Role:
    """The parts that a setting plays beside its own. By default it plays them all."""

    identity: bool = True  # a run directory with another value holds another run
    in_name: bool = True  # is part of the name of a run's directory; in a sweep, all settings that are swept are
    in_evaluation_name: bool = True  # is part of the name of an evaluation's directory
    hparam: bool = True  # is a column of TensorBoard's HParams table
    compared: bool = (
        True  # runs that differ in it are different rows of a report; otherwise the report averages over it
    )
    listed: bool = True  # the report lists it among the settings that all runs share
    same_in_pack: bool = True  # runs that are trained as one vectorised model share its value
    trains_only: bool = False  # changes nothing in the modes that read a trained run


# Says where or how to work and does not change the result of a run.
LOCATION = Role(
    identity=False, in_name=False, in_evaluation_name=False, hparam=False, compared=False, same_in_pack=False
)
RUN_LOCATION = replace(LOCATION, listed=False)
SHARED_LOCATION = replace(LOCATION, same_in_pack=True)

# Says what is shown or measured beside the training.
OUTPUT = Role(identity=False, in_name=False, hparam=False, compared=False, listed=False, same_in_pack=False)

# Changes the training of a run alone.
TRAINING = Role(trains_only=True)

# Changes the training of a run alone, and may differ between the runs of a vectorised model.
PER_RUN = replace(TRAINING, same_in_pack=False)


@dataclass(kw_only=True, frozen=True)
class Settings:
    """A checked config with all interpolations resolved.

    The fields are everything that may stand at the root. The settings of a group are the signature of its `_target_`.
    """

    mode: Annotated[Node, replace(SHARED_LOCATION, listed=False)]
    dataset: Node
    model: Node
    likelihood: Node
    augment: Node
    noise: Node
    sparsity: Node
    penalty: Node
    optimizer: Annotated[Node, PER_RUN]
    schedule: Annotated[Node, PER_RUN]
    pretrain: Annotated[Node, PER_RUN]
    stop: Annotated[Node, replace(TRAINING, identity=False)]
    views: Annotated[Node, OUTPUT]
    measures: Annotated[Node, OUTPUT]

    epochs: Annotated[int, replace(TRAINING, identity=False)]
    batch_size: int
    seed: Annotated[int, Role(hparam=False, compared=False, same_in_pack=False)]
    clip_grad_norm: Annotated[float | None, TRAINING]
    ema: Annotated[float | None, TRAINING]
    accumulate_grad_batches: Annotated[int, TRAINING]
    keep: Annotated[Literal["last", "best"], TRAINING]
    objective: str | Sequence[str]
    select_on_test: Annotated[bool, LOCATION]
    device: Annotated[Literal["auto", "cpu", "cuda", "mps", "xpu"], SHARED_LOCATION]
    threads: Annotated[int | Literal["auto"], SHARED_LOCATION]
    precision: Literal["float32", "fast"]
    compile: bool
    data_dir: Annotated[str, SHARED_LOCATION]
    run: Annotated[str | None, RUN_LOCATION]
    query: Annotated[str | None, RUN_LOCATION]
    user: Annotated[str | int | None, RUN_LOCATION]
    start: Annotated[str | None, Role(in_name=False, in_evaluation_name=False)]
    resume: Annotated[str | None, RUN_LOCATION]
    verbose: Annotated[bool, replace(OUTPUT, in_evaluation_name=False)]
    retry: Annotated[bool, LOCATION]
    trust: Annotated[bool, LOCATION]

    def __post_init__(self) -> None:
        if self.resume is not None:
            raise ValueError(f"resume={self.resume} is a command-line setting: remove it from the config")
        if self.epochs < 0:
            raise ValueError(f"epochs={self.epochs} is negative: use 0 or more")
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} is too small: use 1 or more")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed={self.seed} is out of range: use 0 or more, below 2^32")
        if self.clip_grad_norm is not None and not self.clip_grad_norm > 0:
            raise ValueError(f"clip_grad_norm={self.clip_grad_norm} is not positive: use a norm above 0, or null")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"ema={self.ema} is out of range: use a decay between 0 and 1 such as 0.999, or null")
        if self.accumulate_grad_batches < 1:
            raise ValueError(f"accumulate_grad_batches={self.accumulate_grad_batches} is too small: use 1 or more")
        if self.threads != "auto" and self.threads < 1:
            raise ValueError(f"threads={self.threads} is too small: use 1 or more, or auto")
        self._check_figure_formats()

    def _check_figure_formats(self) -> None:
        unknown = [name for name in self.figure_formats if name not in FIGURE_FORMATS]
        if unknown or not self.figure_formats:
            value = self.views["format"]
            text = f"[{','.join(map(str, value))}]" if isinstance(value, list) else value
            choices = ", ".join(FIGURE_FORMATS)
            raise ValueError(f"views.format={text} is not a format of figures: use {choices}, or a list of them")

    @property
    def figure_formats(self) -> list[Any]:
        """The formats of the figures that a run writes at its end, without repetitions."""
        formats = self.views.get("format", FIGURE_FORMATS[0])
        return list(dict.fromkeys(formats)) if isinstance(formats, list) else [formats]

    @property
    def view_names(self) -> list[str]:
        """The names of the views: all in the group `views` but its setting `format`."""
        return [name for name in self.views if name != "format"]

    def select(self, key: str) -> Any:
        """Return the value at a dotted key such as `optimizer.lr`; None where there is none."""
        root, *rest = key.split(".")
        value = getattr(self, root, None)
        for name in rest:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value


# Settings inside groups, and keys that are no setting, whose role differs from that of their group.
_OTHER_ROLES = {
    "dataset.path": Role(identity=False, in_name=False, in_evaluation_name=False, same_in_pack=True),
    "dataset.data_dir": SHARED_LOCATION,
    "hydra": Role(hparam=False, compared=False),
}


@cache
def role_of(key: str) -> Role:
    """Return the role of the setting at a dotted key; a setting in a group has the role of its group."""
    if key in _OTHER_ROLES:
        return _OTHER_ROLES[key]
    root = key.partition(".")[0]
    hint = get_type_hints(Settings, include_extras=True).get(root)
    roles = [role for role in getattr(hint, "__metadata__", ()) if isinstance(role, Role)]
    return roles[0] if roles else _OTHER_ROLES.get(root, Role())


def root_settings() -> list[str]:
    """Return the names of all settings at the root."""
    return [item.name for item in fields(Settings)]


def flatten(node: Any, key: str = "") -> dict[str, Any]:
    """Return nested settings by dotted name: {"optimizer.lr": 0.001, ...}."""
    if not isinstance(node, Mapping):
        return {key: node}
    flat: dict[str, Any] = {}
    for name, child in node.items():
        flat |= flatten(child, f"{key}.{name}" if key else str(name))
    return flat
