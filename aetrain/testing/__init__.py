"""Contract checks for components, in the manner of scikit-learn's `check_estimator`.

Each function takes a component, or a function that makes one, and raises AssertionError with a sentence where the
component breaks its contract. They check metrics and gradients, not only that nothing raises.

    from aetrain.testing import check_noise

    def test_my_noise():
        check_noise(MyNoise(0.3))
"""

from aetrain.testing.codes import check_bottleneck
from aetrain.testing.data import check_dataset
from aetrain.testing.evaluation import check_measure, check_view
from aetrain.testing.networks import check_decoder, check_encoder
from aetrain.testing.objective import check_likelihood, check_penalty
from aetrain.testing.transforms import check_augment, check_noise

__all__ = [
    "check_augment",
    "check_bottleneck",
    "check_dataset",
    "check_decoder",
    "check_encoder",
    "check_likelihood",
    "check_measure",
    "check_noise",
    "check_penalty",
    "check_view",
]
