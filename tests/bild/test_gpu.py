"""On a CUDA device: captured graphs write what the eager engine writes, and what both cost is written down.

These run wherever a GPU is at hand (``pytest -m gpu``); elsewhere they are not collected.
"""

from __future__ import annotations

import json
import re
import statistics
import time
import warnings
from pathlib import Path

import pytest
import torch
import transformers
from transformers import T5Config, T5ForConditionalGeneration

import bild
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
    tokens = torch.randint(2, 500, (2, 6)).cuda()
    expected = model(input_ids=ids, attention_mask=mask, decoder_input_ids=tokens).logits.float()
    runner = make_runner(model, "graphs", 6)
    runner.prefill(input_ids=ids, attention_mask=mask)
    logits = runner.extend(tokens, [6, 6]).float()
    assert float((logits - expected).norm() / expected.norm()) < (0.05 if dtype == torch.bfloat16 else 1e-4)


def shaped(layers: int, width: int, heads: int, inner: int) -> T5ForConditionalGeneration:
    config = T5Config(
        vocab_size=32128, d_model=width, d_kv=64, d_ff=inner, num_layers=layers, num_heads=heads,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    with torch.device("cuda"):
        return T5ForConditionalGeneration(config).to(torch.bfloat16).eval()


def test_what_texts_cost():
    """Milliseconds of texts of 64 tokens at the shapes of t5-large and t5-small, random weights, median of five."""
    torch.manual_seed(0)
    large, small = shaped(24, 1024, 16, 4096), shaped(6, 512, 8, 2048)
    ids = torch.randint(2, 32000, (1, 64), device="cuda")
    systems = {"large alone": bild.LargeOnly(), "speculative": bild.Speculative(draft_length=5)}
    times: dict[str, list[float]] = {}
    for turn in range(6):
        for name, policy in systems.items():
            for engine in ("static", "graphs"):
                torch.cuda.synchronize()
                start = time.perf_counter()
                bild.generate(large, small, ids, policy=policy, max_new_tokens=64, engine=engine)
                torch.cuda.synchronize()
                if turn > 0:  # the first one captures
                    times.setdefault(f"{name}, {engine}", []).append(1000 * (time.perf_counter() - start))
    medians = {name: statistics.median(each) for name, each in times.items()}
    machine = torch.cuda.get_device_name()
    RESULTS.mkdir(parents=True, exist_ok=True)
    content = {
        "machine": machine, "torch": torch.__version__, "transformers": transformers.__version__, "dtype": "bfloat16",
        "milliseconds": times, "medians": medians,
    }  # fmt: skip
    file = RESULTS / f"graphs-{re.sub('[^a-z0-9]+', '-', machine.lower())}.json"
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    assert medians["large alone, graphs"] < medians["large alone, static"]
    assert medians["speculative, graphs"] < medians["speculative, static"]
