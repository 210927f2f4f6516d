"""Config nodes to objects, with the user's mistakes in one line. Knows Hydra; the rest of the package does not."""

from __future__ import annotations

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from pipelines.cli import UserError
from pipelines.data.task import Task
from pipelines.evaluation.decode import Decoding


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


def decoding(config: DictConfig, task: Task) -> Decoding:
    """How texts are written: the config's sampling keys, up to the task's target length unless told otherwise."""
    return Decoding(
        max_new_tokens=task.target_length if config.max_new_tokens is None else config.max_new_tokens,
        do_sample=config.do_sample,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        seed=config.seed,
        engine=config.engine,
    )
