"""Vocabularies: the words that are the features of documents, and the weights of their counts.

Shapes: N documents, D words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:  # the import takes 0.1 s
    from scipy.sparse import csr_array

Weighting = Literal["counts", "log", "tfidf", "log_tfidf", "binary"]
StopWords = Literal["english"]


@dataclass(frozen=True)
class Vocabulary:
    """Words in alphabetical order, and the logarithm of the inverse share of training documents that have each."""

    words: tuple[str, ...]
    idf: tuple[float, ...]

    @classmethod
    def fit(cls, counts: "csr_array", all_words: Sequence[str], size: int) -> "Vocabulary":
        """Return the `size` words that training documents have most often, of the counts [N, D] of all words.

        Of words that are equally frequent the first ones in the alphabet are taken, and words that no document has are
        left out. idf is that of scikit-learn's TfidfTransformer: log((1 + N) / (1 + documents with the word)) + 1.
        """
        from sklearn.feature_extraction.text import TfidfTransformer

        totals = counts.sum(0)
        columns = np.argsort(-totals, kind="stable")[:size]
        columns = np.sort(columns[totals[columns] > 0])
        words = tuple(all_words[column] for column in columns)
        if not words:
            return cls((), ())
        return cls(words, tuple(TfidfTransformer().fit(counts[:, columns]).idf_.tolist()))

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Vocabulary":
        """Return the vocabulary of a saved run. Raise ValueError where it is none."""
        words, idf = state["words"], state["idf"]
        if len(words) != len(idf) or not words or not all(isinstance(word, str) for word in words):
            raise ValueError("it holds no words, or not one idf for each")
        return cls(tuple(words), tuple(float(value) for value in idf))

    def state(self) -> dict[str, Any]:
        """Return the content as JSON."""
        return {"words": list(self.words), "idf": list(self.idf)}

    def select(self, counts: "csr_array", all_words: Sequence[str]) -> "csr_array":
        """Return the columns [N, D] of the words of the vocabulary; those of words that no document has are 0."""
        from scipy.sparse import csr_array

        columns = {word: column for column, word in enumerate(all_words)}
        known = [(place, columns[word]) for place, word in enumerate(self.words) if word in columns]
        places, sources = np.array(known, dtype=np.int64).reshape(-1, 2).T
        ones = np.ones(len(known), dtype=counts.dtype)
        selection = csr_array((ones, (sources, places)), shape=(counts.shape[1], len(self.words)))
        selected = csr_array(counts @ selection)
        selected.sort_indices()
        return selected

    def weight(self, counts: "csr_array", weighting: Weighting) -> "csr_array":
        """Return the weights [N, D], float32, of the counts of words.

        `log` is log(1 + count), `binary` is 1 for every word that is there. `tfidf` is count times idf, with rows of
        length 1, as scikit-learn's TfidfTransformer returns it; `log_tfidf` has 1 + log(count) in place of the count,
        as its `sublinear_tf`.
        """
        from scipy.sparse import csr_array
        from sklearn.preprocessing import normalize

        weights = counts.astype(np.float64)
        match weighting:
            case "log":
                weights.data = np.log1p(weights.data)
            case "binary":
                weights.data = np.ones_like(weights.data)
            case "tfidf" | "log_tfidf":
                if weighting == "log_tfidf":
                    weights.data = 1 + np.log(weights.data)
                weights.data *= np.array(self.idf)[weights.indices]
                weights = normalize(weights) if weights.shape[0] else weights  # it refuses 0 rows
        return csr_array(weights.astype(np.float32))
