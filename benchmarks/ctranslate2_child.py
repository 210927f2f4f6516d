"""One CTranslate2 translator in a process of its own, asked by ``peer_ctranslate2`` over its standard streams.

Two teams of OpenMP threads in one process, more threads than cores, no longer wait for work but fall asleep between
operators: in one process with it an int8 step of t5-large took half as long again. Nothing else computes here.

A JSON line each way: first ``translator`` (arguments of it) to "ready"; then ``sources`` (rows of token names) and
``decoding`` (arguments of ``translate_batch``) to ``rows`` (ids) and ``seconds``. It ends with its input.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ctranslate2


def answer(translator: ctranslate2.Translator, sources: list[list[str]], decoding: dict[str, Any]) -> dict[str, Any]:
    start = time.perf_counter()
    results = translator.translate_batch(sources, **decoding)
    rows = [[int(token) for token in one.hypotheses[0]] for one in results]
    return {"rows": rows, "seconds": time.perf_counter() - start}


def say(value: Any) -> None:
    print(json.dumps(value), flush=True)


def main() -> None:
    import ctranslate2

    translator = ctranslate2.Translator(**json.loads(sys.stdin.readline())["translator"])
    say("ready")
    for line in sys.stdin:
        say(answer(translator, **json.loads(line)))


if __name__ == "__main__":
    main()
