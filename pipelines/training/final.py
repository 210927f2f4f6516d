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

from pipelines.files import sync
from pipelines.models import manifest
from pipelines.training.weights import drafting, save_model


def write_final(
    out: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Mapping[str, str],
    about: Mapping[str, Any],
) -> None:
    """Put model, tokenizer and ``texts`` (content by file name) into ``out`` and seal them.

    Everything is written to the side first; while the files are swapped there is no manifest, so that a mixture of
    old and new ones never counts as a checkpoint, whatever a kill or a power failure leaves of them.

    Raises:
        UserError: it cannot be written, for example because the disk is full.
    """
    draft = out / ".final"
    shutil.rmtree(draft, ignore_errors=True)
    with drafting(out, draft):
        draft.mkdir(parents=True)
        save_model(model, tokenizer, draft, texts)
        names = [path.name for path in draft.iterdir()]
        (out / manifest.NAME).unlink(missing_ok=True)
        sync(out)  # the old manifest must be gone on disk, too, before the first file is another
        for name in names:
            os.replace(draft / name, out / name)
        draft.rmdir()
        manifest.write(out, names, **about)
