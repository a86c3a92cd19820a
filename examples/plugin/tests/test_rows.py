"""The noise keeps its contract: shapes, range, random numbers, an empty batch, levels."""

from aetrain_example.noise import Rows

from aetrain.testing import check_noise


def test_rows() -> None:
    """Check the noise at one strength."""
    check_noise(Rows(0.3))
