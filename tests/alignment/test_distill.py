"""Distillation as an objective: what is drawn, what is compared, and that runs end with the same bits."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from transformers import DataCollatorForSeq2Seq

import bild
from pipelines.alignment.distill import Distillation
from pipelines.decoding.decode import row_generator
from pipelines.training.loss import IGNORED
from tests.alignment import distilled
from tests.conf import ROOT
from tests.training import child, tiny
from tests.training.test_gradients import assert_same

EOS = tiny.TOKENIZER.eos_token_id


def batch(model, rows=range(8)):
    collate = DataCollatorForSeq2Seq(tiny.TOKENIZER, model=model, label_pad_token_id=IGNORED)
    return collate([tiny.TRAIN[row] for row in rows])


def texts(prepared):
    return [row[row.ne(IGNORED)].tolist() for row in prepared["labels"]]


@pytest.fixture
def student():
    return tiny.new_model(torch.float64, dropout_rate=0.5, initializer_factor=4.0)


def test_drawn_texts_depend_on_the_step_and_not_on_the_batch(student):
    objective = distilled.objective(student, student_fraction=1.0)
    torch.manual_seed(0)
    whole = texts(objective.prepare(batch(student), step=3))
    torch.manual_seed(1)
    pieces = [text for row in (5, 6, 7) for text in texts(objective.prepare(batch(student, [row]), step=3))]
    assert pieces == whole[5:]
    assert texts(objective.prepare(batch(student), step=4)) != whole
    assert texts(distilled.objective(student, 1.0, seed=8).prepare(batch(student), step=3)) != whole
    state = torch.random.get_rng_state()
    objective.prepare(batch(student), step=3)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_is_drawn_is_the_student_s_own_text(student, monkeypatch):
    streams = []

    def stream(seed, row, device):
        streams.append((seed, row))
        return row_generator(seed, row, device)

    monkeypatch.setattr("pipelines.decoding.decode.row_generator", stream)
    with torch.no_grad():
        student.shared.weight[EOS] *= -2  # else none of these texts would end
    prepared = distilled.objective(student, student_fraction=1.0).prepare(batch(student), step=0)
    student.eval()
    for row, (seed, number) in enumerate(streams):
        out = bild.generate(
            None,
            student,
            torch.tensor([tiny.TRAIN[row]["input_ids"]]),
            policy=bild.SmallOnly(),
            max_new_tokens=6,
            do_sample=True,
            generator=[row_generator(seed, number, student.device)],
        )
        written = out.sequences[0, 1:].tolist()
        assert texts(prepared)[row] == written[: written.index(EOS) + 1 if EOS in written else None]
    assert any(text[-1] == EOS for text in texts(prepared)), "no text ends: nothing shows that its EOS is kept"
    assert any(len(text) == 6 and text[-1] != EOS for text in texts(prepared)), "no text is cut"


def test_decoder_inputs_are_the_labels_one_place_later(student):
    prepared = distilled.objective(student, student_fraction=0.5).prepare(batch(student), step=0)
    for row, text in zip(prepared["decoder_input_ids"].tolist(), texts(prepared), strict=True):
        assert row[: len(text)] == [student.config.decoder_start_token_id, *text[:-1]]


def test_the_fraction_is_a_share_of_the_rows(student):
    def drawn(fraction):
        objective = distilled.objective(student, fraction)
        changed = 0
        for step in range(12):
            prepared = texts(objective.prepare(batch(student), step))
            changed += sum(text != given for text, given in zip(prepared, texts(batch(student)), strict=True))
        return changed / 96

    given = batch(student)
    assert distilled.objective(student, 0.0).prepare(given, step=0) is given
    assert 0.15 < drawn(0.25) < 0.35
    assert drawn(1.0) == 1


def test_the_teacher_is_asked_without_dropout_and_gradients(student):
    teacher = distilled.new_teacher(student.dtype)
    objective = distilled.objective(student, teacher=teacher)
    given = batch(student)
    one, other = objective.target(given), objective.target(given)
    assert torch.equal(one.logits, other.logits)
    assert not one.logits.requires_grad
    assert one.logits.shape[-1] == student.config.vocab_size + 8
    assert torch.equal(one.counted, given["labels"].ne(IGNORED))
    student.eval()
    loss = objective(student(**{name: value for name, value in given.items() if name != "labels"}), one)
    loss.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_loss_is_the_mean_over_the_tokens_of_the_update(student):
    objective = distilled.objective(student, name="forward_kl")
    student.eval()
    given = batch(student)
    target = objective.target(given)
    logits = student(**{name: value for name, value in given.items() if name != "labels"}).logits
    width = student.config.vocab_size
    log_q, log_p = logits.log_softmax(-1), target.logits[..., :width].log_softmax(-1)
    terms = (log_p.exp() * (log_p - log_q)).sum(-1)[target.counted]
    torch.testing.assert_close(objective({"logits": logits}, target), terms.mean())
    torch.testing.assert_close(objective({"logits": logits}, target, torch.tensor(1000)), terms.sum() / 1000)


def test_killed_and_started_again_it_ends_with_the_same_bits(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    first = child.start(whole, run=distilled.run)
    second = child.start(killed, sabotage="die before the rename", run=distilled.run)
    assert child.finish(first) == 0
    assert child.finish(second) == -signal.SIGKILL
    assert child.finish(child.start(killed, run=distilled.run)) == 0
    assert "resumed from step 5" in child.printed(killed)
    for name in ("model.safetensors", "optimizer.pt", "rng_state.pth"):
        assert (killed / "checkpoint-11" / name).read_bytes() == (whole / "checkpoint-11" / name).read_bytes(), name


@pytest.fixture(scope="module")
def in_one_piece(tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "run"
    distilled.exact_run(out, accumulation=1)
    return out


def test_accumulated_pieces_make_the_same_update(in_one_piece, tmp_path):
    distilled.exact_run(tmp_path, accumulation=4)
    assert_same(tmp_path, in_one_piece)


def test_the_tokens_that_are_drawn_are_the_ones_that_are_counted(tmp_path, monkeypatch):
    seen = []

    def watched(self, outputs, target, num_items_in_batch=None):
        seen.append((int(target.counted.sum()), int(num_items_in_batch)))
        return called(self, outputs, target, num_items_in_batch)

    called = Distillation.__call__
    monkeypatch.setattr(Distillation, "__call__", watched)
    distilled.exact_run(tmp_path, accumulation=2)
    assert len(seen) == 10
    for one, other in zip(seen[::2], seen[1::2], strict=True):
        assert one[1] == other[1] == one[0] + other[0]


def test_two_processes_make_the_same_update(in_one_piece, tmp_path):
    out = tmp_path / "run"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command = [*launch, "--main_process_port", "0", "-m", "tests.alignment.distilled", str(out), "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same(out, in_one_piece)
