"""The trials of a search as numbers: the position of each value on its axis, and the importance of each setting."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aetrain.storage.search_file import SearchRecord, TrialRecord

MIN_TRIALS_FOR_IMPORTANCE = 10
FOLDS, REPEATS, TREES = 5, 10, 64


@dataclass(frozen=True)
class SettingAxis:
    """A setting of the space as an axis: of numbers, maybe logarithmic, or of named places 0, 1, ..."""

    key: str
    names: Sequence[str] = ()  # of the places; empty for an axis of numbers
    log: bool = False

    def position(self, trial: TrialRecord) -> float:
        """Return the value of a trial on the axis."""
        text = trial.settings.get(self.key, "")
        return float(self.names.index(text)) if self.names else float(text)

    def scaled(self, trial: TrialRecord) -> float:
        """Return the position of a trial, its logarithm on a logarithmic axis."""
        position = self.position(trial)
        return math.log10(position) if self.log else position


def setting_axis(key: str, distribution: dict[str, Any], trials: Sequence[TrialRecord]) -> SettingAxis | None:
    """Return the axis of a setting; None where the trials have a single value of it, or one that is not in the space.

    A choice between numbers is an axis of named places, like any other choice.
    """
    if len({trial.settings.get(key) for trial in trials}) < 2:
        return None
    names = [str(value) for value in distribution.get("values", ())]
    axis = SettingAxis(key, names, bool(distribution.get("log")))
    try:
        positions = [axis.scaled(trial) for trial in trials]
    except ValueError:
        return None
    return axis if all(map(math.isfinite, positions)) else None


def setting_axes(record: SearchRecord, trials: Sequence[TrialRecord]) -> list[SettingAxis]:
    """Return the axes of all settings in which trials differ."""
    axes = [setting_axis(key, distribution, trials) for key, distribution in record.space.items()]
    return [axis for axis in axes if axis is not None]


@dataclass(frozen=True)
class Importance:
    """The importance of the settings of a search for a metric of its objective."""

    explained: float  # variance of the ranks of trials that the forest did not see and predicts, at most 1
    of_settings: dict[str, float]  # loss of `explained` where the values of the setting are shuffled, most first


def setting_importance(record: SearchRecord, number: int = 0) -> Importance | None:
    """Return the permutation importance (Breiman 2001, doi:10.1023/A:1010933404324) of each setting.

    A random forest predicts the rank of a trial by metric `number` of the objective. It is measured on trials that it
    was not fitted to (5-fold cross-validation): the importance is the loss of explained variance where the values of a
    setting are shuffled among these. None where there are fewer than MIN_TRIALS_FOR_IMPORTANCE finished trials.
    """
    trials = record.finished()
    axes = setting_axes(record, trials)
    if len(trials) < MIN_TRIALS_FOR_IMPORTANCE or not axes:
        return None
    import numpy as np
    from scipy.stats import rankdata
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import KFold

    x = np.array([[axis.scaled(trial) for axis in axes] for trial in trials])
    y = rankdata([(trial.values or [])[number] for trial in trials])
    variance = float(((y - y.mean()) ** 2).sum())
    if variance == 0:
        return None
    error, losses = 0.0, np.zeros(len(axes))
    for train, test in KFold(FOLDS, shuffle=True, random_state=0).split(x):
        forest = RandomForestRegressor(TREES, random_state=0).fit(x[train], y[train])
        error += float(((forest.predict(x[test]) - y[test]) ** 2).sum())
        result = permutation_importance(
            forest, x[test], y[test], scoring="neg_mean_squared_error", n_repeats=REPEATS, random_state=0
        )
        losses += result.importances_mean * len(test)
    pairs = sorted(zip(axes, losses / variance, strict=True), key=lambda pair: -pair[1])
    return Importance(1 - error / variance, {axis.key: float(loss) for axis, loss in pairs})


def best_so_far(record: SearchRecord) -> list[tuple[int, float]]:
    """Return the number of each finished trial, and the best value of the first metric up to it."""
    best: list[tuple[int, float]] = []
    choose = max if record.higher_is_better[0] else min
    for trial in record.finished():
        value = (trial.values or [])[0]
        best.append((trial.number, choose(value, best[-1][1]) if best else value))
    return best
