"""What the commands that decode a split have in common: their rows, what they say first, how their results are named.

Knows the keys that these commands share; cheap to import, so that a misspelt key is told at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from pipelines.cli import UserError, check_path, check_whole, counted

if TYPE_CHECKING:
    from datasets import Dataset

    from pipelines.data.task import Task
    from pipelines.decoding.pair import Pair
    from pipelines.evaluation.bench import Settings

# Overrides that a result's name tells in another way, or that do not change the result.
TOLD_OTHERWISE = ("split", "large", "small", "task", "task.name", "bild", "bild.*", "out", "device")
HASH_DIGITS = 8  # of a hash in a name


def check(config: DictConfig) -> None:
    """Raise ``UserError`` on numbers out of range, before anything is loaded."""
    check_whole("limit", config.limit, null="the whole split")
    check_whole("latency_limit", config.latency_limit, null="all of them")
    check_whole("batch_size", config.batch_size)
    check_path("out", config.out)


def load_rows(config: DictConfig, task: Task) -> Dataset:
    """The examples of ``split``, up to ``limit``. Raises ``UserError`` where there are none."""
    dataset = task.load(config.split, config.limit)
    if len(dataset) == 0:
        raise UserError(f"task={task.name}: the split {config.split!r} has no rows; choose another split")
    return dataset


def introduce(config: DictConfig, task: Task, dataset: Dataset, pair: Pair, say: Callable[[str], None] = print) -> None:
    """Say on what and with which models."""
    say(f"task   {task.name}, {config.split} split, {counted(len(dataset), 'example')}")
    for role, model in pair.described.items():
        say(f"{role}  {model.note}")


def settings_of(config: DictConfig) -> Settings:
    """How rows are written and timed."""
    from pipelines.evaluation.bench import Settings

    return Settings(batch_size=config.batch_size, latency_limit=config.latency_limit, cache=Path(config.out) / "cache")


def naming(
    pair: Pair, data: str, device: str, told: Sequence[str] = TOLD_OTHERWISE
) -> tuple[dict[str, str], dict[str, Any]]:
    """What a result's name is made of: the models' names by role, and ``extras``.

    Args:
        data: hash of the rows' texts.
    """
    contents = {"task.data_files": data}
    contents |= {f"{role}.path": model.weights for role, model in pair.described.items()}
    names = {role: model.name for role, model in pair.described.items()}
    return names, extras(device, contents, told)


def extras(device: str, contents: Mapping[str, str], told: Sequence[str] = TOLD_OTHERWISE) -> dict[str, Any]:
    """What the user has set beyond task, split, models and policy, for the name of the result.

    Args:
        contents: keys whose values are paths, and the hash of what lies there, which stands in their place.
        told: patterns of keys that the name tells anyway.
    """
    from hydra.core.hydra_config import HydraConfig

    found: dict[str, Any] = {} if device == "cpu" else {"": device}
    if not HydraConfig.initialized():
        return found
    for override in HydraConfig.get().overrides.task:
        name, _, value = override.lstrip("+~").partition("=")
        path = next((path for path in contents if name == path or name.startswith(f"{path}.")), None)
        if path is not None:
            found[path] = contents[path][:HASH_DIGITS]
        elif not any(fnmatch(name, pattern) for pattern in told):
            found[name] = value
    return found
