"""The candidates of a calibration, from config to policies. Knows Hydra's nodes; knows no policy by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig, ListConfig, OmegaConf

import bild
from bild.policies.base import Policy
from pipelines.cli import UserError
from pipelines.decoding.config import instantiated

TARGET = "_target_"


@dataclass(frozen=True)
class Point:
    """One candidate."""

    policy: Policy
    node: dict[str, Any]
    """the config it is made from: its class as ``_target_``, and its fields"""
    lossless: bool


LARGE = Point(bild.LargeOnly(), {TARGET: "bild.LargeOnly"}, lossless=True)


def points(config: DictConfig) -> list[Point]:
    """The large model alone, then the points of ``lossless``, of ``grid``, and ``bild``, each policy once.

    An entry of the two lists is a policy's config; a field with a list of values stands for a point of each, several
    such fields for all combinations.

    Raises:
        UserError: an entry that is no policy, or a value that its policy refuses.
    """
    found = {LARGE.policy: LARGE}
    for key in ("lossless", "grid"):
        if not isinstance(config[key], ListConfig):
            raise UserError(f"{key}={config[key]}: must be a list of policies, such as [{{{TARGET}: bild.LargeOnly}}]")
        for place, entry in enumerate(config[key]):
            for point in _expanded(entry, f"{key}[{place}]", lossless=key == "lossless"):
                found.setdefault(point.policy, point)
    for point in _expanded(config.bild, "bild", lossless=False):
        found.setdefault(point.policy, point)
    return list(found.values())


def _expanded(entry: DictConfig, name: str, lossless: bool) -> Iterator[Point]:
    fields = OmegaConf.to_container(entry, resolve=True) if isinstance(entry, DictConfig) else {}
    if TARGET not in fields:
        raise UserError(f"{name}: names no policy; write {{{TARGET}: bild.BigLittle, fallback: [0.5, 0.7]}}")
    if not _is_policy(fields[TARGET]):
        raise UserError(f"{name}: {fields[TARGET]} is no policy; give a class of bild, such as bild.BigLittle")
    values = [value if isinstance(value, list) else [value] for value in fields.values()]
    for combination in product(*values):
        node = dict(zip(fields, combination, strict=True))
        policy = instantiated(OmegaConf.create({name: node}), name)
        if not isinstance(policy, Policy):
            raise UserError(f"{name}: {node[TARGET]} is no policy; give a class of bild, such as bild.BigLittle")
        yield Point(policy, node, lossless)


def _is_policy(target: object) -> bool:
    """Whether a dotted path leads to a class of policies."""
    try:
        return issubclass(get_class(str(target)), Policy)
    except (ImportError, ValueError):
        return False
