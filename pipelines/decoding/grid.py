"""Policies from a config in which some fields are lists, and which of them a pair can decode with. Knows Hydra's nodes;
knows no policy by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from bild.policies.base import Policy
from pipelines.cli import UserError, counted
from pipelines.decoding.config import class_at, instantiated

TARGET = "_target_"


Point = TypeVar("Point")


def expanded(node: DictConfig, name: str) -> Iterator[tuple[Policy, dict[str, Any]]]:
    """A policy for every combination of the values that the node's fields list, and the fields that it is made of.

    Args:
        name: of the node, for messages.

    Raises:
        UserError: a node that is no policy, or a value that its policy refuses.
    """
    fields = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else {}
    if TARGET not in fields:
        raise UserError(f"{name}: names no policy; write {{{TARGET}: bild.BigLittle, fallback: [0.5, 0.7]}}")
    if not is_a(Policy, fields[TARGET]):
        raise UserError(f"{name}: {fields[TARGET]} is no policy; give a class of bild, such as bild.BigLittle")
    yield from combinations(fields, name)


def combinations(fields: Mapping[str, Any], name: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    """What a node makes for every combination of the values that its fields list, and the fields of each."""
    for key, value in fields.items():
        if value == []:
            raise UserError(f"{name}.{key}=[]: lists no value; give at least one")
    values = [value if isinstance(value, list) else [value] for value in fields.values()]
    for combination in product(*values):
        made_of = dict(zip(fields, combination, strict=True))
        yield instantiated(OmegaConf.create({name: made_of}), name), made_of


def possible(
    points: Sequence[Point], names: Sequence[str], check: Callable[[Point], object]
) -> tuple[list[Point], list[str]]:
    """The points that pass a check that raises ``UserError``, and why each of the others does not, by its name."""
    fine, reasons = [], []
    for point, name in zip(points, names, strict=True):
        try:
            check(point)
        except UserError as error:
            reasons.append(f"{name}: {error}")
        else:
            fine.append(point)
    return fine, reasons


def grouped(reasons: Sequence[str]) -> list[str]:
    """The reasons of ``possible`` in few lines: each once, after the first name that it holds for."""
    names: dict[str, list[str]] = {}
    for told in reasons:
        name, _, reason = told.partition(": ")
        names.setdefault(reason, []).append(name)
    return [
        f"{first} and {counted(len(others), 'other')}: {reason}" if others else f"{first}: {reason}"
        for reason, (first, *others) in names.items()
    ]


def is_a(kind: type, target: object) -> bool:
    """Whether a dotted path leads to a class of this kind."""
    found = class_at(target)
    return found is not None and issubclass(found, kind)
