"""A calibration's parts from its config, everything checked before a model loads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset
from omegaconf import DictConfig

from pipelines.calibration.grid import Point, points
from pipelines.calibration.run import Wanted, divided
from pipelines.calibration.writer import Settings
from pipelines.cli import counted
from pipelines.data.task import Task
from pipelines.decoding.config import decoding, instantiated
from pipelines.decoding.decode import Decoding
from pipelines.decoding.pair import Pair, load_pair


@dataclass(frozen=True)
class Parts:
    """What is calibrated, on what, and how."""

    pair: Pair
    task: Task
    dataset: Dataset
    """the rows of the split"""
    points: Sequence[Point]
    decoding: Decoding
    settings: Settings
    wanted: Wanted


def assemble(config: DictConfig) -> Parts:
    """Build everything; says on what and with which models.

    Raises:
        UserError: whatever the user can mend.
    """
    task, candidates = instantiated(config, "task"), points(config)
    written = [decoding(config, task, point.policy) for point in candidates]
    wanted = Wanted(risk=instantiated(config, "risk"), max_drop=config.max_drop, delta=config.delta)
    dataset = task.load(config.split, config.limit)
    divided(len(dataset), config.selection_share, config.seed)
    pair = load_pair(config, task)
    print(f"task   {task.name}, {config.split} split, {counted(len(dataset), 'example')}")
    for role, model in pair.described.items():
        print(f"{role}  {model.note}")
    print(f"grid   {counted(len(candidates), 'point')}")
    settings = Settings(
        batch_size=config.batch_size, latency_limit=config.latency_limit, cache=Path(config.out) / "cache"
    )
    return Parts(pair, task, dataset, candidates, written[0], settings, wanted)
