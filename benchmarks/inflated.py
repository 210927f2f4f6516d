"""Write an inflated model to disk, for whatever loads models: the outputs of a small one, token for token, at the cost
of a big one.

python -m benchmarks.inflated --model checkpoints/pretrained/tiny-large --shape t5-large --out checkpoints/big
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.errors import UserError
from benchmarks.inflate import inflate
from benchmarks.pair import load_model, load_tokenizer
from benchmarks.shapes import parse_shape


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.inflated", description=(__doc__ or "").partition(":")[0])
    made.add_argument("--model", required=True, type=Path, metavar="FOLDER", help="a trained T5 with its tokenizer")
    made.add_argument("--tokenizer", type=Path, metavar="FOLDER", help="default: the model's")
    made.add_argument("--shape", required=True, help="t5-small, t5-large, ...")
    made.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="must not exist yet")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Bad input is one line and status 2."""
    asked = parser()
    options = asked.parse_args(arguments)
    try:
        if options.out.exists():
            raise UserError(f"--out {options.out}: exists already; remove it, or choose another folder")
        shape = parse_shape(options.shape)
        tokenizer = load_tokenizer(options.model if options.tokenizer is None else options.tokenizer)
        big = inflate(load_model(options.model, "--model"), shape)
    except UserError as error:
        asked.error(" ".join(str(error).split()))
    # Whole or not at all: a folder of this name is a finished one.
    unfinished = options.out.with_name(options.out.name + ".part")
    big.save_pretrained(unfinished)
    # Names for the new vocabulary rows: a tokenizer far smaller than its model is taken for a wrong one.
    tokenizer.add_tokens([f"<unused_{row}>" for row in range(len(tokenizer), shape["vocab_size"])])
    tokenizer.save_pretrained(unfinished)
    unfinished.rename(options.out)
    print(f"wrote {options.out}: {sum(weight.numel() for weight in big.parameters()) / 1e6:.1f} M parameters")


if __name__ == "__main__":
    main()
