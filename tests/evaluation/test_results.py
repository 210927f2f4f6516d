"""Names do not collide, files hold what was measured, and the schema is documented."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

import bild
from pipelines.cli import UserError
from pipelines.evaluation import results
from pipelines.evaluation.results import Pieces

DOCUMENT = Path(__file__).resolve().parents[2] / "results" / "README.md"


def name(policy, split="test", **extras):
    return results.file_name(split, {"large": "big", "small": "little"}, policy, extras)


def test_names_of_a_sweep_do_not_collide():
    policies = [bild.BigLittle(fallback=f, rollback=r) for f in (0.5, 0.6, 0.55) for r in (1, 2.0, math.inf)]
    policies += [bild.BigLittle(draft_length=5), bild.BigLittle(rule="authors"), bild.LargeOnly(), bild.SmallOnly()]
    names = [name(policy) for policy in policies] + [
        name(bild.BigLittle(), "validation"),
        name(bild.BigLittle(), limit=9),
    ]
    assert len(set(names)) == len(names)


def test_a_name_says_what_was_run():
    policy = bild.BigLittle(fallback=0.5, rollback=2.0, draft_length=4)
    assert name(policy, limit=9) == "test-big-little-BigLittle-fallback0.5-rollback2-draft_length4-limit9"


def test_a_threshold_given_as_a_whole_number_is_told_too():
    assert name(bild.BigLittle(rollback=2)) == name(bild.BigLittle(rollback=2.0))
    assert "rollback=2" in results.policy_label(bild.BigLittle(rollback=2))
    assert results.policy_label(bild.SpeculativeCascade(alpha=1)) == "SpeculativeCascade rule=chow alpha=1"
    assert results.policy_label(bild.Calm(threshold=1, decay=None)) == "Calm threshold=1 decay=None"


def test_a_summary_is_the_first_paragraph_on_one_line():
    class Mine:
        """Writes
        this.

        Not that.
        """

    assert results.policy_summary(Mine()) == "Writes this."
    assert results.policy_summary(bild.LargeOnly()) == "The large model writes every token."


def test_a_long_name_is_one_that_file_systems_take():
    one, two = (name(bild.BigLittle(), **{"task.prefix": "ä" * 300 + end}) for end in "ab")
    assert one != two
    assert max(len(text.encode()) for text in (one, two)) < 220
    assert name(bild.BigLittle(), **{"task.prefix": "ä"}).endswith("prefixä")


def test_a_name_is_one_safe_path_component():
    assert "/" not in results.file_name("test", {"large": "a b/c", "small": "d"}, bild.LargeOnly(), {})


def test_infinity_is_written_as_text(sweep):
    infinite = [result for result in sweep if result.content["policy"]["rollback"] == "inf"]
    assert len(infinite) == 2
    assert "Infinity" not in infinite[0].path.read_text()


def test_files_are_read_back_as_written(sweep):
    again = results.read(sweep[0].path)
    assert again.content == sweep[0].content
    rows = results.read_rows(again)
    assert len(rows) == 3 * 10
    readable = 0
    for row in rows:
        kept = [token for token in row["trace"] if token["reason"] != "discarded"]
        assert len(kept) == row["tokens"]
        pieces = "".join(token["piece"] for token in kept)
        if "<" not in pieces.replace("</s>", ""):
            assert pieces.replace("</s>", "").strip() == row["text"].strip()
            readable += 1
    assert readable > 10
    timed = {row["row"] for row in rows if row["milliseconds"] is not None}
    assert timed == {0, 3, 6, 9}
    assert all(row["same_as_large"] for row in rows if row["method"] == "large")


# Dictionaries whose keys are data, or are documented where they come from.
DATA = ("bild", "config", "versions", "scores", "written_by", "policy")
# Benchmarks have their own schema, and their own test of it.
PUBLISHED = sorted(
    set((DOCUMENT.parent / "published").rglob("*.json")) - set(DOCUMENT.parent.rglob("benchmarks/*.json"))
)


def keys(value, path=""):
    """Paths of all keys below a value; of a list, those of its entries."""
    for inner in value if isinstance(value, list) else ():
        yield from keys(inner, path)
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield path + key
        if key not in DATA:
            yield from keys(inner, f"{path}{key}.")


HEADING = r"The JSON file of an? (\w+)"


def documented(kind: str) -> set[str]:
    """The words in backticks of the document's sections on one kind of file and those that it refers to, and on all."""
    sections = dict(section.split("\n", 1) for section in DOCUMENT.read_text().split("\n## ")[1:])
    texts = {match[1]: text for title, text in sections.items() if (match := re.match(HEADING, title))}
    referred = [texts[other] for other in texts if re.search(f"as in an? {other}", texts[kind])]
    return set(re.findall(r"`([^`]+)`", "".join([sections["What these JSON files hold"], texts[kind], *referred])))


def undocumented(content) -> list[str]:
    """Keys that the document names neither by the end of their path nor as the beginning of a word."""
    words = documented(content["kind"])
    missing = set()
    for path in keys(content):
        parts = path.split(".")
        ends = {".".join(parts[start:]) for start in range(len(parts))}
        if not any(word in ends or word.rpartition(".")[0] in ends for word in words):
            missing.add(path)
    return sorted(missing)


def test_every_key_of_a_new_result_is_documented(sweep):
    assert len(list(keys(sweep[0].content))) > 150
    assert undocumented(sweep[0].content) == []


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_key_of_a_published_result_is_documented(path):
    assert undocumented(json.loads(path.read_text())) == []


def test_every_column_is_documented():
    document = DOCUMENT.read_text()
    for column in (*results.ROWS_SCHEMA.names, *(field.name for field in results.PIECES.value_type)):
        assert f"`{column}`" in document


def test_a_result_without_a_section_is_not_written(sweep, tmp_path):
    content = {key: value for key, value in sweep[0].content.items() if key not in ("schema", "kind", "provenance")}
    with pytest.raises(ValueError, match="lacks provenance"):
        results.write(content, None, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not JSON"), ("[]", "is not an evaluation of schema 1"), (json.dumps({"schema": 0}), "schema 1")],
)
def test_what_is_not_a_result_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        results.find([path])
    assert "x.json" in str(error.value)


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("comparison", "python -m pipelines.compare in an .html beside it"),
        ("analysis", "python -m pipelines.analyze in an .html beside it"),
        ("benchmark", "python -m benchmarks.table"),
        ("coverage", "python -m pipelines.calibrate at its end"),
    ],
)
def test_a_file_of_another_kind_is_told_by_its_kind_and_by_what_shows_it(tmp_path, kind, shown):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"schema": 1, "kind": kind}))
    with pytest.raises(UserError) as error:
        results.find([path])
    assert str(error.value) == f"{path}: is not an evaluation of schema 1 but of kind {kind}, shown by {shown}"


def test_what_shows_it_is_known_of_every_kind():
    line = next(line for line in DOCUMENT.read_text().splitlines() if line.startswith('| `schema`, `kind` | 1; "'))
    assert set(re.findall(r'"(\w+)"', line)) == set(results.SHOWN_BY)


def test_a_result_that_is_given_twice_is_found_once(sweep, monkeypatch):
    folder = sweep[0].path.parent
    monkeypatch.chdir(folder)
    found = results.find([Path(sweep[1].path.name), folder, sweep[0].path])
    assert sorted(result.path.name for result in found) == sorted(result.path.name for result in sweep)


def test_an_empty_folder_and_a_missing_one_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds no evaluation"):
        results.find([tmp_path])
    with pytest.raises(UserError, match="does not exist"):
        results.find([tmp_path / "nowhere"])


def test_lost_examples_are_named(sweep, tmp_path):
    path = tmp_path / "copy.json"
    path.write_text(sweep[0].path.read_text())
    with pytest.raises(UserError, match=r"copy\.parquet"):
        results.read_rows(results.read(path))


def test_pieces_keep_their_space_and_bytes(tokenizer):
    pieces = Pieces(tokenizer)
    ids = tokenizer("Der Hund ☃", add_special_tokens=False)["input_ids"]
    shown = [pieces(number) for number in ids]
    assert "".join(shown[:-3]).strip() == "Der Hund"
    assert " " in "".join(shown[1:-3])
    assert shown[-3:] == ["<0xE2>", "<0x98>", "<0x83>"]
    assert pieces(tokenizer.eos_token_id) == "</s>"
    assert pieces(10**6) == "<1000000>"


def test_damaged_examples_are_named(sweep, tmp_path):
    path = tmp_path / "copy.json"
    path.write_text(sweep[0].path.read_text())
    path.with_suffix(".parquet").write_bytes(b"half a file")
    with pytest.raises(UserError, match=r"copy\.parquet: cannot be read \(.+\); evaluate again"):
        results.read_rows(results.read(path))
