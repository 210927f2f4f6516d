"""What makes a folder of files a checkpoint: a manifest of sizes and hashes, written last and renamed into place.

Knows files; knows nothing about models or training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipelines.files import sync, write_json

NAME = "manifest.json"
FORMAT = 1
BLOCK = 1 << 20  # bytes read at a time


class IncompleteError(Exception):
    """The folder is not a complete checkpoint. The message says in a few words what is wrong."""


def write(folder: str | Path, names: Iterable[str] | None = None, **about: Any) -> None:
    """Seal the files of a checkpoint: flush each to disk, then write ``manifest.json`` atomically.

    Args:
        names: the checkpoint's files; None = all that lie directly in ``folder`` and are not hidden.
        about: JSON-like values to keep beside the hashes, such as the step or the settings of the run.
    """
    folder = Path(folder)
    members = _members(folder) if names is None else [folder / name for name in sorted(names)]
    files = {path.name: _describe(path) for path in members}
    write_json({"format": FORMAT, **about, "files": files}, folder / NAME)


def read(folder: str | Path) -> dict[str, Any]:
    """The manifest as it stands, files not checked.

    Raises:
        IncompleteError: there is none, or it cannot be read.
    """
    try:
        manifest = json.loads((Path(folder) / NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise IncompleteError(f"it has no {NAME}") from None
    except (OSError, ValueError) as error:
        raise IncompleteError(f"its {NAME} cannot be read ({error})") from None
    if not _is_whole(manifest):
        raise IncompleteError(f"its {NAME} is not of format {FORMAT}")
    return manifest


def check(folder: str | Path, hashes: bool = True) -> dict[str, Any]:
    """The manifest of a complete checkpoint.

    Args:
        hashes: read every file and compare its SHA-256; without, only the sizes are compared.

    Raises:
        IncompleteError: no manifest, or a file that is missing or not what the manifest says.
    """
    folder = Path(folder)
    manifest = read(folder)
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise IncompleteError(f"{name} is missing")
        size = path.stat().st_size
        if size != expected["size"]:
            raise IncompleteError(f"{name} has {size} bytes instead of {expected['size']}")
        if hashes and sha256(path) != expected["sha256"]:
            raise IncompleteError(f"{name} is corrupt (its hash differs from the manifest's)")
    return manifest


def is_complete(folder: str | Path) -> bool:
    """Whether ``folder`` holds a checkpoint whose files are all there and unharmed."""
    try:
        check(folder)
    except IncompleteError:
        return False
    return True


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def differences(there: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """One phrase for every key in which two identities differ, in the order of ``asked``, then of ``there``."""
    missing = "(not set)"
    return [
        f"{key} is {_shown(there.get(key, missing))} there and {_shown(asked.get(key, missing))} now"
        for key in {**asked, **there}
        if there.get(key, missing) != asked.get(key, missing)
    ]


def _is_whole(manifest: Any) -> bool:
    """Whether a manifest has the form that ``write`` gives it, with a mapping as its identity if it has one."""
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        return False
    files, identity = manifest.get("files"), manifest.get("identity", {})
    if not isinstance(files, dict) or not isinstance(identity, dict):
        return False
    return all(isinstance(entry, dict) and {"size", "sha256"} <= entry.keys() for entry in files.values())


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:12] + "..."


def _members(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and p.name != NAME and not p.name.startswith("."))


def _describe(path: Path) -> dict[str, Any]:
    sync(path)
    return {"size": path.stat().st_size, "sha256": sha256(path)}
