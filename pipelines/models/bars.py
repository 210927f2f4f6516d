"""What transformers prints while it reads and writes weights: bars, for which that is too quick (downloads keep
theirs), and a table of what did not fit, of which this project says one line itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
from transformers.utils import logging


def hide_weight_bars() -> None:
    """Show no bar while weights are read or written, from now on."""
    downloads_hidden = are_progress_bars_disabled()
    logging.disable_progress_bar()  # switches those of downloads off as well
    if not downloads_hidden:
        enable_progress_bars()


@contextmanager
def no_load_report() -> Iterator[None]:
    """Show no warnings while weights are read: nothing but which of them are missing or of another shape."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
