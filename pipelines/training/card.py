"""The model card: what a checkpoint is, for someone who finds the folder.

Knows facts that it is given; knows nothing about training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def model_card(title: str, about: str, facts: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Markdown with a table of results and one of settings, and how to load the model."""
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            "pipeline_tag: text2text-generation",
            "---",
            "",
            f"# {title}",
            "",
            about,
            "",
            *_table("result", facts),
            "",
            *_table("setting", settings),
            "",
            "```python",
            "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer",
            "",
            'model = AutoModelForSeq2SeqLM.from_pretrained("this folder")',
            'tokenizer = AutoTokenizer.from_pretrained("this folder")',
            "```",
            "",
        ]
    )


def _table(heading: str, rows: Mapping[str, Any]) -> list[str]:
    return [f"| {heading} | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
