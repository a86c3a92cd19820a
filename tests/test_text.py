"""Documents as counts of words: files that are read, the vocabulary, its weights, and runs on them."""

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from command import command
from documents import read_rows, write_documents
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

import aetrain
from aetrain.config.errors import ConfigError
from aetrain.data.examples import Examples
from aetrain.data.newsgroups import Newsgroups
from aetrain.data.sparse_rows import SparseRows
from aetrain.data.text import Text


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return a .csv file of 60 documents, 20 of each of three topics."""
    write_documents(tmp_path / "documents.csv")
    return tmp_path / "documents.csv"


def dense(examples: Examples) -> np.ndarray[Any, Any]:
    """Return the weights of documents [N, D]."""
    assert isinstance(examples.values, SparseRows)
    return examples.values.dense().flatten(1).numpy()


WEIGHTS: dict[str, Callable[[Any, Any], Any]] = {
    "counts": lambda train, counts: counts.toarray(),
    "log": lambda train, counts: np.log1p(counts.toarray()),
    "binary": lambda train, counts: np.minimum(counts.toarray(), 1),
    "tfidf": lambda train, counts: TfidfTransformer().fit(train).transform(counts).toarray(),
    "log_tfidf": lambda train, counts: TfidfTransformer(sublinear_tf=True).fit(train).transform(counts).toarray(),
}


@pytest.mark.parametrize("weighting", WEIGHTS)
def test_documents_are_what_scikit_learns_vectorizers_return(table: Path, weighting: Any) -> None:
    rows = read_rows(table)
    texts = {split: [row["text"] for row in rows if row["split"] == split] for split in ("train", "test")}
    all_words = CountVectorizer(stop_words="english")
    totals = all_words.fit_transform(texts["train"]).sum(0).A1
    ranked = sorted(zip(-totals, all_words.get_feature_names_out(), strict=True))
    vectorizer = CountVectorizer(
        vocabulary=sorted(word for _, word in ranked[:10])
    )  # max_features breaks ties as it likes
    train, test = vectorizer.transform(texts["train"]), vectorizer.transform(texts["test"])

    splits = Text(path=str(table), words=10, weighting=weighting, stop_words="english").load()
    assert splits.train.feature_names == tuple(vectorizer.get_feature_names_out())
    assert splits.train.kind == "counts"
    np.testing.assert_allclose(dense(splits.train), WEIGHTS[weighting](train, train), rtol=1e-6)
    np.testing.assert_allclose(dense(splits.test), WEIGHTS[weighting](train, test), rtol=1e-6)
    names = [splits.test.class_name(label) for label in splits.test.classes.tolist()]
    assert names == [row["label"] for row in rows if row["split"] == "test"]
    assert splits.test.rows is not None
    assert [rows[row]["split"] for row in splits.test.rows.tolist()] == ["test"] * len(splits.test)


def test_the_vocabulary_is_that_of_the_training_documents_that_are_kept(table: Path) -> None:
    """Held-out documents and documents of other classes add no word."""
    rows = read_rows(table)
    dataset = Text(path=str(table), words=1000, validation=5, classes=["food", "cars"])
    splits = dataset.load()
    assert splits.train.rows is not None
    texts = [rows[row]["text"] for row in splits.train.rows.tolist()]
    assert dataset.vocabulary.words == tuple(CountVectorizer().fit(texts).get_feature_names_out())
    assert dataset.image_shape == (1, 1, len(dataset.vocabulary.words))
    assert "the training documents have" in dataset.conversions[0], "fewer words than asked for, and says so"
    assert not {"orbit", "rocket"} & {*dataset.vocabulary.words}


def write_json(table: Path) -> Path:
    lines = [json.dumps(row) for row in read_rows(table)]
    file = table.with_suffix(".jsonl.gz")
    file.write_bytes(gzip.compress("\n".join([*lines, ""]).encode()))
    return file


def write_compressed(table: Path) -> Path:
    file = table.with_suffix(".csv.gz")
    file.write_bytes(gzip.compress(table.read_bytes()))
    return file


def write_semicolons(table: Path) -> Path:
    """As Excel writes a table in many countries."""
    file = table.with_name("excel.csv")
    file.write_text(table.read_text().replace(",", ";"), encoding="utf-8-sig")
    return file


def write_utf_16(table: Path) -> Path:
    file = table.with_name("utf-16.csv")
    file.write_text(table.read_text(), encoding="utf-16")
    return file


@pytest.mark.parametrize("write", [write_json, write_compressed, write_semicolons, write_utf_16])
def test_every_format_holds_the_same_documents(table: Path, write: Callable[[Path], Path]) -> None:
    expected = Text(path=str(table)).load()
    splits = Text(path=str(write(table))).load()
    assert splits.train.feature_names == expected.train.feature_names
    np.testing.assert_array_equal(dense(splits.train), dense(expected.train))
    assert splits.test.classes.tolist() == expected.test.classes.tolist()


def test_a_folder_of_texts_holds_splits_and_classes(table: Path, tmp_path: Path) -> None:
    for number, row in enumerate(read_rows(table)):
        file = tmp_path / "texts" / row["split"] / row["label"] / f"{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(row["text"])
    expected = Text(path=str(table)).load()
    splits = Text(path=str(tmp_path / "texts")).load()
    assert splits.train.feature_names == expected.train.feature_names
    assert splits.train.class_names == expected.train.class_names
    for split, other in ((splits.train, expected.train), (splits.test, expected.test)):
        order = np.lexsort(dense(split).T), np.lexsort(dense(other).T)
        np.testing.assert_array_equal(dense(split)[order[0]], dense(other)[order[1]])
        assert split.classes[order[0]].tolist() == other.classes[order[1]].tolist()
    assert splits.test.names[0].startswith("test/")


def test_a_file_without_splits_is_split_in_the_same_way_in_every_run(tmp_path: Path) -> None:
    write_documents(tmp_path / "documents.csv", with_splits=False)
    dataset = Text(path=str(tmp_path / "documents.csv"), test_fraction=0.25)
    splits = dataset.load()
    assert (len(splits.train), len(splits.test)) == (45, 15)
    assert "15 of 60 are for test" in dataset.conversions[0]
    again = Text(path=str(tmp_path / "documents.csv"), test_fraction=0.25).load()
    assert again.test.rows is not None
    assert splits.test.rows is not None
    assert again.test.rows.tolist() == splits.test.rows.tolist()
    assert set(splits.test.rows.tolist()).isdisjoint(again.train.rows.tolist() if again.train.rows is not None else [])


def test_documents_without_a_known_word_stay_and_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "documents.csv"
    file.write_text(
        'split,label,text\ntrain,x,one two\ntrain,y,""\ntest,x,three ? 4\ntest,y,"two\n\nlines, ""quoted"" two"\n'
    )
    dataset = Text(path=str(file), weighting="tfidf")
    splits = dataset.load()
    np.testing.assert_allclose(dense(splits.train), np.array([[2**-0.5, 2**-0.5], [0, 0]]), rtol=1e-6)
    np.testing.assert_allclose(dense(splits.test), np.array([[0, 0], [0, 1]]))
    assert "2 of 4 documents have no word of the vocabulary: all their counts are 0" in dataset.conversions


BAD_TABLES = {
    "a,b\n1,2\n": "has no column 'text', but 'a', 'b': set dataset.text to one of them",
    "text\nhello there\n": "has no column 'label', but 'text': set dataset.label to one of them, or to null",
    "text,label\nhello there,x,y\n": "row 1 \\(line 2\\) has 3 columns, but the header has 2",
    'text,label\n"hello\nthere",x\n"no end,x\n': "cannot be read after row 1 .*: check the quotes there",
    "text,label\nhello there,\n": "row 1 has '' as 'label': give each document a label, or use dataset.label=null",
    "text,label,split\nhello there,x,dev\n": "row 1 has 'dev' as 'split': use train, test, val",
    "text,label,split\nhello there,x,test\n": "no document is of the split train",
    "text,label\n": "has no documents",
    "": "has no documents",
    "text,label\n?,x\n!,y\n": "no training document has a word of two or more letters: check the texts",
}


@pytest.mark.parametrize("content", BAD_TABLES)
def test_a_bad_table_has_one_message(tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.csv").write_text(content)
    with pytest.raises(ValueError, match=BAD_TABLES[content]) as error:
        Text(path=str(tmp_path / "bad.csv")).load()
    assert "\n" not in str(error.value)


BAD_LINES = {
    '{"text": "a b", "label": 1}\n\n{"text": ': "row 3 is no JSON",
    '{"text": "a b", "label": 1}\n[1]': "row 2 is no object",
    '{"text": "a b", "label": 1}\n{"text": null, "label": 1}': "row 2 has None as 'text'",
    '{"text": "a b", "label": 1}\n{"text": "c d"}': "row 2 has None as 'label'",
}


@pytest.mark.parametrize("content", BAD_LINES)
def test_a_bad_line_of_json_has_one_message(tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.jsonl").write_text(content)
    with pytest.raises(ValueError, match=BAD_LINES[content]):
        Text(path=str(tmp_path / "bad.jsonl")).load()


def test_another_encoding_is_read_where_it_is_named(tmp_path: Path) -> None:
    file = tmp_path / "latin.csv"
    file.write_bytes("text,label\nHallo Welt,x\nGrüße aus Köln,y\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"row 2 is not in utf-8: byte 0xfc follows 'Gr'; set dataset\.encoding"):
        Text(path=str(file)).load()
    dataset = Text(path=str(file), encoding="latin-1", test_fraction=0.4)
    assert set(dataset.vocabulary.words) <= {"hallo", "welt", "grüße", "aus", "köln"}
    with pytest.raises(ValueError, match="encoding='utf-ate' is not known"):
        Text(path=str(file), encoding="utf-ate")
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "one.txt").write_bytes("Köln".encode("latin-1"))
    (folder / "two.txt").write_text("Berlin")
    with pytest.raises(ValueError, match=r"one\.txt is not in utf-8: byte 0xf6 follows 'K'"):
        Text(path=str(folder)).load()


def test_wrong_settings_and_paths_have_one_message(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="words=0 is too small"):
        Text(path="x.csv", words=0)
    with pytest.raises(ValueError, match=r"does not exist .*: use a file \.csv"):
        Text(path=str(tmp_path / "none.csv")).load()
    (tmp_path / "documents.pdf").touch()
    with pytest.raises(ValueError, match=r"is of another kind: use a file \.csv"):
        Text(path=str(tmp_path / "documents.pdf")).load()
    (tmp_path / "broken.csv.gz").write_bytes(b"text,label")
    with pytest.raises(ValueError, match=r"cannot be read .*gzip"):
        Text(path=str(tmp_path / "broken.csv.gz")).load()


def test_newsgroups_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    requests = []

    def fetch(*, subset: str, **settings: Any) -> SimpleNamespace:
        requests.append({"subset": subset, **settings})
        return SimpleNamespace(data=[f"{subset} one", "two two"], target=[1, 0], target_names=["a.b", "c.d"])

    monkeypatch.setattr("sklearn.datasets.fetch_20newsgroups", fetch)
    splits = Newsgroups(data_dir=str(tmp_path)).load()
    assert [request["subset"] for request in requests] == ["train", "test"]
    assert requests[0]["data_home"] == tmp_path
    assert requests[0]["remove"] == ("headers", "footers", "quotes")
    assert splits.train.feature_names == ("one", "train", "two")
    np.testing.assert_array_equal(dense(splits.test), [[1, 0, 0], [0, 0, 2]])
    assert splits.test.class_names == ("a.b", "c.d")
    assert splits.test.classes.tolist() == [1, 0]


def test_newsgroups_without_a_network_have_one_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*arguments: Any, **settings: Any) -> None:
        raise OSError("<urlopen error [Errno -3] Temporary failure in name resolution>")

    monkeypatch.setattr("sklearn.datasets._base.urlretrieve", refuse)
    with pytest.raises(
        ValueError, match=r"could not be downloaded .*name resolution.*set dataset\.path to a local"
    ) as error:
        Newsgroups(data_dir=str(tmp_path / "data")).load()
    assert "\n" not in str(error.value)


def test_newsgroups_read_a_local_file(table: Path) -> None:
    splits = Newsgroups(data_dir="nowhere", path=str(table), words=7).load()
    np.testing.assert_array_equal(dense(splits.train), dense(Text(path=str(table), words=7).load().train))


SMALL = (
    "dataset=text",
    "dataset.words=20",
    "model.hidden=[8]",
    "model.code_dim=2",
    "batch_size=16",
    "views=none",
    "device=cpu",
)


def test_a_saved_run_converts_documents_with_its_own_vocabulary(
    run: Callable[..., Path], table: Path, tmp_path: Path
) -> None:
    run_dir = run(*SMALL, f"dataset.path={table}", "dataset.weighting=tfidf", "epochs=1")
    state = json.loads((run_dir / "preprocessing.json").read_text())["state"]
    assert state == Text(path=str(table), words=20).fitted_state()

    run("mode=eval", f"run={run_dir}", name="eval")
    saved = [json.loads((directory / "metrics.json").read_text()) for directory in (run_dir, tmp_path / "eval")]
    tests = [{tag: value for tag, value in metrics.items() if tag.startswith("test/")} for metrics in saved]
    assert tests[0] == pytest.approx(tests[1])

    other = tmp_path / "other.csv"
    other.write_text("text,label\nrocket engine soup,x\nnew words alone,y\nthe orbit,x\n")
    table.unlink()  # the shape of the model comes from the vocabulary
    loaded = aetrain.load(run_dir)
    assert loaded.model.image_shape == (1, 1, 20)
    run("mode=encode", f"run={run_dir}", f"dataset.path={other}", name="codes")
    with np.load(next(run_dir.rglob("codes.npz"))) as arrays:
        codes, rows = arrays["codes"], arrays["rows"]
    dataset = Text(path=str(other), words=20, weighting="tfidf")
    dataset.restore(state)
    documents = dataset.vectorize(["rocket engine soup", "new words alone", "the orbit"])
    assert rows.tolist() == [0, 1, 2]
    expected = loaded.model.mean_code(dataset.prepare(documents.values))
    np.testing.assert_allclose(codes, expected.detach().numpy(), rtol=1e-5, atol=1e-6)

    divided = tmp_path / "divided.csv"
    divided.write_text("text,split\nrocket engine soup,test\nnew words alone,test\n")
    dataset = Text(path=str(divided), words=20, weighting="tfidf", label=None)
    dataset.restore(state)
    np.testing.assert_array_equal(dense(dataset.load_all()), dense(documents[:2]))


def test_a_damaged_vocabulary_has_one_message(run: Callable[..., Path], table: Path) -> None:
    run_dir = run(*SMALL, f"dataset.path={table}", "epochs=0")
    file = run_dir / "preprocessing.json"
    file.write_text(file.read_text().replace('"idf": [', '"idf": [1.0, '))
    with pytest.raises(ConfigError, match=r"preprocessing\.json is damaged"):
        run("mode=eval", f"run={run_dir}", name="eval")


def test_search_prints_the_documents_nearest_to_words_and_to_a_row(
    run: Callable[..., Path], table: Path, tmp_path: Path
) -> None:
    run_dir = run(*SMALL, f"dataset.path={table}", "dataset.words=60", "dataset.stop_words=english", "epochs=1")
    outcome = command([f"run={run_dir}", "mode=search", "query=The soup, the Unheardof bread"], tmp_path)
    assert outcome.code == 0, outcome.err
    assert "query: soup, bread; not in the vocabulary: unheardof" in outcome.out
    rows = read_rows(table)
    lines = outcome.out.split("nearest by input:")[1].splitlines()
    assert lines[1].split() == ["index", "class", "cosine", "row", "text"]
    cosines = []
    for line in lines[2:12]:
        _, label, cosine, row, *text = line.split()
        assert rows[int(row)]["label"] == label
        assert rows[int(row)]["text"].startswith(" ".join(text).removesuffix("..."))
        assert rows[int(row)]["split"] == "train"
        cosines.append(float(cosine))
    assert cosines == sorted(cosines, reverse=True)
    assert {"soup", "bread"} & {*rows[int(lines[2].split()[3])]["text"].split()}

    training_row = int(lines[2].split()[3])
    outcome = command([f"run={run_dir}", "mode=search", f"query=row:{training_row}"], tmp_path)
    assert f"query: row {training_row}, class {rows[training_row]['label']}" in outcome.out
    found = [line.split()[3] for line in outcome.out.split("nearest by code:")[1].splitlines()[2:12]]
    assert len(set(found)) == 10
    assert str(training_row) not in found, "the query is not its own neighbour"
    for query, expected in {
        "query=row:60": "query=row:60 is none of the 60 examples: their rows are 0 to 59",
        "query=Unheardof": "query='Unheardof' has no word of the vocabulary: use words such as",
    }.items():
        outcome = command([f"run={run_dir}", "mode=search", query], tmp_path)
        assert outcome.code == 1
        assert expected in outcome.err


def test_a_run_on_documents_is_resumed_exactly(run: Callable[..., Path], table: Path) -> None:
    overrides = (*SMALL, f"dataset.path={table}", "dataset.weighting=log_tfidf", "noise=masking")
    whole, part = run(*overrides, "epochs=3", name="whole"), run(*overrides, "epochs=2", name="part")
    run(*overrides, "epochs=3", name="part")
    weights = [(directory / "checkpoint" / "model.safetensors").read_bytes() for directory in (whole, part)]
    assert weights[0] == weights[1]
    histories = [
        [{**json.loads(line), "seconds": 0} for line in (directory / "history.jsonl").read_text().splitlines()]
        for directory in (whole, part)
    ]
    assert histories[0] == histories[1]


@pytest.mark.slow
def test_runs_on_documents_are_packed(run: Callable[..., Path], table: Path, tmp_path: Path) -> None:
    words = ["-m", *SMALL, f"dataset.path={table}", "epochs=1", "seed=0,1", "hydra.sweep.dir=sweep"]
    outcome = command([*words, "hydra/launcher=packed"], tmp_path)
    assert outcome.code == 0, outcome.err
    assert "continue individually" not in outcome.out + outcome.err
    alone = run(*SMALL, f"dataset.path={table}", "epochs=1", "seed=1", name="alone")
    files = [tmp_path / "sweep" / "seed=1" / "metrics.json", alone / "metrics.json"]
    losses = [json.loads(file.read_text())["test/loss"] for file in files]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_perplexity_is_that_of_the_words_of_all_documents(run: Callable[..., Path], table: Path) -> None:
    """Computed word by word: exp of the mean of -log p over all words of the test documents."""
    run_dir = run(*SMALL, f"dataset.path={table}", "epochs=1")
    perplexity = json.loads((run_dir / "metrics.json").read_text())["test/token_perplexity"]
    model, test = aetrain.load(run_dir).model, Text(path=str(table), words=20).load().test
    counts = torch.from_numpy(dense(test))
    with torch.no_grad():
        p = model.decode(model.mean_code(counts.view(-1, 1, 1, 20))).flatten(1).double().softmax(1)
    log_p = [math.log(p[row, word]) for row, word in counts.nonzero().tolist() for _ in range(int(counts[row, word]))]
    assert len(log_p) == counts.sum()
    assert perplexity == pytest.approx(math.exp(-sum(log_p) / len(log_p)), rel=1e-5)
