"""The paragraphs of a docstring that are prose, whatever convention it follows (Sphinx, Google, NumPy, Markdown).

Knows indentation, sections, lists and fields; knows nothing about words or sentences.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import dedent

MARKER = "- "  # before a paragraph that is an item of a list
# Sections of fields, names or code; under another underlined heading (Notes, Algorithm, ...) there is prose.
LISTS = {
    *("parameters", "other parameters", "type parameters", "args", "arguments", "keyword args", "keyword arguments"),
    *("attributes", "fields", "methods", "functions", "classes", "options", "returns", "return", "yields", "receives"),
    *("raises", "warns", "input", "inputs", "output", "outputs", "shape", "see also", "references", "reference"),
    *("example", "examples", "usage", "todo", "todos", "authors", "author", "license", "copyright", "contents"),
}
# Directives of Sphinx, and names with a colon, that stand over prose; what stands indented under others is none.
REMARKS = {
    *("note", "notes", "warning", "warnings", "important", "tip", "hint", "caution", "attention", "danger"),
    *("description", "details", "overview", "background", "motivation", "rationale", "remark", "remarks"),
}

_FENCE = re.compile(r"\s*(?:```|~~~)")
_UNDERLINE = re.compile(r"[=\-~^\"'*+#`|: ]{3,}$")
_DIRECTIVE = re.compile(r"\.\.(?: ([\w-]+)::)?(.*)$")
_NAME = re.compile(r"([A-Z][A-Za-z ]{2,30}):{1,2}(?: (.*))?$")
_FIELD = re.compile(r":(?:param|type|returns?|rtype|raises)\b|:\w[\w \t*]*[^:`]*:(?!`)|@\w+")
_ITEM = re.compile(r"(?:[-*+•]|\d+[.)]|\(\w+\)) +(.*)$")
_TERM = re.compile(r"\S+(?: \([^)]*\))? ?(?::|--?|–|—) ")  # an item that says what a name means
_NO_TEXT = re.compile(r"\s|>>>|.*\S {3,}\S|.*>>> |\||\+-|#|<")  # doctest, rows of a table, headings, tags


def paragraphs(docstring: str) -> list[str]:
    """The prose of a docstring whose indentation is already removed, with its line breaks, items after ``MARKER``.

    Code, tables, doctest, lists of fields, and the sections of them are left out.
    """
    lines, fenced = [], False
    for line in docstring.expandtabs().splitlines():
        fence = _FENCE.match(line) is not None
        lines.append("" if fence or fenced else line.rstrip())
        fenced ^= fence
    return list(_prose(lines))


@dataclass(frozen=True)
class _Block:
    """A line at the margin and what is indented under it."""

    line: str
    body: Sequence[str]  # without its indentation
    close: bool  # no blank line is between the two


def _groups(lines: Sequence[str]) -> Iterator[list[_Block]]:
    """The blocks that no blank line parts."""
    group: list[_Block] = []
    at = 0
    while at < len(lines):
        line, start = lines[at], at + 1
        at = start
        while line and at < len(lines) and (not lines[at] or lines[at][0].isspace()):
            at += 1
        under = lines[start:at]
        if line:
            body = dedent("\n".join(under)).strip("\n").splitlines()
            group.append(_Block(line, body, close=bool(under and under[0])))
        if group and (not line or "" in under):
            yield group
            group = []
    if group:
        yield group


def _prose(lines: Sequence[str]) -> Iterator[str]:
    kept = True
    for group in _groups(lines):
        if len(group) > 1 and _UNDERLINE.match(group[1].line) and not _UNDERLINE.match(group[0].line):
            kept = group[0].line.strip(" :").lower() not in LISTS
            group = group[2:]
        if kept:
            yield from _prose_of(group)


def _prose_of(group: Sequence[_Block]) -> Iterator[str]:
    """The paragraph that a group of blocks is, and those inside it, up to the first line that is no text."""
    text: list[str] = []
    for block in group:
        if _NO_TEXT.match(block.line) or _UNDERLINE.match(block.line) or _name(block.line)[0] in LISTS:
            break
        inside = _inside(block)
        if inside is None:
            text.append(block.line)
            if not block.body:
                continue
            inside = block.body if _ITEM.match(block.body[0]) else []
            if block.close and not inside and not block.line.endswith(":"):
                return  # a term and its definition, or a formula
        yield from _joined(text)
        text = []
        found = list(_prose(inside))
        if found and _ITEM.match(block.line):
            found[0] = MARKER + found[0]
        yield from found
    yield from _joined(text)


def _inside(block: _Block) -> Sequence[str] | None:
    """The lines of a remark or of an item, none for those of a field or of code; None if the block is plain text."""
    if item := _ITEM.match(block.line):
        return [] if _TERM.match(item[1]) else [item[1], *block.body]
    if directive := _DIRECTIVE.match(block.line):
        return [directive[2].strip(), *block.body] if directive[1] in REMARKS else []
    if _FIELD.match(block.line):
        return []
    name, text = _name(block.line)
    if not name or text:
        return None
    return block.body if name in REMARKS else [] if block.close and not _ITEM.match(block.body[0]) else None


def _name(line: str) -> tuple[str, str]:
    """The name of a section that begins in this line, in lower case, and what follows it there; "" for nothing."""
    match = _NAME.match(line)
    return (match[1].lower(), match[2] or "") if match else ("", "")


def _joined(lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield "\n".join(lines)
