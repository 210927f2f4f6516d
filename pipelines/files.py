"""Files that are there whole or not at all, and folders that one run at a time writes. Knows the file system alone."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from filelock import FileLock, Timeout

from pipelines.cli import UserError

ROOT = Path(__file__).resolve().parent.parent  # the clone


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``: what the block writes there takes the place of ``path``, on disk, at its end.

    Readers see the old file or the whole new one, also after a power failure. Nothing is left if the block fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # None where a write, not the opening, has failed
            error.filename = str(path)  # the name that the user knows
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(text: str, path: Path) -> None:
    """Write a UTF-8 text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def finite(value: Any) -> Any:
    """A JSON-like value with "inf" and "-inf" in place of infinite numbers, which JSON has not."""
    if isinstance(value, dict):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def write_json(value: Any, path: Path) -> None:
    """Write a JSON file, whole or not at all. Raises ValueError on NaN and infinity, which JSON has not."""
    write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", path)


def result_file(results: str, task_name: str, name: str) -> Path:
    """Where a result goes; makes the folder and tries it, so that one that cannot be written is known before the work.

    Raises:
        UserError: it cannot.
    """
    folder = Path(results) / task_name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from error
    return folder / f"{name}.json"


def replace_folder(draft: Path, final: Path) -> None:
    """Rename a finished folder into place, on disk. One that stood there is out of the way first, then deleted."""
    aside = final.with_name(f".{final.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    if final.exists():
        os.replace(final, aside)
    os.replace(draft, final)
    sync(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def sync(path: Path) -> None:
    """Have the disk keep a file, or a folder's list of names, before anything relies on it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def sole_writer(folder: Path, patience: float = 0) -> Iterator[None]:
    """Hold a folder for the length of the block; the lock goes with the process, however it ends.

    A process may hold a folder several times over: a run holds it early, what the run is made of holds it again.

    Args:
        patience: seconds to wait for another run that holds it.

    Raises:
        UserError: another run holds it, or it cannot be made or written.
    """
    lock = FileLock(folder / ".lock", blocking=False, is_singleton=True)  # one per folder, counted
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=patience, blocking=patience > 0)
    except Timeout as error:
        raise UserError(
            f"{folder}: another run is writing there now; wait until it ends, or give this one a folder of its own"
        ) from error
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"{folder}: nothing can be written there ({error.strerror}); choose another folder, or mend its permissions"
    )
