"""On a CUDA device: captured graphs write what the eager engine writes, and what both cost is written down.

These run wherever a GPU is at hand (``pytest -m gpu``); elsewhere they are not collected.
"""

from __future__ import annotations

import json
import re
import statistics
import warnings
from pathlib import Path

import pytest
import torch
import transformers

import bild
from benchmarks.clock import now
from benchmarks.machine import read_bandwidth
from benchmarks.own import BildMethod
from benchmarks.peer_transformers import TransformersAssisted, TransformersGenerate
from benchmarks.roofline import step_bytes
from benchmarks.shapes import PAPER, random_model
from benchmarks.steps import Stepper
from bild.engine import make_runner
from tests.bild.models import sources, tiny_t5

pytestmark = pytest.mark.gpu
RESULTS = Path(__file__).resolve().parent.parent.parent / "results" / "gpu"
POLICIES = [
    bild.LargeOnly(),
    bild.SmallOnly(),
    bild.BigLittle(fallback=0.5, rollback=1.0, draft_length=4),
    bild.Speculative(draft_length=4, adaptive=True),
    bild.SpeculativeCascade(rule="opt", alpha=0.3, draft_length=4),
]


@pytest.fixture(scope="module")
def models():
    large = tiny_t5(3)
    small = tiny_t5(1003, layers=1, like=large)
    return large.cuda(), small.cuda()


@pytest.fixture(autouse=True)
def captured():
    """A fallback to single steps would pass these tests unseen."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="no graph could be captured")
        yield


@pytest.mark.parametrize("do_sample", [False, True])
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_graphs_write_what_single_steps_write(models, policy, do_sample):
    large, small = models
    for seed, lengths in ((3, [6, 1, 4]), (4, [2, 9, 3]), (5, [1])):
        ids, mask = (one.cuda() for one in sources(seed, lengths))
        outs = [
            bild.generate(
                large, small, ids, attention_mask=mask, policy=policy, max_new_tokens=12, do_sample=do_sample,
                generator=[torch.Generator("cuda").manual_seed(row) for row in range(len(lengths))], engine=engine,
            )
            for engine in ("static", "graphs", "graphs")
        ]  # fmt: skip
        for out in outs[1:]:
            assert out.sequences.equal(outs[0].sequences)
            assert out.stats == outs[0].stats


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_precisions(dtype):
    model = tiny_t5(2, width=64, vocab=500, gated=True, dtype=torch.float32).to(dtype).cuda()
    ids, mask = (one.cuda() for one in sources(4, [40, 17], vocab=500))
    tokens = torch.randint(2, 500, (2, 6))
    expected = model(input_ids=ids, attention_mask=mask, decoder_input_ids=tokens.cuda()).logits.float()
    runner = make_runner(model, "graphs", 6)
    runner.prefill(input_ids=ids, attention_mask=mask)
    logits = runner.extend(tokens, [6, 6]).float()
    assert float((logits - expected).norm() / expected.norm()) < (0.05 if dtype == torch.bfloat16 else 1e-4)


def random_sources(rows: int, width: int) -> torch.Tensor:
    return torch.randint(2, 32000, (rows, width), generator=torch.Generator().manual_seed(0)).cuda()


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_texts_are_those_of_single_steps_and_of_transformers(dtype):
    """A text may part from another's only where the two most probable tokens are as good as equal."""
    large, small = (random_model(PAPER["t5-small"], dtype, torch.device("cuda"), seed=seed) for seed in (0, 1))
    ids = random_sources(32, 40)
    expected = large.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, num_beams=1, max_new_tokens=24)
    for engine, policy in (("static", bild.LargeOnly()), ("graphs", bild.LargeOnly()), ("graphs", bild.Speculative())):
        found = bild.generate(large, small, ids, policy=policy, max_new_tokens=24, engine=engine).sequences
        for row in (found != expected).any(-1).nonzero().flatten().tolist():
            place = int((found[row] != expected[row]).int().argmax())
            shown = expected[row : row + 1, :place]
            logits = large(input_ids=ids[row : row + 1], decoder_input_ids=shown).logits[0, -1].float()
            best = logits.topk(2).values
            assert float(best[0] - best[1]) < {torch.float32: 1e-4}.get(dtype, 0.1) * float(best[0].abs().clamp(min=1))


def median_seconds(work, runs: int = 5) -> float:
    """Of a few runs behind one that captures and warms."""
    times = []
    for _ in range(runs + 1):
        start = now(torch.device("cuda"))
        work()
        times.append(now(torch.device("cuda")) - start)
    return statistics.median(times[1:])


def test_what_steps_and_texts_cost():
    """At the shapes of t5-large and t5-small, random weights, texts of 64 tokens."""
    device, dtype, tokens = torch.device("cuda"), torch.bfloat16, 64
    large, small = (random_model(PAPER[name], dtype, device) for name in ("t5-large", "t5-small"))
    bandwidth = read_bandwidth(device, 2**33)
    methods = {
        "transformers generate": TransformersGenerate("", large),
        "transformers assisted": TransformersAssisted("", large, small),
        **{
            f"{label}, {engine}": BildMethod(label, policy, engine, large, small)
            for engine in ("static", "graphs")
            for label, policy in (
                ("large alone", bild.LargeOnly()),
                ("small alone", bild.SmallOnly()),
                ("speculative", bild.Speculative(draft_length=5)),
            )
        },
    }
    figures = {}
    for size in (1, 16):
        ids = random_sources(size, 64)
        batch = ids, torch.ones_like(ids)
        alone = ("transformers assisted",) if size > 1 else ()
        figures[f"milliseconds, batch {size}"] = {
            name: 1000 * median_seconds(lambda one=one, batch=batch: one.decode(batch, tokens))
            for name, one in methods.items()
            if name not in alone
        }
    for engine in ("static", "graphs"):
        stepper = Stepper(large, engine, random_sources(1, 64), tokens // 2, 8)
        seconds = {width: stepper.seconds(width, 50) for width in (1, 8)}
        read = step_bytes(large, int8=False, source=64, length=tokens // 2)
        figures[f"large step, {engine}"] = {
            "microseconds": {str(width): 1e6 * one for width, one in seconds.items()},
            "share of the bandwidth limit": read / bandwidth / seconds[1],
        }
    single = figures["milliseconds, batch 1"]
    figures["draft step, microseconds"] = {
        engine: 1000 * single[f"small alone, {engine}"] / tokens for engine in ("static", "graphs")
    }
    figures["times as fast as transformers generate"] = {
        name: {one: times["transformers generate"] / own for one, own in times.items()}
        for name, times in figures.items()
        if name.startswith("milliseconds")
    }
    machine = torch.cuda.get_device_name()
    content = {
        "machine": machine, "torch": torch.__version__, "transformers": transformers.__version__, "dtype": "bfloat16",
        "bandwidth_gb_per_s": bandwidth / 1e9, "figures": figures,
    }  # fmt: skip
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / f"graphs-{re.sub('[^a-z0-9]+', '-', machine.lower())}.json"
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for name in ("large alone", "small alone", "speculative"):
        assert single[f"{name}, graphs"] < single[f"{name}, static"]
