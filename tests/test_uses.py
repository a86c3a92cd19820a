"""What codes are good for: each figure computed a second way, and the controls beside it."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from command import command
from conftest import TINY
from PIL import Image

import aetrain
from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.data.images import Images, Splits
from aetrain.evaluation.measures import probes
from aetrain.evaluation.measures.baselines import nearest, spaces
from aetrain.evaluation.measures.few_labels import FewLabels, balanced
from aetrain.evaluation.measures.linear_classifier import Linear, cross_entropy, linear_accuracy, squared_hinge
from aetrain.evaluation.measures.measure import EvalInputs, codes
from aetrain.evaluation.measures.probes import Probes, matched, mutual_information, vote
from aetrain.evaluation.measures.retrieval import Retrieval, precision
from aetrain.modes import search
from aetrain.runs import train
from aetrain.runs.build import build
from aetrain.views.neighbours import others


def blobs(count: int = 300, classes: int = 3, dim: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [count, dim] around a centre for each class, overlapping, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(99))
    return centres[labels] + torch.randn(count, dim, generator=generator), labels


def subject_of(*overrides: str) -> EvalInputs:
    """An untrained model and the embedded digits."""
    config, _, said = api.composed([*TINY, *overrides])
    parts = build(train.checked(config, said))
    splits = parts.dataset.load()
    prepare = parts.dataset.prepare
    pca = train.fit_pca_baseline(parts, splits)
    return EvalInputs(
        parts.model.eval(), parts.objective, parts.noise, splits, prepare, parts.untrained, parts.seed, pca
    )


# The linear probes


@pytest.mark.parametrize("strength", [1.0, 0.01])
def test_logistic_regression_is_scikit_learns(strength: float) -> None:
    from sklearn.linear_model import LogisticRegression

    rows, labels = blobs()
    ours = Linear.fit(rows, labels, 3, cross_entropy, strength)
    theirs = LogisticRegression(C=strength, tol=1e-8, max_iter=1000).fit(rows.double().numpy(), labels.numpy())
    torch.testing.assert_close(ours.weight.double(), torch.from_numpy(theirs.coef_), atol=2e-3, rtol=1e-2)
    bias = torch.from_numpy(theirs.intercept_)  # only differences of biases matter
    torch.testing.assert_close((ours.bias - ours.bias.mean()).double(), bias - bias.mean(), atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize("strength", [1.0, 0.01])
def test_svm_is_scikit_learns(strength: float) -> None:
    from sklearn.svm import LinearSVC

    rows, labels = blobs()
    ours = Linear.fit(rows, labels, 3, squared_hinge, strength)
    # Its bias is a weight of a constant, and penalised as one: the larger the constant, the less.
    svm = LinearSVC(C=strength, dual=False, tol=1e-10, max_iter=10000, intercept_scaling=1000)
    theirs = svm.fit(rows.double().numpy(), labels.numpy())
    torch.testing.assert_close(ours.weight.double(), torch.from_numpy(theirs.coef_), atol=2e-3, rtol=1e-2)
    torch.testing.assert_close(ours.bias.double(), torch.from_numpy(theirs.intercept_), atol=2e-3, rtol=1e-2)


def test_linear_probe_does_not_depend_on_where_the_rows_lie_or_how_large_they_are() -> None:
    (rows, labels), (test, test_labels) = blobs(), blobs(seed=1)
    first = linear_accuracy(rows, labels, test, test_labels, cross_entropy)
    moved = linear_accuracy(1e3 * rows + 50, labels, 1e3 * test + 50, test_labels, cross_entropy)
    assert 0.6 < first < 1
    assert moved == pytest.approx(first, abs=0.011)


def test_linear_probe_of_rows_that_are_all_alike_guesses() -> None:
    rows, labels = torch.zeros(30, 4), torch.arange(30) % 3
    assert linear_accuracy(rows, labels, rows, labels, squared_hinge) == pytest.approx(1 / 3)


# Neighbours


def test_knn_is_scikit_learns() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    (rows, labels), (test, _) = blobs(), blobs(seed=1)
    ours = vote(labels[nearest(test, rows, 5, batch_size=7)])
    theirs = KNeighborsClassifier(5, algorithm="brute").fit(rows.numpy(), labels.numpy()).predict(test.numpy())
    assert ours.tolist() == theirs.tolist()


def test_nearest_is_the_sorted_distances_far_from_the_origin_too() -> None:
    rows, test = blobs()[0].double() + 1000, blobs(seed=1)[0].double() + 1000
    by_distance = torch.cdist(test, rows, compute_mode="donot_use_mm_for_euclid_dist").argsort(dim=1)[:, :4]
    assert torch.equal(nearest(test, rows, 4), by_distance)
    assert (nearest(test.float(), rows.float(), 4) == by_distance).double().mean() > 0.98


def test_precision_by_hand() -> None:
    found = torch.tensor([[1, 1, 0, 2], [2, 0, 2, 2]])
    assert precision(found, torch.tensor([1, 2]), 2) == pytest.approx((2 / 2 + 1 / 2) / 2)
    assert precision(found, torch.tensor([1, 2]), 4) == pytest.approx((2 / 4 + 3 / 4) / 2)


def test_retrieval_counts_what_a_loop_counts() -> None:
    inputs = subject_of("dataset.subset=200")
    figures = Retrieval(at=[3, 20], queries=None)(inputs)
    x, y = (part.pixels.flatten(1).double() for part in (inputs.splits.train, inputs.splits.test))
    labels, wanted = inputs.splits.train.labels, inputs.splits.test.labels
    assert labels is not None
    assert wanted is not None
    for count in (3, 20):
        shares = [
            float((labels[(x - y[i]).square().sum(1).argsort()[:count]] == wanted[i]).double().mean())
            for i in range(len(y))
        ]
        assert figures[f"precision_{count}_pixels"] == pytest.approx(100 * sum(shares) / len(shares), abs=0.2)
    assert set(figures) == {f"precision_{k}{space}" for k in (3, 20) for space in ("", "_pixels", "_pca")}


def test_view_leaves_the_image_itself_out() -> None:
    rows = torch.tensor([[0.0], [1.0], [3.0], [7.0], [7.0], [7.0]])
    assert others(rows, torch.tensor([0, 2]), 2).tolist() == [[1, 2], [1, 0]]
    for near in others(rows, torch.tensor([3, 4, 5]), 2).tolist():  # which has equals
        assert set(near) < {3, 4, 5}
    assert others(rows, torch.tensor([4]), 99).shape == (1, 5)


# Clusters


def test_matching_is_the_best_of_all_permutations() -> None:
    generator = torch.Generator().manual_seed(0)
    clusters, labels = (torch.randint(4, (60,), generator=generator) for _ in range(2))
    best = max(
        float((torch.tensor(order)[clusters] == labels).double().mean()) for order in itertools.permutations(range(4))
    )
    assert matched(clusters, labels) == pytest.approx(best)
    assert matched((labels + 1) % 4, labels) == 1


def test_mutual_information_from_its_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (500,), generator=generator)
    clusters = torch.where(torch.rand(500, generator=generator) < 0.5, labels, torch.zeros_like(labels))
    joint = torch.zeros(3, 3, dtype=torch.float64).index_put_(
        (clusters, labels), torch.ones(500, dtype=torch.float64) / 500, accumulate=True
    )
    a, b = joint.sum(1), joint.sum(0)
    shared = torch.xlogy(joint, joint / (a[:, None] * b)).sum()
    entropies = [-torch.xlogy(p, p).sum() for p in (a, b)]
    assert mutual_information(clusters, labels) == pytest.approx(float(2 * shared / sum(entropies)))


# Probes as a whole


def test_probes_of_a_linear_code_that_is_pca_are_those_of_pca(tiny: Callable[..., Path]) -> None:
    directory = tiny(
        "model=linear", "model.code_dim=6", "likelihood=gaussian", "pretrain=pca", "epochs=0", "dataset.subset=300",
        "measures=[probes,retrieval]",
    )  # fmt: skip
    metrics = aetrain.load(directory).metrics
    for name in ("linear", "svm", "knn"):
        assert metrics[f"test/probe_{name}"] == pytest.approx(metrics[f"test/probe_{name}_pca"], abs=0.5), name
        assert metrics[f"test/probe_{name}_pixels"] > 80
    assert metrics["test/precision_10"] == pytest.approx(metrics["test/precision_10_pca"], abs=0.2)
    assert 0 < metrics["test/probe_nmi"] < 1
    assert 20 < metrics["test/probe_kmeans"] < 100


def test_probes_of_a_code_that_says_nothing_guess() -> None:
    inputs = subject_of("dataset.subset=30")
    with torch.no_grad():
        for weight in inputs.model.bottleneck.parameters():
            weight.zero_()
    figures = Probes(images=10)(inputs)
    for name in ("linear", "svm", "knn", "kmeans"):
        assert figures[f"probe_{name}"] < 35, name
    assert figures["probe_nmi"] == 0


def test_controls_are_measured_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = probes.linear_accuracy

    def counted(*given: object) -> float:
        asked.append(1)
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(probes, "linear_accuracy", counted)
    probe = Probes(methods=["linear"], images=51)  # a number that no other test has
    first = probe(subject_of())
    again = probe(subject_of("seed=1"))
    assert len(asked) == 4, "the second code alone is new"
    assert all(first[f"probe_linear{space}"] == again[f"probe_linear{space}"] for space in ("_pixels", "_pca"))


def test_spaces_hold_the_mean_codes_and_the_images() -> None:
    inputs = subject_of("model=vae")
    code, pixels, pca = spaces(inputs, inputs.splits.train, inputs.splits.test)
    x = inputs.splits.test.pixels.float() / 255
    with torch.no_grad():
        assert torch.allclose(code.test, inputs.model.encode(x).mean, atol=1e-6)  # type: ignore[attr-defined]
    assert torch.equal(pixels.test, x.flatten(1))
    assert pca.test.shape == code.test.shape


@pytest.mark.parametrize("measure", ["probes", "retrieval", "few_labels"])
def test_images_without_classes_are_refused_before_training(measure: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8), np.uint8)
    np.savez(tmp_path / "mine.npz", x_train=pixels[:8], x_test=pixels[8:])
    done = command(
        ["dataset=npz", f"dataset.path={tmp_path}/mine.npz", f"measures={measure}", "hydra.run.dir=run"], tmp_path
    )
    assert done.code == 1
    assert f"measures.{measure}" in done.err
    assert "classes" in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("measure", "settings", "said"),
    [
        (Probes, {"images": 1}, "images=1"),
        (Probes, {"neighbours": 0}, "neighbours=0"),
        (Retrieval, {"at": []}, "at="),
        (Retrieval, {"queries": 0}, "queries=0"),
        (FewLabels, {"labels": [1]}, "labels="),
        (FewLabels, {"lr": 0.0}, "lr=0"),
        (FewLabels, {"steps": 0, "epochs": 0}, "steps=0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(measure: type, settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        measure(**settings)


# Few labels


def test_labelled_images_are_balanced_nested_and_the_seeds_own() -> None:
    labels = torch.cat([torch.zeros(500), torch.ones(60), torch.full((40,), 2)]).long()
    few, more = balanced(labels, 30, 3), balanced(labels, 90, 3)
    assert labels[few].bincount().tolist() == [10, 10, 10]
    assert labels[more].bincount().tolist() == [30, 30, 30]
    assert set(few.tolist()) < set(more.tolist())
    assert set(few.tolist()) != set(balanced(labels, 30, 4).tolist())
    assert sorted(balanced(labels, 600, 3).tolist()) == list(range(600))


def test_a_batch_names_every_image_once() -> None:
    images = Images(torch.zeros(10, 1, 2, 2, dtype=torch.uint8), torch.arange(10))
    batches = IndexBatches(images, 4)
    assert [len(index) for index in batches] == [4, 4, 2]
    assert len(batches) == 3
    assert sorted(torch.cat(list(batches)).tolist()) == list(range(10))


def test_few_labels_teach_and_leave_the_model_and_the_generator_alone() -> None:
    inputs = subject_of("dataset.subset=400")
    before = {name: value.clone() for name, value in inputs.model.state_dict().items()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    measure = FewLabels(labels=[20, 200, 4000], steps=60, epochs=1)
    figures = measure(inputs)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in inputs.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert set(figures) == {f"finetuned_{n}{end}" for n in (20, 200) for end in ("", "_random")}
    assert figures["finetuned_200"] > 60
    assert figures["finetuned_200"] > figures["finetuned_20"] > 15
    assert measure(inputs) == figures


def test_networks_with_the_same_weights_are_not_taken_for_each_other() -> None:
    measure = FewLabels(labels=[40], steps=30, epochs=1)
    rectified, saturating = (measure(subject_of(f"model.activation={name}")) for name in ("relu", "tanh"))
    assert rectified["finetuned_40_random"] != saturating["finetuned_40_random"]


def test_more_than_there_are_images_is_refused() -> None:
    splits = subject_of().splits
    for measure in (FewLabels(labels=[4000]), Retrieval(at=[5000])):
        with pytest.raises(ValueError, match="training images: use less"):
            measure.check_images(splits)


def test_the_code_that_is_measured_is_the_one_that_is_decoded() -> None:
    """Of a random code with a sparsifier: the mean, sparse."""
    inputs = subject_of("model=vae", "sparsity=topk", "sparsity.k=2")
    found = codes(inputs.model, inputs.splits.test, inputs.prepare)
    assert (found != 0).sum(1).unique().tolist() == [2]
    assert torch.equal(found, torch.cat([inputs.model.encode(inputs.prepare(inputs.splits.test.pixels)).z]))


def test_random_start_is_what_training_began_with() -> None:
    """So that with epochs=0 both starts are the same network, and come to the same."""
    inputs = subject_of()
    for name, value in inputs.untrained().state_dict().items():
        assert torch.equal(value, inputs.model.state_dict()[name]), name
    figures = FewLabels(labels=[20], steps=5, epochs=1)(inputs)
    assert figures["finetuned_20"] == figures["finetuned_20_random"]


def test_pretraining_helps_where_labels_are_few(tiny: Callable[..., Path]) -> None:
    """784-...: here a stack of RBMs on the embedded digits, deep enough that a random start is slow."""
    directory = tiny(
        "experiment=pretrain_finetune", "dataset=digits", "dataset.subset=null", "epochs=0", "model.hidden=[64,64]",
        "model.code_dim=32", "pretrain.epochs=20", "measures.few_labels.labels=[100]",
        "measures.few_labels.steps=200",
    )  # fmt: skip
    metrics = aetrain.load(directory).metrics
    assert metrics["test/finetuned_100"] > metrics["test/finetuned_100_random"] + 5
    assert metrics["test/finetuned_100"] > 50


# Search


def test_search_finds_a_training_image_itself_whatever_its_shade(tiny: Callable[..., Path], tmp_path: Path) -> None:
    directory = tiny()
    train = api.composed([*TINY])  # the same images as the run's
    config, _, said = train
    pixels = build(train.checked(config, said)).dataset.load().train.pixels[17, 0].numpy()
    for name, shade in {"same": pixels, "negative": 255 - pixels}.items():
        Image.fromarray(shade).save(tmp_path / f"{name}.png")
        done = command(["mode=search", f"run={directory}", f"query={tmp_path}/{name}.png"], tmp_path)
        assert done.code == 0, done.err
        for space in ("code", "pixels"):
            first = done.out.split(f"nearest by {space}:")[1].splitlines()[2].split()
            assert first[0] == "17", done.out
            assert float(first[2]) < 0.01
        assert ("made negative" in done.out) == (name == "negative")
        with Image.open(directory / "search" / f"{name}.png") as sheet:
            assert sheet.width > sheet.height


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mode=search"], "query="),
        (["mode=search", "query=nowhere.png"], "does not exist"),
        (["mode=search", "query=notes.png"], "cannot be read as an image"),
        (["mode=eval", "query=notes.png"], "add mode=search"),
    ],
)
def test_search_says_what_is_wrong(words: list[str], said: str, tiny: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    done = command([*words, f"run={tiny()}"], tmp_path)
    assert done.code == 1
    assert said in done.err


def test_a_query_is_turned_only_where_the_border_tells() -> None:
    dark, light = torch.zeros(5, 1, 4, 4, dtype=torch.uint8), torch.full((1, 1, 4, 4), 250, dtype=torch.uint8)
    assert search.like(light, dark, False)[0].max() == 5
    assert search.like(light, dark + 250, False)[0].min() == 250
    assert search.like(light, dark + 128, False)[0].min() == 250
    assert search.like(light - 100, dark + 250, True)[0].unique().tolist() == [255]
    ring = dark.clone()
    ring[:, :, 1:-1, 1:-1] = 200
    assert search.border(ring) == 0


def test_search_refuses_images_it_cannot_be_given() -> None:
    with pytest.raises(ConfigError, match="square"):
        search.read(Path("x.png"), (1, 8, 9))


def test_splits_without_classes_are_refused() -> None:
    images = Images(torch.zeros(2, 1, 2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="classes"):
        Probes().check_images(Splits(images, images, images))
