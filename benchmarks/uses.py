"""What codes are good for, measured: run the table's rows, keep what they came to, and write docs/uses.md.

    python benchmarks/uses.py few_labels [--seeds 5] [--minutes 8]
    python benchmarks/uses.py codes [--minutes 8]

Every row is a command, run once a seed, seed after seed; a table can be made in pieces, as what has been measured is
recorded in docs/uses/ and not measured again. `--minutes` begins nothing more after so long.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from experiments import DOCS, ROOT, spread

import aetrain

RECORDS = DOCS / "uses"
FINETUNE = "experiment=pretrain_finetune"
SMALLER = ["model.hidden=[500,500]", "model.code_dim=2000"]
MACHINE = ["model.hidden=[]", "model.code_dim=1024", "pretrain.epochs=5"]

# The rows of each table: what it is called, and what `aetrain` is told.
LABELS: dict[str, list[str]] = {
    "784-1024-10, RBM": [FINETUNE, *MACHINE],
    "784-1000-1000-500-10, stack of RBMs": [FINETUNE],
    "784-1000-1000-500-10, layer by layer": [FINETUNE, "pretrain=layerwise"],
    "784-1000-1000-500-10, layer by layer, denoising": [FINETUNE, "pretrain=layerwise", "noise=masking"],
    "784-1000-1000-500-10, autoencoder": [FINETUNE, "pretrain=none", "epochs=2"],
    "784-500-500-2000-10, stack of RBMs": [FINETUNE, *SMALLER],
    "784-500-500-2000-10, layer by layer": [FINETUNE, *SMALLER, "pretrain=layerwise"],
    "784-500-500-2000-10, layer by layer, denoising": [FINETUNE, *SMALLER, "pretrain=layerwise", "noise=masking"],
    "784-500-500-2000-10, autoencoder": [FINETUNE, *SMALLER, "pretrain=none", "epochs=2"],
}
ALL = "measures.few_labels.labels=[60000]"
ALL_LABELS: dict[str, list[str]] = {
    "784-1024-10, RBM": [FINETUNE, *MACHINE, ALL, "measures=[few_labels,probes]", "measures.probes.images=60000"],
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


def rows(table: str, seeds: int) -> Iterator[tuple[str, int, list[str]]]:
    """Name, seed and command of every piece of a table, the first seed of all rows first."""
    if table == "few_labels":
        yield from ((name, seed, said) for seed in range(seeds) for name, said in LABELS.items())
    elif table == "all_labels":
        yield from ((name, 0, said) for name, said in ALL_LABELS.items())
    else:
        measures = ["measures=[probes,retrieval]", "epochs=5", "views=none"]
        for name, said in FAMILIES.items():
            for dataset in ("mnist", "fashion"):
                yield f"{dataset}: {name}", 0, [f"dataset={dataset}", *said, *measures]


def recorded(table: str) -> dict[str, dict[str, dict[str, float]]]:
    """Figures by row and seed."""
    file = RECORDS / f"{table}.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def measured(table: str, seeds: int, minutes: float, outputs: Path) -> None:
    """Run what is not recorded yet, and record it."""
    began = time.monotonic()
    for name, seed, said in rows(table, seeds):
        known = recorded(table)
        if str(seed) in known.get(name, {}):
            continue
        if time.monotonic() - began > 60 * minutes:
            return
        place = outputs / table / name.replace(" ", "_").replace(",", "").replace(":", "") / f"seed{seed}"
        metrics = aetrain.run([*said, f"seed={seed}", f"hydra.run.dir={place}"]).metrics
        figures = {key.partition("/")[2]: round(value, 4) for key, value in metrics.items() if is_use(key)}
        known.setdefault(name, {})[str(seed)] = figures
        RECORDS.mkdir(parents=True, exist_ok=True)
        (RECORDS / f"{table}.json").write_text(json.dumps(known, indent=1) + "\n")
        print(name, seed, figures, flush=True)


def is_use(key: str) -> bool:
    """Whether a figure of metrics.json says what a code is good for."""
    return key.startswith(("test/finetuned", "test/probe", "test/precision"))
