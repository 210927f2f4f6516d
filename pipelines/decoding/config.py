"""Config nodes to objects, with the user's mistakes in one line. Knows Hydra; the rest of the package does not."""

from __future__ import annotations

from collections.abc import Mapping
from pkgutil import resolve_name
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from bild.engine import check_engine
from bild.policies.base import Policy
from bild.sampling import Sampler
from pipelines.cli import UserError, check_whole
from pipelines.data.task import Task
from pipelines.decoding.decode import Decoding

WANTED = {float: "a number", bool: "true or false", str: """text; quote a number twice, as in 'key="7"'"""}


def instantiated(config: DictConfig, node: str) -> Any:
    """The object that a node of the config describes.

    Raises:
        UserError: a value of the wrong kind, or what the object's own checks say of its values.
    """
    target = config[node]["_target_"]
    kind = class_at(target)
    if kind is None:
        raise UserError(f"{node}._target_: there is no {target}; name a class that can be imported")
    check_kinds(kind, config[node], f"{node}.")
    try:
        return instantiate(config[node])
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from error
        if isinstance(cause, (ValueError, TypeError)):
            raise UserError(f"{node}: {cause}") from error
        raise


def class_at(target: object) -> type | None:
    """The class that a dotted path leads to; None where there is none, without the lines that Hydra's own would log."""
    try:
        found = resolve_name(str(target))
    except (ImportError, AttributeError, ValueError):
        return None
    return found if isinstance(found, type) else None


def decoding(config: DictConfig, task: Task, policy: Policy) -> Decoding:
    """How texts are written: the config's sampling keys, up to the task's target length unless told otherwise. The
    answer to a prompt is one line.

    Raises:
        UserError: a value out of range, or sampling with a policy that is greedy only; known before any model loads.
    """
    length = task.target_length if config.max_new_tokens is None else config.max_new_tokens
    check_whole("max_new_tokens", length, null="the task's length")
    check_seed_and_engine(config)
    fields = {name: config[name] for name in ("do_sample", "temperature", "top_k", "top_p")}
    check_kinds(Sampler, fields)
    try:
        policy.check(greedy=Sampler(**fields).greedy)
    except ValueError as error:
        raise UserError(str(error)) from error
    _refuse_unused(fields)
    return Decoding(
        max_new_tokens=length,
        **fields,
        seed=config.seed,
        engine=config.engine,
        one_line=task.prompt is not None,
    )


def _refuse_unused(sampling: Mapping[str, Any]) -> None:
    """Raise ``UserError`` on a sampling key that greedy decoding would leave aside without a word."""
    neutral = {"temperature": (0, 1), "top_k": (None,), "top_p": (None,)}
    for name, values in neutral.items():
        if not sampling["do_sample"] and sampling[name] not in values:
            raise UserError(
                f"{name}={sampling[name]}: texts are greedy, so it does nothing; add do_sample=true, or drop it"
            )


def check_kinds(made: type, given: Mapping[str, Any], prefix: str = "") -> None:
    """Raise ``UserError`` on a value that is no number, text or truth value where the class is annotated with one.

    Args:
        made: the class that is made of the values.
        given: values by field.
        prefix: of the keys under which the user gives them.
    """
    for name, annotation in get_type_hints(made).items():
        kinds = get_args(annotation) if get_origin(annotation) is UnionType else (annotation,)
        [kind, *others] = [kind for kind in kinds if kind is not NoneType]
        if name not in given or others or kind not in WANTED or (given[name] is None and NoneType in kinds):
            continue
        accepted = (int, float) if kind is float else kind
        if not isinstance(given[name], accepted) or (isinstance(given[name], bool) and kind is not bool):
            raise UserError(f"{prefix}{name}={given[name]}: must be {WANTED[kind]}")


def check_seed_and_engine(config: DictConfig) -> None:
    """Raise ``UserError`` unless ``seed`` and ``engine`` are such that a decoder can be made of them."""
    check_whole("seed", config.seed, least=0)
    try:
        check_engine(config.engine)
    except ValueError as error:
        raise UserError(str(error)) from error
