"""From a docstring to a pair of plain texts: what follows the first sentence, and the first sentence.

Knows docstring conventions (Sphinx, Google, NumPy, Markdown); knows nothing about packages or files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

SOURCE_WORDS = range(16, 301)
TARGET_WORDS = range(3, 31)
# NumPy sections that hold prose; every other underlined section is a list, a table or code.
PROSE_SECTIONS = {"notes", "description", "extended summary", "overview", "introduction", "explanation", "details"}

_UNDERLINE = re.compile(r"[=\-~^\"'*+#`|: ]{3,}$")
_FIELD = re.compile(r"(?::\w[\w \t*]*[^:`]*:(?!`)|@\w+|\.\. |>>>|\.\.\.|\||\+-|```|~~~|#)")
_ITEM = re.compile(r"^\s*(?:[-*+•]|\d+[.)]|\(\w+\)) +")
_GOOGLE = re.compile(r"[A-Z][A-Za-z ]{2,30}:$")
_SIGNATURE = re.compile(r"[\w.]+\s?\(.*\)(\s*->.*)?$|.*->\s*\S+$|.*\w\(.*,.*\)")
_ROLE = re.compile(r":[\w:.+-]+:`(?:[~!.]*)([^`<]+?)(?:\s*<[^`>]*>)?`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]*>`_{0,2}|\[([^\]]+)\]\([^)]*\)")
_CODE = re.compile(r"`{1,2}([^`]+)`{1,2}_{0,2}")
_STRONG = re.compile(r"(?<!\w)(\*{1,2})(\S(?:[^*]*\S)?)\1(?!\w)")
_REFERENCE = re.compile(r"\s*\[\w+\]_|\\ ")
_SENTENCE_END = re.compile(r"(?<![A-Z])(?<!e\.g)(?<!i\.e)(?<!etc)(?<!vs)(?<!cf)[.!?](?:[\"')]*)\s+(?=[A-Z`\"'(])")


def pair(docstring: str) -> tuple[str, str] | None:
    """(body, first sentence) of a docstring whose indentation is already removed, None if it is no such text."""
    paragraphs = [_whole_sentences(plain(text)) for text in _prose(docstring)]
    if not paragraphs or not paragraphs[0] or not _opens_with_prose(docstring):
        return None
    target, rest = _first_sentence(paragraphs[0])
    source = " ".join(text for text in (rest, *paragraphs[1:]) if text)
    if len(source.split()) not in SOURCE_WORDS or len(target.split()) not in TARGET_WORDS:
        return None
    if _SIGNATURE.match(target) or not _is_language(target) or not _is_language(source):
        return None
    if target.rstrip(".").lower() in source.lower():
        return None
    return source, target


def plain(text: str) -> str:
    """A paragraph on one line without markup: roles, links, references, code marks, emphasis."""
    text = _REFERENCE.sub("", " ".join(text.split()))
    text = _ROLE.sub(lambda match: match[1].rsplit(".", 1)[-1] if match[0].count("`~") else match[1], text)
    text = _LINK.sub(lambda match: match[1] or match[2], text)
    text = _CODE.sub(r"\1", text)
    return _STRONG.sub(r"\2", text).strip()


def _opens_with_prose(docstring: str) -> bool:
    first = docstring.split("\n\n", 1)[0]
    return any(True for _ in _prose(first))


def _prose(docstring: str) -> Iterator[str]:
    """The paragraphs that are prose: not indented, outside lists, fields, tables, code and their sections."""
    keep, fenced = True, False
    for paragraph in re.split(r"\n\s*\n", docstring.strip()):
        lines = [line for line in paragraph.splitlines() if line.strip()]
        if not lines:
            continue
        fences = sum(line.lstrip().startswith(("```", "~~~")) for line in lines)
        if fences or fenced:
            fenced ^= bool(fences % 2)
            continue
        if len(lines) > 1 and _UNDERLINE.match(lines[1].strip()):  # a NumPy section or a heading
            keep = lines[0].strip().lower() in PROSE_SECTIONS
            lines = lines[2:]
        elif _GOOGLE.match(lines[0].strip()):
            continue
        if keep and lines and _is_prose(lines):
            yield "\n".join(_ITEM.sub("", line) for line in lines)


def _is_prose(lines: list[str]) -> bool:
    """Whether the lines of a paragraph are text: a paragraph at the margin, or a list of items that are."""
    items = _ITEM.match(lines[0]) is not None
    if any((line[0].isspace() and not items) or _FIELD.match(line) or _UNDERLINE.match(line) for line in lines):
        return False
    # "such as::" announces a block of code; two columns of words are a table.
    return not lines[-1].endswith("::") and not any(re.search(r"\S {3,}\S|>>> ", line) for line in lines)


def _first_sentence(paragraph: str) -> tuple[str, str]:
    match = _SENTENCE_END.search(paragraph)
    return (paragraph[: match.end()].strip(), paragraph[match.end() :]) if match else (paragraph, "")


def _whole_sentences(paragraph: str) -> str:
    """Without a last sentence that announces what was taken out ("For example:")."""
    if not paragraph.endswith(":"):
        return paragraph
    ends = [match.end() for match in _SENTENCE_END.finditer(paragraph)]
    return paragraph[: ends[-1]].strip() if ends else ""


def _is_language(text: str) -> bool:
    """Mostly words: starts like a sentence, few symbols, no formula or address."""
    letters = sum(char.isalpha() or char.isspace() for char in text)
    return (
        text[0].isalpha()
        and text[0].isupper()
        and letters > 0.85 * len(text)
        and not any(mark in text for mark in ("http", "\\", "|"))
    )
