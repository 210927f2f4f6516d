"""Decode your own text, one input a line, one output a line; an empty line stays empty.

python -m pipelines.generate input=in.txt output=out.txt
cat in.txt | python -m pipelines.generate input=- output=-
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TextIO

from omegaconf import DictConfig

from pipelines.cli import UserError, check_path, check_whole, counted, entry
from pipelines.files import replacing, sole_writer, write_text

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
            # Texts are UTF-8 whatever the terminal's language is.
            out.reconfigure(encoding="utf-8", errors="strict")
            stream(config, out)
        else:
            with replacing(Path(config.output)) as temporary, temporary.open("w", encoding="utf-8") as file:
                stream(config, file)


def check(config: DictConfig) -> None:
    """Raise ``UserError`` on missing or impossible input and output, before anything is loaded."""
    if config.input is None or config.output is None:
        raise UserError("give input=FILE output=FILE, or - for standard input or output")
    for key in ("input", "output"):
        check_path(key, config[key], "file")
    check_whole("batch_size", config.batch_size)
    if config.input != PIPE:
        check_input(Path(config.input))
    if config.output != PIPE:
        check_output(Path(config.output))
        if config.input != PIPE and Path(config.output).exists() and Path(config.output).samefile(config.input):
            raise UserError(f"output={config.output}: is the input itself; give another file")


def check_input(path: Path) -> None:
    """Raise ``UserError`` unless there is something to read at ``path``: a file, or another program's pipe."""
    if not path.exists():
        raise UserError(f"input={path}: there is no such file")
    if path.is_dir():
        raise UserError(f"input={path}: is a folder; give a file, or - for standard input")


def check_output(path: Path) -> None:
    """Raise ``UserError`` unless a file can be put at ``path``."""
    if not path.absolute().parent.is_dir():
        raise UserError(f"output={path}: the folder {path.parent} does not exist; create it first")
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "not a plain file"
        raise UserError(f"output={path}: is {kind}; give a file, or - for standard output")
    try:
        # Permissions alone do not tell: a file system may be read-only.
        tempfile.TemporaryFile(dir=path.absolute().parent).close()
    except OSError as error:
        raise UserError(
            f"output={path}: nothing can be written to {path.absolute().parent} ({error.strerror}); choose another "
            "folder, or mend its permissions"
        ) from error


def from_file_to_file(config: DictConfig) -> None:
    """Decode a whole file, longest lines first. Started again after a kill, it goes on where it stopped."""
    from pipelines.decoding.lines import LineDecoder

    with Path(config.input).open("rb") as file:
        lines = list(read_lines(file, config.input))
    if not lines:
        raise UserError(f"input={config.input}: is empty")
    decoder = LineDecoder.load(config)
    partial = Path(f"{config.output}.partial")
    with sole_writer(partial):
        try:
            decoded = decoder.decode_all(lines, config.batch_size, partial)
        except KeyboardInterrupt:
            print(f"stopped; finished lines stay in {partial}, and the same command continues there", flush=True)
            raise
        write_text("".join(f"{line}\n" for line in decoded), Path(config.output))
        shutil.rmtree(partial)
    print(f"wrote {counted(len(decoded), 'line')} to {config.output}")


def stream(config: DictConfig, out: TextIO) -> None:
    """Decode lines as they come, ``batch_size`` at a time, and write each batch at once."""
    from pipelines.decoding.lines import LineDecoder

    with contextlib.ExitStack() as stack:
        # Bytes: what Python makes of standard input as text depends on the terminal's language.
        file = sys.stdin.buffer if config.input == PIPE else stack.enter_context(Path(config.input).open("rb"))
        decoder = LineDecoder.load(config)
        try:
            for batch in _batches(read_lines(file, config.input), config.batch_size):
                for line in decoder.decode(batch):
                    out.write(f"{line}\n")
                out.flush()
        except BrokenPipeError:
            # The reader has seen enough; what is left in the buffer would fail again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())


def read_lines(file: BinaryIO, name: str) -> Iterator[str]:
    """The lines of an open file, without their ends. Raises ``UserError`` on the first that is not UTF-8."""
    for number, line in enumerate(file, start=1):
        try:
            yield line.rstrip(b"\r\n").decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"input={name}: line {number:,} is not UTF-8 ({error.reason}); convert the file first"
            ) from error


def _batches(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    lines = iter(lines)
    while batch := list(islice(lines, size)):
        yield batch


if __name__ == "__main__":
    entry("generate", main)
