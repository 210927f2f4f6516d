"""The policy that a calibration has left beside a pair: where it lies, whether it fits, and how it takes effect.

Knows the file's place and the few keys that are needed to use it; knows nothing about how it was found.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from bild.policies.base import Policy
from pipelines.data.task import Task
from pipelines.decoding.config import instantiated
from pipelines.decoding.decode import Decoding
from pipelines.decoding.pair import Pair, drafts_hash
from pipelines.models import manifest
from pipelines.models.fingerprint import key
from pipelines.models.loading import CHECKPOINTS
from pipelines.models.sources import NO_EXIT, has_exit

NAME = "policy.json"
KIND = "calibration"
SCHEMA = 1
NEW, OWN, OTHER = HERE = ("new rows", "the split it was calibrated on", "other data")
WEIGHTS = "weights"
INFINITE = str(math.inf)  # as ``files.finite`` writes it


@dataclass(frozen=True)
class Chosen:
    """The policy that a run uses."""

    config: DictConfig
    """the run's config with this policy as ``bild``"""
    policy: Policy
    promise: dict[str, Any] | None
    """of the calibration that it comes from, and as "here" whether this run's rows are such as it speaks of (one of
    ``HERE``); None if it comes from the config"""
    notes: tuple[str, ...]
    """where it comes from and what that means, for people"""


def place(pair: Pair, task_name: str) -> Path:
    """Where a pair's policy lies: in the folder of the small model where that is a checkpoint of this task.

    Elsewhere (shipped weights, the hub, a folder of the user's) nothing is written: ``{task}/{large}+{small}/`` below
    the checkpoints then.
    """
    small = pair.described["small"].path  # None where nothing was trained
    if small is not None and Path(small).parent == CHECKPOINTS / task_name:
        return Path(small) / NAME
    return CHECKPOINTS / task_name / "+".join(pair.described[role].name for role in ("large", "small")) / NAME


def identity(pair: Pair, task: Task, decoding: Decoding) -> dict[str, Any]:
    """What the texts of a policy depend on, and with them what was promised of them, by the names that people know."""
    settings = {name: value for name, value in asdict(decoding).items() if name != "seed"}
    drafts = {f"{WEIGHTS} of {role}": model.weights for role, model in pair.described.items()}
    if pair.shortlist is not None:  # hashed together in ``Described.weights``, but it is one of the two that differs
        drafts |= {f"{WEIGHTS} of small": drafts_hash(pair.small), "small.shortlist": key(list(pair.shortlist))}
    return {
        **drafts,
        "task": task.name,
        "task.prompt": None if task.prompt is None else repr(task.prompt),
        **{f"task.{name}": getattr(task, name) for name in ("version", "prefix", "source_length")},
        **settings,
    }


def data_identity(task: Task) -> dict[str, Any]:
    """Where a task's rows come from: what "examples like these" are."""
    local = {split: file for split, file in task.data_files.items() if file is not None}
    return {
        "task.data_files": local,
        "task.origin": None if local else repr(task.origin),
        **{f"task.{name}": getattr(task, name) for name in ("source_column", "target_column")},
    }


def chosen(config: DictConfig, pair: Pair, task: Task, policy: Policy, decoding: Decoding) -> Chosen:
    """The calibrated policy of a loaded pair if there is one that fits and the user has not chosen; else ``policy``.

    Args:
        policy: of the config, ``bild``.
    """
    found = _found(config, pair, task, policy, decoding)
    exits, large = found.policy.exits, pair.described.get("large")
    if exits is None or large is None or has_exit(large.path, exits.first_exit):
        return found
    return replace(found, notes=(*found.notes, f"it leaves {large.name} before its last layer, and {NO_EXIT}"))


def _found(config: DictConfig, pair: Pair, task: Task, policy: Policy, decoding: Decoding) -> Chosen:
    if user_chose():
        return Chosen(config, policy, None, ("from the command line",))
    if not (path := place(pair, task.name)).exists():
        return Chosen(config, policy, None, (f"the default, not calibrated (there is no {path})",))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        told = (content["schema"], content["kind"])
        misfits = _misfits(content, pair, identity(pair, task, decoding))
        node = {name: math.inf if value == INFINITE else value for name, value in content["bild"].items()}
        others = manifest.differences(content["data"], data_identity(task))
        own_split = content["task"]["split"] == config.get("split")
        promise = content["promise"]
        statement = promise["statement"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Chosen(config, policy, None, _unused(path, "it cannot be read"))
    if told != (SCHEMA, KIND):
        return Chosen(config, policy, None, _unused(path, f"it is no {KIND} of schema {SCHEMA}"))
    if misfits:
        return Chosen(config, policy, None, _unused(path, "; ".join(misfits)))
    config = config.copy()
    OmegaConf.update(config, "bild", node, merge=False, force_add=True)
    here = OTHER if others else OWN if own_split else NEW
    notes = [f"calibrated in {path}, {statement}"]
    if others:
        notes.append(f"of these rows that says nothing, they are {OTHER}: {'; '.join(others)}")
    elif own_split:
        notes.append("these rows are not new, they are of the split that it was calibrated on")
    return Chosen(config, instantiated(config, "bild"), {**promise, "here": here}, tuple(notes))


def _misfits(content: dict[str, Any], pair: Pair, asked: dict[str, Any]) -> list[str]:
    """What keeps a policy from being used. Weights in another dtype have other hashes: then it is the dtype."""
    there, large = content["fits"], content["models"]["large"]["dtype"]
    if large == pair.described["large"].dtype:
        return manifest.differences(there, asked)
    there, asked = ({name: of[name] for name in of if not name.startswith(WEIGHTS)} for of in (there, asked))
    return manifest.differences({"dtype": large, **there}, {"dtype": pair.described["large"].dtype, **asked})


def user_chose() -> bool:
    """The policy is the command line's, by its own keys or by an experiment; without Hydra, the caller's."""
    if not HydraConfig.initialized():
        return True
    return any(map(_sets_policy, HydraConfig.get().overrides.task))


def _sets_policy(override: str) -> bool:
    name = override.partition("=")[0].lstrip("+")  # "~experiment" takes one away
    return name == "experiment" or name.lstrip("~").partition(".")[0] == "bild"


def _unused(path: Path, why: str) -> tuple[str]:
    return (f"the default, as {path} is not used: {why}; calibrate again, or remove it",)
