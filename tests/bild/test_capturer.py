"""The capturer of CUDA graphs beside a stand-in for torch.cuda that keeps the rules of torch's caching allocator."""

from __future__ import annotations

import weakref
from contextlib import contextmanager, nullcontext
from itertools import count

import pytest
import torch

from bild.engine.capture import Careful, CudaCapturer


class Graph:
    """A captured one."""

    def replay(self):
        """Nothing to do."""


class Stream:
    """Of work that nobody is late with."""

    def wait_stream(self, other):
        """Done."""


class Cuda:
    """What a capture asks of torch.cuda, and what this refuses."""

    def __init__(self, monkeypatch):
        self.pools, self.open, self.used, self.current = {}, set(), [], "here"
        handles = count()
        stand_ins = {
            "graph_pool_handle": lambda: next(handles), "Stream": lambda device: Stream(), "CUDAGraph": Graph,
            "current_stream": Stream, "device": lambda device: nullcontext(), "stream": self.aside, "graph": self.graph,
        }  # fmt: skip
        for name, stand_in in stand_ins.items():
            monkeypatch.setattr(torch.cuda, name, stand_in)
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda device, pool: self.end(pool), raising=False)

    @contextmanager
    def aside(self, stream):
        self.current = "aside"
        yield
        self.current = "here"

    @contextmanager
    def graph(self, graph, *, pool, stream, capture_error_mode):
        """As torch until 2.12: a capture that CUDA has given up is not ended."""
        if self.open:
            raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")
        if pool in self.pools and not any(one() is not None for one in self.pools[pool]):
            raise RuntimeError("use_count > 0 INTERNAL ASSERT FAILED")
        assert self.current == "aside"
        self.open.add(pool)
        try:
            yield
        except torch.OutOfMemoryError:  # which CUDA has not heard of
            self.end(pool)
            raise
        self.end(pool)
        self.pools.setdefault(pool, []).append(weakref.ref(graph))
        self.used.append(pool)

    def end(self, pool):
        if pool not in self.open:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.open.remove(pool)


@pytest.fixture
def cuda(monkeypatch):
    return Cuda(monkeypatch)


@pytest.fixture
def capturer(cuda):
    return CudaCapturer(torch.device("cuda", 0))


def nothing():
    """Work."""


def fails_in_a_capture(cuda, error):
    def work():
        if cuda.open:
            raise error

    return work


def test_graphs_share_a_pool_as_long_as_one_is_left(cuda, capturer):
    first, second = capturer.capture(nothing), capturer.capture(nothing)
    assert cuda.used == [0, 0]
    del first
    third = capturer.capture(nothing)
    assert cuda.used == [0, 0, 0]
    del second, third
    kept = capturer.capture(nothing)  # a model was forgotten, and another one comes
    capturer.capture(nothing)
    assert cuda.used == [0, 0, 0, 1, 1]
    kept()


@pytest.mark.parametrize("error", [RuntimeError("CUDA error"), torch.OutOfMemoryError("CUDA out of memory.")])
def test_what_fails_leaves_nothing_open(cuda, capturer, error):
    kept = [capturer.capture(nothing)]
    for _ in range(2):
        with pytest.raises(type(error), match=str(error)):
            capturer.capture(fails_in_a_capture(cuda, error))
        assert cuda.open == set()
        kept.append(capturer.capture(nothing))
    assert cuda.used == [0, 1, 2]  # the pool of a broken capture is left alone


def test_after_a_failure_others_are_captured_and_without_memory_none(cuda, capturer):
    careful = Careful(capturer)
    with pytest.warns(UserWarning, match="no graph could be captured, so steps run one by one: CUDA error"):
        careful.capture(fails_in_a_capture(cuda, RuntimeError("CUDA error")))
    kept = careful.capture(nothing)
    assert len(cuda.used) == 1
    with pytest.warns(UserWarning, match="out of memory"):
        careful.capture(fails_in_a_capture(cuda, torch.OutOfMemoryError("CUDA out of memory.")))
    careful.capture(nothing)
    assert len(cuda.used) == 1
    kept()
