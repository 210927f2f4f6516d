"""The candidates of a calibration, from config to policies. Knows Hydra's nodes; knows no policy by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig

import bild
from bild.policies.base import Policy
from pipelines.cli import UserError
from pipelines.decoding.grid import TARGET, expanded


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
            for policy, node in expanded(entry, f"{key}[{place}]"):
                found.setdefault(policy, Point(policy, node, lossless=key == "lossless"))
    for policy, node in expanded(config.bild, "bild"):
        found.setdefault(policy, Point(policy, node, lossless=False))
    return list(found.values())
