"""The settings at the root of a config: their names and types, checked like every component's signature."""

from dataclasses import dataclass
from typing import Any, Literal

# Settings that say where and how to work: they are no part of what a run is.
WHERE_AND_HOW = ("mode", "run", "query", "resume", "retry", "trust", "data_dir", "device")


@dataclass(kw_only=True)
class Settings:
    """Everything that may stand at the root. The groups' own settings are their targets' signatures."""

    mode: Any
    dataset: Any
    model: Any
    likelihood: Any
    augment: Any
    noise: Any
    sparsity: Any
    optimizer: Any
    schedule: Any
    pretrain: Any
    views: Any
    measures: Any

    epochs: int
    batch_size: int
    seed: int
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["float32", "fast"]
    compile: bool
    data_dir: str
    run: str | None
    query: str | None
    resume: str | None
    retry: bool
    trust: bool

    def __post_init__(self) -> None:
        if self.resume is not None:
            raise ValueError(f"resume={self.resume} is for the command line")
        if self.epochs < 0:
            raise ValueError(f"epochs={self.epochs} is negative: use 0 or more")
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} is too small: use 1 or more")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed={self.seed} is out of range: use 0 or more, below 2^32")
