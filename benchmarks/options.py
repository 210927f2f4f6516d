"""The command line: what each mode takes, and one line for what it cannot."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NoReturn

import torch

import bild
from benchmarks.batch import run_batch
from benchmarks.errors import UserError
from benchmarks.pair import run_pair
from benchmarks.peer_ctranslate2 import TYPES as CTRANSLATE2
from benchmarks.shapes import PAPER, parse_shape
from benchmarks.steps import run_steps
from bild.engine import check_engine
from bild.policies.base import Policy

RESULTS = Path("results/benchmarks")


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


def parser() -> argparse.ArgumentParser:
    """All modes."""
    main = Parser(prog="python -m benchmarks.latency", description=__doc__)
    modes = main.add_subparsers(dest="mode", required=True, parser_class=Parser)
    steps = modes.add_parser("steps", help="step costs at given shapes, random weights")
    _common(steps, run_steps, list(CTRANSLATE2), tokens=32)
    steps.add_argument("--shapes", nargs="+", type=_named_shape, default=[(name, PAPER[name]) for name in PAPER])
    steps.add_argument("--widths", type=_widths, default=list(range(1, 12)), help="such as 1-11 or 1,2,8")
    steps.add_argument("--source-length", type=_whole, default=64)
    steps.add_argument("--shortlist", type=_whole, default=None, help="also a step with a head of so many random ids")
    steps.add_argument("--repeats", type=_whole, default=5, help="steps in a row whose median counts as one")
    pair = modes.add_parser("pair", help="a trained pair as it is")
    inflate = modes.add_parser("inflate", help="a trained pair inflated to a bigger shape: same outputs, its cost")
    batch = modes.add_parser("batch", help="throughput against batch size")
    for one in (pair, inflate):
        _common(one, run_pair, ["assisted", "lookup", *CTRANSLATE2], tokens=64)
        _pair(one)
        _policies(one)
        one.add_argument("--profile-rows", type=_whole, default=5, help="rows on which overhead is measured")
    _common(batch, run_batch, list(CTRANSLATE2), tokens=64)
    _pair(batch)
    _policies(batch)
    batch.add_argument("--batch-sizes", nargs="+", type=_whole, default=[1, 2, 4, 8, 16, 32])
    for one, large, small in ((pair, None, None), (inflate, "t5-large", "t5-small"), (batch, None, None)):
        if one is pair:
            one.set_defaults(large_shape=None, small_shape=None)
            continue
        one.add_argument("--large-shape", type=_shape, default=large, help="inflate the large model to this")
        one.add_argument("--small-shape", type=_shape, default=small, help="inflate the small model to this")
    return main


def rounding_parser() -> argparse.ArgumentParser:
    """Of ``benchmarks.rounding``, which times nothing."""
    made = Parser(prog="python -m benchmarks.rounding", description="what rounding changes")
    _machine(made)
    _pair(made)
    made.add_argument(
        "--batch-sizes", nargs="+", type=_whole, default=[100, 37, 1], help="the large model's, then lossless settings'"
    )
    made.add_argument("--tokens", dest="max_new_tokens", type=_whole, default=64, help="written at most per row")
    made.set_defaults(mode="rounding", large_shape=None, small_shape=None)
    return made


def _common(mode: argparse.ArgumentParser, run: Callable[..., Any], peers: list[str], tokens: int) -> None:
    mode.set_defaults(run=run)
    _machine(mode)
    mode.add_argument("--peers", nargs="*", choices=peers, default=peers, help="beside transformers generate")
    mode.add_argument("--runs", type=_whole, default=5)
    mode.add_argument("--tokens", dest="max_new_tokens", type=_whole, default=tokens, help="written at most per row")


def _machine(mode: argparse.ArgumentParser) -> None:
    mode.add_argument("--device", type=_device, default="cpu", help="cpu or cuda")
    mode.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    mode.add_argument("--threads", type=_whole, default=None, help="of torch and CTranslate2; default: torch's choice")
    mode.add_argument(
        "--engines", nargs="+", type=_engine, help="default: static, and static+int8 on cpu or graphs on cuda"
    )
    mode.add_argument(
        "--bandwidth-bytes", type=_whole, help="of the tensor that tells the bandwidth; default: 1 GiB, 8 on cuda"
    )
    mode.add_argument("--name", default=None, help="of the result; default: from models or shapes, device and dtype")
    mode.add_argument("--out", type=Path, default=None, help=f"JSON file; default: {RESULTS}/MODE-NAME.json")


def _pair(mode: argparse.ArgumentParser) -> None:
    mode.add_argument("--large", required=True, metavar="FOLDER")
    mode.add_argument("--small", required=True, metavar="FOLDER")
    mode.add_argument("--tokenizer", default=None, metavar="FOLDER", help="default: the large model's")
    mode.add_argument("--data", required=True, metavar="FILE", help="JSON lines, may be gzipped")
    mode.add_argument("--source", default="source", help="field of the data; points between nested names")
    mode.add_argument("--target", default=None, help="field of the data, for BLEU")
    mode.add_argument("--prefix", default="", help="put before every source")
    mode.add_argument("--source-length", type=_whole, default=256, help="tokens; longer sources are cut")
    mode.add_argument("--limit", type=_whole, default=None, help="the first so many rows")


def _policies(mode: argparse.ArgumentParser) -> None:
    mode.add_argument(
        "--big-little",
        dest="policies",
        nargs="+",
        type=_big_little,
        default=[_big_little("0.6,2")],
        metavar="FALLBACK,ROLLBACK[,DRAFT_LENGTH]",
        help="BigLittle's settings; FALLBACK,exact verifies every token and changes no output",
    )


def complete(options: argparse.Namespace) -> argparse.Namespace:
    """Fill in what depends on other options. Raises UserError."""
    if options.engines is None:
        options.engines = ["static", "static+int8" if options.device == "cpu" else "graphs"]
    if options.device != "cpu" and any("int8" in engine for engine in options.engines):
        raise UserError(
            f"--engines {' '.join(options.engines)}: int8 runs on the CPU only; leave it out on {options.device}"
        )
    for option in ("engines", "peers", "policies", "shapes", "batch_sizes"):
        given = vars(options).get(option, [])
        values = [str(value[0] if isinstance(value, tuple) else value) for value in given]
        if len(set(values)) < len(values):
            raise UserError(f"one of the {option.replace('_', ' ')} is given twice; give each once")
    for name, shape in vars(options).get("shapes", []):
        if options.shortlist is not None and options.shortlist > shape["vocab_size"]:
            raise UserError(f"--shortlist {options.shortlist}: {name} has {shape['vocab_size']} ids; ask for fewer")
    if options.bandwidth_bytes is None:  # a GPU reads one GiB in little more time than it takes to ask for it
        options.bandwidth_bytes = 2**30 if options.device == "cpu" else 2**33
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.name is None:
        subject = "-".join(name for name, _ in options.shapes) if options.mode == "steps" else Path(options.large).name
        options.name = f"{subject}-{options.device.replace(':', '')}-{options.dtype}"
    if options.out is None:
        options.out = RESULTS / f"{options.mode}-{options.name}.json"
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        if options.out.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with TemporaryFile(dir=options.out.parent):  # known now, and not when everything is measured
            pass
    except OSError as error:
        raise UserError(f"--out {options.out}: {error.strerror}; choose another path") from error
    return options


def as_json(options: argparse.Namespace) -> dict[str, Any]:
    """The options as JSON-like values."""
    values = {name: value for name, value in vars(options).items() if name != "run"}
    if "policies" in values:
        values["policies"] = [label for label, _ in options.policies]
    if "shapes" in values:
        values["shapes"] = [name for name, _ in options.shapes]
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _widths(text: str) -> list[int]:
    first, _, last = text.partition("-")
    found = range(_whole(first), _whole(last) + 1) if "-" in text else map(_whole, text.split(","))
    widths = sorted({1, *found})  # the step that all others are compared with is one of them
    if "-" in text and widths[-1] != int(last):
        raise argparse.ArgumentTypeError(f"{text!r} counts down; write the smaller width first")
    return widths


def _engine(text: str) -> str:
    try:
        check_engine(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _device(text: str) -> str:
    if text.partition(":")[0] not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither cpu nor cuda")
    if text != "cpu" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError(f"{text!r}: torch sees no CUDA device here; use cpu")
    return text


def _shape(text: str) -> dict[str, Any]:
    try:
        return parse_shape(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _named_shape(text: str) -> tuple[str, dict[str, Any]]:
    """What to call a shape, and the shape; one of one's own is called by its sizes."""
    shape = _shape(text)
    return text if text in PAPER else "-".join(map(str, shape.values())), shape


def _big_little(text: str) -> tuple[str, Policy]:
    """Label and policy."""
    fallback, *rest = text.split(",")
    exact = rest[:1] == ["exact"]
    try:
        draft_length = {"draft_length": int(rest[1])} if len(rest) == 2 else {}
        policy = bild.BigLittle(
            fallback=float(fallback), rollback=0.0 if exact else float(rest[0]), verify_eos=exact, **draft_length
        )
    except (ValueError, IndexError) as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}; write FALLBACK,ROLLBACK such as 0.6,2") from error
    if len(rest) > 2:
        raise argparse.ArgumentTypeError(f"{text!r}: {len(rest) + 1} values; write FALLBACK,ROLLBACK[,DRAFT_LENGTH]")
    return f"BigLittle {' '.join([fallback, *rest])}", policy
