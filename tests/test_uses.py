"""Probes, retrieval, few labels and search: each metric computed a second way, and the baselines."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command import command
from conftest import TINY
from PIL import Image
from torch import Tensor

import aetrain
from aetrain import api
from aetrain.config.errors import ConfigError
from aetrain.data.examples import Examples, IndexBatches, Splits
from aetrain.evaluation.measures import probes
from aetrain.evaluation.measures.baselines import feature_sets, nearest_rows
from aetrain.evaluation.measures.few_labels import FewLabels, balanced_subset
from aetrain.evaluation.measures.linear_classifier import (
    ClassifierLoss,
    LinearClassifier,
    cross_entropy,
    linear_accuracy,
    squared_hinge,
)
from aetrain.evaluation.measures.measure import EvalInputs, encode_all
from aetrain.evaluation.measures.probes import Probes, clustering_accuracy, majority_vote, mutual_information
from aetrain.evaluation.measures.retrieval import Retrieval, precision_at_k
from aetrain.model.codes import GaussianCode
from aetrain.modes import search
from aetrain.runs import entry, train
from aetrain.runs.build import Components, build
from aetrain.views.neighbours import nearest_other_rows


def blobs(count: int = 300, classes: int = 3, dim: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return rows [count, dim] around the centres of classes that overlap, and their classes [count]."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(99))
    return centres[labels] + torch.randn(count, dim, generator=generator), labels


def eval_inputs(*overrides: str) -> EvalInputs:
    """Return an untrained model and the embedded digits."""
    components = components_of(*overrides)
    splits = components.dataset.load()
    return EvalInputs(
        components.model.eval(),
        components.objective,
        components.noise,
        splits,
        components.dataset.prepare,
        components.make_untrained,
        components.seed,
        train.fit_pca_baseline(components, splits),
    )


def components_of(*overrides: str) -> Components:
    """Return the components of a config on the embedded digits."""
    config, _, full_overrides = api.compose_config([*TINY, *overrides])
    return build(entry.check(config, full_overrides))


# --- linear probes ---


@pytest.mark.parametrize("strength", [1.0, 0.01])
def test_logistic_regression_equals_scikit_learn(strength: float) -> None:
    from sklearn.linear_model import LogisticRegression

    rows, labels = blobs()
    classifier = LinearClassifier.fit(rows, labels, 3, cross_entropy, strength)
    expected = LogisticRegression(C=strength, tol=1e-8, max_iter=1000).fit(rows.double().numpy(), labels.numpy())
    torch.testing.assert_close(classifier.weight.double(), torch.from_numpy(expected.coef_), atol=2e-3, rtol=1e-2)
    bias = torch.from_numpy(expected.intercept_)  # only differences of biases matter
    torch.testing.assert_close(
        (classifier.bias - classifier.bias.mean()).double(), bias - bias.mean(), atol=2e-3, rtol=1e-2
    )


@pytest.mark.parametrize("strength", [1.0, 0.01])
def test_svm_equals_scikit_learn(strength: float) -> None:
    from sklearn.svm import LinearSVC

    rows, labels = blobs()
    classifier = LinearClassifier.fit(rows, labels, 3, squared_hinge, strength)
    # The bias of LinearSVC is the penalised weight of a constant: a larger constant makes the penalty smaller.
    svm = LinearSVC(C=strength, dual=False, tol=1e-10, max_iter=10000, intercept_scaling=1000)
    expected = svm.fit(rows.double().numpy(), labels.numpy())
    torch.testing.assert_close(classifier.weight.double(), torch.from_numpy(expected.coef_), atol=2e-3, rtol=1e-2)
    torch.testing.assert_close(classifier.bias.double(), torch.from_numpy(expected.intercept_), atol=2e-3, rtol=1e-2)


def test_the_linear_probe_does_not_depend_on_the_offset_and_scale_of_rows() -> None:
    (rows, labels), (test, test_labels) = blobs(), blobs(seed=1)
    accuracy = linear_accuracy(rows, labels, test, test_labels, cross_entropy)
    moved = linear_accuracy(1e3 * rows + 50, labels, 1e3 * test + 50, test_labels, cross_entropy)
    assert 0.6 < accuracy < 1
    assert moved == pytest.approx(accuracy, abs=0.011)


def test_the_linear_probe_of_equal_rows_guesses() -> None:
    rows, labels = torch.zeros(30, 4), torch.arange(30) % 3
    assert linear_accuracy(rows, labels, rows, labels, squared_hinge) == pytest.approx(1 / 3)


# --- neighbours ---


def test_knn_equals_scikit_learn() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    (rows, labels), (test, _) = blobs(), blobs(seed=1)
    predicted = majority_vote(labels[nearest_rows(test, rows, 5, batch_size=7)])
    knn = KNeighborsClassifier(5, algorithm="brute").fit(rows.numpy(), labels.numpy())
    assert predicted.tolist() == knn.predict(test.numpy()).tolist()


def test_nearest_rows_are_by_distance_also_far_from_the_origin() -> None:
    rows, test = blobs()[0].double() + 1000, blobs(seed=1)[0].double() + 1000
    by_distance = torch.cdist(test, rows, compute_mode="donot_use_mm_for_euclid_dist").argsort(dim=1)[:, :4]
    assert torch.equal(nearest_rows(test, rows, 4), by_distance)
    assert (nearest_rows(test.float(), rows.float(), 4) == by_distance).double().mean() > 0.98


def test_precision_computed_by_hand() -> None:
    retrieved = torch.tensor([[1, 1, 0, 2], [2, 0, 2, 2]])
    assert precision_at_k(retrieved, torch.tensor([1, 2]), 2) == pytest.approx((2 / 2 + 1 / 2) / 2)
    assert precision_at_k(retrieved, torch.tensor([1, 2]), 4) == pytest.approx((2 / 4 + 3 / 4) / 2)


def test_retrieval_equals_a_loop_over_queries() -> None:
    inputs = eval_inputs("dataset.subset=200", "dataset.test_subset=200")
    metrics = Retrieval(at=[3, 20], queries=None)(inputs)
    x, y = (images.pixels.flatten(1).double() for images in (inputs.splits.train, inputs.splits.test))
    labels, test_labels = inputs.splits.train.classes, inputs.splits.test.classes
    for count in (3, 20):
        shares = []
        for query, label in zip(y, test_labels, strict=True):
            retrieved = (x - query).square().sum(1).argsort()[:count]
            shares.append(float((labels[retrieved] == label).double().mean()))
        assert metrics[f"precision_{count}_pixels"] == pytest.approx(100 * sum(shares) / len(shares), abs=0.2)
    assert set(metrics) == {f"precision_{k}{suffix}" for k in (3, 20) for suffix in ("", "_pixels", "_pca")}


def test_the_view_of_neighbours_excludes_the_image_itself() -> None:
    rows = torch.tensor([[0.0], [1.0], [3.0], [7.0], [7.0], [7.0]])
    assert nearest_other_rows(rows, torch.tensor([0, 2]), 2).tolist() == [[1, 2], [1, 0]]
    for nearest in nearest_other_rows(rows, torch.tensor([3, 4, 5]), 2).tolist():  # equal rows
        assert set(nearest) < {3, 4, 5}
    assert nearest_other_rows(rows, torch.tensor([4]), 99).shape == (1, 5)


# --- clusters ---


def test_the_matching_of_clusters_is_the_best_of_all_permutations() -> None:
    generator = torch.Generator().manual_seed(0)
    clusters, labels = (torch.randint(4, (60,), generator=generator) for _ in range(2))
    orders = torch.tensor([*itertools.permutations(range(4))])
    best = max(float((order[clusters] == labels).double().mean()) for order in orders)
    assert clustering_accuracy(clusters, labels) == pytest.approx(best)
    assert clustering_accuracy((labels + 1) % 4, labels) == 1


def test_mutual_information_equals_its_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (500,), generator=generator)
    clusters = torch.where(torch.rand(500, generator=generator) < 0.5, labels, torch.zeros_like(labels))
    joint = torch.zeros(3, 3, dtype=torch.float64).index_put_(
        (clusters, labels), torch.ones(500, dtype=torch.float64) / 500, accumulate=True
    )
    a, b = joint.sum(1), joint.sum(0)
    information = torch.xlogy(joint, joint / (a[:, None] * b)).sum()
    entropies = [-torch.xlogy(p, p).sum() for p in (a, b)]
    assert mutual_information(clusters, labels) == pytest.approx(float(2 * information / sum(entropies)))


# --- all probes ---


@pytest.mark.slow
def test_probes_of_a_code_that_is_pca_equal_those_of_pca(tiny: Callable[..., Path]) -> None:
    directory = tiny(
        "model=linear", "model.code_dim=6", "likelihood=gaussian", "pretrain=pca", "epochs=0", "dataset.subset=300",
        "dataset.test_subset=300",
        "measures=[probes,retrieval]",
    )  # fmt: skip
    metrics = aetrain.load(directory).metrics
    for name in ("linear", "svm", "knn"):
        assert metrics[f"test/probe_{name}"] == pytest.approx(metrics[f"test/probe_{name}_pca"], abs=0.5), name
        assert metrics[f"test/probe_{name}_pixels"] > 80
    assert metrics["test/precision_10"] == pytest.approx(metrics["test/precision_10_pca"], abs=0.2)
    assert 0 < metrics["test/probe_nmi"] < 1
    assert 20 < metrics["test/probe_kmeans"] < 100


def test_probes_of_a_constant_code_guess() -> None:
    inputs = eval_inputs("dataset.subset=30", "dataset.test_subset=30")
    with torch.no_grad():
        for weight in inputs.model.bottleneck.parameters():
            weight.zero_()
    metrics = Probes(images=10)(inputs)
    for name in ("linear", "svm", "knn", "kmeans"):
        assert metrics[f"probe_{name}"] < 35, name
    assert metrics["probe_nmi"] == 0


def test_baselines_are_computed_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    num_calls = 0

    def counting_linear_accuracy(
        train: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor, loss: ClassifierLoss
    ) -> float:
        nonlocal num_calls
        num_calls += 1
        return linear_accuracy(train, labels, test, test_labels, loss)

    monkeypatch.setattr(probes, "linear_accuracy", counting_linear_accuracy)
    probe = Probes(methods=["linear"], images=51)  # a number that no other test uses
    first = probe(eval_inputs())
    second = probe(eval_inputs("seed=1"))
    assert num_calls == 4, "three feature sets, then only the second code"
    assert all(first[f"probe_linear{suffix}"] == second[f"probe_linear{suffix}"] for suffix in ("_pixels", "_pca"))


def test_feature_sets_are_mean_codes_pixels_and_principal_components() -> None:
    inputs = eval_inputs("model=vae")
    code, pixels, pca = feature_sets(inputs, inputs.splits.train, inputs.splits.test)
    x = inputs.splits.test.pixels.float() / 255
    with torch.no_grad():
        expected = inputs.model.encode(x)
    assert isinstance(expected, GaussianCode)
    assert torch.allclose(code.test, expected.mean, atol=1e-6)
    assert torch.equal(pixels.test, x.flatten(1))
    assert pca.test.shape == code.test.shape


@pytest.mark.parametrize("measure", ["probes", "retrieval", "few_labels"])
def test_images_without_classes_are_refused_before_training(measure: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8), np.uint8)
    np.savez(tmp_path / "mine.npz", x_train=pixels[:8], x_test=pixels[8:])
    outcome = command(
        ["dataset=npz", f"dataset.path={tmp_path}/mine.npz", f"measures={measure}", "hydra.run.dir=run"], tmp_path
    )
    assert outcome.code == 1
    assert f"measures.{measure}" in outcome.err
    assert "classes" in outcome.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("measure", "settings", "expected"),
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
def test_settings_that_measure_nothing_are_refused(measure: type, settings: dict[str, object], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        measure(**settings)


# --- few labels ---


def test_labelled_images_are_balanced_nested_and_drawn_with_the_seed() -> None:
    labels = torch.cat([torch.zeros(500), torch.ones(60), torch.full((40,), 2)]).long()
    few, more = balanced_subset(labels, 30, 3), balanced_subset(labels, 90, 3)
    assert labels[few].bincount().tolist() == [10, 10, 10]
    assert labels[more].bincount().tolist() == [30, 30, 30]
    assert set(few.tolist()) < set(more.tolist())
    assert set(few.tolist()) != set(balanced_subset(labels, 30, 4).tolist())
    assert sorted(balanced_subset(labels, 600, 3).tolist()) == list(range(600))


def test_index_batches_have_every_image_once() -> None:
    images = Examples(torch.zeros(10, 1, 2, 2, dtype=torch.uint8), torch.arange(10))
    batches = IndexBatches(images, 4)
    assert [len(index) for index in batches] == [4, 4, 2]
    assert len(batches) == 3
    assert sorted(torch.cat(list(batches)).tolist()) == list(range(10))


@pytest.mark.slow
def test_few_labels_train_a_copy_and_do_not_change_the_global_generator() -> None:
    inputs = eval_inputs("dataset.subset=400", "dataset.test_subset=400")
    before = {name: value.clone() for name, value in inputs.model.state_dict().items()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    measure = FewLabels(labels=[20, 200, 4000], steps=60, epochs=1)
    metrics = measure(inputs)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in inputs.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert set(metrics) == {f"finetuned_{n}{suffix}" for n in (20, 200) for suffix in ("", "_random")}
    assert metrics["finetuned_200"] > 60
    assert metrics["finetuned_200"] > metrics["finetuned_20"] > 15
    assert measure(inputs) == metrics


def test_networks_with_equal_weights_and_other_activations_differ() -> None:
    measure = FewLabels(labels=[40], steps=30, epochs=1)
    rectified, saturating = (
        measure(eval_inputs(f"model.activation={name}", "model.init=default")) for name in ("relu", "tanh")
    )
    assert rectified["finetuned_40_random"] != saturating["finetuned_40_random"]


def test_more_labels_than_images_are_refused() -> None:
    splits = eval_inputs().splits
    for measure in (FewLabels(labels=[4000]), Retrieval(at=[5000])):
        with pytest.raises(ValueError, match="training images: use less"):
            measure.check_images(splits)


def test_the_measured_code_is_the_decoded_one() -> None:
    """The code of a model with a random code and a sparsifier is the sparse mean."""
    inputs = eval_inputs("model=vae", "sparsity=topk", "sparsity.k=2")
    codes = encode_all(inputs.model, inputs.splits.test, inputs.prepare)
    assert (codes != 0).sum(1).unique().tolist() == [2]
    assert torch.equal(codes, inputs.model.encode(inputs.prepare(inputs.splits.test.pixels)).z)


def test_the_random_start_has_the_initial_weights_of_training() -> None:
    """With epochs=0 both starts are the same network and have the same accuracy."""
    inputs = eval_inputs()
    for name, value in inputs.make_untrained().state_dict().items():
        assert torch.equal(value, inputs.model.state_dict()[name]), name
    metrics = FewLabels(labels=[20], steps=5, epochs=1)(inputs)
    assert metrics["finetuned_20"] == metrics["finetuned_20_random"]


@pytest.mark.slow
def test_pretraining_helps_with_few_labels(tiny: Callable[..., Path]) -> None:
    """A stack of RBMs on the embedded digits, so deep that a random start learns slowly."""
    directory = tiny(
        "experiment=pretrain_finetune", "dataset=digits", "dataset.subset=null", "dataset.test_subset=null", "epochs=0",
        "model.hidden=[64,64]", "model.code_dim=32", "pretrain.epochs=20", "measures.few_labels.labels=[100]",
        "measures.few_labels.steps=200",
    )  # fmt: skip
    metrics = aetrain.load(directory).metrics
    assert metrics["test/finetuned_100"] > metrics["test/finetuned_100_random"] + 5
    assert metrics["test/finetuned_100"] > 50


# --- search ---


@pytest.mark.slow
def test_search_finds_a_training_image_and_its_negative(tiny: Callable[..., Path], tmp_path: Path) -> None:
    directory = tiny()
    train = components_of().dataset.load().train  # the run has the same images
    pixels = train.pixels[17, 0].numpy()
    for name, query in {"same": pixels, "negative": 255 - pixels}.items():
        Image.fromarray(query).save(tmp_path / f"{name}.png")
        outcome = command(["mode=search", f"run={directory}", f"query={tmp_path}/{name}.png"], tmp_path)
        assert outcome.code == 0, outcome.err
        for features in ("code", "pixels"):
            first = outcome.out.split(f"nearest by {features}:")[1].splitlines()[2].split()
            assert first[0] == "17", outcome.out
            assert first[1] == str(int(train.classes[17]))
            assert float(first[2]) < 0.01
        assert ("inverted, because" in outcome.out) == (name == "negative")
        with Image.open(directory / "search" / f"{name}.png") as sheet:
            assert sheet.width > sheet.height


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["mode=search"], "query="),
        (["mode=search", "query=nowhere.png"], "does not exist"),
        (["mode=search", "query=notes.png"], "cannot be read as an image"),
        (["mode=eval", "query=notes.png"], "add mode=search"),
    ],
)
def test_mistakes_in_a_search_are_explained(
    overrides: list[str], expected: str, tiny: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    outcome = command([*overrides, f"run={tiny()}"], tmp_path)
    assert outcome.code == 1
    assert expected in outcome.err


def test_search_takes_a_row_of_any_kind_of_data(tiny: Callable[..., Path], tmp_path: Path) -> None:
    directory = tiny("dataset=wine", "likelihood=gaussian")
    splits = aetrain.load(directory).dataset.load()
    assert splits.train.rows is not None
    assert splits.test.rows is not None
    outcome = command(["mode=search", f"run={directory}", f"query=row:{splits.test.rows[3]}"], tmp_path)
    assert outcome.code == 0, outcome.err
    distances = (splits.train.pixels - splits.test.pixels[3]).flatten(1).norm(dim=1)
    nearest = splits.train.rows[distances.argsort()].tolist()[:10]
    lines = outcome.out.split("nearest by input:")[1].splitlines()[2:12]
    assert [int(line.split()[-1]) for line in lines] == nearest
    assert not (directory / "search").exists(), "no picture"
    outcome = command(["mode=search", f"run={directory}", "query=wine.png"], tmp_path)
    assert outcome.code == 1
    assert "query=wine.png is no example of this data set: use the number of a row, such as query=row:17" in outcome.err


def test_search_takes_a_row_of_images(tiny: Callable[..., Path], tmp_path: Path) -> None:
    directory = tiny()
    train = components_of().dataset.load().train
    assert train.rows is not None
    row = int(train.rows[17])
    outcome = command(["mode=search", f"run={directory}", f"query=row:{row}"], tmp_path)
    assert outcome.code == 0, outcome.err
    assert f"query: row {row}, class {int(train.classes[17])}" in outcome.out
    assert (directory / "search" / f"row-{row}.png").is_file()
    indices = [line.split()[0] for line in outcome.out.split("nearest by code:")[1].splitlines()[2:12]]
    assert len(indices) == 10
    assert "17" not in indices


def test_a_query_is_inverted_only_where_the_borders_are_clear() -> None:
    dark, light = torch.zeros(5, 1, 4, 4, dtype=torch.uint8), torch.full((1, 1, 4, 4), 250, dtype=torch.uint8)
    assert search.match_polarity(light, dark, False)[0].max() == 5
    assert search.match_polarity(light, dark + 250, False)[0].min() == 250
    assert search.match_polarity(light, dark + 128, False)[0].min() == 250
    assert search.match_polarity(light - 100, dark + 250, True)[0].unique().tolist() == [255]
    ring = dark.clone()
    ring[:, :, 1:-1, 1:-1] = 200
    assert search.border_mean(ring) == 0


def test_search_prints_the_names_of_classes() -> None:
    pixels, labels = torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([1, 0])
    named = Examples(pixels, labels, ("T-shirt/top", "Bag"))
    assert search.format_table(named, [1, 0], [0.5, 2]).split() == [
        *("index", "class", "distance", "1", "T-shirt/top", "0.500", "0", "Bag", "2.000")
    ]
    assert len({len(line) for line in search.format_table(named, [1, 0], [0.5, 2]).splitlines()}) == 1
    assert search.format_table(replace(named, class_names=()), [1], [0.5]).split()[-2:] == ["0", "0.500"]
    assert "class" not in search.format_table(Examples(pixels), [1], [0.5])


def test_search_refuses_runs_without_square_images() -> None:
    with pytest.raises(ConfigError, match="square"):
        search.read_query(Path("x.png"), (1, 8, 9))


def test_splits_without_classes_are_refused() -> None:
    images = Examples(torch.zeros(2, 1, 2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="classes"):
        Probes().check_images(Splits(images, images, images))
