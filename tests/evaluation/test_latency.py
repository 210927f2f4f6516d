"""Methods take turns on the same rows, warmed up, on one clock; an interrupted measurement goes on."""

from __future__ import annotations

import time

import pytest
import torch

import bild
from pipelines.decoding.decode import Decoder, Decoding
from pipelines.evaluation import latency
from pipelines.evaluation.timings import TimingLog

POLICIES = {"large": bild.LargeOnly(), "small": bild.SmallOnly(), "policy": bild.BigLittle(fallback=0.3)}
INPUTS = [[5, 6, 7, 1], [8, 1], [9, 5, 1], [6, 9, 1]]


@pytest.fixture
def decoder(models, tokenizer):
    return Decoder(models["large"], models["small"], tokenizer, Decoding(max_new_tokens=4))


@pytest.fixture
def calls(decoder, monkeypatch):
    """Every call of the decoder: (policy, batch size, source length, row)."""
    made = []
    real = Decoder.run

    def recording(self, policy, ids, mask, rows):
        made.append((next(n for n, p in POLICIES.items() if p == policy), *ids.shape, rows[0]))
        return real(self, policy, ids, mask, rows)

    monkeypatch.setattr(Decoder, "run", recording)
    return made


def measured(decoder, models, rows, log):
    return latency.measure(decoder, POLICIES, list(models.values()), INPUTS, rows, log)


@pytest.fixture
def log(tmp_path):
    made = TimingLog(tmp_path / "log")
    with made.held():
        yield made


def test_methods_take_turns_after_every_length_was_seen(decoder, models, calls, log):
    timings = measured(decoder, models, [0, 1, 3], log)
    warmed, timed = calls[:9], calls[9:]
    assert {(name, length) for name, _, length, _ in warmed} == {(n, s) for n in POLICIES for s in (2, 3, 4)}
    assert [(name, row) for name, _, _, row in timed] == [
        *(("large", 0), ("small", 0), ("policy", 0)),
        *(("small", 1), ("policy", 1), ("large", 1)),
        *(("policy", 3), ("large", 3), ("small", 3)),
    ]
    assert all(batch == 1 for _, batch, _, _ in calls)
    assert [(timing.method, timing.row) for timing in timings] == [(name, row) for name, _, _, row in timed]


def test_encoders_are_a_part_of_the_whole(decoder, models, log):
    for timing in measured(decoder, models, [0, 1], log):
        assert 0 < timing.encoder_milliseconds < timing.milliseconds


def test_time_spent_in_an_encoder_is_charged_to_it(decoder, models, monkeypatch):
    encoder = models["small"].get_encoder()
    real = encoder.forward

    def sleepy(*arguments, **keywords):
        time.sleep(0.05)
        return real(*arguments, **keywords)

    monkeypatch.setattr(encoder, "forward", sleepy)
    clock = latency.EncoderClock(list(models.values()), torch.device("cpu"))
    with clock.attached():
        decoder.run(POLICIES["policy"], *decoder.pad([INPUTS[0]]), [0])
    assert clock.calls == 2
    assert clock.seconds >= 0.05
    before = clock.seconds
    decoder.run(POLICIES["policy"], *decoder.pad([INPUTS[0]]), [0])
    assert clock.seconds == before


def test_encoders_on_a_gpu_are_timed_without_waiting_for_it(models, monkeypatch):
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
    clock = latency.EncoderClock(list(models.values()), torch.device("cuda"))
    with clock.attached():
        for model in models.values():
            model.get_encoder()(torch.tensor([[5, 1]]))
    assert clock.calls == 2
    assert clock.seconds == pytest.approx(0.016)
    clock.reset()
    assert clock.calls == clock.seconds == 0


def test_a_hidden_encoder_is_unknown_and_not_zero(decoder, models, log):
    timings = latency.measure(decoder, POLICIES, [models["small"]], INPUTS, [0], log)
    known = {timing.method: timing.encoder_milliseconds is not None for timing in timings}
    assert known == {"large": False, "small": True, "policy": False}


def test_an_interrupted_measurement_goes_on(decoder, models, calls, log):
    first = measured(decoder, models, [0, 1], log)
    [file] = log.folder.glob("*.jsonl")
    with file.open("a") as stream:
        stream.write('[{"row": 3, "method": "la')
    calls.clear()
    timings = measured(decoder, models, [0, 1, 2, 3], log)
    assert timings[: len(first)] == first
    assert [timing.row for timing in timings[len(first) :]] == [2, 2, 2, 3, 3, 3]
    assert {row for *_, row in calls} == {2, 3}
    calls.clear()
    assert measured(decoder, models, [0, 1, 2, 3], log) == timings
    assert calls == []


def test_hooks_and_garbage_collection_are_put_back(decoder, models, log):
    import gc

    measured(decoder, models, [0], log)
    assert gc.isenabled()
    assert not models["large"].get_encoder()._forward_hooks


@pytest.mark.parametrize(
    ("n_rows", "limit", "expected"),
    [(3, None, [0, 1, 2]), (3, 5, [0, 1, 2]), (10, 1, [0]), (11, 3, [0, 5, 10]), (4, 4, [0, 1, 2, 3])],
)
def test_timed_rows_are_spread_over_the_split(n_rows, limit, expected):
    assert latency.chosen_rows(n_rows, limit) == expected


def test_timed_rows_are_distinct():
    assert all(len(set(latency.chosen_rows(n, k))) == k for n in (50, 51, 1000) for k in (2, 7, 49, 50))
