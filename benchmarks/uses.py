"""Measure uses of a code: run the rows of a table, record the results, and write docs/uses.md.

    python benchmarks/uses.py few_labels [--seeds 5] [--minutes 8]
    python benchmarks/uses.py codes [--minutes 8]

Every row is a command, which runs once per seed. A table can be made in pieces: docs/uses/ records each result, and
recorded rows are not measured again. After `--minutes`, no further row starts.
"""

import argparse
import json
import re
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments import DOCS, ROOT
from measurements import dataset_of, noise_of
from omegaconf import OmegaConf
from trainers import RELU

import aetrain
from aetrain.evaluation.measures import probes
from aetrain.views.context import context_factory
from aetrain.views.neighbours import Neighbours

RECORDS = DOCS / "uses"
FINETUNE = "experiment=pretrain_finetune"
SMALLER = ["model.hidden=[500,500]", "model.code_dim=2000"]
ONE_LAYER = ["model.hidden=[]", "model.code_dim=1024"]
RBM = [*ONE_LAYER, "pretrain.epochs=3"]

# The rows of each table: name and overrides.
LABELS: dict[str, list[str]] = {
    "784-1024-10, RBM": [FINETUNE, *RBM],
    "784-1024-10, autoencoder": [FINETUNE, *ONE_LAYER, "pretrain=none", "epochs=2"],
    "784-1024-10, denoising autoencoder": [FINETUNE, *ONE_LAYER, "pretrain=none", "epochs=2", "noise=masking"],
    "784-1000-1000-500-10, stack of RBMs": [FINETUNE],
    "784-1000-1000-500-10, layer by layer": [FINETUNE, "pretrain=layerwise"],
    "784-1000-1000-500-10, layer by layer, denoising": [FINETUNE, "pretrain=layerwise", "noise=masking"],
    "784-1000-1000-500-10, autoencoder": [FINETUNE, "pretrain=none", "epochs=2"],
    "784-500-500-2000-10, stack of RBMs": [FINETUNE, *SMALLER],
    "784-500-500-2000-10, layer by layer": [FINETUNE, *SMALLER, "pretrain=layerwise"],
    "784-500-500-2000-10, layer by layer, denoising": [FINETUNE, *SMALLER, "pretrain=layerwise", "noise=masking"],
    "784-500-500-2000-10, autoencoder": [FINETUNE, *SMALLER, "pretrain=none", "epochs=2"],
}
PROBED = ["measures=[few_labels,probes]", "measures.probes.images=60000", "measures.probes.methods=[linear]"]
LONGER = "784-1024-10, RBM, 60 epochs"
ALL_LABELS: dict[str, list[str]] = {
    "784-1024-10, RBM": [FINETUNE, *RBM, *PROBED, "measures.few_labels.labels=[60000]"],
    LONGER: [
        *(FINETUNE, *ONE_LAYER, "pretrain.epochs=60", "pretrain.lr=0.05"),
        *(*PROBED, "measures.few_labels.labels=[100,1000,10000,60000]"),
    ],
}
FAMILIES: dict[str, list[str]] = {
    "linear": ["model=linear"],
    "deep": ["model=deep"],
    "denoising": ["model=deep", "noise=masking"],
    "sparse (KL)": ["model=deep", "sparsity=kl"],
    "k-sparse": ["model=deep", "sparsity=topk"],
    "contractive": ["model=contractive"],
    "variational": ["model=vae"],
    "adversarial": ["model=aae"],
    "WAE-MMD": ["model=wae"],
    "VQ-VAE": ["model=vqvae"],
}
PICTURE_ROW = "mnist: variational"  # the row whose neighbours the page shows


def rows(table: str, seeds: int) -> Iterator[tuple[str, int, list[str]]]:
    """Yield name, seed and overrides of the runs of a table, network by network and seed by seed."""
    if table == "few_labels":
        for network in dict.fromkeys(name.partition(",")[0] for name in LABELS):
            names = [name for name in LABELS if name.startswith(network)]
            for seed in range(seeds):
                yield from ((name, seed, LABELS[name]) for name in names)
    elif table == "all_labels":
        yield from ((name, 0, overrides) for name, overrides in ALL_LABELS.items())
    else:
        measures = [*RELU, "measures=[probes,retrieval]", "epochs=5", "views=none"]
        for name, overrides in FAMILIES.items():
            for dataset in ("mnist", "fashion"):
                yield f"{dataset}: {name}", 0, [f"dataset={dataset}", *overrides, *measures]


def read_records(table: str) -> dict[str, dict[str, dict[str, float]]]:
    """Return the recorded metrics by row and seed."""
    file = RECORDS / f"{table}.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def measure(table: str, seeds: int, minutes: float, outputs: Path) -> None:
    """Run the rows that are not recorded, and record them. `outputs` keeps the baselines, which rows share."""
    start = time.monotonic()
    baselines = outputs / "controls.json"
    if baselines.is_file():
        for key, metrics in json.loads(baselines.read_text()):
            probes._BASELINE_METRICS[tuple(key)] = metrics
    for name, seed, overrides in rows(table, seeds):
        records = read_records(table)
        if str(seed) in records.get(name, {}):
            continue
        if time.monotonic() - start > 60 * minutes:
            return
        run = aetrain.run([*overrides, f"seed={seed}", f"hydra.run.dir={directory_of(outputs, table, name, seed)}"])
        metrics = {key.partition("/")[2]: round(value, 4) for key, value in run.metrics.items() if is_use(key)}
        if table == "codes":
            metrics["code_dim"] = run.model.code_dim
        records.setdefault(name, {})[str(seed)] = metrics
        RECORDS.mkdir(parents=True, exist_ok=True)
        (RECORDS / f"{table}.json").write_text(json.dumps(records, indent=1) + "\n")
        baselines.write_text(json.dumps(list(probes._BASELINE_METRICS.items())))
        print(name, seed, metrics, flush=True)


def draw_neighbours(outputs: Path) -> None:
    """Draw the nearest neighbours by pixels and by code of the row `PICTURE_ROW`, if its run is finished."""
    directory = directory_of(outputs, "codes", PICTURE_ROW, 0)
    if not (directory / "metrics.json").is_file():
        return
    run = aetrain.load(directory)
    dataset = dataset_of(run.config)
    context = context_factory(run.model, dataset.load().test, dataset.prepare, noise_of(run))(0)
    Neighbours(count=4)(context).save(DOCS / "figures" / "uses")


def directory_of(outputs: Path, table: str, name: str, seed: int) -> Path:
    """Return the directory of a row's run."""
    return outputs / table / re.sub(r"[^\w()-]+", "_", name) / f"seed{seed}"


def is_use(key: str) -> bool:
    """Return whether a metric of metrics.json measures a use of the code."""
    return key.startswith(("test/finetuned", "test/probe", "test/precision"))


HEAD = """# Uses of a code

Uses of an autoencoder, each with its baseline, measured on the test images by the commands below. `python
benchmarks/uses.py TABLE` runs the rows of a table and writes this page; `docs/uses/` has every result. Numbers are
means ± standard deviations over seeds where there are several.
"""
FEW_HEAD = """## Few labels

`aetrain {command}`

pretrains on all 60,000 images without labels, then trains encoder and classifier together on few labelled images. The
baseline starts from the random weights with which pretraining began. The numbers are accuracies in %. Both are trained
in the same way: Adam at 0.001, batches of 32,
{protocol}. No setting is chosen on held-out labels.
Each seed draws its own labelled images, balanced over the classes. Pretraining is short: {rbm} epochs
for the RBM of 784-1024, {rest} for all others (per layer where it trains layer by layer). Units are sigmoid; the last
number of a network is the number of classes.
"""
FEW_TAIL = """
Published for 784-1024-10 with an RBM (`yell/boltzmann-machines`, its README: 120 epochs of CD-1 with a sparsity
target, batches of 10): 81.70 against 76.02 with 100 labels, 93.65 against 88.71 with 1,000, 97.27 against 94.73 with
10,000.
"""
ALL_HEAD = """## All labels

| network, pretraining | logistic regression on the frozen code, error % | fine-tuned, error % | random start, error % |
|---|---|---|---|"""
ALL_TAIL = """
Published: logistic regression on the code of the RBM with 1024 units 1.83 %, fine-tuned 1.27 %
(`yell/boltzmann-machines`); stacked denoising autoencoders 784-1000-1000-1000-10 1.30 % (the Theano tutorials).
"""
CODES_HEAD = """## Probes and search by content

`aetrain dataset={dataset} ... measures=[probes,retrieval] epochs=5`: test accuracy of probes in
%, trained on 10,000 codes: logistic regression, linear SVM, 5 nearest neighbours, and k-means (clusters matched one to
one with the classes; also its normalised mutual information); and the percentage of the 10 and 100 training images
nearest to a test image that are of its class (2,000 queries among all 60,000). One seed; all networks have
`model.activation=relu model.init=default`. The last rows are the baselines: raw pixels and PCA.

![Images and their nearest neighbours by pixels and by code](figures/uses.png)

*Test images, each followed by its nearest neighbours among 1,000: by pixels, and below by the code of `model=vae`.
The view `neighbours` draws this for any run.*
"""
CODES_TAIL = """Published, for all 70,000 images: k-means on raw pixels 53 % and NMI 0.50 on MNIST, 47 % and 0.51 on
Fashion-MNIST; on the code of 784-500-500-2000-10 after 300 epochs 87.9 % and 0.807, 60.6 % and 0.637
(`XifengGuo/DEC-keras`, 10 trials).
"""
PROBES = {
    "linear": "probe_linear",
    "SVM": "probe_svm",
    "kNN": "probe_knn",
    "k-means": "probe_kmeans",
    "NMI": "probe_nmi",
    "P@10": "precision_10",
    "P@100": "precision_100",
}


def cell(values: Sequence[float]) -> str:
    """Return mean ± standard deviation, or the one value, to two decimals."""
    if len(values) < 2:
        return "".join(f"{value:.2f}" for value in values)
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def command_table(commands: dict[str, list[str]], names: Sequence[str]) -> list[str]:
    """Return the lines of the table with the overrides of the rows `names`."""
    text = ["| network, pretraining | `aetrain ...` |", "|---|---|"]
    return text + [f"| {name} | `{' '.join(commands[name])}` |" for name in names]


def few_labels() -> list[str]:
    """Return the section of few labels."""
    records = read_records("few_labels")
    if not records:
        return []
    keys: set[str] = set()
    for seeds in records.values():
        keys.update(*seeds.values())
    counts = sorted({int(key.split("_")[1]) for key in keys})
    columns = [f"{count:,} labels | random start" for count in counts]
    text = [few_labels_head()]
    text += ["| network, pretraining | seeds | " + " | ".join(columns) + " |", "|---|---|" + "---|---|" * len(counts)]
    names = [name for name in LABELS if name in records]
    for name in names:
        seeds = records[name]
        cells = []
        for count in counts:
            cells.append(cell([metrics[f"finetuned_{count}"] for metrics in seeds.values()]))
            cells.append(cell([metrics[f"finetuned_{count}_random"] for metrics in seeds.values()]))
        text.append(f"| {name} | {len(seeds)} | " + " | ".join(cells) + " |")
    return [*text, FEW_TAIL, *command_table(LABELS, names), ""]


def few_labels_head() -> str:
    """Return the introduction of few labels, with the numbers of the configs."""
    measure = OmegaConf.load(ROOT / "configs" / "measures" / "few_labels.yaml").few_labels
    protocol = f"{measure.steps:,} steps or {measure.epochs} epochs, whichever is more"
    epochs = OmegaConf.load(ROOT / "configs" / "experiment" / "pretrain_finetune.yaml").pretrain.epochs
    return FEW_HEAD.format(command=FINETUNE, protocol=protocol, rest=epochs, rbm=RBM[-1].partition("=")[2])


def all_labels() -> list[str]:
    """Return the section of all labels."""
    records = read_records("all_labels")
    if not records:
        return []
    text = [ALL_HEAD]
    for name, seeds in records.items():
        (metrics,) = seeds.values()
        errors = [100 - metrics[key] for key in ("probe_linear", "finetuned_60000", "finetuned_60000_random")]
        text.append(f"| {name} | " + " | ".join(f"{error:.2f}" for error in errors) + " |")
    text += ["", *command_table(ALL_LABELS, list(records)), ALL_TAIL]
    if LONGER in records:
        (metrics,) = records[LONGER].values()
        parts = []
        for count in (100, 1000, 10000):
            pretrained, random = metrics[f"finetuned_{count}"], metrics[f"finetuned_{count}_random"]
            parts.append(f"{count:,} labels: {pretrained:.2f} %, from a random start {random:.2f} %")
        text.append(f"Accuracy with few labels after 60 epochs (one seed): {'; '.join(parts)}.")
    return [*text, ""]


def codes() -> list[str]:
    """Return the section of probes and retrieval."""
    records = read_records("codes")
    text: list[str] = []
    for dataset in ("mnist", "fashion"):
        families = {name: records[f"{dataset}: {name}"]["0"] for name in FAMILIES if f"{dataset}: {name}" in records}
        if not families:
            continue
        if not text:
            text.append(CODES_HEAD.format(dataset=dataset))
        text += [f"### {dataset}", "", *codes_table(families), ""]
    return [*text, CODES_TAIL] if text else []


def codes_table(families: dict[str, dict[str, float]]) -> list[str]:
    """Return the lines of a data set's table: the codes, then the baselines."""
    text = [
        "| code | `aetrain ...` | units | " + " | ".join(PROBES) + " |",
        "|---|---|---" + "|---" * len(PROBES) + "|",
    ]
    baselines = {}
    for name, metrics in families.items():
        units = int(metrics["code_dim"])
        cells = [f"{metrics[key]:.2f}" for key in PROBES.values()]
        text.append(f"| {name} | `{' '.join(FAMILIES[name])}` | {units} | " + " | ".join(cells) + " |")
        baselines["pixels", 784] = [f"{metrics[key + '_pixels']:.2f}" for key in PROBES.values()]
        baselines["PCA", units] = [f"{metrics[key + '_pca']:.2f}" for key in PROBES.values()]
    return text + [f"| {name} | | {units} | " + " | ".join(cells) + " |" for (name, units), cells in baselines.items()]


def write_document() -> None:
    """Write docs/uses.md from the recorded results."""
    (DOCS / "uses.md").write_text("\n".join([HEAD, *few_labels(), *all_labels(), *codes()]).rstrip() + "\n")


def main() -> None:
    """Measure, record and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", choices=["few_labels", "all_labels", "codes", []])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--outputs", type=Path, default=ROOT / "outputs" / "uses")
    arguments = parser.parse_args()
    for table in arguments.tables:
        measure(table, arguments.seeds, arguments.minutes, arguments.outputs)
    if "codes" in arguments.tables:
        draw_neighbours(arguments.outputs)
    write_document()


if __name__ == "__main__":
    main()
