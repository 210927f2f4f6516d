"""How a model is run: everything the round loop does not know."""

from __future__ import annotations

from transformers import PreTrainedModel

from bild.engine.hf import HuggingFaceRunner
from bild.engine.runner import Runner


def make_runner(model: PreTrainedModel, engine: str) -> Runner:
    """The runner that ``engine`` names. Raises ValueError on a name that does not exist."""
    if engine in ("auto", "hf"):
        return HuggingFaceRunner(model)
    raise ValueError(f"engine={engine!r} does not exist; use 'auto' or 'hf'")
