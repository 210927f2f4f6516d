"""How a model is run: everything the round loop does not know."""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from bild.engine.hf import huggingface_runner
from bild.engine.prepared import preparing, t5_halves, why_not_t5
from bild.engine.runner import Runner
from bild.engine.shortlist import ShortlistRunner
from bild.engine.t5.decoder import T5Decoder
from bild.engine.t5.dynamic_depth import DynamicDepthRunner
from bild.engine.t5.early_exit import t5_early_exit
from bild.engine.t5.graphs import GraphRunner, LowerGraphRunner
from bild.engine.t5.runner import T5Runner
from bild.engine.t5.source import SourceReader
from bild.engine.t5.state import T5State
from bild.engine.truncated import truncated
from bild.types import ExitRule

ENGINES = ("auto", "hf", "eager", "static", "static+int8", "graphs")


def make_runner(model: PreTrainedModel, engine: str, max_length: int, listed: Tensor | None = None) -> Runner:
    """The runner that ``engine`` names, for rows of at most ``max_length`` decoder tokens.

    "hf" is transformers' own forward, for any model; "static", which is also called "eager", this package's step for T5
    and mT5; "static+int8" the same with 8-bit products, on the CPU; "graphs" the same on CUDA, captured once and
    replayed; "auto" is "static" where it serves the model, else "hf".
    ``listed`` (V',): the ids that logits are wanted of (``bild.engine.shortlist``), None = all.

    Raises:
        ValueError: no such engine, or it does not serve this model.
    """
    halves = _t5_halves(model, engine)
    if halves is None:
        runner = huggingface_runner(model)
        return runner if listed is None else ShortlistRunner(runner, listed)
    reader, decoder = halves
    if engine == "graphs":
        return GraphRunner(reader, decoder, max_length, listed, decoder.all_layers)
    return T5Runner(decoder, T5State(reader, decoder, max_length), listed)


def make_dynamic_depth(model: PreTrainedModel, engine: str, max_length: int, rule: ExitRule) -> DynamicDepthRunner:
    """The runner of a T5 or mT5 whose tokens leave when ``rule`` says so.

    Raises:
        ValueError: as ``make_runner``, and on "hf", where every token takes every layer.
    """
    halves = None if engine == "graphs" else _t5_halves(model, engine)
    if halves is None:
        way = "captured graphs" if engine == "graphs" else "transformers' forward"
        raise ValueError(
            f"engine={engine!r} runs this model through {way}, which take every token through every layer; "
            "to leave early, use engine='static' and a T5 or mT5"
        )
    reader, decoder = halves
    return DynamicDepthRunner(decoder, T5State(reader, decoder, max_length), rule)


def make_early_exit(
    model: PreTrainedModel, engine: str, max_length: int, layers: int, listed: Tensor | None = None
) -> tuple[Runner, Runner]:
    """Runners of a model and of the first ``layers`` of its decoder layers with its head. They share what they compute
    on this package's own step; in captured graphs they share what is read of the sources, on transformers' forward
    each computes for itself. ``listed`` (V',): as in ``make_runner``, of the first layers.

    Raises:
        ValueError: as ``make_runner``.
    """
    halves = _t5_halves(model, engine)
    if halves is None:
        lower: Runner = huggingface_runner(truncated(model, layers))
        return huggingface_runner(model), lower if listed is None else ShortlistRunner(lower, listed)
    reader, decoder = halves
    if engine == "graphs":
        below = range(layers)
        whole = GraphRunner(reader, decoder, max_length, None, decoder.all_layers)
        return whole, LowerGraphRunner(whole, reader, decoder, max_length, listed, below)
    return t5_early_exit(decoder, T5State(reader, decoder, max_length), layers, listed)


def parts_rows(model: PreTrainedModel, engine: str) -> bool:
    """Whether rows of different lengths run one by one there, since transformers' caches know one length for all."""
    check_engine(engine)
    return engine == "hf" or (engine == "auto" and why_not_t5(model) is not None)


def _t5_halves(model: PreTrainedModel, engine: str) -> tuple[SourceReader, T5Decoder] | None:
    """What T5 runners are made of; None if transformers' own forward is to run the model."""
    check_engine(engine)
    if engine == "hf":
        return None
    with preparing:
        reason = why_not_t5(model)
        if engine == "auto" and reason is not None:
            return None
        if reason is not None:
            raise ValueError(f"engine={engine!r} cannot run this model: {reason}; use engine='hf'")
        int8 = engine == "static+int8"
        if int8 and model.device.type != "cpu":
            raise ValueError(f"engine={engine!r} runs on the CPU, the model is on {model.device}; use engine='static'")
        encoder, decoder = t5_halves(model, int8=int8)
    return SourceReader(model, encoder, decoder), decoder


def check_engine(engine: str) -> None:
    """Raise ValueError on an engine that does not exist."""
    if engine not in ENGINES:
        *others, last = map(repr, ENGINES)
        raise ValueError(f"engine={engine!r} does not exist; use {', '.join(others)} or {last}")
