"""Config nodes to objects, with the user's mistakes in one line. Knows Hydra; the rest of the package does not."""

from __future__ import annotations

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from bild.engine import check_engine
from bild.policies.base import Policy
from bild.sampling import Sampler
from pipelines.cli import UserError, check_whole
from pipelines.data.task import Task
from pipelines.decoding.decode import Decoding


def instantiated(config: DictConfig, node: str) -> Any:
    """The object that a node of the config describes.

    Raises:
        UserError: what the object's own checks say of its values.
    """
    try:
        return instantiate(config[node])
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from error
        if isinstance(cause, (ValueError, TypeError)):
            raise UserError(f"{node}: {cause}") from error
        raise


def decoding(config: DictConfig, task: Task, policy: Policy) -> Decoding:
    """How texts are written: the config's sampling keys, up to the task's target length unless told otherwise.

    Raises:
        UserError: a value out of range, or sampling with a policy that is greedy only; known before any model loads.
    """
    length = task.target_length if config.max_new_tokens is None else config.max_new_tokens
    check_whole("max_new_tokens", length, null="the task's length")
    check_seed_and_engine(config)
    fields = {name: config[name] for name in ("do_sample", "temperature", "top_k", "top_p")}
    try:
        policy.check(greedy=Sampler(**fields).greedy)
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error
    return Decoding(
        max_new_tokens=length,
        **fields,
        seed=config.seed,
        engine=config.engine,
    )


def check_seed_and_engine(config: DictConfig) -> None:
    """Raise ``UserError`` unless ``seed`` and ``engine`` are such that a decoder can be made of them."""
    check_whole("seed", config.seed, least=0)
    try:
        check_engine(config.engine)
    except ValueError as error:
        raise UserError(str(error)) from error
