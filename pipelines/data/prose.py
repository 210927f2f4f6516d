"""From a docstring to a pair of plain texts: what follows the first sentence, and the first sentence.

Knows markup, sentences and what language looks like; knows nothing about packages or files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from pipelines.data.paragraphs import MARKER, paragraphs

SOURCE_WORDS = range(16, 301)
TARGET_WORDS = range(3, 31)
STOPS = (".", "!", "?", '."', ".'", ".)", "!)", "?)")
WORDLIKE = 0.85  # least share of letters and spaces in a text

_ROLE = re.compile(r":[\w:.+-]+:`([~!.]*)([^`<]+?)(?:\s*<[^`>]*>)?`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]*>`_{0,2}|\[`?([^\]`]+)`?\](?:\([^)]*\)|\[[^\]]*\])")
_CODE = re.compile(r"\[?(?:``([^`]+)``|`([~.]*)([^`]+)`)\]?_{0,2}")
_STRONG = re.compile(r"(?<!\w)(\*{1,2})(\S(?:[^*]*\S)?)\1(?!\w)")
_REFERENCE = re.compile(r"\s*\[\w+\]_|\\ ")
_SIGNATURE = re.compile(r"[\w.]+\s?\(.*\)(\s*->.*)?$|.*->\s*\S+$|.*\w\(.*,.*\)")
_SENTENCE_END = re.compile(r"(?<![A-Z])(?<!e\.g)(?<!i\.e)(?<!etc)(?<!vs)(?<!cf)[.!?](?:[\"')]*)\s+(?=[A-Z`\"'(])")
_NO_LANGUAGE = re.compile(r"https?:|[\\|{}]|>>>|->|==|<=|TODO|FIXME|XXX|Copyright")


def pair(docstring: str) -> tuple[str, str] | None:
    """(body, first sentence) of a docstring whose indentation is already removed, None if it is no such text."""
    found = paragraphs(docstring)
    if not found or not docstring.lstrip().startswith(found[0].splitlines()[0]):
        return None
    first, *others = map(_sentences, _texts(found))
    target, source = first[0] if first else "", _body([first[1:], *others])
    if len(source.split()) not in SOURCE_WORDS or len(target.split()) not in TARGET_WORDS:
        return None
    if _SIGNATURE.match(target) or not target[0].isupper() or target.endswith(":") or not _language([target]):
        return None
    return None if target.rstrip(".").lower() in source.lower() else (source, target)


def plain(text: str) -> str:
    """A paragraph on one line without markup: roles, links, references, code marks, emphasis."""
    text = _REFERENCE.sub("", " ".join(text.split()))
    text = _ROLE.sub(lambda match: _shown(match[1], match[2]), text)
    text = _LINK.sub(lambda match: match[1] or match[2], text)
    text = _CODE.sub(lambda match: match[1] or _shown(match[2], match[3]), text)
    return _STRONG.sub(r"\2", text).strip()


def _shown(prefix: str, name: str) -> str:
    """A name as Sphinx shows it: ``~`` before it leaves its last part."""
    return name.rsplit(".", 1)[-1] if "~" in prefix else name


def _texts(found: Sequence[str]) -> Iterator[str]:
    """The paragraphs as plain texts of whole sentences.

    What was taken out between them leaves fragments: an end without a stop, or one that announces something ("For
    example:"), and a beginning that goes on with a sentence ("where x is ...").
    """
    for index, (paragraph, following) in enumerate(zip(found, [*found[1:], ""], strict=True)):
        item = paragraph.startswith(MARKER)
        raw = paragraph.removeprefix(MARKER)
        text = plain(raw)
        if index > 0 and raw[0].islower():
            text = ""
        elif item:
            text = text if text.endswith(STOPS) else f"{text}."
        elif not text.endswith(STOPS) and not (text.endswith(":") and following.startswith(MARKER)):
            whole = _sentences(text)
            text = " ".join(whole[:-1] if len(whole) > 1 or index > 0 else whole)
        yield text


def _body(texts: Iterable[Sequence[str]]) -> str:
    """What of each text is language, joined; of a long docstring the first texts, up to the most words of a source."""
    body: list[str] = []
    for text in filter(None, map(_language, texts)):
        if len(" ".join([*body, text]).split()) >= SOURCE_WORDS.stop:
            break
        body.append(text)
    return " ".join(body)


def _sentences(text: str) -> list[str]:
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return [text[start:end].strip() for start, end in zip([0, *ends], [*ends, len(text)], strict=True) if text]


def _language(sentences: Sequence[str]) -> str:
    """The sentences without formulas, code and addresses, joined; "" if too little of that is words."""
    text = " ".join(sentence for sentence in sentences if not _NO_LANGUAGE.search(sentence))
    letters = sum(char.isalpha() or char.isspace() for char in text)
    return text if letters > WORDLIKE * len(text) else ""
