"""The finished checkpoint: the best weights in the run's own folder, ready for ``from_pretrained``.

Knows the folder of a run; knows nothing about the trainer.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipelines.models import manifest
from pipelines.training.weights import WRITE_ERRORS, save_model, unwritable


def write_final(
    out: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Mapping[str, str],
    about: Mapping[str, Any],
) -> None:
    """Put model, tokenizer and ``texts`` (content by file name) into ``out`` and seal them.

    Everything is written to the side first; while the files are swapped there is no manifest, so that a mixture of
    old and new ones never counts as a checkpoint.

    Raises:
        UserError: it cannot be written, for example because the disk is full.
    """
    draft = out / ".final"
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        save_model(model, tokenizer, draft, texts)
    except WRITE_ERRORS as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise unwritable(out, error) from error
    names = [path.name for path in draft.iterdir()]
    (out / manifest.NAME).unlink(missing_ok=True)
    for name in names:
        os.replace(draft / name, out / name)
    draft.rmdir()
    manifest.write(out, names, **about)
