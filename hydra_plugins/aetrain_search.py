"""`hydra/sweeper=random` and `hydra/sweeper=optuna`, in the package where Hydra looks for sweepers."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from aetrain.config.search_space import Space
    from aetrain.sweeps.search.study import Study, Trial

BATCHES = 4  # of runs for each worker that a random search launches together


class SearchSweeper(Sweeper):
    """Run trials whose settings a study draws from a space: `params`, and the overrides of the command line."""

    name: str

    def __init__(
        self, params: DictConfig | None, n_trials: int, n_jobs: int | None, direction: str | Sequence[str] | None
    ) -> None:
        self.params = params
        self.n_trials = n_trials
        self.n_jobs = n_jobs
        self.direction = direction

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher that `sweep` uses."""
        self.context = hydra_context
        self.master = config
        self.runs_launcher = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=hydra_context, task_function=task_function
        )

    def sweep(self, arguments: list[str]) -> None:
        """Search with the overrides of the command line."""
        from aetrain.config.search_space import read_space, space_as_data
        from aetrain.storage.search_file import SearchRecord
        from aetrain.sweeps.search.search import run_search, searching_in

        self._check()
        params: Any = OmegaConf.to_container(self.params) if self.params else {}
        space, fixed = read_space(params, arguments, self.context.config_loader)
        self.shared = [*self._own_choice(), *fixed.values(), self._constant_keys(fixed)]
        job = self.context.config_loader.load_sweep_config(self.master, self.shared)
        names, higher_is_better = self._objective(job)
        record = SearchRecord(self.name, names, higher_is_better, space_as_data(space), [*fixed.values()])
        self.directory = Path(str(self.master.hydra.sweep.dir))
        with searching_in(self.directory):
            OmegaConf.save(self.master, self.directory / "multirun.yaml")
            study = self.open_study(space, higher_is_better, _identity(record, fixed), fixed)
            run_search(self.directory, record, study, self._launch, self._batch_size())

    @abstractmethod
    def open_study(
        self, space: "Space", higher_is_better: list[bool], search: dict[str, Any], fixed: Mapping[str, str]
    ) -> "Study":
        """Return the study; `search` identifies the search, `fixed` are the overrides that all trials share."""

    def _check(self) -> None:
        from aetrain.config.errors import ConfigError

        for name, value in (("n_trials", self.n_trials), ("n_jobs", self.n_jobs)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ConfigError(f"hydra.sweeper.{name}={value} is no number of trials: use 1 or more")

    def _own_choice(self) -> list[str]:
        """Return the override that chooses this sweeper where `search=` has done so, which the jobs do not have."""
        typed = [str(text) for text in self.master.hydra.overrides.hydra]
        return [] if any(text.startswith("hydra/sweeper=") for text in typed) else [f"hydra/sweeper={self.name}"]

    def _constant_keys(self, fixed: Mapping[str, str]) -> str:
        """Return the override that leaves the settings that all trials share out of the names of the runs."""
        return f"hydra.job.config.override_dirname.exclude_keys=[{','.join(fixed)}]"

    def _objective(self, job: DictConfig) -> tuple[list[str], list[bool]]:
        """Return the metrics of the objective, and for each of them whether higher is better."""
        from aetrain.config.errors import ConfigError
        from aetrain.evaluation.model_selection import objective_metrics, objective_names

        names = list(objective_names(_plain(job.objective)))
        metrics = objective_metrics(names)  # a run, too, refuses one without a better direction
        if self.direction is None:
            return names, [metric.higher_is_better for metric in metrics]
        given = _plain(self.direction)
        directions = [given] if isinstance(given, str) else list(given)
        if len(directions) != len(names) or not {*directions} <= {"minimize", "maximize"}:
            raise ConfigError(
                f"hydra.sweeper.direction={given} does not fit objective={','.join(names)}: use minimize or maximize, "
                "or a list with one of them for each metric"
            )
        return names, [direction == "maximize" for direction in directions]

    def _batch_size(self) -> int:
        """Return the number of runs that the launcher gets at a time: as many as it trains side by side."""
        from aetrain.sweeps.workers import count_workers

        if self.n_jobs is not None:
            return self.n_jobs
        size = self.master.hydra.launcher.get("size")  # of a pack
        return int(size) if size is not None else count_workers(self.master.hydra)

    def _launch(self, trials: "Sequence[Trial]") -> list[Path]:
        """Run trials; return the directories of their runs."""
        jobs = [[*self.shared, *self.job_overrides(trial)] for trial in trials]
        returns = self.runs_launcher.launch(jobs, initial_job_idx=trials[0].number)
        return [Path(_hydra(result).runtime.output_dir) for result in returns]

    def job_overrides(self, trial: "Trial") -> list[str]:
        """Return the overrides of a trial."""
        return [f"{key}={value}" for key, value in trial.settings.items()]


class RandomSweeper(SearchSweeper):
    """Draw the settings of each trial at random."""

    name = "random"

    def __init__(
        self,
        params: DictConfig | None = None,
        n_trials: int = 20,
        n_jobs: int | None = None,
        direction: str | Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(params, n_trials, n_jobs, direction)
        self.seed = seed

    def open_study(
        self, space: "Space", higher_is_better: list[bool], search: dict[str, Any], fixed: Mapping[str, str]
    ) -> "Study":
        """Return the trials of this search, those that search.json has among them."""
        from aetrain.config.errors import ConfigError
        from aetrain.config.overrides import sets_true
        from aetrain.storage.search_file import read_search
        from aetrain.sweeps.search.study import RandomStudy, draw_settings

        if not isinstance(self.seed, int) or self.seed < 0:
            raise ConfigError(f"hydra.sweeper.seed={self.seed} is no seed: use a whole number from 0 on")
        earlier = read_search(self.directory)
        if earlier is not None:
            same = _identity(earlier, _by_key(earlier.fixed)) == search
            if not same or any(
                trial.settings != draw_settings(space, self.seed, trial.number) for trial in earlier.trials
            ):
                raise ConfigError(f"{self.directory} has another search: use another directory (hydra.sweep.dir=)")
        trials = earlier.trials if earlier else []
        return RandomStudy(space, self.seed, self.n_trials, trials, sets_true(fixed.get("retry", "")))

    def _batch_size(self) -> int:
        """Return several times the number of workers, where there are some: no proposal waits for an outcome."""
        size = super()._batch_size()
        return size if size == 1 or self.n_jobs is not None else BATCHES * size


class OptunaSweeper(SearchSweeper):
    """Let Optuna propose the settings of each trial, and prune runs.

    The settings have the names of those of hydra-optuna-sweeper, which allows no Optuna of version 3 or newer, does not
    prune, and repeats all trials when it is started again.
    """

    name = "optuna"

    def __init__(
        self,
        sampler: DictConfig,
        pruner: DictConfig,
        params: DictConfig | None = None,
        n_trials: int = 20,
        n_jobs: int | None = None,
        direction: str | Sequence[str] | None = None,
        storage: str | None = None,
        study_name: str = "aetrain",
        trial_id: int | None = None,
    ) -> None:
        """`trial_id` is for the runs: it is set for each of them."""
        super().__init__(params, n_trials, n_jobs, direction)
        self.sampler = sampler
        self.storage = storage
        self.study_name = study_name

    def _check(self) -> None:
        from aetrain.sweeps.search.optuna_study import check_optuna

        check_optuna()
        super()._check()

    def open_study(
        self, space: "Space", higher_is_better: list[bool], search: dict[str, Any], fixed: Mapping[str, str]
    ) -> "Study":
        """Return the study in the storage."""
        from aetrain.config.errors import ConfigError
        from aetrain.config.overrides import sets_true
        from aetrain.sweeps.search.optuna_study import OptunaStudy, StudySettings
        from aetrain.sweeps.search.pruning import storage_of

        if sets_true(fixed.get("retry", "")):
            raise ConfigError("retry=true is for other sweeps: Optuna counts a failed trial and proposes others")
        hydra: Any = OmegaConf.to_container(self.master.hydra, resolve=False)
        hydra["sweep"]["dir"] = str(self.directory)
        sampler: Any = OmegaConf.to_container(self.sampler)
        settings = StudySettings(storage_of(hydra), self.study_name, sampler, self.n_trials)
        return OptunaStudy(settings, space, higher_is_better, search, self.directory)

    def job_overrides(self, trial: "Trial") -> list[str]:
        """Return the overrides of a trial, and its place in the storage."""
        return [*super().job_overrides(trial), f"hydra.sweeper.trial_id={trial.trial_id}"]


def _hydra(result: JobReturn) -> DictConfig:
    """Return Hydra's own section of the config of a job."""
    assert result.hydra_cfg is not None
    section: DictConfig = result.hydra_cfg.hydra
    return section


def _plain(value: Any) -> Any:
    """Return a value of a config as plain data."""
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _by_key(overrides: Sequence[str]) -> dict[str, str]:
    from aetrain.config.overrides import key_of

    return {key_of(text): text for text in overrides}


def _identity(record: Any, fixed: Mapping[str, str]) -> dict[str, Any]:
    """Return all that two parts of one search share: settings that change no result may differ."""
    from aetrain.config.settings import role_of

    relevant = [text for key, text in fixed.items() if role_of(key).compared or key == "seed"]
    return {"objective": record.objective, "space": record.space, "settings": sorted(relevant)}
