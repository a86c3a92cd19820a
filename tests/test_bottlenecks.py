"""The bottlenecks of codes for search: on a sphere, and of bits."""

import pytest
import torch

from aetrain.model.bottlenecks import Hashing, Sphere


def test_codes_on_a_sphere_have_the_direction_of_the_projection() -> None:
    torch.manual_seed(0)
    bottleneck, features = Sphere(7, 3, radius=4.0), torch.randn(20, 7)
    z, projected = bottleneck(features).z, bottleneck.project(features)
    torch.testing.assert_close(z.square().sum(1), torch.full((20,), 16.0))
    torch.testing.assert_close(torch.cosine_similarity(z, projected), torch.ones(20))
    # Of two codes of one length the Euclidean distance is the cosine: |a - b|^2 = 2 r^2 (1 - cos).
    cosine = torch.cosine_similarity(z[:1], z[1:])
    torch.testing.assert_close((z[:1] - z[1:]).square().sum(1), 32 * (1 - cosine), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(bottleneck.project_to_code_space(3 * z), z)


def test_noise_on_units_is_of_training_alone() -> None:
    torch.manual_seed(0)
    bottleneck, features = Hashing(7, 5, std=2.0), torch.randn(1, 7).expand(4000, 7)
    logits = bottleneck.project(features)
    torch.testing.assert_close(bottleneck.eval()(features).z, logits.sigmoid())
    noise = bottleneck.train()(features).z.logit() - logits
    assert noise.mean().abs() < 6 * 2 / 20_000**0.5
    assert noise.std().item() == pytest.approx(2, rel=0.03)
    torch.testing.assert_close(Hashing(7, 5, std=0.0)(features).z.shape, logits.shape)


def test_noise_makes_units_bits() -> None:
    """The decoder can only tell codes apart whose differences are larger than the noise."""
    distances = []
    for std in (0.0, 4.0):
        torch.manual_seed(0)
        bottleneck, decoder = Hashing(6, 3, std), torch.nn.Linear(3, 6)
        optimizer = torch.optim.Adam([*bottleneck.parameters(), *decoder.parameters()], lr=0.05)
        x = torch.eye(6).repeat(20, 1)
        for _ in range(400):
            loss = (decoder(bottleneck(x).z) - x).square().sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        z = bottleneck.eval()(torch.eye(6)).z
        distances.append(float((z - z.round()).abs().mean().detach()))
    assert distances[1] < 0.05 < distances[0]


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.code_dim=1 has no sphere"):
        Sphere(4, 1)
    with pytest.raises(ValueError, match=r"radius=0 is no radius"):
        Sphere(4, 2, radius=0)
    with pytest.raises(ValueError, match=r"std=-1 is negative"):
        Hashing(4, 2, std=-1)
