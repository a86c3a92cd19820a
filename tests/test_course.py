"""The course is correct: its commands run, its pictures exist, and its table has the commands of its lessons."""

import re
from pathlib import Path

import pytest
from command import command
from conftest import ROOT, TINY

import aetrain

DOCS = ROOT / "docs"
COURSE = (DOCS / "course.md").read_text()
MIN_LESSONS = 12
QUICK = ("epochs=1", "dataset.subset=64", "dataset.test_subset=64", "batch_size=32", "views=none", "device=cpu")
NEEDS_28_PIXELS = ("experiment=sparse_kl_crops",)  # random crops of 10x10 pixels; the embedded digits have 8x8
PRETRAINED = ("experiment=hinton_rbm", "experiment=pretrain_finetune")  # experiments with a setting pretrain.epochs


def shell_lines(text: str) -> list[str]:
    """Return the lines of all sh blocks of a Markdown text."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def lessons() -> dict[int, str]:
    """Return the text of each numbered section by its number."""
    sections = re.split(r"^## ", COURSE, flags=re.M)[1:]
    numbered = [(re.match(r"(\d+) ", section), section) for section in sections]
    return {int(number[1]): section for number, section in numbered if number}


LESSONS = lessons()
COMMANDS = [line for line in shell_lines(COURSE) if line.startswith("aetrain ")]
TRAINING = [line for line in COMMANDS if "mode=" not in line]


def tiny_overrides(words: list[str]) -> list[str]:
    """Return the overrides that make a command of the course small enough for a test."""
    extra = [setting for setting in QUICK if setting != "views=none" or not _sets(words, "views")]
    if any(word in PRETRAINED for word in words) and "pretrain=none" not in words:
        extra.append("pretrain.epochs=1")
    if "experiment=pretrain_finetune" in words:
        extra += ["measures.few_labels.labels=[20]", "measures.few_labels.steps=5", "measures.few_labels.epochs=1"]
    return extra


def _sets(words: list[str], setting: str) -> bool:
    return any(word.startswith(f"{setting}=") for word in words)


def training_commands() -> list[object]:
    """Return the commands that train; some need the real data."""
    return [pytest.param(line, marks=pytest.mark.data if needs_data(line) else ()) for line in TRAINING]


def needs_data(line: str) -> bool:
    return any(word in NEEDS_28_PIXELS for word in line.split())


def test_lessons_are_numbered_in_order_and_enough() -> None:
    assert list(LESSONS) == list(range(1, len(LESSONS) + 1))
    assert len(LESSONS) >= MIN_LESSONS


@pytest.mark.parametrize("number", LESSONS)
def test_lesson_has_two_commands_a_picture_and_all_parts(number: int) -> None:
    lesson = LESSONS[number]
    assert len([line for line in shell_lines(lesson) if line.startswith("aetrain ")]) >= 2
    assert re.search(r"!\[[^]]+\]\(figures/", lesson)
    assert "**Look at**" in lesson
    assert "**One thing to change:**" in lesson


def test_table_has_the_first_command_of_each_lesson() -> None:
    rows = re.findall(r"^\| (\d+) \| [^|]+ \| `([^`]+)` \|", COURSE, re.M)
    assert {int(number): line for number, line in rows} == {n: shell_lines(text)[0] for n, text in LESSONS.items()}


def test_link_targets_exist() -> None:
    titles = re.findall(r"^## (.+)", COURSE, re.M)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    for target in re.findall(r"\]\(([^)]+)\)", COURSE):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        else:
            assert (DOCS / target.partition("#")[0]).is_file(), target


@pytest.mark.slow
@pytest.mark.parametrize("line", training_commands())
def test_training_commands_run(line: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    words = line.split()[1:]
    extra = tiny_overrides(words)
    if needs_data(line):
        extra.append(f"data_dir={request.getfixturevalue('data_dir')}")
    else:
        extra.append("dataset=digits")
    outcome = command([*words, *extra], tmp_path)
    assert outcome.code == 0, outcome.err
    assert list((tmp_path / "outputs").rglob("metrics.json"))


def test_report_of_all_runs(tmp_path: Path) -> None:
    (line,) = [line for line in COMMANDS if "mode=report" in line]
    aetrain.run([*TINY, f"hydra.run.dir={tmp_path / 'outputs' / 'RUN'}"])
    outcome = command(line.split()[1:], tmp_path)
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "outputs" / "report.html").is_file()
    assert (tmp_path / "outputs" / "report.csv").is_file()


def test_other_commands_are_those_of_the_readme() -> None:
    """TensorBoard does not end by itself: test_readme.py starts it with the same commands."""
    readme = shell_lines((ROOT / "README.md").read_text())
    rest = [line for line in shell_lines(COURSE) if line not in TRAINING and "mode=report" not in line]
    assert rest
    assert set(rest) <= set(readme)


def test_run_writes_the_pictures_that_the_course_names(tmp_path: Path) -> None:
    small = [setting for setting in TINY if not setting.startswith("views=")]
    views = "views=[default,neighbours]"
    aetrain.run([*small, views, "model=vae", f"hydra.run.dir={tmp_path / 'RUN'}"])
    pictures = set(re.findall(r"`(figures/[\w-]+\.png)`", COURSE))
    assert pictures
    for picture in pictures:
        assert (tmp_path / "RUN" / picture).is_file(), picture
