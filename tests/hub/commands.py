"""Runs entry points one after the other as their command lines would, in one process: libraries are loaded once.

One JSON line in: a list of command lines, such as ["finetune", "model=t5-small"].
"""

from __future__ import annotations

import json
import runpy
import sys

if __name__ == "__main__":
    for name, *overrides in json.loads(sys.stdin.readline()):
        sys.argv = [f"pipelines.{name}", *overrides]
        runpy.run_module(f"pipelines.{name}", run_name="__main__")
