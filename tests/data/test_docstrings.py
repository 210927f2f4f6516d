"""Docstrings: what counts as prose, and the packages that it is taken from, parsed and never imported."""

import json

import pytest

from pipelines.cli import UserError
from pipelines.data import docstrings, prose
from pipelines.data.docstrings import Docstrings, split_of
from pipelines.data.task import fingerprint

BODY = "It keeps the order of the items, and it copies nothing, so that the caller sees every later change."

KEPT = [
    (f"Join the items.\n\n{BODY}", BODY, "Join the items."),
    (f"Join the items. {BODY}", BODY, "Join the items."),
    (
        f"Join all\nthe items.\n\n{BODY}\n\nArgs:\n    items: what to join, one after the other",
        BODY,
        "Join all the items.",
    ),
    (
        f"Join the items.\n\n{BODY}\n\nParameters\n----------\nitems : list\n\nThe items are these.",
        BODY,
        "Join the items.",
    ),
    (f"Join the items.\n\nNotes\n-----\n{BODY}", BODY, "Join the items."),
    (f"Join the items.\n\n:param items: what to join\n:returns: all of them\n\n{BODY}", BODY, "Join the items."),
    (f"Join the items.\n\n{BODY}\n\n>>> join([1, 2])\n[1, 2]", BODY, "Join the items."),
    (
        f"Join the items.\n\n```python\njoin([1])\n\nThis is code too, not a word of it is prose.\n```\n\n{BODY}",
        BODY,
        "Join the items.",
    ),
    (f"Join the items.\n\n{BODY} For example:\n\n    join([1])", BODY, "Join the items."),
    (f"Join the items.\n\n==== ====\nitem  next\n==== ====\n\n{BODY}", BODY, "Join the items."),
    (f"Join the items.\n\n- {BODY}\n- Nothing else\n  changes.", BODY + " Nothing else changes.", "Join the items."),
    (f"Join the :class:`~a.b.Item` and ``x``.\n\n{BODY}", BODY, "Join the Item and x."),
    (f"Join the **items** of `the list <http://a.b>`_ [1]_.\n\n{BODY}", BODY, "Join the items of the list."),
    (f"Join all kinds of things, e.g. Items. {BODY}", BODY, "Join all kinds of things, e.g. Items."),
    (f"Join the items.\n:param items: what to join\n:returns: all\n\n{BODY}", BODY, "Join the items."),
    (f"Join the items.\nArgs:\n    items: what to join\n\n{BODY}", BODY, "Join the items."),
    (f"Join the items.\n\n{BODY}\nReturns: a list of some things\nand more of them.", BODY, "Join the items."),
    (f"Join the items.\n\n.. note::\n    {BODY}\n\n.. code::\n\n    Not a word.", BODY, "Join the items."),
    (f"Join the items.\n\n=====\nThis is a cell of some table.\nThis is one more.\n\n{BODY}", BODY, "Join the items."),
    (f"Join the items.\n\nA = [1, 2] + (3 * 4) - 5 / 6 [7] % 8.\n\n{BODY}", BODY, "Join the items."),
    (f"Join the items.\n\n.. warning:: {BODY}", BODY, "Join the items."),
    (f"Join the items.\n\nNote:\n    {BODY}\n\nExample:\n    Not a word.", BODY, "Join the items."),
    (f"Join the items.\n\nReturns\n-------\nNot a word.\n\nAlgorithm\n---------\n{BODY}", BODY, "Join the items."),
    (
        f"Join the items. The order is this:\n\n  * {BODY}\n  * Nothing\n    else\n\n    changes.\n\nMore ends it.",
        f"The order is this: {BODY} Nothing else. More ends it.",
        "Join the items.",
    ),
    (
        f"Join the items.\n\n{BODY}\n\n- name: what it means\n- ``x`` (int) - what all of it means to you",
        BODY,
        "Join the items.",
    ),
    (f"Join the items.\n\n{BODY} It is defined as\n\n.. math:: x\n\nwhere x is one.", BODY, "Join the items."),
    (f"Join the items.\n\n{BODY} See https://a.b for more. Set x = {{1}}.", BODY, "Join the items."),
    (f"Join the items.\n\nThis is a term.\n    This says what it means.\n\n{BODY}", BODY, "Join the items."),
    (
        f"Join the `~.Item` and `.Thing` with ``.x`` of [`~a.B`].\n\n{BODY}",
        BODY,
        "Join the Item and Thing with .x of B.",
    ),
    ("Join the items.\n\n" + "\n\n".join([BODY] * 16), " ".join([BODY] * 15), "Join the items."),
]
DROPPED = [
    "",
    "[1]_",
    f"Returns: a list.\n\nJoin the items.\n\n{BODY}",
    f"These are the ways to join:\n\n- {BODY}",
    "Join the items.",
    "Join the items.\n\nIn order.",
    f"join(items, more) -> list\n\n{BODY}",
    f"Join(items, more)\n\n{BODY}",
    f"Join.\n\n{BODY}",
    f">>> join()\n\n{BODY}",
    f":param x: Some words here.\n\n{BODY}",
    f"Join the items.\n\nJoin the items. {BODY}",
    f"x = {{1: 2, 3: 4}} [5, 6]\n\n{BODY}",
    "Join the items.\n\n" + "a = b[c] + d[e] ** 2 / (f - g) | h & 3 << 4 >= 17 != 12 == 8 ; " * 2,
]


@pytest.mark.parametrize(("docstring", "source", "target"), KEPT)
def test_prose_is_kept_and_the_rest_goes(docstring, source, target):
    assert prose.pair(docstring) == (source, target)


@pytest.mark.parametrize("docstring", DROPPED)
def test_what_is_no_pair(docstring):
    assert prose.pair(docstring) is None


def number(word):
    return f'"""Make the {word} again.\n\n    {BODY.replace("items", word)}\n    """\n'


@pytest.fixture
def site(tmp_path):
    """Three installed packages, one per split; importing any of their files would raise."""
    names = {}
    for index in range(1000):
        names.setdefault(split_of(f"package-{index}", 0), f"package-{index}")
    for split, name in names.items():
        install(tmp_path, name, split)
    return tmp_path


def install(folder, name, word, version="1.0"):
    module = name.replace("-", "_")
    files = {
        f"{module}/__init__.py": number(f"{word} module") + "raise RuntimeError('imported')\n",
        f"{module}/a.py": f"class A:\n    {number(word + ' class')}\n"
        f"    async def f(self):\n        {number(word + ' method')}\n",
        f"{module}/b.py": f"def g():\n    {number(f'{word} class')}\n",  # has been seen
        f"{module}/broken.py": f"def g(:\n    {number('broken')}\n",
        f"{module}/tests/t.py": number(f"{word} test"),
        f"{module}/data.txt": number("text"),
        f"{module}-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
    }
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    record = "".join(f"{path},,\n" for path in reversed(files))
    (folder / f"{module}-{version}.dist-info/RECORD").write_text(record)


def load(site, split, **fields):
    return Docstrings(path=str(site), seed=0, cache=False, **fields).load(split)


def test_each_package_is_in_one_split_in_file_order(site):
    for split in ("train", "validation", "test"):
        rows = load(site, split)
        assert list(rows["target"]) == [f"Make the {split} {kind} again." for kind in ("module", "class", "method")]
        assert all(f"{split} " in text for text in rows["source"])
    assert len(Docstrings(path=str(site), seed=0, cache=False).load("train", limit=2)) == 2


def test_versions_are_in_the_fingerprint(site, tmp_path):
    rows = load(site, "test")
    before = fingerprint(rows)
    assert list(json.loads(rows.info.description).values()) == ["1.0"]
    assert fingerprint(load(site, "test")) == before
    name = next(iter(json.loads(rows.info.description)))
    metadata = next(tmp_path.glob(f"{name.replace('-', '_')}-*.dist-info")) / "METADATA"
    metadata.write_text(metadata.read_text().replace("1.0", "1.1"))
    again = load(site, "test")
    assert list(again["source"]) == list(rows["source"])
    assert fingerprint(again) != before


def test_cache_is_used_and_named_by_versions(site, tmp_path, monkeypatch):
    monkeypatch.setattr(docstrings, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = Docstrings(path=str(site), seed=0).load("train")
    assert len(list((tmp_path / "cache" / "docstrings").iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr(docstrings, "_pairs", lambda packages: pytest.fail("parsed again"))
        assert fingerprint(Docstrings(path=str(site), seed=0).load("train")) == fingerprint(rows)
    install(site, "another-package", "new")
    Docstrings(path=str(site), seed=0).load("train")
    assert len(list((tmp_path / "cache" / "docstrings").iterdir())) == 2


def test_nothing_installed(tmp_path):
    with pytest.raises(UserError, match="no installed package has docstrings"):
        Docstrings(path=str(tmp_path), cache=False).load("train")
    name = next(f"p-{index}" for index in range(100) if split_of(f"p-{index}", 0) == "train")
    install(tmp_path, name, "only")
    with pytest.raises(UserError, match="no package of the split 'test'"):
        load(tmp_path, "test")
