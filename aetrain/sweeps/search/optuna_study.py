"""A study of Optuna (Akiba et al. 2019): its samplers propose trials, its pruners stop runs, its storage keeps both.

All processes of a search open the same storage: a file of a journal beside the runs, or a database. Imports Optuna in
functions alone: it is an optional dependency.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aetrain.config.errors import ConfigError
from aetrain.config.search_space import Choice, Distribution, Space
from aetrain.config.validate import locate
from aetrain.evaluation.model_selection import epoch_objective
from aetrain.storage.locks import is_locked
from aetrain.storage.search_file import TrialRecord
from aetrain.sweeps.search.study import Outcome, Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial

INSTALL = "pip install 'aetrain[search]', or pip install optuna"
JOURNAL = "study.journal"  # of a search without `storage`, in the directory of its sweep
SEARCH_LOCK = ".search.lock"  # in the directory of a sweep: held by the process that searches

# Samplers whose sequence depends on one seed: they find the next element by the trials in the storage.
ONE_SEED = ("GridSampler", "QMCSampler")

SEARCH_KEY, OUTCOME_KEY, DIRECTORY_KEY = "aetrain", "aetrain_outcome", "aetrain_directory"  # attributes in the storage


def check_optuna() -> None:
    """Raise ConfigError where Optuna is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            f"hydra/sweeper=optuna needs Optuna: {INSTALL}; hydra/sweeper=random needs nothing"
        ) from error
    if int(optuna.__version__.partition(".")[0]) < 4:
        raise ConfigError(f"hydra/sweeper=optuna needs Optuna 4 or newer, not {optuna.__version__}: {INSTALL}")
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def open_storage(location: str) -> "BaseStorage":
    """Return the storage at a URL such as sqlite:///study.db, or in a file of a journal."""
    import optuna
    from optuna.storages import journal

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if "://" not in location:
        lock = journal.JournalFileOpenLock(location) if sys.platform == "win32" else None  # others have symbolic links
        return optuna.storages.JournalStorage(journal.JournalFileBackend(location, lock))
    try:
        return optuna.storages.get_storage(location)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"hydra.sweeper.storage={location} cannot be opened: {error}") from error
    except Exception as error:  # of SQLAlchemy, or of the driver of a database
        if type(error).__module__.startswith("sqlalchemy"):
            cause = str(error).partition("\n")[0]
            raise ConfigError(f"hydra.sweeper.storage={location} cannot be opened: {cause}") from error
        raise


def make_component(node: Mapping[str, Any], name: str, **more: Any) -> Any:
    """Return a sampler or a pruner of a section with a `_target_`. Raise ConfigError where it refuses a setting."""
    arguments = {key: value for key, value in node.items() if key != "_target_"} | more
    try:
        return locate(str(node["_target_"]))(**arguments)
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError(f"hydra.sweeper.{name}: {error}") from error


@dataclass(frozen=True)
class StudySettings:
    """The settings of hydra/sweeper=optuna that a study needs."""

    storage: str
    name: str
    sampler: Mapping[str, Any]
    n_trials: int


class OptunaStudy:
    """The trials of a search in a storage."""

    def __init__(
        self,
        settings: StudySettings,
        space: Space,
        higher_is_better: Sequence[bool],
        search: Mapping[str, Any],
        directory: Path,
    ) -> None:
        """Open or create a study; `search` describes it, so that no other search continues in its storage."""
        import optuna

        self.settings = settings
        self.space = space
        self.directory = directory
        self.storage = open_storage(settings.storage)
        self.distributions = {key: as_optuna(distribution) for key, distribution in space.items()}
        self.study = optuna.create_study(
            storage=self.storage,
            study_name=settings.name,
            directions=["maximize" if higher else "minimize" for higher in higher_is_better],
            load_if_exists=True,
        )
        stored = self.study.user_attrs.get(SEARCH_KEY)
        if stored is None and self.study.trials:
            raise ConfigError(self._other_search("was not made by aetrain"))
        if stored is not None and stored != search:
            names = [key for key in search if stored.get(key) != search[key]]
            raise ConfigError(self._other_search(f"has another {' and '.join(names)}"))
        self.study.set_user_attr(SEARCH_KEY, dict(search))
        self._interrupted = [trial for trial in self.study.trials if self._is_interrupted(trial)]

    def _other_search(self, difference: str) -> str:
        return (
            f"{self.settings.storage} holds a study '{self.settings.name}' that {difference}: choose another name for "
            "this search (hydra.sweeper.study_name=), or another hydra.sweep.dir="
        )

    def _is_interrupted(self, trial: "FrozenTrial") -> bool:
        """Tell whether a trial was left by a search that was killed: nobody searches in the directory of its sweep."""
        directory = trial.user_attrs.get(DIRECTORY_KEY)
        if trial.state.is_finished() or directory is None:
            return False
        return Path(directory) == self.directory.absolute() or not is_locked(Path(directory) / SEARCH_LOCK)

    def ask(self, count: int) -> list[Trial]:
        """Return interrupted trials first, then new ones."""
        trials = [self._trial(trial) for trial in self._interrupted[:count]]
        del self._interrupted[:count]
        while len(trials) < count and len(self.study.trials) < self.settings.n_trials:
            self.study.sampler = self._make_sampler(len(self.study.trials))
            proposal = self.study.ask(self.distributions)
            proposal.set_user_attr(DIRECTORY_KEY, str(self.directory.absolute()))
            trials.append(self._trial(self.study.trials[proposal.number]))
        return trials

    def _trial(self, trial: "FrozenTrial") -> Trial:
        return Trial(trial.number, self._settings_of(trial), trial._trial_id)

    def _settings_of(self, trial: "FrozenTrial") -> dict[str, str]:
        texts = {}
        for key, distribution in self.space.items():
            value = trial.params[key]
            texts[key] = value if isinstance(distribution, Choice) else distribution.text(value)
        return texts

    def _make_sampler(self, number: int) -> Any:
        """Return the sampler for trial `number`, its random numbers a function of the seed and the number alone.

        A search that was interrupted proposes what it would have proposed without the interruption, not the same
        settings again.
        """
        import numpy as np

        node = self.settings.sampler
        seed = node.get("seed")
        if seed is None or str(node["_target_"]).endswith(ONE_SEED):
            return make_component(node, "sampler")
        return make_component(node, "sampler", seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))

    def tell(self, trial: Trial, outcome: Outcome, run: str) -> None:
        """Record an outcome in the storage."""
        from optuna.trial import TrialState

        record = outcome.recorded(trial, str((self.directory / run).absolute()))
        attribute = {"run": record.run, "epochs": record.epochs, "seconds": record.seconds, "cause": record.cause}
        assert trial.trial_id is not None
        self.storage.set_trial_user_attr(trial.trial_id, OUTCOME_KEY, attribute)
        if outcome.values is not None:
            self.study.tell(trial.number, list(outcome.values))
        else:
            state = TrialState.PRUNED if outcome.status == "pruned" else TrialState.FAIL
            self.study.tell(trial.number, state=state)

    def records(self) -> list[TrialRecord]:
        """Return all trials in the storage by number."""
        from optuna.trial import TrialState

        names = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
        records = []
        for trial in self.study.trials:
            status = names.get(trial.state, "running")
            values = list(trial.values or ()) if status == "finished" else None
            more = dict(trial.user_attrs.get(OUTCOME_KEY, {}))
            if (run := Path(more.get("run", ""))).is_relative_to(self.directory.absolute()):
                more["run"] = run.relative_to(self.directory.absolute()).as_posix()
            records.append(TrialRecord(trial.number, self._settings_of(trial), status, values, **more))
        return records


def as_optuna(distribution: Distribution) -> "BaseDistribution":
    """Return a distribution as Optuna's."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, Choice):
        return CategoricalDistribution(distribution.values)
    low, high, step = distribution.low, distribution.high, distribution.step
    if distribution.is_integer:
        return IntDistribution(round(low), round(high), log=distribution.log, step=round(step or 1))
    return FloatDistribution(low, high, log=distribution.log, step=step)


# --- Pruning ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pruning:
    """Tell a study the objective after every epoch of a trial's run, and ask whether the run stops.

    It is sent to the process of the run, which opens the storage itself.
    """

    storage: str
    study: str
    trial_id: int
    pruner: Mapping[str, Any]
    objective: str
    epochs: int  # of the run; it is not stopped after the last one

    def __call__(self, lines: Sequence[Mapping[str, Any]]) -> str:
        """Return why the run stops after the last of these epochs; empty where it continues."""
        epoch, values = int(lines[-1]["epoch"]), epoch_objective(self.objective, lines[-1])
        if values is None or epoch == 0:
            return ""
        storage, study = _open(self.storage, self.study)
        storage.set_trial_intermediate_value(self.trial_id, epoch, values[0])
        if epoch >= self.epochs:
            return ""
        pruner = make_component(self.pruner, "pruner")
        if not pruner.prune(study, storage.get_trial(self.trial_id)):
            return ""
        name = type(pruner).__name__
        return f"pruned in epoch {epoch} by the {name}: {self.objective} is {values[0]:.6g}"


@cache
def _open(location: str, name: str) -> "tuple[BaseStorage, Study]":
    """Return a storage and a study in it, once for all epochs of a run, or of the runs of a pack."""
    import optuna

    storage = open_storage(location)
    return storage, optuna.load_study(study_name=name, storage=storage)
