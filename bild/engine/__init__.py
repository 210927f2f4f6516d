"""How a model is run: everything the round loop does not know."""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from bild.engine.hf import huggingface_runner
from bild.engine.prepared import t5_halves, why_not_t5
from bild.engine.runner import Runner
from bild.engine.shortlist import ShortlistRunner
from bild.engine.t5.runner import T5Runner

ENGINES = ("auto", "hf", "static", "static+int8")


def make_runner(model: PreTrainedModel, engine: str, max_length: int, listed: Tensor | None = None) -> Runner:
    """The runner that ``engine`` names, for rows of at most ``max_length`` decoder tokens.

    "hf" is transformers' own forward, for any model; "static" this package's step for T5 and mT5;
    "static+int8" the same with 8-bit products, on the CPU; "auto" is "static" where it serves the model, else "hf".
    ``listed`` (V',): the ids that logits are wanted of (``bild.engine.shortlist``), None = all.

    Raises:
        ValueError: no such engine, or it does not serve this model.
    """
    check_engine(engine)
    reason = None if engine == "hf" else why_not_t5(model)
    if engine == "hf" or (engine == "auto" and reason is not None):
        runner = huggingface_runner(model)
        return runner if listed is None else ShortlistRunner(runner, listed)
    if reason is not None:
        raise ValueError(f"engine={engine!r} cannot run this model: {reason}; use engine='hf'")
    int8 = engine == "static+int8"
    if int8 and model.device.type != "cpu":
        raise ValueError(f"engine={engine!r} runs on the CPU, the model is on {model.device}; use engine='static'")
    return T5Runner(model, *t5_halves(model, int8=int8), max_length, listed)


def check_engine(engine: str) -> None:
    """Raise ValueError on an engine that does not exist."""
    if engine not in ENGINES:
        *others, last = map(repr, ENGINES)
        raise ValueError(f"engine={engine!r} does not exist; use {', '.join(others)} or {last}")
