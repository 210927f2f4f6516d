"""Methods take turns on the same rows, warmed up, on one clock; an interrupted measurement goes on."""

from __future__ import annotations

import gc
import time

import pytest
import torch

import bild
from pipelines.decoding.decode import BatchDecoder, Decoding
from pipelines.evaluation import latency
from pipelines.evaluation.timings import TimingLog

POLICIES = {"large": bild.LargeOnly(), "small": bild.SmallOnly(), "policy": bild.BigLittle(fallback=0.3)}
INPUTS = [[5, 6, 7, 1], [8, 1], [9, 5, 1], [6, 9, 1]]


@pytest.fixture
def decoder(models, tokenizer):
    return BatchDecoder(models["large"], models["small"], tokenizer, Decoding(max_new_tokens=4))


@pytest.fixture
def calls(decoder, monkeypatch):
    """Every call of the decoder: (policy, batch size, source length, row)."""
    made = []
    real = BatchDecoder.run

    def recording(self, policy, ids, mask, rows, **keywords):
        made.append((next(n for n, p in POLICIES.items() if p == policy), *ids.shape, rows[0]))
        return real(self, policy, ids, mask, rows, **keywords)

    monkeypatch.setattr(BatchDecoder, "run", recording)
    return made


def measured(decoder, rows, log):
    return latency.measure(dict.fromkeys(POLICIES, decoder), POLICIES, INPUTS, rows, log)


@pytest.fixture
def log(tmp_path):
    made = TimingLog(tmp_path / "log")
    with made.held():
        yield made


def test_methods_take_turns_after_every_length_was_seen(decoder, calls, log):
    timings = measured(decoder, [0, 1, 3], log)
    warmed, timed = calls[:9], calls[9:]
    assert {(name, length) for name, _, length, _ in warmed} == {(n, s) for n in POLICIES for s in (2, 3, 4)}
    assert [(name, row) for name, _, _, row in timed] == [
        *(("large", 0), ("small", 0), ("policy", 0)),
        *(("small", 1), ("policy", 1), ("large", 1)),
        *(("policy", 3), ("large", 3), ("small", 3)),
    ]
    assert all(batch == 1 for _, batch, _, _ in calls)
    assert [(timing.method, timing.row) for timing in timings] == [(name, row) for name, _, _, row in timed]


def test_encoders_are_a_part_of_the_whole(decoder, log):
    for timing in measured(decoder, [0, 1], log):
        assert 0 < timing.encoder_milliseconds < timing.milliseconds


@pytest.mark.parametrize("engine", ["static", "hf"])
def test_time_spent_before_the_first_step_is_the_encoders(models, tokenizer, engine, monkeypatch):
    decoder = BatchDecoder(*models.values(), tokenizer, Decoding(max_new_tokens=4, engine=engine))
    real, real_round = bild.engine.make_runner, bild.decode.Decoder.round

    def slow_start(*arguments):
        time.sleep(0.05)
        return real(*arguments)

    def slow_round(*arguments):
        time.sleep(0.2)
        return real_round(*arguments)

    monkeypatch.setattr("bild.api.make_runner", slow_start)
    monkeypatch.setattr(bild.decode.Decoder, "round", slow_round)
    clock = latency.PrefillClock(torch.device("cpu"))
    decoder.run(POLICIES["policy"], *decoder.pad([INPUTS[0]]), [0], streamer=clock)
    assert 0.1 <= clock.seconds < 0.2


def test_a_gpu_is_timed_without_waiting_for_it(monkeypatch):
    class Event:
        """A mark in a queue of work that does a step every 8 ms."""

        recorded = 0

        def __init__(self, enable_timing):
            assert enable_timing

        def record(self, stream):
            assert stream == "the stream"
            Event.recorded += 1
            self.place = Event.recorded

        def elapsed_time(self, end):
            return 8.0 * (end.place - self.place)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "the stream")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: pytest.fail("waited"))
    clock = latency.PrefillClock(torch.device("cuda"))
    for _ in range(3):  # the prompt, then tokens
        clock.put(torch.tensor([5]))
    clock.end()
    assert clock.seconds == pytest.approx(0.008)


def test_a_clock_that_saw_nothing_has_no_time():
    with pytest.raises(RuntimeError, match="nothing has been decoded"):
        _ = latency.PrefillClock(torch.device("cpu")).seconds


def test_an_interrupted_measurement_goes_on(decoder, calls, log):
    first = measured(decoder, [0, 1], log)
    [file] = log.folder.glob("*.jsonl")
    with file.open("a") as stream:
        stream.write('[{"row": 3, "method": "la')
    calls.clear()
    timings = measured(decoder, [0, 1, 2, 3], log)
    assert timings[: len(first)] == first
    assert [timing.row for timing in timings[len(first) :]] == [2, 2, 2, 3, 3, 3]
    assert {row for *_, row in calls} == {2, 3}
    calls.clear()
    assert measured(decoder, [0, 1, 2, 3], log) == timings
    assert calls == []


def test_garbage_is_not_collected_while_time_is_taken(decoder, log, monkeypatch):
    real, collected = latency._time, []
    monkeypatch.setattr(latency, "_time", lambda *given: collected.append(gc.isenabled()) or real(*given))
    measured(decoder, [0], log)
    assert collected == [False] * len(POLICIES)
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("n_rows", "limit", "expected"),
    [(3, None, [0, 1, 2]), (3, 5, [0, 1, 2]), (10, 1, [0]), (11, 3, [0, 5, 10]), (4, 4, [0, 1, 2, 3])],
)
def test_timed_rows_are_spread_over_the_split(n_rows, limit, expected):
    assert latency.chosen_rows(n_rows, limit) == expected


def test_timed_rows_are_distinct():
    assert all(len(set(latency.chosen_rows(n, k))) == k for n in (50, 51, 1000) for k in (2, 7, 49, 50))
