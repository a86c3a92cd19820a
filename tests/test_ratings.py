"""Data sets of ratings: files, splits, offsets, held-out users, and the published archives of MovieLens."""

import gzip
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aetrain.data import movielens
from aetrain.data.examples import Examples, Values
from aetrain.data.movielens import MovieLens
from aetrain.data.published_dataset import ArchiveError, PublishedFile
from aetrain.data.rating_bias import RatingBias, fit_bias
from aetrain.data.rating_dataset import known_entries
from aetrain.data.rating_files import Columns, RatingTable, read_ratings
from aetrain.data.rating_splits import hold_out_ratings, hold_out_targets
from aetrain.data.ratings import Ratings
from aetrain.data.sparse_rows import SparseRows

ROWS = "userId,movieId,rating,timestamp\n7,10,4.5,100\n7,2,3,50\n12,10,0.5,70\n"


def write(path: Path, content: str | bytes, encoding: str = "utf-8") -> Path:
    data = content if isinstance(content, bytes) else content.encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_ratings(folder: Path) -> Path:
    """Write a file with 400 ratings of 30 users and 40 items."""
    table = random_table(30, 40, 400)
    rows = zip(table.users, table.items, table.values, strict=True)
    return write(folder / "ratings.csv", "".join(f"{user},film {item},{value}\n" for user, item, value in rows))


def read(path: Path, encoding: str | None = None, **columns: str | int) -> list[tuple[str, str, float]]:
    table, _ = read_ratings(path, Columns(**columns), encoding, None)
    return [
        (table.user_names[user], table.item_names[item], value)
        for user, item, value in zip(table.users, table.items, table.values.tolist(), strict=True)
    ]


def random_table(num_users: int, num_items: int, count: int, seed: int = 0) -> RatingTable:
    rng = np.random.default_rng(seed)
    cells = rng.permutation(num_users * num_items)[:count]
    names = [tuple(map(str, range(number))) for number in (num_users, num_items)]
    values = rng.integers(1, 11, count) / 2
    return RatingTable(cells // num_items, cells % num_items, values, rng.random(count), *names)


@pytest.fixture
def ratings_file(tmp_path: Path) -> Path:
    """Return a file with 300 ratings of 20 users and 30 items."""
    table = random_table(20, 30, 300)
    assert table.times is not None
    rows = zip(table.users, table.items, table.values, table.times, strict=True)
    return write(
        tmp_path / "ratings.csv", "user,item,rating,time\n" + "".join(f"{u},{i},{r},{t}\n" for u, i, r, t in rows)
    )


@pytest.mark.parametrize(
    ("name", "content", "encoding"),
    [
        ("a.csv", ROWS, "utf-8"),
        ("a.csv.gz", ROWS, "utf-8"),
        ("a.csv", "\ufeff" + ROWS, "utf-8"),
        ("a.csv", ROWS, "utf-16"),
        ("a.csv", ROWS.replace(",", ";").replace(".", ","), "utf-8"),
        ("a.csv", "Movie ID,User ID,Stars\n10,7,4.5\n\n2,7,3\r\n10,12,0.5", "utf-8"),
        ("a.tsv", ROWS.replace(",", "\t"), "utf-8"),
        ("u.data", ROWS.partition("\n")[2].replace(",", "\t"), "utf-8"),
        ("a.dat", ROWS.partition("\n")[2].replace(",", "::"), "utf-8"),
    ],
)
def test_ratings_are_read_from_the_usual_files(name: str, content: str, encoding: str, tmp_path: Path) -> None:
    ratings = [("7", "10", 4.5), ("7", "2", 3.0), ("12", "10", 0.5)]
    assert read(write(tmp_path / name, content, encoding)) == ratings


def test_names_may_be_texts_with_line_breaks_and_numbers_sort_as_numbers(tmp_path: Path) -> None:
    table, _ = read_ratings(
        write(tmp_path / "a.csv", 'user,item,rating\n10,"A\nB, C",1\n9,Été,2\n'), Columns(), None, None
    )
    assert table.user_names == ("9", "10")
    assert table.item_names == ("A\nB, C", "Été")


def test_a_header_in_another_language_is_named_by_settings_or_places(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "Benutzer;Film;Bewertung\nAnna;Metropolis;4,5\n")
    with pytest.raises(ValueError, match=r"a\.csv: no column .*'Benutzer', 'Film', 'Bewertung'.*dataset\.user=NAME"):
        read(file)
    ratings = [("Anna", "Metropolis", 4.5)]
    assert read(file, user="Benutzer", item="Film", rating="Bewertung") == ratings
    assert read(file, user=1, item=2, rating=3) == ratings
    with pytest.raises(ValueError, match=r"dataset\.user=User: .* has no such column, but 'Benutzer'"):
        read(file, user="User")


def test_another_encoding_is_named_with_its_line_and_read_by_its_setting(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "user,item,rating\nAnna,Metropolis,5\nJosé,Été,4\n", "latin-1")
    with pytest.raises(ValueError, match=r"a\.csv line 3 is no text in utf-8: .*dataset\.encoding=latin-1"):
        read(file)
    assert read(file, "latin-1")[1] == ("José", "Été", 4.0)
    with pytest.raises(ValueError, match="encoding=latin-0 is unknown"):
        read(file, "latin-0")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1,2,3\n1,3,x\n", r"line 2: the rating 'x' is not a number from 1 to 5: correct it"),
        ("1,2,3\n1,3,nan\n", r"line 2: the rating 'nan' is not a number"),
        ("1,2,3\n1,3,6\n", r"line 2: the rating '6' is not a number from 1 to 5: .*dataset\.rating_range"),
        ('1,"a\nb",3\n1,3,6\n', r"line 3: the rating '6'"),
        ("1,2,3\n1,3\n", r"line 2 has 2 of 3 columns \(1, 3\)"),
        ("1,2,3\n,3,4\n", r"line 2 has no user"),
        ("1,2,3\n1, ,4\n", r"line 2 has no item"),
        ("1,2,3,now\n", r"line 1: the time 'now' is no number and no date"),
        ("user,item\n1,2\n", r"no column of the header \('user', 'item'\) has a usual name of the ratings"),
        ("user,item,rating\n", r"has a header but no ratings"),
        ("", r"is empty"),
        ('user,item,rating\n1,"a,3\n', r"line 2 has 2 of 3 columns"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_mend(content: str, message: str, tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", content)
    with pytest.raises(ValueError, match=r"a\.csv.*" + message):
        read_ratings(file, Columns(), None, (1, 5))


def test_the_last_of_repeated_ratings_is_kept(tmp_path: Path) -> None:
    table, sentence = read_ratings(write(tmp_path / "a.csv", "1,2,3,900\n1,2,4,100\n1,5,2,1\n"), Columns(), None, None)
    assert table.values.tolist() == [3, 2]
    assert sentence.startswith("1 rating is left out")
    assert sentence.endswith("the last rating by its time is kept")
    table, sentence = read_ratings(write(tmp_path / "b.csv", "1,2,3\n1,2,4\n1,5,2\n"), Columns(), None, None)
    assert table.values.tolist() == [4, 2]
    assert sentence.endswith("the last rating in the file is kept")


def test_offsets_are_the_solution_of_ridge_regression() -> None:
    table, shrinkage = random_table(6, 9, 40), 2.0
    bias = fit_bias(table, "bias", shrinkage)
    design = np.zeros((40, 15))
    design[np.arange(40), table.users] = design[np.arange(40), 6 + table.items] = 1
    target = design.T @ (table.values - table.values.mean())
    expected = np.linalg.solve(design.T @ design + shrinkage * np.eye(15), target)
    assert np.allclose([*bias.users, *bias.items], expected, atol=1e-4)
    users = fit_bias(table, "user", 0)
    assert users.predict(table.users[:1], table.items[:1])[0] == pytest.approx(
        table.values[table.users == table.users[0]].mean()
    )
    assert not fit_bias(table, "none", 1).predict(table.users, table.items).any()


def test_the_last_ratings_of_each_user_are_for_the_test() -> None:
    table = random_table(10, 40, 120)
    assert table.times is not None
    train, validation, test = hold_out_ratings(table, "last", 0.2, 15)
    assert len(validation) == 15
    assert sorted([*train, *validation, *test]) == list(range(120))
    for user in range(10):
        own = [table.times[part][table.users[part] == user] for part in (train, validation, test)]
        assert len(own[2]) == max(1, round(0.2 * sum(map(len, own))))
        assert own[0].max() < own[2].min()
        assert not len(own[1]) or own[0].max() < own[1].min() < own[2].min()


def test_a_user_with_one_rating_is_trained_on() -> None:
    table = RatingTable(np.array([0, 1, 1]), np.array([0, 0, 1]), np.ones(3), None, ("a", "b"), ("x", "y"))
    train, _, test = hold_out_ratings(table, "last", 0.1, 0)
    assert (train.tolist(), test.tolist()) == ([0, 1], [2])
    assert hold_out_targets(table, "random", 0.5).sum() == 1
    assert not hold_out_targets(table, "last", 0.5)[0]


def entries(examples: Examples, values: Values | None) -> dict[tuple[str, str], float]:
    """Return the known values of examples by the names of their row and feature."""
    assert values is not None
    row, column, value = known_entries(values)
    names = examples.names
    return {(names[r], examples.feature_names[c]): v for r, c, v in zip(row, column, value.tolist(), strict=True)}


def test_examples_are_rows_of_users_or_of_items_with_the_same_ratings(ratings_file: Path) -> None:
    settings: dict[str, Any] = {"path": str(ratings_file), "center": "none", "validation": 40}
    by_user, by_item = (Ratings(rows=rows, **settings) for rows in ("users", "items"))
    users, items = by_user.load(), by_item.load()
    assert (by_user.stored_shape, by_item.stored_shape) == ((1, 1, 30), (1, 1, 20))
    known = {(user, item): value for user, item, value in read(ratings_file)}
    held_out = [entries(part, part.targets) for part in (users.validation, users.test)]
    train = entries(users.train, users.train.values)
    assert [*map(len, (train, *held_out))] == [230, 40, 30]
    assert train | held_out[0] | held_out[1] == known
    assert {(user, item): value for (item, user), value in entries(items.train, items.train.values).items()} == train
    for part in (users.validation, users.test):  # the input is the training ratings of the row
        own = {key: value for key, value in train.items() if key[0] in part.names}
        assert entries(part, part.values) == own
    assert entries(by_user.load_all(), by_user.load_all().values) == known


@pytest.mark.parametrize("rows", ["users", "items"])
def test_offsets_of_the_training_ratings_are_subtracted_and_added_back(rows: Any, ratings_file: Path) -> None:
    dataset = Ratings(path=str(ratings_file), rows=rows)
    test = dataset.load().test
    known = {(user, item): value for user, item, value in read(ratings_file)}
    held_out = {key if rows == "users" else key[::-1]: value for key, value in entries(test, test.targets).items()}
    users, items = (np.array([int(key[place]) for key in held_out]) for place in (0, 1))
    assert dataset.to_ratings(users, items, np.array([*held_out.values()])) == pytest.approx(
        [known[key] for key in held_out], abs=1e-6
    )
    assert dataset.to_ratings(users[:1], items[:1], np.array([99.0])) == 5.0  # the largest rating of the file
    metrics = dataset.baseline_metrics(test)
    assert metrics["bias_rmse"] == pytest.approx(np.square([*held_out.values()]).mean() ** 0.5, abs=1e-6)
    train = [value for key, value in known.items() if key not in held_out]
    errors = [known[key] - np.mean(train) for key in held_out]
    assert metrics["mean_rmse"] == pytest.approx(np.square(errors).mean() ** 0.5)


def test_a_saved_run_knows_users_items_and_offsets_without_the_file(ratings_file: Path, tmp_path: Path) -> None:
    dataset = Ratings(path=str(ratings_file))
    splits = dataset.load()
    state = json.loads(json.dumps(dataset.fitted_state()))
    other = Ratings(path=str(tmp_path / "new.csv"))
    other.restore(state)
    assert other.stored_shape == (1, 1, 30)
    write(tmp_path / "new.csv", "user,item,rating\nnew,3,5\nnew,unknown,5\n0,4,1\n")
    examples = other.load_all()
    assert examples.names == ["0", "new"]
    assert "1 ratings are left out, of items that the run was not trained on" in other.conversions
    bias = RatingBias.from_state(state["bias"])
    offset = (5 - bias.mean - bias.items[3]) / (1 + dataset.center_shrinkage)
    assert entries(examples, examples.values) == pytest.approx(
        {("0", "4"): 1 - bias.predict(np.array([0]), np.array([4]))[0], ("new", "3"): offset * dataset.center_shrinkage}
    )
    same = Ratings(path=str(ratings_file))
    same.restore(state)
    again = same.load()
    assert entries(again.test, again.test.targets) == entries(splits.test, splits.test.targets)


def test_implicit_ratings_hold_users_out(ratings_file: Path) -> None:
    dataset = Ratings(
        path=str(ratings_file), implicit=True, threshold=3, min_ratings=3, test_fraction=0.2, validation=3
    )
    splits = dataset.load()
    high = {(user, item) for user, item, value in read(ratings_file) if value >= 3}
    names = [set(part.names) for part in (splits.train, splits.validation, splits.test)]
    assert [*map(len, names)] == [13, 3, 4]
    assert len(set.union(*names)) == 20
    train = entries(splits.train, splits.train.values)
    assert set(train.values()) == {1.0}
    assert set(train) == {key for key in high if key[0] in names[0]}
    assert set(splits.train.feature_names) == {item for _, item in train}
    for part in (splits.validation, splits.test):
        inputs, targets = (
            {key for key, value in entries(part, values).items() if value} for values in (part.values, part.targets)
        )
        known = {key for key in high if key[0] in part.names and key[1] in part.feature_names}
        assert not inputs & targets
        assert inputs | targets == known
        for user in part.names:
            own = [sum(key[0] == user for key in keys) for keys in (targets, known)]
            assert own[0] == max(1, round(0.2 * own[1]))
    assert splits.test.kind == "counts"
    assert not splits.test.values.dense().isnan().any() if isinstance(splits.test.values, SparseRows) else False


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"test_fraction": 1.0}, "test_fraction=1.0 leaves nothing"),
        ({"target_fraction": 0.0}, "target_fraction=0.0 is no share"),
        ({"center_shrinkage": -1.0}, "center_shrinkage=-1.0 is negative"),
        ({"rating_range": [5, 1]}, r"rating_range=\[5, 1\] is no range"),
        ({"implicit": True, "rows": "items"}, "rows=items does not fit implicit=true"),
        ({"implicit": True, "threshold": 9}, "threshold=9 and min_ratings=5 leave 0 of 20 users"),
        ({"validation": 270}, "validation=270 leaves nothing to train on: 270 ratings are not for the test"),
        ({"implicit": True, "min_ratings": 1, "validation": 18}, "validation=18 leaves nothing to train on"),
        ({"classes": ["1"]}, r"classes=\[1\] needs examples with classes"),
        ({"missing": 0.5}, "missing=0.5 needs dense values"),
    ],
)
def test_a_wrong_setting_has_one_message(settings: dict[str, Any], message: str, ratings_file: Path) -> None:
    with pytest.raises(ValueError, match=message):
        Ratings(path=str(ratings_file), **settings).load()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing\.csv does not exist"):
        Ratings(path=str(tmp_path / "nothing.csv")).load()
    with pytest.raises(ValueError, match=r"a\.txt is of an unknown kind: use one of \.csv"):
        Ratings(path=str(write(tmp_path / "a.txt", ROWS))).load()


TITLES = {
    "movies.csv": 'movieId,title,genres\n2,"Été, L\'",x\n10,B (1999),y\n',
    "u.item": "2|Été, L'|x\n10|B (1999)|y\n",
}
TITLES["movies.dat"] = "2::Été, L'::x\n10::B (1999)::y\n"


def write_version(folder: Path, version: str) -> Path:
    """Write the two files of a version of MovieLens into a folder."""
    layout = movielens.LAYOUT_OF[version]
    folder.mkdir(parents=True, exist_ok=True)
    rows = ROWS if layout.has_header else ROWS.partition("\n")[2]
    delimiter = {"latest-small": ",", "100k": "\t", "1m": "::"}[version]
    write(folder / layout.ratings, rows.replace("0.5", "1").replace(",", delimiter), layout.encoding)
    write(folder / layout.titles, TITLES[layout.titles], layout.encoding)
    return folder


@pytest.mark.parametrize("version", movielens.LAYOUT_OF)
def test_versions_of_movielens_are_read_from_a_folder(version: Any, tmp_path: Path) -> None:
    write_version(tmp_path / f"ml-{version}", version)
    for path in (tmp_path, tmp_path / f"ml-{version}"):
        dataset = MovieLens(path=str(path), version=version)
        splits = dataset.load()
        assert splits.train.feature_names == ("Été, L'", "B (1999)")
        assert len(splits.train) + len(splits.test) >= 2


def test_an_archive_of_movielens_is_verified_and_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_version(tmp_path / "source", "1m")
    archive = tmp_path / "data" / "MovieLens" / "raw" / "ml-1m.zip"
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as content:
        for file in source.iterdir():
            content.write(file, f"ml-1m/{file.name}")

    def fail(*_: Any) -> None:
        raise ArchiveError("it could not be downloaded (no network)")

    monkeypatch.setattr(movielens, "download", fail)
    dataset = MovieLens(path=str(tmp_path / "data"), version="1m")
    with pytest.raises(ValueError, match=r"ml-1m\.zip is damaged .*could not be downloaded .*: put ml-1m\.zip"):
        dataset.load()
    assert [file.name for file in archive.parent.parent.iterdir()] == ["raw"]
    monkeypatch.setitem(movielens.DIGESTS, "1m", hashlib.sha256(archive.read_bytes()).hexdigest())
    assert dataset.load().train.feature_names == ("Été, L'", "B (1999)")
    archive.unlink()
    assert MovieLens(path=str(tmp_path / "data"), version="1m").load().train.feature_names == ("Été, L'", "B (1999)")
    with pytest.raises(ValueError, match=r"ml-100k\.zip is missing, and it could not be downloaded"):
        MovieLens(path=str(tmp_path / "data"), version="100k").load()


def test_a_downloaded_archive_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_version(tmp_path / "source", "100k")

    def download(published: PublishedFile, folder: Path) -> None:
        assert published.urls == ["https://files.grouplens.org/datasets/movielens/ml-100k.zip"]
        with zipfile.ZipFile(folder / published.name, "w") as content:
            for file in source.iterdir():
                content.write(file, f"ml-100k/{file.name}")
        digest = hashlib.sha256((folder / published.name).read_bytes()).hexdigest()
        monkeypatch.setitem(movielens.DIGESTS, "100k", digest)

    monkeypatch.setattr(movielens, "download", download)
    assert MovieLens(path=str(tmp_path / "data"), version="100k").load().train.feature_names[1] == "B (1999)"
    assert (tmp_path / "data" / "MovieLens" / "raw" / "ml-100k.zip").is_file()
