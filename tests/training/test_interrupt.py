"""A signal that several processes get, or one of them: what is each one's own is dropped, and all of them leave."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from pipelines.training import checkpoints
from pipelines.training.interrupt import Interrupt, InterruptError
from tests.launch import launched
from tests.training import tiny

CPU = torch.device("cpu")


def test_sigterm_during_an_evaluation_of_two_processes_saves_first(tmp_path: Path) -> None:
    """The launcher kills 30 seconds after its signal; this evaluation lasts a minute, and no checkpoint is there."""
    out = tmp_path / "run"
    with launched(tmp_path, "tests.training.two_processes", "slow evaluation", str(out)) as both:
        while both.printed().count("evaluating") < 2:
            assert both.process.poll() is None, both.printed()
            time.sleep(0.05)
        os.kill(both.process.pid, signal.SIGTERM)
        told = time.monotonic()
        both.wait(120)
    assert time.monotonic() - told < 25
    assert f"saved at step 8 of {tiny.SETTINGS.max_steps}" in both.printed()
    assert [folder.name for folder in checkpoints.listed(out)] == ["checkpoint-8"]
    summary = tiny.run(out, accumulation=1, save_every=1000)
    assert (summary.resumed_from, summary.ended) == (8, "complete")
    history = checkpoints.latest(out).state["log_history"]
    assert [entry["step"] for entry in history if "eval_loss" in entry] == [8, 16, 22]


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch):
    """A second process: the signals that it brings to each agreement, and how often it was asked."""

    def use(*numbers: int) -> list[int]:
        remaining, asked = iter(numbers), []

        def all_reduce(number: torch.Tensor, how: object) -> None:
            assert how == torch.distributed.ReduceOp.MAX
            asked.append(int(number))
            number.fill_(max(int(number), next(remaining)))

        monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
        return asked

    return use


def test_a_process_without_the_signal_does_its_share_and_leaves_with_the_others(others) -> None:
    asked, interrupt, done = others(signal.SIGTERM), Interrupt(2), []
    with interrupt.caught(), pytest.raises(InterruptError), interrupt.droppable(CPU):
        done.append("share")
    assert (done, asked, interrupt.received) == (["share"], [0], signal.SIGTERM)


def wait_for_a_signal() -> None:
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
    time.sleep(5)
    pytest.fail("nothing was dropped")


def test_a_process_with_the_signal_drops_its_share_and_tells_the_others(others) -> None:
    asked, interrupt = others(0, 0), Interrupt(2)
    with interrupt.caught(), pytest.raises(InterruptError), interrupt.droppable(CPU):
        wait_for_a_signal()
    assert asked == [signal.SIGTERM]
    with pytest.raises(InterruptError), interrupt.droppable(CPU):
        pytest.fail("a signal that was there before drops all of it")
    assert asked == [signal.SIGTERM] * 2


def test_without_a_signal_all_go_on(others) -> None:
    asked, interrupt = others(0), Interrupt(2)
    with interrupt.caught(), interrupt.droppable(CPU):
        pass
    assert (asked, interrupt.received) == ([0], None)


def test_a_signal_after_the_block_drops_nothing() -> None:
    interrupt = Interrupt()
    with interrupt.caught():
        with interrupt.droppable(CPU):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert interrupt.agreed(CPU)
