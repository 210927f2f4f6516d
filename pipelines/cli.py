"""The one door of every pipeline: Hydra composes, the pipeline runs, user errors are one line with exit status 2.

Knows nothing about models, tasks or policies.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from uuid import uuid4

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, Node, OmegaConf
from omegaconf.errors import OmegaConfBaseException

CONF = Path(__file__).resolve().parent.parent / "conf"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
GRACE = 5  # seconds in which a launcher that has lost one process ends the others
ALIKE = 0.7  # how much two words must have in common, from 0 to 1, for one to be taken for the other misspelt


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


def check_path(key: str, value: object, kind: str = "folder") -> None:
    """Raise ``UserError`` unless a key's value may name a folder, or a file if that is its kind."""
    if not isinstance(value, str) or not value:
        raise UserError(f"{key}={value}: give a {kind}, quoted twice if it looks like a number: '{key}=\"7\"'")


def counted(number: int, noun: str) -> str:
    """A number with its noun, such as "1 row" and "2,000 rows"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def complain(message: str) -> None:
    """Print an error as one line on standard error."""
    print("error: " + " ".join(message.split()), file=sys.stderr)


def is_first_here() -> bool:
    """Whether this is the first of the processes that ``accelerate launch`` or torchrun has started on this machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0


def fail(message: str) -> None:
    """Print one line on standard error and leave with status 2.

    Of several processes the first one speaks. Nearly always all have met the same error, so the others wait until
    their launcher ends them; if it does not, the error was one's own, and is told.
    """
    if not is_first_here():
        time.sleep(GRACE)
    complain(message)
    sys.exit(2)


def entry(config_name: str, main: Callable[[DictConfig], None]) -> None:
    """Compose ``conf/{config_name}.yaml`` with the command line's overrides and run ``main`` on it.

    What the user can mend ends in one line and status 2: a ``UserError``, a misspelt key or choice, a missing value, a
    path that the file system refuses. Anything else is a defect and keeps its traceback.
    """

    def guarded(config: DictConfig) -> None:
        if "torch" not in sys.modules and sys.stderr.isatty() and is_first_here():
            print("loading libraries ...", file=sys.stderr, flush=True)  # silent seconds, before anything else is said
        with one_line(config_name):  # before Hydra sees the error and adds lines of its own
            main(config)

    # Makes Hydra raise instead of printing its own abridged trace.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    with one_line(config_name):
        hydra.main(version_base=None, config_path=str(CONF), config_name=config_name)(guarded)()


@contextmanager
def one_line(program: str) -> Iterator[None]:
    """Around a whole command: what the user can mend is told in one line, with exit status 2.

    Args:
        program: name of the entry point, and of the config whose keys it takes.
    """
    # A character that the terminal's encoding lacks is shown as "?"; it does not end the command.
    sys.stdout.reconfigure(errors="replace")
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        told = explained(error, program)
        if told is None:
            raise
        fail(told)


def explained(error: Exception, config_name: str) -> str | None:
    """What to say of an error that the user can mend; None for a defect."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, HydraException):
        return None if isinstance(error, InstantiationException) else _refused(error, config_name)
    if isinstance(error, OmegaConfBaseException):
        # Resolvers of this module raise a UserError, which OmegaConf wraps.
        return first_line(error).removeprefix("UserError raised while resolving interpolation: ")
    if str(error).startswith("Config group override must be a string"):  # Hydra's bare ValueError
        return _without_choice()
    if _is_out_of_memory(error):
        return (
            f"out of memory ({first_line(error)}); lower batch_size or max_new_tokens, in a training train.batch_size "
            "or, for the same result, raise train.accumulation, and run the same command again"
        )
    if isinstance(error, OSError) and error.errno in NO_ROOM:  # those who write mostly do not say where
        where = "" if error.filename is None else f"{error.filename}: "
        return f"{where}{os.strerror(error.errno)}; make room on the disk, and run the same command again"
    if isinstance(error, OSError) and error.filename is not None:  # without a file it is not about the disk
        return f"{error.filename}: {error.strerror}; choose another path, or mend its permissions"
    return None


def _is_out_of_memory(error: Exception) -> bool:
    """Python's own, torch's for GPUs, and what torch says on the CPU."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def _refused(error: HydraException, config_name: str) -> str:
    """Which word of the command line Hydra refused, and what was probably meant."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        close = get_close_matches(name, error.options, cutoff=ALIKE)
        remedy = f"did you mean {' or '.join(close)}?" if close else f"choose one of {', '.join(error.options)}"
        return f"{group}={name}: there is no such choice; {remedy}"
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read; write key=value, with quotes around a value of special characters"
    told = first_line(error)
    if unknown := re.match(r"Could not override '(.+?)'", told):
        # A value of braces holds keys of its own, one of which it may be.
        key = getattr(error.__cause__, "full_key", unknown[1])
        close = get_close_matches(key, _keys(config_name), cutoff=ALIKE)
        remedy = f"did you mean {' or '.join(close)}?" if close else "--cfg job shows all of them"
        return f"{key}: there is no such key here; {remedy}"
    if within := re.match(r"In '(.+?)': Could not override '(.+?)'", told):
        overlay = within[1].replace("/", "=")
        return f"{overlay}: is for another pipeline; it sets {within[2]}, which {config_name} does not have"
    if several := re.match(r"Ambiguous value for argument '(.+)'", told):
        return f"{several[1]}: more than one value; add -m to run them one after the other"
    return told


def _without_choice() -> str:
    """Which group of the command line was given something else than the name of a choice."""
    folders = _folders()
    unknown = (one for one in _given() if not any((folder / one[0] / f"{one[1]}.yaml").is_file() for folder in folders))
    group, value = next(unknown)
    choices = sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})
    return f"{group}={value}: must name a choice; choose one of {', '.join(choices)}"


def _folders() -> list[Path]:
    """Where the groups of choices lie: here, and in the folder that the user has added."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--config-dir", "-cd", type=Path)
    added = options.parse_known_args()[0].config_dir
    return [CONF] if added is None else [CONF, added.absolute()]


def _given() -> list[tuple[str, str]]:
    """Groups, and what the command line gives as the choice of each."""
    words = [word.partition("=") for word in sys.argv[1:] if "=" in word]
    folders = _folders()
    return [(group, value) for group, _, value in words if any((folder / group).is_dir() for folder in folders)]


def _keys(config_name: str) -> list[str]:
    """All keys that a command line may set, with the groups that this one chooses."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        groups = hydra.compose(config_name)
        chosen = [f"{group}={value}" for group, value in _given() if group in groups and "," not in value]
        chosen.append(f"hydra.searchpath={json.dumps([str(folder) for folder in _folders()[1:]])}")
        return list(_flat(OmegaConf.to_container(hydra.compose(config_name, chosen))))


def _flat(nested: dict[str, Any], parent: str = "") -> Iterator[str]:
    for name, value in nested.items():
        yield parent + name
        if isinstance(value, dict):
            yield from _flat(value, f"{parent}{name}.")


def _required(what: str, example: str, _node_: Node) -> None:
    """Resolver ``${required:what,example}``: the value of a key that the user must give."""
    key = _node_._get_full_key(None)
    raise UserError(f"{key} is not set: give {what}, such as {key}={example}")


def _last_part(path: str) -> str:
    """Resolver ``${last_part:path}``: the name of a folder or of a hub repository."""
    return Path(str(path)).name  # null has a name as well; whoever loads it says what is wrong


OmegaConf.register_new_resolver("required", _required)
OmegaConf.register_new_resolver("last_part", _last_part)
# ``${unique:}``: a word of its own for every composed config; the jobs of a sweep get the sweep's.
OmegaConf.register_new_resolver("unique", lambda: uuid4().hex[:8], use_cache=True)
