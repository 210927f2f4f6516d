"""The systems of a comparison, from config to policies. Knows no policy by name."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig

from bild.policies.base import Policy
from pipelines.cli import UserError
from pipelines.decoding.grid import TARGET, expanded


@dataclass(frozen=True)
class Point:
    """One setting of a system."""

    system: str
    policy: Policy
    setting: str
    """the values that distinguish it from the other points of its system"""

    @property
    def name(self) -> str:
        """For people, and unique."""
        return f"{spoken(self.system)} {self.setting}".strip()


def spoken(system: str) -> str:
    """A system's name for people."""
    return system.replace("_", " ")


def points(systems: DictConfig) -> list[Point]:
    """Every point of every system that is not null.

    Raises:
        UserError: a system that is no policy, a value that its policy refuses, or nothing to compare.
    """
    found = []
    for name, node in systems.items():
        if node is None:
            continue
        made = list(expanded(node, f"systems.{name}"))
        varying = [key for key in made[0][1] if key != TARGET and len({str(fields[key]) for _, fields in made}) > 1]
        for policy, fields in made:
            found.append(Point(str(name), policy, ", ".join(str(fields[key]) for key in varying)))
    if not found:
        raise UserError("systems: all of them are null; leave at least one")
    return found
