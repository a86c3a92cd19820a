"""Tables as data sets: files, columns, scaling, categories, splits, and the messages about bad files."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, RobustScaler, StandardScaler

import aetrain
from aetrain import testing
from aetrain.config.errors import ConfigError
from aetrain.data.examples import Examples
from aetrain.data.scikit_tables import BreastCancer, Diabetes, Wine
from aetrain.data.table import Table

LINEAR = ("model=linear", "model.code_dim=2", "epochs=1", "batch_size=8", "views=none", "device=cpu")
RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "age": [30.0, 41, np.nan, 22, 19, 55, 63, 28, 37, 44],
        "colour": ["red", "blue", "red", None, "green", "red", "blue", "blue", "red", "green"],
        "ok": [True, False, True, True, False, True, False, False, True, True],
        "kind": list("aabbaabbab"),
    }
)


def write(folder: Path, text: str | bytes, name: str = "t.csv") -> str:
    """Write a file and return its path."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def rows_of(dataset: Table) -> Examples:
    """Return all rows in the order of the file, in the units of the model."""
    splits = dataset.load()
    parts = [part for part in (splits.train, splits.validation, splits.test) if len(part)]
    order = torch.cat([part.rows for part in parts if part.rows is not None]).argsort()
    values = torch.cat([part.pixels for part in parts])[order].flatten(1)
    return Examples(values, feature_names=parts[0].feature_names)


@pytest.mark.parametrize(
    ("scaling", "scaler"), [("standard", StandardScaler), ("minmax", MinMaxScaler), ("robust", RobustScaler)]
)
def test_numbers_are_scaled_by_the_training_rows_as_scikit_learn_does(
    scaling: Any, scaler: Any, tmp_path: Path
) -> None:
    numbers = RNG.normal(50, 10, (30, 3))
    numbers[4, 1] = np.nan
    np.save(tmp_path / "x.npy", numbers)
    dataset = Table(path=str(tmp_path / "x.npy"), scaling=scaling, validation=5)
    splits = dataset.load()
    assert splits.train.rows is not None
    expected = scaler().fit(numbers[splits.train.rows]).transform(numbers)
    assert dataset.has_missing
    np.testing.assert_allclose(rows_of(dataset).pixels, expected, atol=1e-6)
    np.testing.assert_allclose(dataset.inverse(splits.test.values), numbers[splits.test.rows], rtol=1e-6)


def test_texts_are_one_hot_and_missing_entries_stay_missing(tmp_path: Path) -> None:
    dataset = Table(path=write(tmp_path, FRAME.to_csv(index=False)), label="kind", scaling="none")
    examples = rows_of(dataset)
    assert examples.feature_names == ("age", "colour=blue", "colour=green", "colour=red", "ok")
    expected = OneHotEncoder(sparse_output=False).fit_transform(FRAME[["colour"]].dropna())
    known = FRAME.colour.notna().to_numpy().copy()
    assert torch.equal(examples.pixels[torch.from_numpy(known), 1:4], torch.from_numpy(expected).float())
    assert examples.pixels[3].isnan().tolist() == [False, True, True, True, False], "the colour of row 4"
    assert examples.pixels[2].isnan().tolist() == [True, False, False, False, False]
    back = dataset.inverse(examples.pixels)
    pd.testing.assert_series_equal(back.age, FRAME.age)
    assert back.colour.fillna("").to_list() == FRAME.colour.fillna("").to_list()
    splits = dataset.load()
    assert splits.train.class_names == ("a", "b")
    labels = torch.cat([splits.train.classes, splits.test.classes])
    rows = torch.cat([part.rows for part in (splits.train, splits.test) if part.rows is not None])
    assert ["ab"[label] for label in labels[rows.argsort()]] == FRAME.kind.to_list()


def test_data_sets_of_vectors_keep_their_contract(tmp_path: Path) -> None:
    table = Table(path=write(tmp_path, FRAME.to_csv(index=False)), label="kind", test_fraction=0.3)
    for dataset in (table, Wine(missing=0.2), Diabetes(scaling="robust")):
        testing.check_dataset(dataset)


def test_numbers_can_be_categories_and_columns_can_be_dropped(tmp_path: Path) -> None:
    path = write(tmp_path, "zip,x,name\n1010,1,ann\n2020,2,bob\n1010,3,cid\n,4,dan\n")
    dataset = Table(path=path, categorical=["zip"], drop=["name"], scaling="none")
    assert rows_of(dataset).feature_names == ("zip=1010", "zip=2020", "x")


def test_a_column_of_splits_is_honoured(tmp_path: Path) -> None:
    words = ["train", "Training", "test", "val", "train", "testing"]
    path = write(tmp_path, "x,split\n" + "\n".join(f"{n},{word}" for n, word in enumerate(words)))
    splits = Table(path=path, scaling="none").load()
    values = {name: getattr(splits, name).pixels.flatten().tolist() for name in ("train", "validation", "test")}
    assert values == {"train": [0, 1, 4], "validation": [3], "test": [2, 5]}
    with pytest.raises(ValueError, match=r"validation=1 holds .* column 'split'.*use 0"):
        Table(path=path, validation=1).load()
    with pytest.raises(ValueError, match="column 'split' is 'tarin' in data row 2: use one of train, training"):
        Table(path=write(tmp_path, "x,split\n1,train\n2,tarin\n", "bad.csv")).load()


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".tsv", ".npy", ".npz"])
def test_formats_hold_the_same_numbers(suffix: str, tmp_path: Path) -> None:
    numbers = RNG.normal(0, 1, (12, 3)).round(6)
    frame, path = pd.DataFrame(numbers, columns=["x1", "x2", "x3"]), str(tmp_path / f"t{suffix}")
    if suffix == ".npy":
        np.save(path, numbers)
    elif suffix == ".npz":
        np.savez(path, x_train=numbers[:8], x_test=numbers[8:], feature_names=np.array(["x1", "x2", "x3"]))
    else:
        frame.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    dataset = Table(path=path, scaling="none")
    np.testing.assert_allclose(rows_of(dataset).pixels, numbers, atol=1e-6)
    assert rows_of(dataset).feature_names == ("x1", "x2", "x3")
    assert len(dataset.load().test) == (4 if suffix == ".npz" else 1)


def test_labels_of_an_npz_file_and_records_of_an_npy_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", x=np.arange(12.0).reshape(6, 2), y=np.array(list("uvuvuv")))
    assert Table(path=str(tmp_path / "t.npz")).load().train.class_names == ("u", "v")
    records = np.array([(1.0, 2), (3.0, 4), (5.0, 6)], dtype=[("length", "f8"), ("count", "i4")])
    np.save(tmp_path / "r.npy", records)
    assert rows_of(Table(path=str(tmp_path / "r.npy"))).feature_names == ("length", "count")


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.parquet").touch()

    def without_engine(*_: Any) -> None:
        raise ImportError("Unable to find a usable engine")

    with monkeypatch.context() as patch:
        patch.setattr(pd, "read_parquet", without_engine)
        with pytest.raises(ValueError, match=r"needs pyarrow: pip install 'aetrain\[parquet\]', or save it as .csv"):
            Table(path=str(tmp_path / "t.parquet")).load()
    pytest.importorskip("pyarrow")
    FRAME.to_parquet(tmp_path / "t.parquet")
    assert rows_of(Table(path=str(tmp_path / "t.parquet"), label="kind")).feature_names[:2] == ("age", "colour=blue")


def test_files_that_people_have(tmp_path: Path) -> None:
    german = write(tmp_path, "größe;preis;ort\n1,5;3;Köln\n2,5;4;Bonn\n".encode("cp1252"), "g.csv")
    with pytest.raises(ValueError, match=r"g.csv': line 1 is not utf-8 text: use dataset.encoding=cp1252"):
        Table(path=german).load()
    dataset = Table(path=german, encoding="cp1252", scaling="none")
    assert rows_of(dataset).feature_names == ("größe", "preis", "ort=Bonn", "ort=Köln")
    assert rows_of(dataset).pixels[:, 0].tolist() == [1.5, 2.5]
    assert dataset.conversions == ["decimal commas are read as points: größe"]
    quoted = write(tmp_path, '"a ""x""","b\nc"\n1,"u\nv"\n2,"w, z"\n', "q.csv")
    assert rows_of(Table(path=quoted)).feature_names == ('a "x"', "b\nc=u\nv", "b\nc=w, z")
    marked = write(tmp_path, b"\xef\xbb\xbfa,b\r\n1,2\r\n2,?\r\n3,4\r\n", "m.csv")
    assert rows_of(Table(path=marked)).feature_names == ("a", "b")
    assert Table(path=marked).has_missing
    bare = Table(path=write(tmp_path, "1.5,2\n3,4\n5,6\n", "n.csv"), scaling="none")
    assert rows_of(bare).pixels.tolist() == [[1.5, 2], [3, 4], [5, 6]]
    assert bare.conversions == ["the file has no header: its columns are called x1, x2"]
    text = write(tmp_path, "a,b\n1,2\n3,4\n", "u.csv")
    Path(text).write_text("a,b\n1,2\n3,4\n", encoding="utf-16")
    with pytest.raises(ValueError, match=r"use dataset.encoding=utf-16"):
        Table(path=text).load()
    assert rows_of(Table(path=text, encoding="utf-16")).feature_names == ("a", "b")


def test_words_of_missing_values_are_those_of_the_documentation(tmp_path: Path) -> None:
    words = ["", "?", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL"]
    rows = "".join(f"{number},{word},None\n" for number, word in enumerate([*words, "tile"]))
    dataset = Table(path=write(tmp_path, f"x,roof,garage\n{rows}"), scaling="none")
    rows_read = rows_of(dataset)
    assert rows_read.feature_names == ("x", "roof=tile", "garage=None")
    assert rows_read.pixels[:, 1].isnan().sum() == len(words)
    assert dataset.conversions == ["9 of 30 entries are missing values"]


def test_decimal_commas_stand_beside_whole_numbers_alone(tmp_path: Path) -> None:
    whole = Table(path=write(tmp_path, "a;b\n1,25;3\n2;4\n"), scaling="none")
    assert rows_of(whole).pixels[:, 0].tolist() == [1.25, 2]
    with pytest.raises(ValueError, match="column 'a' has numbers, but '1,5' in data row 1"):
        Table(path=write(tmp_path, "a;b\n1,5;3\n2.5;4\n")).load()


def test_all_rows_are_read_without_a_split(tmp_path: Path) -> None:
    splits = "".join(f"{number},test\n" for number in range(7))
    rows = write(tmp_path, f"x,split\n{splits}")
    dataset = Table(path=rows, scaling="none", window=3)
    trained = Table(path=write(tmp_path, "x\n" + "1\n2\n" * 20, "train.csv"), window=3, scaling="none")
    trained.load()
    dataset.restore(trained.fitted_state())
    everything = dataset.load_all()
    assert everything.pixels.flatten(1).tolist() == [[n, n + 1, n + 2] for n in range(5)]
    assert everything.rows is not None
    assert everything.rows.tolist() == [2, 3, 4, 5, 6]


MANY = "\n".join(f"{n},name{n}" for n in range(200))


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("age,kind\n1,a\n2,b\n", {"label": "knid"}, r"no column 'knid' for dataset.label; did you mean 'kind'"),
        ("age,kind\n1,a\n2,b\n", {"drop": ["x"]}, "no column 'x' for dataset.drop; the columns are age, kind"),
        ("age,kind\n1,a\n2,\n", {"label": "kind"}, "'kind' .* is empty in data row 2: add the label, or remove"),
        ("age,y\n1,0.5\n2,0.7\n", {"label": "y"}, r"column 'y' \(dataset.label\): label 0.5 is no whole number"),
        ("age,b\n1,2\ninf,3\n", {}, "column 'age', data row 2 is inf: mend the row, or leave the entry empty"),
        ("age,b\n30,2\n41,3\nabc,4\n", {}, "column 'age' has numbers, but 'abc' in data row 3: mend the row"),
        (f"x,name\n{MANY}", {}, r"'name' has 200 different texts such as 'name0' and 'name1'.*dataset.drop=\[name\]"),
        ("a,b\n1,2\n3,4,5\n", {}, "line 3 has 3 entries, and the header has 2"),
        ("a,b\n1,2,3\n3,4,5\n", {}, "rows have more entries than its header, which has 2"),
        ('a,b\n1,"2\n3,4\n', {}, "a quote opens in line 2 and is not closed"),
        ("", {}, "it is empty"),
        ("a,b\n", {}, "there are no rows"),
        ("kind\na\nb\n", {"label": "kind"}, "there are no columns beside kind"),
        ("a,b\n1,\n2,\n3,\n", {}, r"column 'b' has no value in a training row: use dataset.drop=\[b\]"),
        ("a,b\n1,2\n2,3\n", {"categorical": ["c"]}, "no column 'c' for dataset.categorical among a, b"),
        ("a,a,b\n1,2,3\n4,5,6\n", {}, "two columns are called 'a': rename one"),
        ('a,b\n"1,234",2\n850,3\n', {}, "column 'a' has 1,234, and its comma may be one of thousands or of decimals"),
        ("a,b\n1,2\n", {}, "there is no training example, only test examples: add rows"),
    ],
)
def test_bad_tables_are_one_message(text: str, settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"^path='.*t.csv': .*{message}"):
        Table(path=write(tmp_path, text), **settings).load()


def test_bad_files_are_one_message(tmp_path: Path) -> None:
    for name, content, message in [
        ("t.xlsx", b"", "it is no table: use a .csv, .csv.gz"),
        ("t.csv.gz", b"plain", "damaged .gz file"),
        ("t.csv.gz", gzip.compress(b"a,b\n" * 99)[:-9], "damaged .gz file"),
        ("t.npy", b"plain", "cannot be read .*numpy.save"),
        ("t.npz", b"plain", "cannot be read as an .npz file"),
    ]:
        with pytest.raises(ValueError, match=f"^path='.*{message}"):
            Table(path=write(tmp_path, content, name)).load()
    with pytest.raises(ValueError, match=r"it does not exist \(looked for .*gone.csv\)"):
        Table(path=str(tmp_path / "gone.csv")).load()
    np.save(tmp_path / "images.npy", np.zeros((5, 4, 4)))
    with pytest.raises(
        ValueError, match=r"it is float64 \[5, 4, 4\]: use numbers \[N, D\]; for images use dataset=npz"
    ):
        Table(path=str(tmp_path / "images.npy")).load()


def test_likely_mistakes_are_warned_of(tmp_path: Path) -> None:
    dataset = Table(path=write(tmp_path, "a,b,c\n1,7,10\n2,7,11\n3,7,12\n4,7,13\n"), label="c")
    dataset.load()
    assert dataset.warnings == [
        "column 'c' (dataset.label) has 4 classes in 4 rows: is it a label?",
        "test examples are of classes without training examples: 11",
        "constant in all training rows: b",
    ]
    assert rows_of(dataset).pixels[:, 1].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("dataset", "counts", "classes", "features"),
    [
        (BreastCancer(), (456, 113), ("malignant", "benign"), ("mean radius", "worst fractal dimension")),
        (Wine(), (143, 35), ("class 0", "class 1", "class 2"), ("alcohol", "proline")),
        (Diabetes(), (354, 88), (), ("age", "s6")),
    ],
)
def test_tables_of_scikit_learn(dataset: Any, counts: Any, classes: Any, features: Any) -> None:
    splits = dataset.load()
    assert (len(splits.train), len(splits.test)) == counts
    assert splits.train.class_names == classes
    assert (splits.train.feature_names[0], splits.train.feature_names[-1]) == features
    torch.testing.assert_close(splits.train.pixels.mean(0), torch.zeros(dataset.stored_shape), atol=1e-5, rtol=0)
    load = {BreastCancer: load_breast_cancer, Wine: load_wine}.get(type(dataset))
    if load is not None:
        original = load().data[splits.test.rows]
        np.testing.assert_allclose(dataset.inverse(splits.test.values), original, rtol=1e-5, atol=1e-6)
        assert splits.test.classes.tolist() == load().target[splits.test.rows].tolist()


def test_a_saved_run_converts_another_file_as_its_own(run: Callable[..., Path], tmp_path: Path) -> None:
    path = Path(write(tmp_path, "x,colour\n" + "\n".join(f"{n},{'ab'[n % 2]}" for n in range(20))))
    directory = run(*LINEAR, "dataset=table", f"dataset.path='{path}'")
    state = json.loads((directory / "preprocessing.json").read_text())["state"]
    assert state["columns"] == [{"name": "x", "categories": None}, {"name": "colour", "categories": ["a", "b"]}]
    other = write(tmp_path, "colour,extra,x\na,1,5\nc,2,100\n", "other.csv")
    words = [f"run={directory}", "mode=encode", f"dataset.path={other}"]
    aetrain.run(words)
    codes = np.load(next(directory.glob("eval/*/codes.npz")))["codes"]
    path.unlink()
    trained = aetrain.load(directory)
    frame = pd.DataFrame({"x": [5, 100], "colour": ["a", "c"]}, index=["p", "q"])
    np.testing.assert_allclose(trained.encode(frame), codes, rtol=1e-5, atol=1e-6)
    assert list(trained.reconstruct(frame).index) == ["p", "q"]
    with pytest.raises(ConfigError, match=r"dataset.path='.*t.csv': it does not exist"):
        _ = trained.data
    eval_words = [f"run={directory}", "mode=eval"]
    for content, message in [
        ("x\n1\n", "column 'colour' is missing"),
        ("x,colour\n,a\n", "it has missing values, but"),
    ]:
        with pytest.raises(ConfigError, match=message):
            aetrain.run([*eval_words, f"dataset.path={write(tmp_path, content, 'o.csv')}"])


@pytest.mark.parametrize("extra", [(), ("model.observed=true",)])
def test_encode_hides_no_values_of_other_data(extra: tuple[str, ...], run: Callable[..., Path], tmp_path: Path) -> None:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 3)), columns=list("abc"))
    path = write(tmp_path, frame.to_csv(index=False))
    model = [word.replace("linear", "deep") for word in LINEAR]
    directory = run(
        *model, "dataset=table", f"dataset.path={path}", "dataset.missing=0.4", "likelihood=gaussian", *extra
    )
    other = write(tmp_path, frame.to_csv(index=False), "other.csv")
    aetrain.run([f"run={directory}", "mode=encode", f"dataset.path={other}"])
    codes = np.load(next(directory.glob("eval/*/codes.npz")))["codes"]
    np.testing.assert_allclose(codes, aetrain.load(directory).encode(frame), rtol=1e-5, atol=1e-6)
