"""How a model is run: everything the round loop does not know."""

from __future__ import annotations

from transformers import PreTrainedModel

from bild.engine.hf import HuggingFaceRunner
from bild.engine.runner import Runner

ENGINES = ("auto", "hf")


def make_runner(model: PreTrainedModel, engine: str) -> Runner:
    """The runner that ``engine`` names. Raises ValueError on a name that does not exist."""
    check_engine(engine)
    return HuggingFaceRunner(model)


def check_engine(engine: str) -> None:
    """Raise ValueError on an engine that does not exist."""
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r} does not exist; use {' or '.join(map(repr, ENGINES))}")
