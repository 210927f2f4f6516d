"""Which of several processes that train together this one is.

Knows the environment that ``accelerate launch`` and torchrun set; knows nothing about what is trained.
"""

from __future__ import annotations

import os


def count() -> int:
    """Number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is the one that prints and writes."""
    return int(os.environ.get("RANK", "0")) == 0


def say(text: str) -> None:
    """Print a line, once for all processes."""
    if is_main():
        print(text, flush=True)
