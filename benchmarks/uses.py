"""What codes are good for, measured: run the table's rows, keep what they came to, and write docs/uses.md.

    python benchmarks/uses.py few_labels [--seeds 5] [--minutes 8]
    python benchmarks/uses.py codes [--minutes 8]

Every row is a command, run once a seed, seed after seed; a table can be made in pieces, as what has been measured is
recorded in docs/uses/ and not measured again. `--minutes` begins nothing more after so long.
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

import aetrain
from aetrain.evaluation.measures import probes
from aetrain.views.context import context_factory
from aetrain.views.neighbours import Neighbours

RECORDS = DOCS / "uses"
FINETUNE = "experiment=pretrain_finetune"
SMALLER = ["model.hidden=[500,500]", "model.code_dim=2000"]
ONE_LAYER = ["model.hidden=[]", "model.code_dim=1024"]
MACHINE = [*ONE_LAYER, "pretrain.epochs=3"]

# The rows of each table: what it is called, and what `aetrain` is told.
LABELS: dict[str, list[str]] = {
    "784-1024-10, RBM": [FINETUNE, *MACHINE],
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
    "784-1024-10, RBM": [FINETUNE, *MACHINE, *PROBED, "measures.few_labels.labels=[60000]"],
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
SHOWN = "mnist: variational"  # the row of which the picture is


def rows(table: str, seeds: int) -> Iterator[tuple[str, int, list[str]]]:
    """Name, seed and command of every piece of a table, network by network and seed by seed."""
    if table == "few_labels":
        for network in dict.fromkeys(name.partition(",")[0] for name in LABELS):
            ours = [name for name in LABELS if name.startswith(network)]
            yield from ((name, seed, LABELS[name]) for seed in range(seeds) for name in ours)
    elif table == "all_labels":
        yield from ((name, 0, said) for name, said in ALL_LABELS.items())
    else:
        measures = ["measures=[probes,retrieval]", "epochs=5", "views=none"]
        for name, said in FAMILIES.items():
            for dataset in ("mnist", "fashion"):
                yield f"{dataset}: {name}", 0, [f"dataset={dataset}", *said, *measures]


def recorded(table: str) -> dict[str, dict[str, dict[str, float]]]:
    """Metrics by row and seed."""
    file = RECORDS / f"{table}.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def measured(table: str, seeds: int, minutes: float, outputs: Path) -> None:
    """Run what is not recorded yet, and record it. The controls that pieces have in common are kept in `outputs`."""
    began = time.monotonic()
    controls = outputs / "controls.json"
    if controls.is_file():
        probes._KNOWN.update((tuple(key), figures) for key, figures in json.loads(controls.read_text()))
    for name, seed, said in rows(table, seeds):
        known = recorded(table)
        if str(seed) in known.get(name, {}):
            continue
        if time.monotonic() - began > 60 * minutes:
            return
        place = place_of(outputs, table, name, seed)
        run = aetrain.run([*said, f"seed={seed}", f"hydra.run.dir={place}"])
        figures = {key.partition("/")[2]: round(value, 4) for key, value in run.metrics.items() if is_use(key)}
        if table == "codes":
            figures["code_dim"] = run.model.code_dim
        known.setdefault(name, {})[str(seed)] = figures
        RECORDS.mkdir(parents=True, exist_ok=True)
        (RECORDS / f"{table}.json").write_text(json.dumps(known, indent=1) + "\n")
        controls.write_text(json.dumps(list(probes._KNOWN.items())))
        print(name, seed, figures, flush=True)


def like_images(outputs: Path) -> None:
    """The picture of what is found by pixels and by code, of the row SHOWN, where it has been run."""
    place = place_of(outputs, "codes", SHOWN, 0)
    if not (place / "metrics.json").is_file():
        return
    run = aetrain.load(place)
    dataset = dataset_of(run.config)
    context = context_factory(run.model, dataset.load().test, dataset.prepare, noise_of(run))(0)
    Neighbours(count=4)(context).save(DOCS / "figures" / "uses")


def place_of(outputs: Path, table: str, name: str, seed: int) -> Path:
    """Where a row's run goes."""
    return outputs / table / re.sub(r"[^\w()-]+", "_", name) / f"seed{seed}"


def is_use(key: str) -> bool:
    """Whether a figure of metrics.json says what a code is good for."""
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
Each seed draws its own labelled images, balanced over the classes. Pretraining is short: {rbm_epochs} epochs
for the RBM of 784-1024, {other_epochs} for all others (per layer where it trains layer by layer). Units are sigmoid; the last
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
nearest to a test image that are of its class (2,000 queries among all 60,000). One seed. The last rows are the
baselines: raw pixels and PCA.

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
    """Mean ± standard deviation, or the one value, to two decimals."""
    if len(values) < 2:
        return "".join(f"{value:.2f}" for value in values)
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def few_labels() -> list[str]:
    """The table of few labels."""
    known = recorded("few_labels")
    if not known:
        return []
    counts = sorted({int(key.split("_")[1]) for one in known.values() for f in one.values() for key in f})
    given = OmegaConf.load(ROOT / "configs" / "measures" / "few_labels.yaml").few_labels
    protocol = f"{given.steps:,} steps or {given.epochs} epochs, whichever is more"
    stack = OmegaConf.load(ROOT / "configs" / "experiment" / "pretrain_finetune.yaml").pretrain.epochs
    machine = MACHINE[-1].partition("=")[2]
    text = [FEW_HEAD.format(command=FINETUNE, protocol=protocol, stack=stack, machine=machine)]
    columns = [f"{count:,} labels | random start" for count in counts]
    text += ["| network, pretraining | seeds | " + " | ".join(columns) + " |", "|---|---|" + "---|---|" * len(counts)]
    for name in [name for name in LABELS if name in known]:
        each = list(known[name].values())
        cells = [cell([f[f"finetuned_{c}{end}"] for f in each]) for c in counts for end in ("", "_random")]
        text.append(f"| {name} | {len(each)} | " + " | ".join(cells) + " |")
    text += [FEW_TAIL, "| network, pretraining | `aetrain ...` |", "|---|---|"]
    text += [f"| {name} | `{' '.join(said)}` |" for name, said in LABELS.items() if name in known]
    return [*text, ""]


def all_labels() -> list[str]:
    """The table of all labels."""
    known = recorded("all_labels")
    text = []
    for name in known:
        (one,) = known[name].values()
        errors = [100 - one[key] for key in ("probe_linear", "finetuned_60000", "finetuned_60000_random")]
        text.append(f"| {name} | " + " | ".join(f"{error:.2f}" for error in errors) + " |")
    said = ["", "| network, pretraining | `aetrain ...` |", "|---|---|"]
    said += [f"| {name} | `{' '.join(ALL_LABELS[name])}` |" for name in known]
    few = [
        f"{count:,} labels: {one[f'finetuned_{count}']:.2f} % right, from a random start "
        f"{one[f'finetuned_{count}_random']:.2f}"
        for one in known.get(LONGER, {}).values()
        for count in (100, 1000, 10000)
    ]
    shown = [f"With few labels, after 60 epochs (one seed): {'; '.join(few)}."] if few else []
    return [ALL_HEAD, *text, *said, ALL_TAIL, *shown, ""] if known else []


def codes() -> list[str]:
    """The tables of probes and retrieval."""
    known = recorded("codes")
    text = []
    for dataset in ("mnist", "fashion"):
        ours = {name: known[f"{dataset}: {name}"]["0"] for name in FAMILIES if f"{dataset}: {name}" in known}
        if not ours:
            continue
        text += [CODES_HEAD.format(dataset=dataset)] if not text else []
        text += [f"### {dataset}", "", "| code | `aetrain ...` | units | " + " | ".join(PROBES) + " |"]
        text += ["|---|---|---" + "|---" * len(PROBES) + "|"]
        controls = {}
        for name, f in ours.items():
            units = int(f["code_dim"])
            cells = [f"{f[key]:.2f}" for key in PROBES.values()]
            text.append(f"| {name} | `{' '.join(FAMILIES[name])}` | {units} | " + " | ".join(cells) + " |")
            controls["pixels", 784] = [f"{f[key + '_pixels']:.2f}" for key in PROBES.values()]
            controls["PCA", units] = [f"{f[key + '_pca']:.2f}" for key in PROBES.values()]
        text += [f"| {name} | | {units} | " + " | ".join(cells) + " |" for (name, units), cells in controls.items()]
        text += [""]
    return [*text, CODES_TAIL] if text else []


def write_document() -> None:
    """Make docs/uses.md of all that is recorded."""
    (DOCS / "uses.md").write_text("\n".join([HEAD, *few_labels(), *all_labels(), *codes()]).rstrip() + "\n")


def main() -> None:
    """Measure, record, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", choices=["few_labels", "all_labels", "codes", []])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--outputs", type=Path, default=ROOT / "outputs" / "uses")
    given = parser.parse_args()
    for table in given.tables:
        measured(table, given.seeds, given.minutes, given.outputs)
    if "codes" in given.tables:
        like_images(given.outputs)
    write_document()


if __name__ == "__main__":
    main()
