"""A policy can be found: exported, on the command line with all of its fields, in the README, in words in reports."""

import importlib
import inspect
import pkgutil
from dataclasses import fields, is_dataclass
from functools import cache

import pytest
import yaml
from hydra.utils import instantiate

import bild
from bild import policies
from bild.policies.base import Policy
from tests.conf import ROOT, composed
from tests.test_readme import systems


def found() -> list[type[Policy]]:
    """Every class in bild/policies/ of which there can be objects."""
    modules = [importlib.import_module(f"bild.policies.{one.name}") for one in pkgutil.iter_modules(policies.__path__)]
    classes = {value for module in modules for value in vars(module).values() if inspect.isclass(value)}
    return sorted(
        (one for one in classes if issubclass(one, Policy) and not inspect.isabstract(one)),
        key=lambda one: one.__name__,
    )


every_policy = pytest.mark.parametrize("policy", found(), ids=lambda policy: policy.__name__)


def test_there_are_policies() -> None:
    assert {bild.BigLittle, bild.Calm, bild.OracleMixing, bild.SmallOnly} <= set(found())


@every_policy
def test_it_is_a_value(policy: type[Policy]) -> None:
    declared = "@dataclass(frozen=True, kw_only=True)"
    assert is_dataclass(policy), f"declare {policy.__name__} with {declared}"
    assert policy.__dataclass_params__.frozen, f"declare {policy.__name__} with {declared}"
    assert all(field.kw_only for field in fields(policy)), f"declare {policy.__name__} with {declared}"


@every_policy
def test_it_is_exported(policy: type[Policy]) -> None:
    name = policy.__name__
    assert getattr(bild, name, None) is policy, f"import {name} in bild/__init__.py"
    assert name in bild.__all__, f"name {name} in __all__ of bild/__init__.py"


@every_policy
def test_it_says_what_it_does(policy: type[Policy]) -> None:
    name, told = policy.__name__, inspect.cleandoc(str(policy.__doc__))
    assert not told.startswith(f"{name}("), f"give {name} a docstring: reports show its first paragraph"
    summary = " ".join(told.split("\n\n")[0].split())
    assert "Raises" not in summary, f"put what {name} raises into a second paragraph: reports show the first"
    assert len(summary) <= 300, f"shorten the first paragraph of {name}'s docstring: reports show it"


@every_policy
def test_it_is_on_the_command_line(policy: type[Policy]) -> None:
    target = f"bild.{policy.__name__}"
    nodes = {path.name: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "conf/bild").glob("*.yaml"))}
    own = {name: node for name, node in nodes.items() if node["_target_"] == target}
    assert own, f"write a file in conf/bild/ with _target_: {target} and every field"
    for name, node in own.items():
        missing = {field.name for field in fields(policy)} - node.keys()
        assert not missing, f"conf/bild/{name} lacks {', '.join(sorted(missing))}: no command line could set it"
        built = instantiate(composed("evaluate", f"bild={name.removesuffix('.yaml')}").bild)
        assert type(built) is policy


@cache
def shown_in_the_readme() -> set[type[Policy]]:
    commands = [command.strip("`").split() for _, _, command, _ in systems()]
    return {type(instantiate(composed("evaluate", *words).bild)) for words in commands}


@every_policy
def test_it_has_a_row_in_the_readme(policy: type[Policy]) -> None:
    assert policy in shown_in_the_readme(), f"give {policy.__name__} a row in the README's table of systems"
