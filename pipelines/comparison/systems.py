"""The systems of a comparison, from config to policies and what drafts for them. Knows no policy by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from bild.policies.base import Policy
from pipelines.cli import UserError
from pipelines.decoding.grid import TARGET, combinations, expanded, is_a

if TYPE_CHECKING:
    from pipelines.models.sources import SourceConfig

SMALL = "small"
"""the key of a system that brings what drafts for it"""


@dataclass(frozen=True)
class Point:
    """One setting of a system."""

    system: str
    policy: Policy
    setting: str
    """the values that distinguish it from the other points of its system"""
    drafts: SourceConfig | None = None
    """what drafts in place of the pair's small side; None = that one"""

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
        UserError: a system that is no policy, or whose ``small`` is no draft source, a value that is refused, or
            nothing to compare.
    """
    found = []
    for name, node in systems.items():
        if node is None:
            continue
        place = f"systems.{name}"
        own = isinstance(node, DictConfig) and SMALL in node
        sides = list(_sources(node[SMALL], f"{place}.{SMALL}")) if own else [(None, {})]
        plain = OmegaConf.masked_copy(node, [key for key in node if key != SMALL]) if own else node
        made = [
            (policy, drafts, {**side, **fields}) for drafts, side in sides for policy, fields in expanded(plain, place)
        ]
        varying = _varying([fields for _, _, fields in made])
        for policy, drafts, fields in made:
            found.append(Point(str(name), policy, ", ".join(str(fields[key]) for key in varying), drafts))
    if not found:
        raise UserError("systems: all of them are null; leave at least one")
    return found


def _sources(node: object, place: str) -> Iterator[tuple[SourceConfig, dict[str, Any]]]:
    """What drafts, for every combination of the values that the node's fields list, and these fields."""
    from pipelines.models.sources import SourceConfig

    fields = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else {}
    if not is_a(SourceConfig, fields.get(TARGET)):
        raise UserError(
            f"{place}: is no draft source; write the fields of one of conf/small, such as "
            f"{{{TARGET}: pipelines.models.sources.EarlyExit, name: early_exit, layers: 1}}"
        )
    yield from combinations(fields, place)


def _varying(made: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fields in which the points of a system differ."""
    return [key for key in made[0] if key != TARGET and len({str(fields[key]) for fields in made}) > 1]
