"""Small sides of a pair that are no models of their own: from a file of ``conf/small/`` to what drafts.

Knows draft sources, a task's training targets and the folder of the large model's outputs; knows nothing of decoding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import bild
from bild.sources.base import DraftSource
from pipelines.cli import UserError, check_whole, counted, first_line
from pipelines.data.encode import encode
from pipelines.data.prompt import FewShot
from pipelines.data.task import Task, fingerprint
from pipelines.models import loading, manifest, shortlist
from pipelines.models.fingerprint import key, model_hash, tokenizer_hash
from pipelines.models.loading import LoadedModel

TEXTS = ("auto", "outputs", "targets")
SPLIT = "train"
NO_EXIT = (
    "no training to write from there is known of it, so expect bad texts or bad drafts; to train one: python -m "
    "pipelines.finetune model=tiny-large-early-exit (or another T5 with train.exits='{1: 1, LAST: 1}')"
)
OTHERS = {
    "tokenizer": "was written with another tokenizer",
    "large": "was written by other weights, or in another dtype, than the large model's",
}


@dataclass(frozen=True)
class LoadedSource:
    """What drafts, and one line on what it is."""

    source: DraftSource
    """a dataclass: its fields are its identity"""
    note: str
    shortlist: tuple[int, ...] | None = None
    """the only token ids that it may draft; None = all"""


@dataclass(frozen=True, kw_only=True)
class SourceConfig(ABC):
    """A file of ``conf/small/`` that describes no model."""

    name: str

    @abstractmethod
    def load(self, large: LoadedModel, task: Task) -> LoadedSource:
        """What drafts for this large model, which stands on its device in its dtype.

        Raises:
            UserError: what it is made of is not there, or does not belong to this model.
        """


@dataclass(frozen=True, kw_only=True)
class PromptLookup(SourceConfig):
    """``bild.PromptLookup``."""

    max_ngram: int
    min_ngram: int

    def __post_init__(self) -> None:
        self._source()  # checks the numbers before anything is loaded

    def load(self, large: LoadedModel, task: Task) -> LoadedSource:
        sizes = f"{self.min_ngram} to {self.max_ngram} tokens"
        note = f"{self.name}: what followed the last {sizes} in the source or in the text so far"
        return LoadedSource(self._source(), note)

    def _source(self) -> bild.PromptLookup:
        return bild.PromptLookup(max_ngram=self.max_ngram, min_ngram=self.min_ngram)


@dataclass(frozen=True, kw_only=True)
class EarlyExit(SourceConfig):
    """``bild.EarlyExit``."""

    layers: int
    shortlist: bool  # draft from the tokens in the shortlist.json beside the large model's weights

    def __post_init__(self) -> None:
        bild.EarlyExit(self.layers)  # checks the number before anything is loaded

    def load(self, large: LoadedModel, task: Task) -> LoadedSource:
        source = bild.EarlyExit(self.layers)
        try:
            source.check(large.model)
        except ValueError as error:
            raise UserError(f"small.layers={self.layers}: {error}") from error
        layers = counted(self.layers, "decoder layer")
        trained = "" if has_exit(large.path, self.layers) else f"; {NO_EXIT}"
        note = f"{self.name}: the first {layers} of the large model, with its head{trained}"
        if not self.shortlist:
            return LoadedSource(source, note)
        ids = shortlist.read(Path(large.path), large.tokenizer)
        note += f"; drafts from {shortlist.share(ids, large.tokenizer)} ({shortlist.NAME})"
        return LoadedSource(source, note, ids)


@dataclass(frozen=True, kw_only=True)
class Bigram(SourceConfig):
    """``bild.Bigram`` of a task, counted once and kept beside the task's checkpoints."""

    texts: str  # "outputs" = what the large model wrote for pipelines.align, "targets" = the task's, "auto" = the first
    outputs: str  # folder of these outputs
    limit: int | None  # texts that are counted; None = all

    def __post_init__(self) -> None:
        if self.texts not in TEXTS:
            raise UserError(f"small.texts={self.texts}: choose one of {', '.join(TEXTS)}")
        check_whole("small.limit", self.limit, null="all texts")

    def load(self, large: LoadedModel, task: Task) -> LoadedSource:
        start = large.model.generation_config.decoder_start_token_id if large.model.config.is_encoder_decoder else None
        texts = self._texts(large, task)
        path = loading.CHECKPOINTS / task.name / f"{self.name}-{key(texts.identity, self.limit, start)}.json"
        source = _kept(path)
        if source is None:
            source = bild.Bigram.from_outputs(texts.read(self.limit), start=start)
            path.parent.mkdir(parents=True, exist_ok=True)
            source.save(path)
        size = counted(len(source.table), "token")
        return LoadedSource(source, f"{self.name}: what most often follows each of {size} in {texts.note} ({path})")

    def _texts(self, large: LoadedModel, task: Task) -> _Texts:
        """The outputs if they are there and wanted, else the targets."""
        if self.texts == "targets":
            return _Targets(large, task, self.limit)
        try:
            return _Outputs(Path(self.outputs) / SPLIT, large)
        except UserError:
            if self.texts == "outputs":
                raise
            return _Targets(large, task, self.limit)


def has_exit(path: str, layer: int) -> bool:
    """Whether the manifest beside a model's weights tells of a training that had it write from this layer, too."""
    try:
        return f"train.exits.{layer}" in manifest.read(path).get("identity", {})
    except manifest.IncompleteError:
        return False


def _kept(path: Path) -> bild.Bigram | None:
    """The table of an earlier run; one that cannot be read counts as not there."""
    try:
        return bild.Bigram.load(path)
    except (FileNotFoundError, ValueError):
        return None


class _Texts(ABC):
    """Token ids of many texts, and what decides them."""

    identity: dict[str, Any]
    note: str

    @abstractmethod
    def read(self, limit: int | None) -> Iterable[list[int]]:
        """The first ``limit`` of them (None = all), EOS included."""


class _Targets(_Texts):
    """The targets of a task's training split."""

    def __init__(self, large: LoadedModel, task: Task, limit: int | None) -> None:
        try:
            self._pairs = task.load(SPLIT, limit)
        except UserError as error:
            raise UserError(f"the bigram table is counted in training targets, but {error}") from error
        self._tokenizer, self._task = large.tokenizer, task
        self.identity = {
            "targets": fingerprint(self._pairs),
            "task.target_length": task.target_length,
            "tokenizer": tokenizer_hash(large.tokenizer),
        }
        if task.prompt is not None:
            self.identity["task.prompt.template"] = task.prompt.template
        self.note = counted(len(self._pairs), "training target")

    def read(self, limit: int | None) -> Iterable[list[int]]:
        if self._task.prompt is None:
            return encode(self._pairs, self._tokenizer, self._task)["labels"]
        return self._answers(self._task.prompt)

    def _answers(self, prompt: FewShot) -> Iterable[list[int]]:
        """The targets as they are written behind a prompt, with an EOS: tokenizers for prompts put none there."""
        for target in self._pairs["target"]:
            ids = self._tokenizer(prompt.answer(target), add_special_tokens=False)["input_ids"]
            yield [*ids, self._tokenizer.eos_token_id][: self._task.target_length]


class _Outputs(_Texts):
    """What the large model has written for the training sources."""

    def __init__(self, folder: Path, large: LoadedModel) -> None:
        try:
            found = manifest.check(folder, hashes=False)
        except manifest.IncompleteError as error:
            raise UserError(
                f"{folder}: holds no finished outputs of the large model ({error}); run pipelines.align, or choose "
                "small.texts=targets"
            ) from error
        self.identity = {"outputs": found["identity"]}
        own = {"tokenizer": tokenizer_hash(large.tokenizer), "large": model_hash(large.model)}
        for name, value in own.items():
            if found["identity"].get(name) != value:
                raise UserError(f"{folder}: {OTHERS[name]}; choose small.texts=targets, or align again")
        self._files = [folder / name for name in sorted(found["files"])]
        self.note = f"the large model's outputs in {folder}"

    def read(self, limit: int | None) -> Iterable[list[int]]:
        left = limit
        for file in self._files:
            try:
                rows = pq.read_table(file, columns=["tokens"])["tokens"].to_pylist()[:left]
            except (pa.ArrowInvalid, OSError) as error:
                raise UserError(f"{file}: cannot be read ({first_line(error)}); run pipelines.align again") from error
            yield from rows
            left = None if left is None else left - len(rows)
