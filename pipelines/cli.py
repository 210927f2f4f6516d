"""The one door of every pipeline: Hydra composes, the pipeline runs, user errors are one line with exit status 2.

Knows nothing about models, tasks or policies.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

CONF = Path(__file__).resolve().parent.parent / "conf"


class UserError(Exception):
    """Something that the user can mend. The message is one line: what, where, and what to do."""


def first_line(error: Exception) -> str:
    """What an error says, without the details that libraries put on further lines; its name if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def check_whole(key: str, value: object, least: int = 1, null: str | None = None) -> None:
    """Raise ``UserError`` unless a key's value is a whole number of at least ``least``.

    Args:
        null: what null stands for, such as "all rows"; None where null is no value.
    """
    if value is None and null is not None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        hint = "" if null is None else f", or null for {null}"
        raise UserError(f"{key}={value}: must be a whole number of at least {least}{hint}")


def counted(number: int, noun: str) -> str:
    """A number with its noun, such as "1 row" and "2,000 rows"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def fail(message: str) -> None:
    """Print one line on standard error and leave with status 2."""
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)


def entry(config_name: str, main: Callable[[DictConfig], None]) -> None:
    """Compose ``conf/{config_name}.yaml`` with the command line's overrides and run ``main`` on it.

    A ``UserError``, a missing config group and a misspelt key end in one line and status 2.
    Anything else is a defect and keeps its traceback.
    """

    def guarded(config: DictConfig) -> None:
        try:
            main(config)
        except (UserError, OmegaConfBaseException) as error:
            fail(first_line(error))
        except KeyboardInterrupt:
            sys.exit(130)

    # Makes Hydra raise instead of printing its own abridged trace.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        hydra.main(version_base=None, config_path=str(CONF), config_name=config_name)(guarded)()
    except (HydraException, OmegaConfBaseException) as error:
        fail(first_line(error))
    except OSError as error:
        # A disk or a folder that refuses; whatever else is wrong is no OSError with a file's name.
        if error.filename is None:
            raise
        fail(f"{error.filename}: {error.strerror}; choose another path, or mend its permissions")
