"""Where a model's files are: a folder, the hub, or what was downloaded before.

Knows paths and the hub's client; knows nothing about models.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

from pipelines.cli import UserError, first_line
from pipelines.models import manifest

CONFIG = "config.json"
TIMEOUT = 10  # seconds for the hub to answer; the client's own retries would take half a minute to say no


def locate(path: str, revision: str | None = None) -> bool:
    """Check that ``path`` is a folder or a hub repository within reach.

    Returns:
        Whether only files on this machine may be used: it is a folder, or the hub is out of reach but was not before.

    Raises:
        UserError: no such folder, a damaged checkpoint, no such repository, or no network.
    """
    folder = Path(path)
    if folder.is_dir():
        _check_folder(folder)
        return True
    if folder.is_absolute() or path.startswith(".") or len(folder.parts) > 2 or Path(folder.parts[0]).is_dir():
        raise UserError(f"{path}: no such folder; paths start where the command runs")
    try:
        HfApi().model_info(path, revision=revision, timeout=TIMEOUT)
    except (RepositoryNotFoundError, HFValidationError):
        raise UserError(
            f"{path}: no such folder here and no such model on the Hugging Face hub; check the spelling, or log in "
            "with `hf auth login` if it is private"
        ) from None
    except GatedRepoError:
        raise UserError(f"{path}: ask for access on https://huggingface.co/{path}, then `hf auth login`") from None
    except RevisionNotFoundError:
        raise UserError(f"{path}: has no revision {revision}; see its branches and tags on the hub") from None
    except Exception as error:  # no network: the errors of the client's HTTP library have no public name here
        if isinstance(try_to_load_from_cache(path, CONFIG, revision=revision), str):
            return True
        raise UserError(
            f"{path}: not a folder here, and the Hugging Face hub cannot be reached ({first_line(error)}); connect to "
            "the network, or give a folder"
        ) from error
    return False


def _check_folder(folder: Path) -> None:
    if not (folder / CONFIG).is_file() and not (folder / "tokenizer_config.json").is_file():
        raise UserError(f"{folder}: this folder holds no model and no tokenizer (no {CONFIG})")
    if (folder / manifest.NAME).exists():
        try:
            manifest.check(folder)
        except manifest.IncompleteError as error:
            raise UserError(f"{folder}: not a whole checkpoint, {error}; make it again, or restore the file") from None
