"""Documents of three topics in a .csv file, for the tests of texts."""

import csv
from pathlib import Path

import numpy as np

# Topics of the documents, and the words that each document draws from.
TOPICS = {
    "space": "orbit launch shuttle moon rocket nasa mission",
    "cars": "engine wheel brake road driver speed dealer",
    "food": "bread cheese soup cook oven salt spice tomato",
}
COMMON = "the a of to and people year time way thing world day part number place"


def write_documents(file: Path, count: int = 60, with_splits: bool = True) -> list[dict[str, str]]:
    """Write a .csv file of documents of three topics, a quarter of them for test; return the rows."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(count):
        topic = list(TOPICS)[number % 3]
        words = [*generator.choice(TOPICS[topic].split(), 2), *generator.choice(COMMON.split(), 8), f"only{number}"]
        rows.append({"split": "test" if number % 4 == 0 else "train", "label": topic, "text": " ".join(words)})
    generator.shuffle(rows)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(
            stream, ["split", "label", "text"] if with_splits else ["label", "text"], extrasaction="ignore"
        )
        writer.writeheader()
        writer.writerows(rows)
    return rows


def read_rows(table: Path) -> list[dict[str, str]]:
    """Return the rows of a .csv file."""
    with table.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
