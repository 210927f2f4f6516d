"""The task docstrings: real English without a network, from the docstrings of the packages that are installed.

Knows packages, files and syntax trees; nothing is imported or run. What a docstring's text is worth is decided in
``pipelines.data.prose``. All docstrings of a package go to the split that its name's hash names, so that a test text
comes from a project (style, vocabulary, copied paragraphs) that training never saw.
"""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, DatasetInfo
from datasets.config import HF_DATASETS_CACHE
from tqdm.auto import tqdm

from pipelines.cli import UserError
from pipelines.data import prose
from pipelines.data.toy.draw import bucket
from pipelines.files import replacing

SKIPPED = {"test", "tests", "testing", "_vendor", "vendored"}  # folders of tests and of copies of other packages
BUCKETS = 20
RECIPE = 2  # goes up when the same packages give other pairs


@dataclass(frozen=True, kw_only=True)
class Docstrings:
    """Pairs of the running environment's packages, or of those under ``path``."""

    path: str | None = None  # a folder that packages are installed in; None for the running environment
    seed: int = 35  # sends the packages to splits; this one gives validation about 470 pairs and test 600
    cache: bool = True  # keep the parsed pairs among the datasets library's files, named by the packages' versions

    def load(self, split: str, columns: tuple[str, str] = ("", ""), limit: int | None = None) -> Dataset:
        """The split's pairs by package, file and line. The packages' versions are in ``info.description``."""
        packages = self._packages()
        versions = {name: package.version for name, package in packages.items()}
        table = self._table(packages, json.dumps([RECIPE, self.path, versions]))
        rows = [row for row in table.to_pylist() if split_of(row["package"], self.seed) == split][:limit]
        if not rows:
            raise UserError(
                f"docstrings: no package of the split {split!r} is installed; install more, or set another seed"
            )
        used = {row["package"]: versions[row["package"]] for row in rows}
        return Dataset.from_dict(
            {"source": [row["source"] for row in rows], "target": [row["target"] for row in rows]},
            info=DatasetInfo(description=json.dumps(used)),
        )

    def _packages(self) -> dict[str, Distribution]:
        found = distributions() if self.path is None else distributions(path=[self.path])
        named = {package.name.lower().replace("_", "-"): package for package in found if package.name}
        return dict(sorted(named.items()))

    def _table(self, packages: dict[str, Distribution], key: str) -> pa.Table:
        """All pairs of the packages, from the cache if they were parsed before."""
        file = Path(HF_DATASETS_CACHE) / "docstrings" / f"{sha256(key.encode()).hexdigest()[:32]}.parquet"
        if self.cache and file.is_file():
            return pq.read_table(file)
        table = pa.table(dict(zip(("package", "source", "target"), zip(*_pairs(packages), strict=True), strict=True)))
        if self.cache:
            with replacing(file) as temporary:
                pq.write_table(table, temporary)
        return table


def split_of(package: str, seed: int) -> str:
    """The split of a package: one in twenty is for validation, one for test, by a hash of its name."""
    return {0: "test", 1: "validation"}.get(bucket(str(seed), package, buckets=BUCKETS), "train")


def _pairs(packages: dict[str, Distribution]) -> list[tuple[str, str, str]]:
    """(package, body, first sentence) of every docstring whose two texts no earlier one had."""
    files = [(name, file) for name, package in packages.items() for file in _files(package)]
    seen: set[str] = set()
    rows = []
    for name, file in tqdm(files, desc="reading docstrings", unit=" files"):
        for docstring in _docstrings(file):
            found = prose.pair(docstring)
            if found and not seen.intersection(keys := [" ".join(text.lower().split()) for text in found]):
                seen.update(keys)
                rows.append((name, *found))
    if not rows:
        raise UserError("docstrings: no installed package has docstrings to learn from")
    return rows


def _files(package: Distribution) -> Iterable[Path]:
    files = [file for file in package.files or () if file.suffix == ".py" and not SKIPPED.intersection(file.parts)]
    return [Path(package.locate_file(file)) for file in sorted(files)]


def _docstrings(file: Path) -> Iterator[str]:
    """Docstrings of a file's module, classes and functions, from top to bottom; none if it is no valid Python."""
    try:
        with warnings.catch_warnings(action="ignore"):  # old escapes in other people's strings
            tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    for node in sorted(nodes, key=lambda node: getattr(node, "lineno", 0)):
        if text := ast.get_docstring(node):
            yield text
