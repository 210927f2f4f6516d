"""Progress bars of transformers. Reading and writing weights is too quick for one; downloads keep theirs."""

from __future__ import annotations

from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
from transformers.utils import logging


def hide_weight_bars() -> None:
    """Show no bar while weights are read or written, from now on."""
    downloads_hidden = are_progress_bars_disabled()
    logging.disable_progress_bar()  # switches those of downloads off as well
    if not downloads_hidden:
        enable_progress_bars()
