"""Decode your own text, one input a line, one output a line; an empty line stays empty.

python -m pipelines.generate input=in.txt output=out.txt
cat in.txt | python -m pipelines.generate input=- output=-
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TextIO

from omegaconf import DictConfig

from pipelines.cli import UserError, entry
from pipelines.files import replacing

PIPE = "-"


def main(config: DictConfig) -> None:
    """Decode ``input`` to ``output``. Standard output gets outputs and nothing else."""
    check(config)
    out = sys.stdout
    # Libraries may print what they like.
    with contextlib.redirect_stdout(sys.stderr):
        if PIPE not in (config.input, config.output):
            from_file_to_file(config)
        elif config.output == PIPE:
            stream(config, out)
        else:
            with replacing(Path(config.output)) as temporary, temporary.open("w", encoding="utf-8") as file:
                stream(config, file)


def check(config: DictConfig) -> None:
    """Raise ``UserError`` on missing or impossible input and output, before anything is loaded."""
    if config.input is None or config.output is None:
        raise UserError("give input=FILE output=FILE, or - for standard input or output")
    if not isinstance(config.batch_size, int) or config.batch_size < 1:
        raise UserError(f"batch_size={config.batch_size}: must be a whole number of at least 1")
    if config.input != PIPE and not Path(config.input).is_file():
        raise UserError(f"input={config.input}: there is no such file")
    if config.output == PIPE:
        return
    output = Path(config.output)
    if not output.absolute().parent.is_dir():
        raise UserError(f"output={output}: the folder {output.parent} does not exist; create it first")
    if output.is_dir():
        raise UserError(f"output={output}: is a folder; give a file")
    if config.input != PIPE and output.exists() and output.samefile(config.input):
        raise UserError(f"output={output}: is the input itself; give another file")


def from_file_to_file(config: DictConfig) -> None:
    """Decode a whole file, longest lines first. Started again after a kill, it goes on where it stopped."""
    from pipelines.evaluation.lines import LineDecoder
    from pipelines.files import write_text

    with Path(config.input).open(encoding="utf-8", newline="\n") as file:
        lines = list(read_lines(file, config.input))
    if not lines:
        raise UserError(f"input={config.input}: is empty")
    partial = Path(f"{config.output}.partial")
    decoded = LineDecoder.load(config).decode_all(lines, config.batch_size, partial)
    write_text("".join(f"{line}\n" for line in decoded), Path(config.output))
    shutil.rmtree(partial)
    print(f"wrote {len(decoded):,} lines to {config.output}")


def stream(config: DictConfig, out: TextIO) -> None:
    """Decode lines as they come, ``batch_size`` at a time, and write each batch at once."""
    from pipelines.evaluation.lines import LineDecoder

    with contextlib.ExitStack() as stack:
        if config.input == PIPE:
            file = sys.stdin
        else:
            file = stack.enter_context(Path(config.input).open(encoding="utf-8", newline="\n"))
        decoder = LineDecoder.load(config)
        try:
            for batch in _batches(read_lines(file, config.input), config.batch_size):
                for line in decoder.decode(batch):
                    out.write(f"{line}\n")
                out.flush()
        except BrokenPipeError:
            # The reader has seen enough; what is left in the buffer would fail again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())


def _batches(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    lines = iter(lines)
    while batch := list(islice(lines, size)):
        yield batch


def read_lines(file: TextIO, name: str) -> Iterable[str]:
    """The lines of an open file, without their ends. Raises ``UserError`` on what is not UTF-8."""
    try:
        for line in file:
            yield line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UserError(f"input={name}: is not UTF-8 ({error.reason}); convert it first") from error


if __name__ == "__main__":
    entry("generate", main)
