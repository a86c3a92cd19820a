"""Data sets of documents, which are the counts of their words.

Shapes: N documents, D words of the vocabulary.
"""

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, final

import numpy as np
import torch

from aetrain.data.class_numbers import number_labels
from aetrain.data.dataset import Dataset, fixed_order
from aetrain.data.documents import Documents, Stamp, TextFiles, TextTable, check_encoding_name
from aetrain.data.examples import Examples, Splits
from aetrain.data.sparse_rows import SparseRows
from aetrain.data.split_folders import File, SplitFolders, class_labels, paths_below
from aetrain.data.user_files import check_fraction, test_count
from aetrain.data.vocabulary import StopWords, Vocabulary, Weighting
from aetrain.model.records import Kind

if TYPE_CHECKING:  # the import takes 0.1 s
    from scipy.sparse import csr_array

SPLITS = ("train", "test", "validation")  # in the order of `Dataset.read`


class Source(Protocol):
    """A place of documents. It can be hashed, and two of equal value have the same documents."""

    def read(self) -> Documents:
        """Return the documents. Raise ValueError where they cannot be read."""
        ...

    def __hash__(self) -> int: ...


class WordCounts(NamedTuple):
    """Documents as the counts of all of their words."""

    counts: "csr_array"  # [N, all words]
    words: tuple[str, ...]  # in alphabetical order
    labels: Sequence[str] | None
    splits: Sequence[str] | None


@lru_cache(maxsize=1)  # for the runs of a pack, and because the number of words is needed before the data
def count_words(source: Source, stop_words: StopWords | None) -> WordCounts:
    """Return the counts of all words of the documents of a source."""
    from scipy.sparse import csr_array

    documents = source.read()
    vectorizer = make_vectorizer(stop_words)
    try:
        counts = csr_array(vectorizer.fit_transform(documents.texts))
        words = tuple(vectorizer.get_feature_names_out().tolist())
    except ValueError:  # no document has a word
        counts, words = csr_array((len(documents.texts), 0), dtype=np.int64), ()
    return WordCounts(counts, words, documents.labels, documents.splits)


def make_vectorizer(stop_words: StopWords | None, vocabulary: Sequence[str] | None = None) -> Any:
    """Return scikit-learn's CountVectorizer: words are lower case, of two or more letters or digits."""
    from sklearn.feature_extraction.text import CountVectorizer

    return CountVectorizer(stop_words=stop_words, vocabulary=vocabulary)


@dataclass(kw_only=True)
class TextDataset(Dataset):
    """Documents, each of them the counts of the words of a vocabulary [1, 1, D]. A subclass states their `source`.

    The vocabulary is the `words` words that the training documents have most often, without `stop_words`. Words are
    lower case, of two or more letters or digits. `weighting` is what a count becomes: `counts` leaves it as it is,
    `log` is log(1 + count), `binary` is 1, and `tfidf` weighs rare words more, with a length of 1 of each document
    (Salton & Buckley 1988, "Term-weighting approaches in automatic text retrieval"); `log_tfidf` does so with
    1 + log(count).
    """

    kind: ClassVar[Kind] = "counts"

    words: int = 2000
    weighting: Weighting = "counts"
    stop_words: StopWords | None = None
    _vocabulary: Vocabulary | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.words < 1:
            raise ValueError(f"words={self.words} is too small: use the number of words of the vocabulary, 1 or more")

    @abstractmethod
    def source(self) -> Source:
        """Return the place of the documents. Raise ValueError where there is none; add messages."""

    @property
    def noun(self) -> str:
        """The word for an example in messages."""
        return "document"

    @property
    def has_integers(self) -> bool:
        """Tell whether values are whole numbers: not weights."""
        return self.weighting in ("counts", "binary")

    @property
    def state_format(self) -> str:
        """The name of the vocabulary's format, which all data sets of documents share."""
        return "vocabulary"

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(1, 1, D), from the training documents, or from the vocabulary of the run."""
        return 1, 1, len(self.vocabulary.words)

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary of the training documents, or of the run."""
        if self._vocabulary is None:
            train = self.split_examples(*self._number_and_check(self.read()))[0]
            self._vocabulary = self._fit(train)
        return self._vocabulary

    def _fit(self, train: Examples) -> Vocabulary:
        assert isinstance(train.values, SparseRows)
        vocabulary = Vocabulary.fit(train.values.matrix, self._word_counts().words, self.words)
        if not vocabulary.words:
            stop = "" if self.stop_words is None else f" that is not in stop_words={self.stop_words}"
            raise ValueError(f"no training document has a word of two or more letters{stop}: check the texts")
        return vocabulary

    def fitted_state(self) -> Mapping[str, Any]:
        """Return the words of the vocabulary and their idf."""
        return self.vocabulary.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the vocabulary of a saved run."""
        self._vocabulary = Vocabulary.from_state(state)

    def _word_counts(self) -> WordCounts:
        return count_words(self.source(), self.stop_words)

    def read(self) -> tuple[Examples, ...]:
        """Return the documents of the splits as the counts of all of their words; `convert` selects and weighs them."""
        documents, splits = self._read_documents()
        return tuple(documents[rows] for rows in self._split_rows(splits, len(documents)))

    def read_undivided(self) -> tuple[Examples, ...]:
        """Return all documents as `read`, without a split; those of folders in their splits, as `files` has them."""
        return self.read() if self.files() is not None else (self._read_documents()[0],)

    def _read_documents(self) -> tuple[Examples, Sequence[str] | None]:
        """Return all documents, and their splits where the source states them."""
        counts, _, labels, splits = self._word_counts()
        documents = Examples(SparseRows(counts), rows=torch.arange(counts.shape[0]), kind=self.kind)
        if labels is not None:
            (numbers,), class_names = number_labels([np.array(labels)])
            documents = replace(documents, labels=torch.from_numpy(numbers), class_names=class_names)
        return documents, splits

    def _split_rows(self, splits: Sequence[str] | None, count: int) -> list[torch.Tensor]:
        """Return the places of the training, test and, where there are some, validation documents."""
        names = np.array(splits if splits is not None else ["train"] * count)
        rows = {name: torch.from_numpy(np.flatnonzero(names == name)) for name in SPLITS}
        if not len(rows["train"]):
            raise ValueError("no document is of the split train: name the split of each training document so")
        if not len(rows["test"]):
            rows["train"], rows["test"] = self._cut_test_rows(rows["train"])
        if not len(rows["validation"]):
            del rows["validation"]
        else:
            self.check_own_validation("the column of the splits")
        return [*rows.values()]

    def _cut_test_rows(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return training and test documents out of those of a source without test documents."""
        raise ValueError("no document is of the split test: name the split of each test document so")

    def load(self) -> Splits:
        """Return the splits, as `Dataset.load`, and say how many documents have no word of the vocabulary."""
        splits = super().load()
        self._describe([splits.train, splits.validation, splits.test])
        return splits

    def load_all(self) -> Examples:
        """Return all documents, as `Dataset.load_all`, and say how many have no word of the vocabulary."""
        documents = super().load_all()
        self._describe([documents])
        return documents

    def _describe(self, parts: Sequence[Examples]) -> None:
        total = empty = 0
        for part in parts:
            assert isinstance(part.values, SparseRows)
            total += len(part)
            empty += int((np.diff(part.values.matrix.indptr) == 0).sum())
        if len(self.vocabulary.words) < self.words:
            self.add_conversion(
                f"the training documents have {len(self.vocabulary.words):,} words, fewer than dataset.words="
                f"{self.words:,}: all are used"
            )
        if empty:
            self.add_conversion(
                f"{empty:,} of {total:,} documents have no word of the vocabulary: all their counts are 0"
            )

    def convert(self, examples: Examples, split_number: int) -> Examples:
        """Return the documents of a split as the weights of the words of the vocabulary."""
        assert isinstance(examples.values, SparseRows)
        counts = self.vocabulary.select(examples.values.matrix, self._word_counts().words)
        return self._weighted(examples, counts)

    def vectorize(self, texts: Sequence[str]) -> Examples:
        """Return new documents as the weights of the words of the vocabulary."""
        from scipy.sparse import csr_array

        words = self.vocabulary.words
        counts = csr_array(make_vectorizer(None, words).transform(texts))
        return self._weighted(Examples(SparseRows(counts), kind=self.kind), counts)

    def split_words(self, text: str) -> list[str]:
        """Return the different words of a text in their order, without stop words."""
        return [*dict.fromkeys(make_vectorizer(self.stop_words).build_analyzer()(text))]

    def texts(self) -> Sequence[str]:
        """Return the texts of all documents, in the order of their rows."""
        return self.source().read().texts

    def _weighted(self, examples: Examples, counts: "csr_array") -> Examples:
        weights = SparseRows(self.vocabulary.weight(counts, self.weighting))
        return replace(examples, values=weights, feature_names=self.vocabulary.words)


@final
@dataclass(kw_only=True)
class Text(TextDataset):
    """Your own documents: a table (.csv, .tsv, .jsonl, also as .gz), or a folder of .txt files.

    A table has a column `text`, a column `label` (null: the documents have no classes) and, if it has the splits, a
    column `split` with train, test or validation. The folders inside a folder may be the splits `train`, `test` and
    `val`, and the folders inside these the classes, as for dataset=folder. Without test documents `test_fraction` of
    the training documents are for testing, the same ones in every run. `encoding` is that of files without a byte order
    mark.
    """

    path: str
    text: str = "text"
    label: str | None = "label"
    split: str | None = "split"
    encoding: str = "utf-8"
    test_fraction: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(self.test_fraction)
        check_encoding_name(self.encoding)

    @property
    def _is_folder(self) -> bool:
        return os.path.isdir(os.path.expanduser(self.path))

    def source(self) -> Source:
        """Return the table, or the files of the folder."""
        if not self._is_folder:
            return TextTable(self.path, self.text, self.label, self.split, self.encoding)
        parts = self._split_files()
        files = [file for part in parts for file in part]
        numbers, names = class_labels(files)
        labels = None if numbers is None else tuple(names[number] for number in numbers)
        splits = tuple(name for name, part in zip(SPLITS, parts, strict=False) for _ in part)
        return TextFiles(tuple(Stamp.of(file.path) for file in files), labels, splits, self.encoding)

    def files(self) -> tuple[list[str], ...] | None:
        """Return the paths of the files of each split below `path`; None for a table."""
        if not self._is_folder:
            return None
        return tuple(paths_below(self.path, part) for part in self._split_files())

    def _split_files(self) -> list[list[File]]:
        return SplitFolders(self.path, frozenset({".txt"}), "texts", self.test_fraction).files(self)

    def _cut_test_rows(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return training and test documents out of those of a table without test documents."""
        order, count = fixed_order(len(rows)), test_count(len(rows), self.test_fraction)
        self.add_conversion(
            f"{self.path} has no test documents: {count:,} of {len(rows):,} are for test "
            f"(dataset.test_fraction={self.test_fraction:g})"
        )
        return rows[order[count:].sort().values], rows[order[:count].sort().values]
