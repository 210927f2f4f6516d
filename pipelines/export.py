"""``python -m pipelines.export from=FOLDER to=FOLDER``: a finished checkpoint, ready to ship.

Casts the weights, leaves the training state behind, keeps the resolved config beside them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from omegaconf import DictConfig

from pipelines.cli import UserError, entry

DTYPES = ("float32", "bfloat16", "float16")


def main(config: DictConfig) -> None:
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from pipelines.training import manifest
    from pipelines.training.weights import save_model

    source, target = Path(config["from"]), Path(config.to)
    if config.dtype not in DTYPES:
        raise UserError(f"dtype={config.dtype}: choose one of {', '.join(DTYPES)}")
    try:
        about = manifest.check(source)
    except manifest.IncompleteError as error:
        raise UserError(
            f"from={source} is not a finished checkpoint: {error}; give a folder of pipelines.finetune"
        ) from error
    if target.exists():
        raise UserError(f"to={target} exists; give a new folder, or remove it first")
    model = AutoModelForSeq2SeqLM.from_pretrained(source, dtype=getattr(torch, config.dtype), use_safetensors=True)
    draft = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    save_model(model, AutoTokenizer.from_pretrained(source), draft)
    for name in sorted(set(about["files"]) & {"finetune.yaml", "align.yaml"}):
        shutil.copyfile(source / name, draft / name)
    manifest.write(draft, **{key: about[key] for key in ("step", "identity") if key in about})
    draft.rename(target)
    size = sum(path.stat().st_size for path in target.iterdir())
    print(f"{target}: {size / 1e6:.1f} MB in {config.dtype}")


if __name__ == "__main__":
    entry("export", main)
