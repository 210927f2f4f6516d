"""The data sets of the hub's tasks, laid out as there: repository, revision, folders, file names, card, columns.

Every text says which split and row it is of, so that a test sees what has been read. Sizes are this module's own.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.hub.server import LocalHub

Row = dict[str, Any]
SPLITS = ("train", "validation", "test")


def publish(hub: LocalHub, root: Path) -> None:
    """Put all data sets of ``conf/task`` that are hub's under ``root``, and on the hub."""
    for name, write in DATASETS.items():
        folder = root / name
        folder.mkdir(parents=True)
        write(folder)
        hub.publish("datasets", name, folder)
    script, converted = root / "script", root / "converted"
    script.mkdir()
    (script / "iwslt2017.py").write_text("raise SystemExit('a loading script must never run')\n")
    (script / "README.md").write_text("---\nlanguage:\n- de\n---\n# IWSLT 2017\n")
    for pair in ("iwslt2017-de-en", "iwslt2017-en-de"):
        for split in SPLITS:
            rows = [translation(f"{pair} {split}", row) for row in range(4)]
            _parquet(converted / pair / split / "0000.parquet", rows)
    hub.publish("datasets", "IWSLT/iwslt2017", script)
    hub.publish("datasets", "IWSLT/iwslt2017", converted, revision="refs/convert/parquet")


def translation(split: str, row: int) -> Row:
    return {"translation": {"de": f"de {split} {row}", "en": f"en {split} {row}"}}


def summary(source: str, target: str) -> Callable[[str, int], Row]:
    return lambda split, row: {source: f"{source} {split} {row}", target: f"{target} {split} {row}", "id": str(row)}


def _math(split: str, row: int) -> Row:
    return {"question": f"question {split} {row}", "answer": f"1 + 1 = <<1+1=2>>2\n#### {row}"}


def _passage(split: str, row: int) -> Row:
    answers = {"text": [f"answer {split} {row}"] * (row % 2), "answer_start": [3] * (row % 2)}
    return {
        "id": f"5a{row}",
        "title": "Normans",
        "context": f"context {split} {row}",
        "question": f"question {split} {row}",
        "answers": answers,
    }


def _freebase(split: str, row: int) -> Row:
    return {"url": "http://freebase", "question": f"question {split} {row}", "answers": [f"answer {split} {row}", "b"]}


def _search(split: str, row: int) -> Row:
    return {"question": f"question {split} {row}", "answer": [f"answer {split} {row}", "b"]}


def _trivia(split: str, row: int) -> Row:
    answer = {"aliases": ["b"], "normalized_aliases": ["b"], "matched_wiki_entity_name": "", "type": "WikipediaEntity"}
    names = {"normalized_matched_wiki_entity_name": "", "normalized_value": "", "value": f"answer {split} {row}"}
    pages: dict[str, list[str]] = {"doc_source": [], "filename": [], "title": [], "wiki_context": []}
    return {
        "question": f"question {split} {row}",
        "question_id": f"tc_{row}",
        "question_source": "http://www.triviacountry.com/",
        "entity_pages": pages,
        "search_results": {"description": [], "rank": [], "url": []},
        "answer": answer | names,
    }


def _configs(
    row: Callable[[str, int], Row], sizes: dict[str, dict[str, int]], **changes: Any
) -> Callable[[Path], None]:
    """A Parquet repository of today: a folder per config, and a card that says which files are which split.

    Args:
        sizes: rows by config and split.
        changes: ``folder`` where it is not the config's name, ``shards`` of train, ``features`` as the card has them.
    """

    def write(folder: Path) -> None:
        card: dict[str, Any] = {"dataset_info": [], "configs": []}
        for config, splits in sizes.items():
            within = changes.get("folder", config)
            for split, size in splits.items():
                rows = [row(f"{config} {split}" if len(sizes) > 1 else split, number) for number in range(size)]
                shards = changes.get("shards", 1) if split == "train" else 1
                for shard in range(shards):
                    name = f"{split}-{shard:05}-of-{shards:05}.parquet"
                    _parquet(folder / within / name, rows[shard * size // shards : (shard + 1) * size // shards])
            counted = [{"name": split, "num_bytes": 1, "num_examples": size} for split, size in splits.items()]
            info = {"config_name": config, "splits": counted, "download_size": 1, "dataset_size": 1}
            if "features" in changes:
                info["features"] = changes["features"]
            card["dataset_info"].append(info)
            files = [{"split": split, "path": f"{within}/{split}-*"} for split in splits]
            card["configs"].append({"config_name": config, "data_files": files})
        (folder / "README.md").write_text(f"---\n{json.dumps(card)}\n---\n# Card\n")  # JSON is YAML

    return write


def _json_lines(folder: Path) -> None:
    (folder / "README.md").write_text("---\ntask_categories:\n- translation\n---\n# Multi30k\n")
    for split, name in zip(SPLITS, ("train", "val", "test"), strict=True):
        rows = (translation(split, row)["translation"] for row in range(4))
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _csv(folder: Path) -> None:
    (folder / "README.md").write_text("---\npretty_name: DIALOGSum Corpus\n---\n# DialogSum\n")
    for split in SPLITS:
        with (folder / f"{split}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["id", "dialogue", "summary", "topic"])
            for row in range(4):
                lines = f'#Person1#: "dialogue", {split} {row}\n#Person2#: Yes.'
                writer.writerow([f"{split}_{row}", lines, f"summary {split} {row}", "talk"])


def _parquet(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def _text(*names: str) -> Iterator[Row]:
    return ({"name": name, "dtype": "string"} for name in names)


# As the cards have them, in the form of their time: a sequence of named columns, a translation's languages.
_GERMAN = [{"name": "translation", "dtype": {"translation": {"languages": ["de", "en"]}}}]
_SPANS = [{"name": "text", "dtype": "string"}, {"name": "answer_start", "dtype": "int64"}]
_PASSAGE = [*_text("id", "title", "context", "question"), {"name": "answers", "sequence": _SPANS}]
_SPLITS = {"train": 6, "validation": 4, "test": 4}
# By repository, what writes it.
DATASETS: dict[str, Callable[[Path], None]] = {
    "wmt/wmt14": _configs(translation, {"de-en": _SPLITS, "fr-en": _SPLITS}, shards=3, features=_GERMAN),
    "EdinburghNLP/xsum": _configs(summary("document", "summary"), {"default": _SPLITS}, folder="data"),
    "abisee/cnn_dailymail": _configs(
        summary("article", "highlights"), dict.fromkeys(("1.0.0", "2.0.0", "3.0.0"), _SPLITS), shards=3
    ),
    "openai/gsm8k": _configs(_math, {config: {"train": 503, "test": 4} for config in ("main", "socratic")}),
    "rajpurkar/squad_v2": _configs(_passage, {"squad_v2": {"train": 2003, "validation": 4}}, features=_PASSAGE),
    "stanfordnlp/web_questions": _configs(_freebase, {"default": {"train": 503, "test": 4}}, folder="data"),
    "google-research-datasets/nq_open": _configs(_search, {"nq_open": {"train": 2003, "validation": 4}}),
    "mandarjoshi/trivia_qa": _configs(
        _trivia,
        {config: {"train": 2003, "validation": 4, "test": 4} for config in ("rc", "rc.nocontext", "unfiltered")},
    ),
    "bentrevett/multi30k": _json_lines,
    "knkarthick/dialogsum": _csv,
}
