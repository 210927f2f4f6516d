"""``python -m pipelines.export from=FOLDER to=FOLDER``: a finished checkpoint, ready to ship.

Casts the weights, leaves the training state behind, keeps card, resolved config and log beside them.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from pipelines.cli import UserError, entry

DTYPES = ("float32", "bfloat16", "float16")
KEPT = ("README.md", "finetune.yaml", "align.yaml", "trainer_state.json")  # the card, the config, the log


def main(config: DictConfig) -> None:
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from pipelines.models import manifest
    from pipelines.models.bars import hide_weight_bars
    from pipelines.training.final import write_final

    source, target = Path(config["from"]), Path(config.to)
    if config.dtype not in DTYPES:
        raise UserError(f"dtype={config.dtype}: choose one of {', '.join(DTYPES)}")
    try:
        about = manifest.check(source)
    except manifest.IncompleteError as error:
        raise UserError(
            f"from={source} is no finished checkpoint: {error}; give a folder of pipelines.finetune"
        ) from error
    if target.exists():
        raise UserError(f"to={target} exists; give a new folder, or remove it first")
    hide_weight_bars()
    model = AutoModelForSeq2SeqLM.from_pretrained(source, dtype=getattr(torch, config.dtype), use_safetensors=True)
    texts = {name: (source / name).read_text(encoding="utf-8") for name in KEPT if name in about["files"]}
    facts = {key: value for key, value in about.items() if key not in ("files", "format")}
    write_final(target, model, AutoTokenizer.from_pretrained(source), texts, facts)
    size = sum(path.stat().st_size for path in target.iterdir())
    print(f"{target}: {size / 1e6:.1f} MB in {config.dtype}")


if __name__ == "__main__":
    entry("export", main)
