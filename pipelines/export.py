"""``python -m pipelines.export from=FOLDER to=FOLDER``: a finished checkpoint, ready to ship.

Casts the weights, leaves the training state behind, keeps card, resolved config, log and shortlist beside them, JSON
without the blanks that are half of a tokenizer's file.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from omegaconf import DictConfig

from pipelines.cli import UserError, check_path, entry

DTYPES = ("float32", "bfloat16", "float16")
# The card, the config, the log, what an aligned small model may draft, and the tokenizer.
KEPT = ("README.md", "finetune.yaml", "align.yaml", "trainer_state.json", "shortlist.json", "tokenizer.json")


def main(config: DictConfig) -> None:
    """Write the checkpoint of ``config.from`` to the new folder ``config.to``, its weights in ``config.dtype``."""
    import torch

    from pipelines.files import replace_folder
    from pipelines.models import manifest
    from pipelines.models.loading import Model, load
    from pipelines.training.weights import drafting, save_model

    for key in ("from", "to"):
        check_path(key, config[key])
    source, target = Path(config["from"]), Path(config.to)
    if config.dtype not in DTYPES:
        raise UserError(f"dtype={config.dtype}: choose one of {', '.join(DTYPES)}")
    if not source.is_dir():
        raise UserError(f"from={source}: there is no such folder; give one of pipelines.finetune or pipelines.align")
    try:
        about = manifest.check(source)
    except manifest.IncompleteError as error:
        raise UserError(
            f"from={source} is no finished checkpoint: {error}; give a folder of pipelines.finetune"
        ) from error
    if target.exists():
        raise UserError(f"to={target} exists; give a new folder, or remove it first")
    draft = target.with_name(f".{target.name}.draft")  # of a run that was killed, too
    shutil.rmtree(draft, ignore_errors=True)
    loaded = load(Model(name=source.name, path=str(source)), source.parent.name, "finetune")
    texts = {name: compact(source / name) for name in KEPT if (source / name).is_file()}
    facts = {key: value for key, value in about.items() if key not in ("files", "format")}
    with drafting(target, draft):
        draft.mkdir(parents=True)
        save_model(loaded.model.to(getattr(torch, config.dtype)), loaded.tokenizer, draft, texts)
        manifest.write(draft, **facts)
        replace_folder(draft, target)
    size = sum(path.stat().st_size for path in target.iterdir())
    print(f"{target}: {size / 1e6:.1f} MB in {config.dtype}")


def compact(path: Path) -> str:
    """The text of a file; of JSON, its value in as few characters as it takes."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".json":
        return text
    return json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":")) + "\n"


if __name__ == "__main__":
    entry("export", main)
