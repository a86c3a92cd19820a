"""The documents are correct: their extensions run, the files they name exist, their links lead somewhere."""

import importlib
import json
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import command
from conftest import ROOT, TINY

EXTENDING = (ROOT / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```", EXTENDING, re.M | re.S)
OPTIONS = [path.removeprefix("mine/").removesuffix(".yaml") for path, _ in BLOCKS if path.endswith(".yaml")]
LISTS = ("measures", "penalty", "views")  # groups whose options are combined
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture
def extensions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Write the files of docs/extending.md to a folder that Python imports from, and return the folder."""
    for path, text in BLOCKS:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for path, _ in BLOCKS:
        sys.modules.pop(path.removesuffix(".py"), None)


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
def test_an_extension_of_the_documents_trains(option: str, extensions: Path) -> None:
    group, name = option.split("/")
    tiny = [word for word in TINY if word.partition("=")[0] not in (group, "batch_size")]
    choice = f"{group}=[{name}]" if group in LISTS else f"{group}={name}"
    outcome = command(["--config-dir", "mine", *tiny, choice, "hydra.run.dir=run"], extensions)
    assert outcome.code == 0, outcome.err
    metrics = json.loads((extensions / "run" / "metrics.json").read_text())
    assert "test/nll" in metrics
    if group == "measures":
        assert f"test/{name}" in metrics
    if group == "views":
        assert (extensions / "run" / "figures" / f"{name}.png").stat().st_size


def test_the_extensions_of_the_documents_keep_their_contracts(extensions: Path) -> None:
    for name, test in vars(importlib.import_module("test_mine")).items():
        if name.startswith("test_"):
            test()


def test_the_example_in_plain_torch_learns(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples" / "minimal_vae.py"), run_name="__main__")
    test = [float(nats) for nats in re.findall(r"test -ELBO ([0-9.]+)", capsys.readouterr().out)]
    assert len(test) == 20
    assert test[-1] < 0.9 * test[0]


def test_every_file_that_a_document_names_exists() -> None:
    missing = []
    for document in DOCUMENTS:
        for name in re.findall(r"`((?:[a-z_]+/)+[a-z_]*(?:\.py|\.yaml|/)?)`", document.read_text()):
            if name.split("/")[0] in ("aetrain", "configs", "tests", "docs", "benchmarks", "examples"):
                missing += [f"{document.name}: {name}"] * (not (ROOT / name).exists())
    assert missing == []


@pytest.mark.parametrize("name", ["scale", "speed"])
def test_page_of_a_benchmark_is_made_from_its_record(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    benchmark = importlib.import_module(name)
    page = benchmark.DOCUMENT.read_text()
    monkeypatch.setattr(benchmark, "DOCUMENT", tmp_path / "page.md")
    benchmark.write_document()
    assert (tmp_path / "page.md").read_text() == page


def test_every_file_of_the_architecture_exists() -> None:
    architecture = (ROOT / "docs" / "architecture.md").read_text()
    names = re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)`", architecture)
    assert len(names) > 20
    files = [path for folder in ("aetrain", "tests", "hydra_plugins") for path in (ROOT / folder).rglob("*.py")]
    assert [name for name in names if not any(path.match(name) for path in files)] == []


def test_every_link_between_documents_leads_to_a_file() -> None:
    broken = []
    for document in DOCUMENTS:
        links = [link for link in re.findall(r"\]\(([^)\s#]+)[^)]*\)", document.read_text()) if "://" not in link]
        broken += [f"{document.name}: {link}" for link in links if not (document.parent / link).exists()]
    assert broken == []
