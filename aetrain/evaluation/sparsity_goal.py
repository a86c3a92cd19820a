"""The sparsity that a config asks for. A warning before training and a diagnostic after it compare it with the code."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aetrain.model.autoencoder import Autoencoder
from aetrain.model.layers import are_linear, is_smooth
from aetrain.objective.penalties import Penalty


@dataclass(frozen=True)
class SparsityGoal:
    """The settings that are meant to make the code sparse."""

    zeroed_by: str | None = None  # the setting that is meant to make units of the code 0, such as `sparsity`
    is_code_linear: bool = False  # whether the code has no activation that could make a unit exactly 0
    target_activations: Mapping[str, float] = field(default_factory=dict)  # mean activations, by the penalty's setting
    smooth_hidden_by: str | None = None  # the setting that is meant to make hidden units 0 whose activation is smooth

    @property
    def is_sparse(self) -> bool:
        """Tell whether the code is meant to be sparse."""
        return self.zeroed_by is not None or bool(self.target_activations)

    def warnings(self) -> list[str]:
        """Return sentences about goals that training cannot reach."""
        texts = []
        if self.zeroed_by is not None and self.is_code_linear:
            texts.append(
                f"{self.zeroed_by}: an L1 penalty makes the units of a linear code small, but none exactly 0: use "
                "model.code_activation=relu, or sparsity=topk"
            )
        if self.smooth_hidden_by is not None:
            texts.append(
                f"{self.smooth_hidden_by}: an L1 penalty makes hidden units small, but only rectified ones exactly 0: "
                "use model.activation=relu"
            )
        return texts


def sparsity_goal(model: Autoencoder, penalties: Mapping[str, Penalty], settings: Mapping[str, Any]) -> SparsityGoal:
    """Return the goal of a model and its penalties by name; `settings` are those of the run, by dotted name."""
    active = {_setting_of(name, settings): penalty for name, penalty in penalties.items() if penalty.weight > 0}
    has_codebook = model.bottleneck.num_codewords is not None  # no codeword is 0
    zeroing = [setting for setting, penalty in active.items() if penalty.zeroes_code and not has_codebook]
    has_sparsifier = not are_linear([model.sparsifier])
    hidden = [setting for setting, penalty in active.items() if penalty.zeroes_hidden]
    are_hidden_smooth = any(is_smooth(tap.module) for tap in model.encoder.taps())
    targets = {setting: penalty.target_activation for setting, penalty in active.items()}
    return SparsityGoal(
        zeroed_by="sparsity" if has_sparsifier else next(iter(zeroing), None),
        is_code_linear=model.bottleneck.linear and are_linear(model.code_transform),
        target_activations={setting: target for setting, target in targets.items() if target is not None},
        smooth_hidden_by=next(iter(hidden), None) if are_hidden_smooth else None,
    )


def _setting_of(penalty: str, settings: Mapping[str, Any]) -> str:
    """Return the setting that lists a penalty: `penalty.l1`, `model.penalties.l1`, or `sparsity`."""
    listed = [f"{group}.{penalty}" for group in ("penalty", "model.penalties")]
    return next((key for key in listed if f"{key}._target_" in settings), penalty)
