"""Where a model's files are: a folder, the hub, or what was downloaded before; and that its weights are safetensors.

Knows paths and the hub's client; knows nothing about models.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, ModelInfo, constants, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.file_download import repo_folder_name

from pipelines.cli import UserError, first_line
from pipelines.models import manifest

CONFIG = "config.json"
SAFE = ".safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
CONVERTER = ("SFconvertbot", "Adding `safetensors` variant of this model")  # the hub's own: account, title
TIMEOUT = 10  # seconds for the hub to answer; the client's own retries would take half a minute to say no


@dataclass(frozen=True)
class Place:
    """Where the files of one model, or tokenizer, are read."""

    path: str  # folder or hub id
    revision: str | None  # of the hub's repository; None = main
    offline: (
        bool  # only files on this machine may be used: it is a folder, or the hub is out of reach but was not before
    )
    note: str = ""  # what the user should know of it


def locate(path: str, revision: str | None = None, *, weights: bool = False) -> Place:
    """Check that ``path`` is a folder or a hub repository within reach.

    Pickles are never read. A repository of old often has its weights in nothing else; then those are read that the
    hub's own converter has proposed as safetensors in a pull request, unless the user names a revision.

    Args:
        weights: whether weights are to be read from there, or a tokenizer alone.

    Raises:
        UserError: no such folder, a damaged checkpoint, no such repository or revision, no access, no safetensors, or
            no network.
    """
    folder = Path(path)
    if folder.is_dir():
        _check_folder(folder, weights)
        return Place(path, None, offline=True)
    if folder.is_absolute() or path.startswith(".") or len(folder.parts) > 2 or Path(folder.parts[0]).is_dir():
        raise UserError(f"{path}: no such folder; paths start where the command runs")
    try:
        return _on_the_hub(path, revision, weights)
    except UserError:
        raise
    except GatedRepoError:  # before the next one, which it is a kind of
        raise UserError(f"{path}: ask for access on https://huggingface.co/{path}, then `hf auth login`") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise UserError(
            f"{path}: no such folder here and no such model on the Hugging Face hub; check the spelling, or log in "
            "with `hf auth login` if it is private"
        ) from None
    except RevisionNotFoundError:
        raise UserError(f"{path}: has no revision {revision}; see its branches and tags on the hub") from None
    except Exception as error:  # no network: the errors of the client's HTTP library have no public name here
        for downloaded in [revision] if revision is not None else [None, *_downloaded_conversions(path)]:
            if _is_downloaded(path, downloaded, weights):
                return Place(path, downloaded, offline=True, note=_told(downloaded, revision))
        raise UserError(
            f"{path}: not a folder here, and the Hugging Face hub cannot be reached ({first_line(error)}); connect to "
            "the network, or give a folder"
        ) from error


def _on_the_hub(path: str, revision: str | None, weights: bool) -> Place:
    api = HfApi()
    about: ModelInfo = api.model_info(path, revision=revision, timeout=TIMEOUT)
    if about.gated:  # everybody may see what there is, not everybody may read it
        api.auth_check(path)
    names = [file.rfilename for file in about.siblings]
    if not weights or _has_safetensors(names):
        return Place(path, revision, offline=False)
    conversion = _conversion(api, path)
    if conversion is None:
        remedy = (
            "https://huggingface.co/spaces/safetensors/convert proposes safetensors to its owner, then run this again"
        )
        raise UserError(_without_safetensors(path, names, remedy))
    if revision is not None:
        raise UserError(_without_safetensors(path, names, f"its revision {conversion} holds them as safetensors"))
    return Place(path, conversion, offline=False, note=_told(conversion, revision))


def _conversion(api: HfApi, path: str) -> str | None:
    """The latest open pull request of the hub's own converter. Anybody may open one, so only its account counts."""
    author, title = CONVERTER
    proposals = api.get_repo_discussions(path, author=author, discussion_type="pull_request", discussion_status="open")
    numbers = [proposal.num for proposal in proposals if (proposal.author, proposal.title) == (author, title)]
    return f"refs/pr/{max(numbers)}" if numbers else None


def _has_safetensors(names: Iterable[str]) -> bool:
    return any(name.endswith(SAFE) and "/" not in name for name in names)


def _without_safetensors(path: object, names: Iterable[str], remedy: str) -> str:
    pickles = [name for name in names if name.endswith(PICKLES) and "/" not in name]
    if not pickles:
        return f"{path}: holds no weights (no file *{SAFE})"
    return f"{path}: its weights are a pickle ({pickles[0]}), which can run code and is never read; {remedy}"


def _told(found: str | None, wanted: str | None) -> str:
    return "" if found == wanted else f", as safetensors of {found}"


def _is_downloaded(path: str, revision: str | None, weights: bool) -> bool:
    wanted = (f"model{SAFE}", f"model{SAFE}.index.json") if weights else (CONFIG, "tokenizer_config.json")
    return any(isinstance(try_to_load_from_cache(path, name, revision=revision), str) for name in wanted)


def _downloaded_conversions(path: str) -> list[str]:
    """Pull requests, the latest first, of which files were downloaded."""
    refs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=path, repo_type="model") / "refs"
    return [f"refs/pr/{file.name}" for file in sorted(refs.glob("refs/pr/*"), key=lambda file: -int(file.name))]


def _check_folder(folder: Path, weights: bool) -> None:
    names = sorted(file.name for file in folder.iterdir())
    if CONFIG not in names and "tokenizer_config.json" not in names:
        raise UserError(f"{folder}: this folder holds no model and no tokenizer (no {CONFIG})")
    if manifest.NAME in names:
        try:
            manifest.check(folder)
        except manifest.IncompleteError as error:
            raise UserError(f"{folder}: not a whole checkpoint, {error}; make it again, or restore the file") from None
    if weights and not _has_safetensors(names):
        raise UserError(
            _without_safetensors(folder, names, "if you trust it, load and save it with transformers, as safetensors")
        )
