"""The tables that scikit-learn contains: small data sets of vectors, without a download."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from aetrain.data.table_content import TableContent
from aetrain.data.user_files import Array
from aetrain.data.vector_dataset import VectorDataset

TEST_EVERY = 5  # of the rows of a class


@dataclass(kw_only=True)
class ScikitTable(VectorDataset):
    """A table of scikit-learn. Every fifth row of a class is for testing."""

    @abstractmethod
    def load_bunch(self) -> Any:
        """Return scikit-learn's record of the table as a frame."""

    def read_content(self) -> TableContent:
        """Return the features and, where the target is a class, the labels."""
        bunch = self.load_bunch()
        labels = np.asarray(bunch.target) if "target_names" in bunch else None
        order = np.arange(len(bunch.data)) if labels is None else np.argsort(labels, kind="stable")
        splits = np.full(len(bunch.data), "train")
        splits[order[TEST_EVERY - 1 :: TEST_EVERY]] = "test"
        frame = bunch.data.rename(columns=lambda name: name.replace("_", " "))
        if labels is None:
            return TableContent(frame, splits=splits)
        return TableContent(frame, labels.astype(np.int64), _names(bunch.target_names), splits)


def _names(target_names: Array) -> tuple[str, ...]:
    return tuple(str(name).replace("_", " ") for name in target_names)


@final
@dataclass(kw_only=True)
class BreastCancer(ScikitTable):
    """Breast Cancer Wisconsin (Street et al. 1993): 569 tumours, 30 measurements of cell nuclei, malignant or benign.

    456 rows to train on, 113 to test with.
    """

    def load_bunch(self) -> Any:
        """Return scikit-learn's record."""
        from sklearn.datasets import load_breast_cancer

        return load_breast_cancer(as_frame=True)


@final
@dataclass(kw_only=True)
class Wine(ScikitTable):
    """Wine recognition (Forina et al. 1988): 178 wines, 13 chemical measurements, 3 cultivars.

    143 rows to train on, 35 to test with.
    """

    def load_bunch(self) -> Any:
        """Return scikit-learn's record."""
        from sklearn.datasets import load_wine

        return load_wine(as_frame=True)


@final
@dataclass(kw_only=True)
class Diabetes(ScikitTable):
    """Diabetes (Efron et al. 2004): 442 patients, 10 measurements in their original units, without labels.

    Its target is a number, the progression of the disease, which is left out. 354 rows to train on, 88 to test with.
    """

    def load_bunch(self) -> Any:
        """Return scikit-learn's record."""
        from sklearn.datasets import load_diabetes

        return load_diabetes(as_frame=True, scaled=False)
