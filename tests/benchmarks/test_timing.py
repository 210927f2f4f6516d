"""Methods take turns, the first pass is not timed, and what is timed is kept apart by run and input."""

import gc

import numpy as np

from benchmarks.clock import no_garbage_collection
from benchmarks.methods import Decoded
from benchmarks.timing import Times, take_turns


class Fake:
    """Writes as many tokens as the input says; its time is told by its own counter."""

    def __init__(self, name: str, log: list) -> None:
        self.name = name
        self._log = log

    def decode(self, batch, max_new_tokens):
        self._log.append(("decode", self.name, batch))
        return Decoded([[7] * min(batch, max_new_tokens)])

    def seconds(self, batch, max_new_tokens, written):
        assert not gc.isenabled()
        self._log.append(("timed", self.name, batch))
        return 10.0 * batch + written, 1.0


def test_turns() -> None:
    log: list = []
    methods = [Fake(name, log) for name in "abc"]
    said: list[str] = []
    outputs, times = take_turns(methods, [1, 2], max_new_tokens=5, runs=2, say=said.append)
    assert [entry[0] for entry in log] == ["decode"] * 6 + ["timed"] * 12
    timed = [name for kind, name, _ in log if kind == "timed"]
    assert "".join(timed) == "abc" + "bca" + "bca" + "cab"
    assert [one.tokens for one in outputs["b"]] == [[[7]], [[7, 7]]]
    assert times["c"].total.tolist() == [[11.0, 22.0], [11.0, 22.0]]
    assert times["c"].decoding.tolist() == [[10.0, 21.0], [10.0, 21.0]]
    assert said[-1] == "run 2 of 2"
    assert gc.isenabled()


def test_collection_comes_back_after_an_error() -> None:
    try:
        with no_garbage_collection():
            raise ValueError
    except ValueError:
        pass
    assert gc.isenabled()


def test_decoding_is_the_rest() -> None:
    assert Times(np.array([[3.0]]), np.array([[1.0]])).decoding == 2
