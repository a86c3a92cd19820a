"""Searches: spaces, random and Optuna's proposals, pruning, interruption, failed trials, and the report."""

import importlib.util
import json
import math
import random
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import aetrain, command
from conftest import ROOT, TINY
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from aetrain import api, cli
from aetrain.config.errors import ConfigError, RunPruned
from aetrain.config.paths import CONFIG_DIR, GROUPS
from aetrain.config.search_space import Choice, Interval, Space, read_space, space_as_data
from aetrain.report.search import count_trials, repeat_command, search_section
from aetrain.report.search_figures import write_search_figures
from aetrain.report.search_values import best_so_far, setting_importance
from aetrain.runs import entry
from aetrain.runs.request import Prune, RunRequest
from aetrain.storage.run_directory import RunDirectory
from aetrain.storage.search_file import SearchRecord, TrialRecord, read_search, write_search
from aetrain.sweeps.search.search import run_search, searching_in
from aetrain.sweeps.search.study import RandomStudy, Study, Trial, draw_settings, draw_text, read_outcome

needs_optuna = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="Optuna is not installed")

SPACE: Space = {
    "optimizer.lr": Interval(1e-4, 1e-2, log=True),
    "model.code_dim": Interval(2, 9, is_integer=True),
    "noise": Choice(("none", "gaussian")),
}


def value_of(settings: Mapping[str, str]) -> float:
    """Return a smooth function of settings of SPACE, with its minimum at lr=1e-3 and code_dim=5."""
    lr, code_dim = float(settings["optimizer.lr"]), int(settings["model.code_dim"])
    return (math.log10(lr) + 3) ** 2 + 0.1 * (code_dim - 5) ** 2 + (settings["noise"] == "gaussian")


def record_of(trials: Sequence[TrialRecord] = (), higher: bool = False) -> SearchRecord:
    """Return a search in SPACE."""
    data = space_as_data(SPACE)
    return SearchRecord("random", ["validation/loss"], [higher], data, ["model=vae"], list(trials))


def trials_of(count: int, value: Callable[[Mapping[str, str]], float] = value_of) -> list[TrialRecord]:
    """Return finished trials of a random search in SPACE."""
    trials = []
    for number in range(count):
        settings = draw_settings(SPACE, 0, number)
        trials.append(TrialRecord(number, settings, "finished", [value(settings)], f"run{number}", 3, 1.0))
    return trials


# --- Spaces -----------------------------------------------------------------------------------------------------------


def test_the_space_is_read_in_hydras_grammar() -> None:
    params = {"optimizer.lr": "tag(log, interval(1e-4, 1e-2))", "batch_size": "choice(32,64)", "objective": "test/sse"}
    arguments = ["batch_size=16", "model.code_dim=int(interval(2,8))", "epochs=range(2,9,3)", "model.hidden=[8],[8,4]"]
    space, fixed = read_space(params, ["search=vae", "noise.p=range(0.1,0.35,0.1)", *arguments])
    assert fixed == {"objective": "objective=test/sse", "batch_size": "batch_size=16"}
    assert space["optimizer.lr"] == Interval(1e-4, 1e-2, log=True)
    assert space["model.code_dim"] == Interval(2, 8, is_integer=True)
    assert space["epochs"] == Interval(2, 8, is_integer=True, step=3)
    assert space["model.hidden"] == Choice(("[8]", "[8,4]"))
    steps = space["noise.p"]
    assert isinstance(steps, Interval)
    assert {draw_text(steps, u / 100) for u in range(100)} == {"0.1", "0.2", "0.3"}, "the end of a range is excluded"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=vae"], "a search needs settings to vary"),
        (["optimizer.lr=interval(2,1)"], "from a number to a larger one"),
        (["optimizer.lr=tag(log,interval(0,1))"], "positive numbers alone"),
        (["search=vae,deep"], "a search has one space"),
    ],
)
def test_a_space_without_meaning_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_space({}, arguments)


@given(st.floats(1e-6, 1e3), st.floats(1.001, 1e4), st.floats(0, 1, exclude_max=True), st.booleans())
def test_a_real_number_is_at_its_quantile_of_the_distribution(low: float, ratio: float, u: float, log: bool) -> None:
    interval = Interval(low, low * ratio, log=log)
    drawn = float(draw_text(interval, u))
    distribution = stats.loguniform(low, low * ratio) if log else stats.uniform(low, low * ratio - low)
    assert interval.low <= drawn <= interval.high
    assert drawn == pytest.approx(distribution.ppf(u), rel=6e-4), "numbers are rounded to four digits"


@given(st.integers(1, 30), st.integers(1, 200), st.booleans())
def test_every_integer_of_an_interval_is_drawn_and_no_other(low: int, width: int, log: bool) -> None:
    interval = Interval(low, low + width, is_integer=True, log=log)
    drawn = {int(draw_text(interval, u / 20_000)) for u in range(20_000)}
    assert drawn == {*range(low, low + width + 1)}


# --- The loop ---------------------------------------------------------------------------------------------------------


class FakeRuns:
    """Runs that only write the files that a search reads; `failing` numbers of trials fail."""

    def __init__(self, directory: Path, failing: Sequence[int] = (), stop_at: int | None = None) -> None:
        self.directory, self.failing, self.stop_at = directory, failing, stop_at
        self.launched: list[int] = []

    def __call__(self, trials: Sequence[Trial]) -> list[Path]:
        paths = []
        for trial in trials:
            if trial.number == self.stop_at:
                raise KeyboardInterrupt
            self.launched.append(trial.number)
            paths.append(self.directory / f"run{trial.number}")
            (paths[-1] / ".hydra").mkdir(parents=True, exist_ok=True)
            self.write(RunDirectory(paths[-1]), trial)
        return paths

    def write(self, run: RunDirectory, trial: Trial) -> None:
        if trial.number in self.failing:
            run.write_metrics({"status": "failed", "cause": f"trial {trial.number} broke\nmore"})
            return
        line = {"epoch": 3, "validation/loss": value_of(trial.settings), "seconds": 0.5, "nll_constant": 0.0}
        run.write_history([{**line, "epoch": 2}, line])
        run.write_metrics({"status": "finished", "epochs": 3, "nll_constant": 0.0, "test/sse": 1.0})


def search_randomly(directory: Path, runs: FakeRuns, n_trials: int, batch_size: int = 1) -> SearchRecord:
    """Search at random, from search.json where the directory has one; return the search."""
    earlier = read_search(directory)
    study = RandomStudy(SPACE, 0, n_trials, earlier.trials if earlier else [], retry=False)
    run_search(directory, record_of(), study, runs, batch_size)
    search = read_search(directory)
    assert search is not None
    return search


def test_a_random_search_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = search_randomly(tmp_path / "whole", FakeRuns(tmp_path / "whole"), 7, batch_size=3)
    interrupted = FakeRuns(tmp_path / "parts", stop_at=4)
    with pytest.raises(KeyboardInterrupt):
        search_randomly(tmp_path / "parts", interrupted, 7)
    runs = FakeRuns(tmp_path / "parts")
    assert search_randomly(tmp_path / "parts", runs, 7) == whole
    assert runs.launched == [4, 5, 6]
    more = FakeRuns(tmp_path / "parts")
    assert search_randomly(tmp_path / "parts", more, 9).trials[:7] == whole.trials
    assert more.launched == [7, 8]
    assert len({str(trial.settings) for trial in whole.trials}) == 7
    assert whole.best()[0].values == [min(value_of(trial.settings) for trial in whole.trials)]
    assert whole.trials[0].seconds == 1.0


def test_a_failed_trial_does_not_end_a_search(tmp_path: Path) -> None:
    search = search_randomly(tmp_path, FakeRuns(tmp_path, failing=[0, 1, 4]), 6, batch_size=3)
    assert [trial.status for trial in search.trials] == [
        "failed",
        "failed",
        "finished",
        "finished",
        "failed",
        "finished",
    ]
    assert search.trials[0].cause.startswith("trial 0 broke")
    assert count_trials(search) == "6 trials: 3 finished, 3 failed"
    runs = FakeRuns(tmp_path)
    run_search(tmp_path, record_of(), RandomStudy(SPACE, 0, 6, search.trials, retry=True), runs, 1)
    assert runs.launched == [0, 1, 4], "retry=true"


@pytest.mark.parametrize("retry", ["retry=true", "retry=True"])
def test_retry_repeats_the_failed_trials_of_a_random_search(retry: str, tmp_path: Path) -> None:
    search = search_randomly(tmp_path, FakeRuns(tmp_path, failing=[1]), 3)
    plugin: Any = importlib.import_module("hydra_plugins.aetrain_search")
    sweeper = plugin.RandomSweeper(n_trials=3)
    sweeper.directory = tmp_path
    fixed = {"model": "model=vae", "retry": retry}
    study = sweeper.open_study(SPACE, [False], plugin._identity(search, fixed), fixed)
    assert [trial.number for trial in study.ask(9)] == [1]


def test_an_interrupted_trial_stays_one_to_continue(tmp_path: Path) -> None:
    class Interrupted(FakeRuns):
        def write(self, run: RunDirectory, trial: Trial) -> None:
            super().write(run, trial)
            if trial.number in (0, 1, 2):
                run.write_metrics({"status": "interrupted", "cause": "its job was cancelled"})

    search = search_randomly(tmp_path, Interrupted(tmp_path), 4)
    assert count_trials(search) == "4 trials: 1 finished, 3 running"
    runs = FakeRuns(tmp_path)
    assert count_trials(search_randomly(tmp_path, runs, 4)) == "4 trials: 4 finished"
    assert runs.launched == [0, 1, 2]


def test_a_search_ends_where_all_of_its_first_trials_fail(tmp_path: Path) -> None:
    runs = FakeRuns(tmp_path, failing=range(9))
    with pytest.raises(ConfigError, match="first 3 trials failed:\n  trial 0 broke"):
        search_randomly(tmp_path, runs, 9)
    assert runs.launched == [0, 1, 2]


def test_one_search_at_a_time_works_in_a_directory(tmp_path: Path) -> None:
    with searching_in(tmp_path), pytest.raises(ConfigError, match="a search in progress"), searching_in(tmp_path):
        pass
    with searching_in(tmp_path):
        pass


# --- Optuna -----------------------------------------------------------------------------------------------------------


def open_study(directory: Path, n_trials: int, storage: str = "", higher: bool = False, **search: str) -> Study:
    """Return a study by TPE, which begins to model the objective after four trials."""
    from aetrain.sweeps.search.optuna_study import OptunaStudy, StudySettings

    directory.mkdir(parents=True, exist_ok=True)
    sampler = {"_target_": "optuna.samplers.TPESampler", "seed": 1, "n_startup_trials": 4}
    settings = StudySettings(storage or str(directory / "study.journal"), "aetrain", sampler, n_trials)
    return OptunaStudy(settings, SPACE, [higher], search, directory)


def search_with_optuna(
    directory: Path, runs: FakeRuns, n_trials: int, storage: str = "", higher: bool = False
) -> SearchRecord:
    """Search with Optuna, from the storage where it has trials; return the search."""
    study = open_study(directory, n_trials, storage, higher)
    with searching_in(directory):
        run_search(directory, record_of(higher=higher), study, runs, 1)
    search = read_search(directory)
    assert search is not None
    return search


@needs_optuna
def test_an_interrupted_search_proposes_the_same_trials(tmp_path: Path) -> None:
    whole = search_with_optuna(tmp_path / "whole", FakeRuns(tmp_path / "whole"), 12)
    with pytest.raises(KeyboardInterrupt):
        search_with_optuna(tmp_path / "parts", FakeRuns(tmp_path / "parts", stop_at=7), 12)
    runs = FakeRuns(tmp_path / "parts")
    assert search_with_optuna(tmp_path / "parts", runs, 12) == whole
    assert runs.launched == [7, 8, 9, 10, 11], "the interrupted trial is continued under its number"


@needs_optuna
@pytest.mark.parametrize("higher", [False, True])
def test_optuna_gets_the_direction_and_a_database_keeps_the_trials(higher: bool, tmp_path: Path) -> None:
    import optuna

    storage = f"sqlite:///{tmp_path / 'study.db'}"
    runs = FakeRuns(tmp_path / "a", failing=[2])
    search = search_with_optuna(tmp_path / "a", runs, 8, storage, higher)
    values = [trial.values[0] for trial in search.trials if trial.values]
    assert search.best()[0].values == [max(values) if higher else min(values)]
    study = optuna.load_study(study_name="aetrain", storage=storage)
    assert study.best_value == (max(values) if higher else min(values))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2 + ["FAIL"] + ["COMPLETE"] * 5
    more = search_with_optuna(tmp_path / "b", FakeRuns(tmp_path / "b"), 10, storage, higher)
    assert [Path(trial.run).is_absolute() for trial in more.trials] == [True] * 8 + [False] * 2
    assert more.trials[2].cause.startswith("trial 2 broke")


@needs_optuna
def test_a_trial_of_a_search_that_is_alive_is_not_taken(tmp_path: Path) -> None:
    storage = str(tmp_path / "shared.journal")
    with searching_in(tmp_path / "alive"):
        taken = open_study(tmp_path / "alive", 5, storage).ask(1)
        assert [trial.number for trial in open_study(tmp_path / "other", 5, storage).ask(1)] == [1]
    assert open_study(tmp_path / "third", 5, storage).ask(1) == taken, "after its end, it is continued"


@needs_optuna
def test_a_storage_with_another_search_is_refused(tmp_path: Path) -> None:
    open_study(tmp_path, 3, settings="model=vae")
    open_study(tmp_path, 9, settings="model=vae")
    with pytest.raises(ConfigError, match="has another settings: choose another name"):
        open_study(tmp_path, 3, settings="model=deep")


@needs_optuna
@pytest.mark.parametrize("name", ["median", "halving", "hyperband"])
def test_a_run_is_pruned_where_optuna_itself_prunes_the_trial(name: str, tmp_path: Path) -> None:
    import optuna
    import yaml

    from aetrain.sweeps.search.optuna_study import Pruning, make_component, open_storage

    text = (CONFIG_DIR / "hydra" / "sweeper" / "pruner" / f"{name}.yaml").read_text()
    node, epochs = yaml.safe_load(text), 9
    location = str(tmp_path / "study.journal")
    ours = optuna.create_study(storage=open_storage(location), study_name="s")
    theirs = optuna.create_study(study_name="s", pruner=make_component(node, "pruner"))
    generator = random.Random(0)
    pruned = 0
    for number in range(24):
        trial, other = ours.ask(), theirs.ask()
        pruning = Pruning(location, "s", trial._trial_id, node, "validation/loss", epochs)
        level, lines = generator.random(), [{"epoch": 0, "validation/loss": 9.0}]
        assert pruning(lines) == "", "the untrained model is not reported"
        for epoch in range(1, epochs + 1):
            loss = level + generator.random() / (epoch + 1)
            lines.append({"epoch": epoch, "validation/loss": loss})
            other.report(loss, epoch)
            reason, expected = pruning(lines), other.should_prune() and epoch < epochs
            assert bool(reason) == expected, (number, epoch)
            if reason:
                assert f"pruned in epoch {epoch}" in reason
                pruned += 1
                break
        state = optuna.trial.TrialState.PRUNED if reason else None
        ours.tell(trial, None if reason else loss, state=state)
        theirs.tell(other, None if reason else loss, state=state)
    assert pruned > 2


# --- A run of a search ------------------------------------------------------------------------------------------------


def request_of(directory: Path, *overrides: str, prune: Prune | None = None, single: bool = False) -> RunRequest:
    """Return the request for a run of a search."""
    arguments = [*TINY, "dataset.validation=20", "epochs=3", *overrides, f"hydra.run.dir='{directory}'"]
    config, _, full_overrides = api.compose_config(arguments)
    return RunRequest(config, RunDirectory(directory), full_overrides, single, not single, prune)


def prune_after_two(lines: Sequence[Mapping[str, Any]]) -> str:
    return "pruned in epoch 2" if lines[-1]["epoch"] == 2 else ""


def test_a_pruned_run_is_not_evaluated_and_can_be_resumed_exactly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    request = request_of(tmp_path / "run", prune=prune_after_two)
    with pytest.raises(RunPruned):
        entry.run_request(request)
    run = request.run_dir
    assert run.metrics() == {"status": "pruned", "cause": "pruned in epoch 2"}
    assert json.loads(run.outcome_file.read_text())["status"] == "pruned"
    assert read_outcome(run, "validation/loss").status == "pruned"
    assert "ERROR" not in (run.path / "aetrain.log").read_text()
    assert entry.run_request(request_of(tmp_path / "run", prune=prune_after_two))["status"] == "pruned"
    entry.run_request(request_of(tmp_path / "run", single=True))
    entry.run_request(request_of(tmp_path / "whole", single=True))
    resumed, whole = run.metrics(), RunDirectory(tmp_path / "whole").metrics()
    assert resumed["status"] == "finished"
    assert resumed["test/loss"] == whole["test/loss"]


def test_a_run_returns_its_objective_to_hydra(tmp_path: Path) -> None:
    request = request_of(tmp_path / "run")
    metrics = entry.run_request(request)
    loss = request.run_dir.history()[-1]["validation/loss"]
    assert cli._objective(request.config, tmp_path / "run") == loss
    request.config.objective = ["validation/sse", "test/loss"]
    sse = request.run_dir.history()[-1]["validation/sse"]
    assert cli._objective(request.config, tmp_path / "run") == (sse, metrics["test/loss"])
    values = cli._objective(request.config, tmp_path / "absent")
    assert isinstance(values, tuple)
    assert all(map(math.isnan, values))


def test_an_objective_that_is_no_number_is_a_failure(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.write_history([{"epoch": 1, "validation/sse": math.inf, "nll_constant": 0.0}])
    run.write_metrics({"status": "finished", "epochs": 1, "nll_constant": 0.0})
    outcome = read_outcome(run, "validation/sse")
    assert (outcome.status, outcome.values) == ("failed", None)
    assert "inf" in outcome.cause


def test_a_run_of_a_search_does_not_select_on_the_test_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the search would select on the test set.*dataset.validation=5000"):
        entry.run_request(request_of(tmp_path, "dataset.validation=0"))


# --- Commands ---------------------------------------------------------------------------------------------------------

SEARCH = ("-m", *TINY[:3], "dataset.validation=20", "views=none", "device=cpu", "model=linear", "hydra.sweep.dir=s")


def search_in(folder: Path) -> SearchRecord:
    search = read_search(folder / "s")
    assert search is not None
    return search


@pytest.mark.slow
def test_random_search_by_the_command(tmp_path: Path) -> None:
    space = ["optimizer.lr=tag(log,interval(1e-3,1e-1))", "model.code_dim=choice(4,0)", "epochs=2"]
    arguments = [*SEARCH, *space, "hydra/sweeper=random", "hydra.sweeper.seed=1"]
    first = command([*arguments, "hydra.sweeper.n_trials=3"], tmp_path)
    assert first.code == 0, first.err
    search = search_in(tmp_path)
    assert {trial.status for trial in search.trials} == {"finished", "failed"}, "code_dim=0 is refused, the others run"
    again = command([*arguments, "hydra.sweeper.n_trials=4"], tmp_path)
    assert again.out.count("search: trial") == 1
    assert search_in(tmp_path).trials[:3] == search.trials
    other = command([*arguments, "hydra.sweeper.n_trials=4", "hydra.sweeper.seed=2"], tmp_path)
    assert "has another search" in other.err
    best = search_in(tmp_path).best()[0]
    assert f"best:    trial {best.number}: validation/loss" in again.out
    (line,) = [line for line in again.out.splitlines() if line.startswith("repeat:  aetrain ")]
    repeated = command([*line.split()[2:], "hydra.run.dir=repeated"], tmp_path)
    assert repeated.code == 0, repeated.err
    loss = RunDirectory(tmp_path / "repeated").history()[-1]["validation/loss"]
    assert [loss] == best.values
    page = (tmp_path / "s" / "report.html").read_text()
    assert "This command repeats the first one" in page
    assert (tmp_path / "s" / "figures" / "search_slices.png").is_file()


@pytest.mark.slow
@needs_optuna
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_optuna_prunes_runs_of_the_command(launcher: str, tmp_path: Path) -> None:
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    pruner = ["hydra.sweeper.pruner.n_startup_trials=2", "hydra.sweeper.pruner.n_warmup_steps=0"]
    space = ["optimizer.lr=tag(log,interval(1e-6,1e-1))", "epochs=4", "hydra.sweeper.n_trials=8", *pruner]
    parallel = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"] if launcher == "joblib" else []
    outcome = command([*SEARCH, *space, "hydra/sweeper=optuna", *parallel], tmp_path)
    assert outcome.code == 0, outcome.err
    search = search_in(tmp_path)
    states = [trial.status for trial in search.trials]
    assert len(states) == 8
    assert {*states} == {"finished", "pruned"}
    for trial in search.trials:
        run = RunDirectory(tmp_path / "s" / trial.run)
        assert run.status == trial.status
        assert len(run.history()) == 1 + trial.epochs
        assert (trial.epochs < 4) == (trial.status == "pruned")
    table = (tmp_path / "s" / "sweep.csv").read_text()
    assert table.count("pruned") >= states.count("pruned")


@pytest.mark.slow
@needs_optuna
def test_packed_runs_are_pruned(tmp_path: Path) -> None:
    space = ["optimizer.lr=tag(log,interval(1e-6,1e-1))", "epochs=4", "hydra.sweeper.n_trials=8"]
    pruner = ["hydra/sweeper/pruner=halving", "hydra.sweeper.pruner.min_resource=1"]
    launcher = ["hydra/launcher=packed", "hydra.launcher.size=8"]
    outcome = command([*SEARCH, *space, "hydra/sweeper=optuna", *pruner, *launcher], tmp_path)
    assert outcome.code == 0, outcome.err
    runs = [RunDirectory(tmp_path / "s" / trial.run) for trial in search_in(tmp_path).trials]
    assert len({run.history()[1]["seconds"] for run in runs}) == 1, "runs of one pack have equal shares of its time"
    assert {trial.status for trial in search_in(tmp_path).trials} == {"finished", "pruned"}


@pytest.mark.slow
@needs_optuna
def test_a_search_that_was_killed_ends_like_one_that_was_not(tmp_path: Path) -> None:
    space = ["optimizer.lr=tag(log,interval(1e-6,1e-1))", "epochs=6", "hydra.sweeper.n_trials=7"]
    sampler = ["hydra/sweeper=optuna", "hydra.sweeper.sampler.n_startup_trials=3"]
    arguments = [*SEARCH, "dataset.subset=1000", *space, *sampler, "hydra.sweeper.pruner.n_startup_trials=2"]
    (tmp_path / "whole").mkdir()
    assert command(arguments, tmp_path / "whole").code == 0
    killed = subprocess.Popen([*aetrain(), *arguments], cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (search := read_search(tmp_path / "s")) or len(search.trials) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    outcome = command(arguments, tmp_path)
    assert outcome.code == 0, outcome.err
    assert "trials have ended before" in outcome.out

    def results(folder: Path) -> list[TrialRecord]:
        return [replace(trial, seconds=0) for trial in search_in(folder).trials]

    assert results(tmp_path) == results(tmp_path / "whole")


PAGE = (ROOT / "docs" / "search.md").read_text()
COMMANDS = [line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S) for line in block.splitlines()]
QUICK = ("epochs=1", "dataset.subset=64", "dataset.test_subset=64", "dataset.validation=20", "views=none")


def test_the_page_has_commands_and_lists_all_options() -> None:
    assert len(COMMANDS) > 6
    for group in (GROUPS["search"], *(files_of(name) for name in ("sampler", "pruner"))):
        assert all(f"`{option}`" in PAGE for option in group)


def files_of(group: str) -> list[str]:
    """Return the options of a group of the sweeper by Optuna."""
    return [file.stem for file in (CONFIG_DIR / "hydra" / "sweeper" / group).glob("*.yaml")]


@pytest.mark.slow
@needs_optuna
@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("aetrain ")])
def test_commands_of_the_page(line: str, tmp_path: Path) -> None:
    if "joblib" in line:
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    trials = [] if "n_trials" in line else ["hydra.sweeper.n_trials=3"]
    words = [word for word in shlex.split(line)[1:] if not word.startswith("dataset.validation=")]
    outcome = command([*words, *QUICK, *trials], tmp_path)
    assert outcome.code == 0, outcome.err
    assert "repeat:  aetrain " in outcome.out


def test_a_space_needs_the_flag_of_a_sweep(tmp_path: Path) -> None:
    outcome = command(["search=vae", "model=vae"], tmp_path)
    assert outcome.code == 1
    assert outcome.err.startswith("aetrain: search=vae is a space of settings for many runs: add -m")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hydra/sweeper=optuna"], "hydra/sweeper=optuna needs Optuna: pip install 'aetrain[search]'"),
        (["hydra/sweeper=ax"], "hydra/sweeper=ax needs the package hydra-ax-sweeper"),
        (["hydra/sweeper=nevergrad"], "hydra/sweeper=nevergrad needs the package hydra-nevergrad-sweeper"),
        (["hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials=0 is no number of trials"),
        (["hydra.sweeper.direction=up"], "hydra.sweeper.direction=up does not fit objective=validation/loss"),
        (["objective=validation/kl"], "neither a higher nor a lower kl is better"),
        (["objective=validation/kl", "hydra.sweeper.direction=maximize"], "neither a higher nor a lower kl is better"),
        (["hydra.sweeper.seed=-1"], "hydra.sweeper.seed=-1 is no seed"),
        (["model=vae", "model.hiden=[4],[5]"], "no setting 'model.hiden'"),
    ],
)
def test_a_search_that_cannot_begin_leaves_nothing(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    outcome = command([*SEARCH, "search=training", *arguments], tmp_path)
    assert outcome.code == 1
    assert message in outcome.err
    assert len(outcome.err.splitlines()) <= 3
    assert not any(tmp_path.iterdir())


# --- The report -------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12), st.booleans())
def test_the_pareto_front_is_that_of_all_pairs(values: list[tuple[int, int]], higher: bool) -> None:
    trials = [TrialRecord(i, {}, "finished", [float(a), float(b)]) for i, (a, b) in enumerate(values)]
    search = replace(record_of(trials), objective=["a", "b"], higher_is_better=[higher, False])
    sign = -1 if higher else 1
    costs = [(sign * a, b) for a, b in values]
    front = {i for i, (a, b) in enumerate(costs) if not any(c <= a and d <= b and (c, d) != (a, b) for c, d in costs)}
    assert {trial.number for trial in search.best()} == front


def test_the_curve_of_the_best_so_far() -> None:
    values = [3.0, 4.0, 2.0, 5.0]
    trials = [TrialRecord(2 * i, {}, "finished", [value]) for i, value in enumerate(values)]
    trials.insert(1, TrialRecord(1, {}, "pruned"))
    assert best_so_far(record_of(trials)) == [(0, 3.0), (2, 3.0), (4, 2.0), (6, 2.0)]
    assert best_so_far(record_of(trials, higher=True)) == [(0, 3.0), (2, 4.0), (4, 4.0), (6, 5.0)]


def test_importance_is_that_of_the_settings_on_which_the_objective_depends() -> None:
    def by_lr(settings: Mapping[str, str]) -> float:
        return (math.log10(float(settings["optimizer.lr"])) + 3) ** 2

    importance = setting_importance(record_of(trials_of(40, by_lr)))
    assert importance is not None
    assert importance.explained > 0.7
    assert next(iter(importance.of_settings)) == "optimizer.lr"
    assert importance.of_settings["optimizer.lr"] > 0.7
    assert abs(importance.of_settings["noise"]) < 0.05
    generator = random.Random(0)
    noise = setting_importance(record_of(trials_of(40, lambda _: generator.random())))
    assert noise is not None
    assert max(noise.of_settings.values()) < 0.3, "of noise, a forest explains nothing that it has not seen"
    assert setting_importance(record_of(trials_of(9))) is None


@pytest.mark.parametrize("count", [0, 1, 2, 24])
def test_the_section_of_the_report(count: int, tmp_path: Path) -> None:
    trials = [*trials_of(count), TrialRecord(90, draw_settings(SPACE, 0, 90), "pruned", cause="<b>slow</b>")]
    search = record_of(trials)
    write_search(tmp_path, search)
    assert read_search(tmp_path) == search
    figures = write_search_figures(search, tmp_path / "figures")
    names = {0: set(), 1: set(), 2: {"best_so_far", "slices", "parallel"}}
    assert figures.keys() == names.get(count, {"best_so_far", "slices", "importance", "parallel"})
    section = search_section(search, figures)
    assert section is not None
    assert section.count("data:image") == len(figures)
    if count:
        assert repeat_command(search, search.best()[0]) in section.replace("&#x27;", "'")


def test_the_report_of_a_search_by_several_metrics(tmp_path: Path) -> None:
    trials = [replace(trial, values=[trial.number % 5, *(trial.values or ())]) for trial in trials_of(12)]
    search = replace(record_of(trials), objective=["validation/kl", "validation/nll"], higher_is_better=[True, False])
    figures = write_search_figures(search, tmp_path)
    assert figures.keys() == {"objectives", "slices", "importance", "parallel"}
    assert "Pareto front" in (search_section(search, figures) or "")


def test_a_damaged_file_of_a_search_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "search.json"
    for text in ("", "[]", "{}", '{"trials": 3}', '{"trials": [{"number": 1}]}', "[" * 100_000):
        file.write_text(text)
        assert read_search(tmp_path) is None
    write_search(tmp_path, record_of(trials_of(2)))
    whole = file.read_text()
    assert read_search(tmp_path) is not None
    for old, new in (("0.5", '"0.5"'), ('"finished"', "3"), ('"values": [', '"values": [1,'), ("[", "[NaN,")):
        file.write_text(whole.replace(old, new))
        assert file.read_text() == whole or read_search(tmp_path) is None
    generator = random.Random(0)
    for _ in range(300):
        start = generator.randrange(len(whole))
        file.write_text(whole[:start] + whole[start + generator.randrange(9) :])
        search = read_search(tmp_path)
        if search is not None:
            assert search_section(search, {}) is not None or not search.trials
