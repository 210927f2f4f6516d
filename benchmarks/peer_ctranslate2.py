"""CTranslate2 as a contestant: the live model is converted as it is, a token's name is its number. It decodes in a
process of its own, as whoever uses it does; ``ctranslate2_child`` says what sharing one would cost."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from benchmarks.errors import UserError
from benchmarks.methods import Batch, Decoded, eos_ids, upto_eos

CHILD = Path(__file__).with_name("ctranslate2_child.py")
TYPES = {"ctranslate2": "float32", "ctranslate2+int8": "int8"}
"""how a command line calls it, and the type of its weights"""


def contestants(model: PreTrainedModel, peers: Sequence[str]) -> tuple[list[CTranslate2Greedy], list[dict[str, str]]]:
    """One per weight type that ``peers`` asks for, from one conversion; or why there are none."""
    types = [weights for name, weights in TYPES.items() if name in peers]
    reason = _why_not(model)
    if not types or reason is not None:
        return [], [{"name": f"CTranslate2 {weights}", "reason": str(reason)} for weights in types]
    with tempfile.TemporaryDirectory() as folder:
        _convert(model, folder)
        return [CTranslate2Greedy(model, folder, weights) for weights in types], []


def _why_not(model: PreTrainedModel) -> str | None:
    """Why CTranslate2 cannot take part; None if it can."""
    if model.device.type != "cpu":
        return "measured on the CPU only"
    if model.dtype != torch.float32:
        return f"measured in float32 and int8, not in {model.dtype}"
    if model.config.model_type not in ("t5", "mt5"):
        return f"converted here for T5 and mT5, not for {model.config.model_type}"
    if importlib.util.find_spec("ctranslate2") is None:
        return "not installed; pip install .[bench]"
    return None


def _convert(model: PreTrainedModel, folder: str) -> None:
    from ctranslate2.converters.transformers import MT5Loader, T5Loader

    # A model whose rows only end by their length must still have a name for EOS.
    eos = min(eos_ids(model), default=model.config.eos_token_id)
    loader = MT5Loader() if model.config.model_type == "mt5" else T5Loader()
    with torch.no_grad():
        spec = loader.get_model_spec(model)
    loader.set_vocabulary(spec, [str(token) for token in range(model.config.vocab_size)])
    spec.config.bos_token = spec.config.unk_token = str(model.config.pad_token_id)
    spec.config.eos_token = str(eos)
    spec.config.decoder_start_token = str(model.generation_config.decoder_start_token_id)
    spec.validate()
    spec.optimize(quantization=None)
    spec.save(folder)


class CTranslate2Greedy:
    """Greedy decoding with weights of one type, on as many threads as torch uses."""

    def __init__(self, model: PreTrainedModel, folder: str, weights: str) -> None:
        self.name = f"CTranslate2 {weights}"
        self._eos = eos_ids(model)
        self._child = subprocess.Popen(
            [sys.executable, str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        weakref.finalize(self, _end, self._child)
        threads = {"inter_threads": 1, "intra_threads": torch.get_num_threads()}
        self._ask(translator={"model_path": folder, "device": "cpu", "compute_type": weights, **threads})

    def decode(self, batch: Batch, max_new_tokens: int) -> Decoded:
        return Decoded([upto_eos(row, self._eos) for row in self._translate(batch, max_new_tokens)["rows"]])

    def seconds(self, batch: Batch, max_new_tokens: int, written: int) -> tuple[float, float]:
        """On the child's clock, so that asking it costs nothing. The encoder cannot be heard, so a second decode of one
        token tells: one token more costs one step, and what the first one costs beyond a step is the encoder. Whatever
        else the first step does (keys and values of the source) thereby counts as encoder, in this method's favour."""
        total = self._translate(batch, max_new_tokens)["seconds"]
        first = self._translate(batch, 1)["seconds"]
        step = (total - first) / (written - 1) if written > 1 else 0.0
        return total, first - step

    def _translate(self, batch: Batch, max_new_tokens: int) -> dict[str, Any]:
        ids, mask = batch
        lengths = mask.sum(-1).tolist()
        found: dict[str, Any] = self._ask(
            sources=[[str(token) for token in row[:length]] for row, length in zip(ids.tolist(), lengths, strict=True)],
            decoding={
                "beam_size": 1,
                "max_decoding_length": max_new_tokens,
                "min_decoding_length": 0 if self._eos else max_new_tokens,
                "end_token": [str(token) for token in self._eos] if self._eos else None,
                "return_end_token": True,
            },
        )
        return found

    def _ask(self, **question: Any) -> Any:
        """The child's answer. Raises UserError if it has ended; why stands on stderr, which it shares."""
        asking, answering = self._child.stdin, self._child.stdout
        assert asking is not None
        assert answering is not None
        try:
            print(json.dumps(question), file=asking, flush=True)
            line = answering.readline()
        except BrokenPipeError:
            line = ""
        except BaseException:
            self._child.kill()  # or its answer would be taken for that to the next question
            raise
        if not line:
            raise UserError(
                f"{self.name}: its process ended with code {self._child.wait()}, as told above; mend that, or leave it "
                "out: --peers takes the names of those that stay"
            )
        return json.loads(line)


def _end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate()
