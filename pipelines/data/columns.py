"""What one side of a pair is made of: a column as it is, or a text with columns in braces.

Knows names and values; knows nothing about files, the hub or tasks.

``article`` is a column. ``{context} Question: {question}`` is a text that two columns are put into, each as one line.
A column may hold a list, whose items become lines of their own: ``{answers}`` is one right answer a line.
``{answers:none}`` says which text stands for an empty list.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter

Value = str | list[str]


def is_filled(side: str) -> bool:
    """Whether a side is a text with columns in braces."""
    return any(name is not None for _, name, _, _ in Formatter().parse(side))


def names(side: str) -> list[str]:
    """The columns that a side is made of, possibly nested (``answers.text``).

    Raises:
        ValueError: braces that do not pair, or with nothing between them.
    """
    if not is_filled(side):
        return [side]
    found = [name for _, name, _, _ in Formatter().parse(side) if name is not None]
    if "" in found:
        raise ValueError("empty braces")
    return found


def fill(side: str, values: Mapping[str, Value]) -> str:
    """The text of a side with braces; ``values`` by the names of its columns. White space becomes single blanks."""
    text = "".join(
        literal if name is None else literal + _lines(values[name], empty)
        for literal, name, empty, _ in Formatter().parse(side)
    )
    return text.strip()


def _lines(value: Value, empty: str | None) -> str:
    items = [value] if isinstance(value, str) else value
    lines = [line for line in (" ".join(item.split()) for item in items) if line]
    return "\n".join(lines) if lines else str(empty)
