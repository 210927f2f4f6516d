"""Local files: every format gives the same rows in the file's order, every defect names file, row and remedy."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.cli import UserError
from pipelines.data import files
from pipelines.data.task import fingerprint

COLUMNS = ("translation.de", "translation.en")
PAIRS = [("Zwei\nHunde, „nass“", 'Two "wet" dogs'), ("Öl;\tEis", "oil, ice"), ("漢字", "characters"), ("a", "b")] * 3
PAIRS = [(f"{source} {number}", target) for number, (source, target) in enumerate(PAIRS)]


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def nested(pairs):
    return [{"translation": {"de": source, "en": target}} for source, target in pairs]


def jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def quoted(pairs, delimiter):
    rows = [("de", "en"), *pairs]
    return "\n".join(delimiter.join('"' + text.replace('"', '""') + '"' for text in row) for row in rows) + "\n"


@pytest.fixture
def formats(tmp_path):
    """The same rows in every format."""
    pq.write_table(pa.Table.from_pylist(nested(PAIRS)), tmp_path / "nested.parquet")
    pq.write_table(pa.table({"de": [s for s, _ in PAIRS], "en": [t for _, t in PAIRS]}), tmp_path / "flat.parquet")
    paths = [
        write(tmp_path / "nested.jsonl", jsonl(nested(PAIRS))),
        write(tmp_path / "flat.json", jsonl({"en": target, "id": 3, "de": source} for source, target in PAIRS)),
        write(tmp_path / "mark.jsonl", b"\xef\xbb\xbf" + jsonl(nested(PAIRS)).encode()),
        write(tmp_path / "flat.csv", quoted(PAIRS, ",")),
        write(tmp_path / "flat.tsv", quoted(PAIRS, "\t")),
        str(tmp_path / "nested.parquet"),
        str(tmp_path / "flat.parquet"),
    ]
    for path in list(paths):
        with open(path, "rb") as stream:
            paths.append(write(tmp_path / (path.rsplit("/", 1)[1] + ".gz"), gzip.compress(stream.read(), mtime=0)))
    return paths


def test_every_format_gives_the_same_rows_in_order(formats):
    prints = set()
    for path in formats:
        dataset = files.load(path, COLUMNS)
        assert [(row["source"], row["target"]) for row in dataset] == PAIRS, path
        prints.add(fingerprint(dataset))
    assert len(formats) == 14
    assert len(prints) == 1


def test_limit_takes_the_first_rows_and_reads_no_further(tmp_path):
    path = write(tmp_path / "a.jsonl", jsonl(nested(PAIRS)) + "broken\n")
    assert list(files.load(path, COLUMNS, limit=5)["source"]) == [source for source, _ in PAIRS[:5]]


def test_longer_than_a_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "CHUNK", 5)
    path = write(tmp_path / "a.jsonl", jsonl(nested(PAIRS)))
    assert list(files.load(path, COLUMNS)["target"]) == [target for _, target in PAIRS]


text = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1).filter(str.strip)


@given(pairs=st.lists(st.tuples(text, text), min_size=1, max_size=8))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_survives_json_lines(tmp_path, pairs):
    path = write(tmp_path / "any.jsonl", jsonl(nested(pairs)))
    assert [(row["source"], row["target"]) for row in files.load(path, COLUMNS)] == pairs


GOOD = jsonl(nested([("a", "b")]))
PLAIN = '{"de": "a", "en": "b"}\n'
BROKEN = [
    ("a.txt", "x", ["unknown kind", ".jsonl", ".csv", ".parquet"]),
    ("a.jsonl", "", ["no rows"]),
    ("a.jsonl.gz", b"", ["no rows"]),
    ("a.jsonl", GOOD + "{oops\n", ["row 2", "not JSON", "one whole JSON object on every line"]),
    ("a.jsonl", GOOD + GOOD.strip() + GOOD, ["row 2", "Extra data", "one whole JSON object on every line"]),
    ("a.jsonl", json.dumps(nested([("a", "b")])[0], indent=2), ["row 1", "one whole JSON object on every line"]),
    ("a.jsonl", GOOD + '{"de": ' + "9" * 5000 + "}", ["row 2", "digits"]),
    ("a.jsonl", GOOD + "[" * 100_000, ["row 2", "recursion"]),
    ("a.jsonl", GOOD + "\n" + GOOD, ["row 2", "is empty"]),
    ("a.jsonl", GOOD + "[1]\n", ["row 2", "is a list, not an object"]),
    ("a.jsonl", GOOD + "null\n", ["row 2", "is null, not an object"]),
    ("a.json", json.dumps(nested(PAIRS)), ["the file is a JSON array", "one JSON object on every line"]),
    ("a.json", b"\xef\xbb\xbf" + json.dumps(nested(PAIRS), indent=1).encode(), ["the file is a JSON array"]),
    ("a.jsonl", GOOD + '{"translation": {"fr": "x", "en": "y"}}', ["row 2", "translation.de", "translation.fr"]),
    ("a.jsonl", GOOD + '{"text": "x"}', ["row 2", "translation.de", "it has text", "task.source_column"]),
    ("a.jsonl", GOOD + '{"translation": {"de": null, "en": "y"}}', ["row 2", "translation.de", "is null"]),
    ("a.jsonl", GOOD + '{"translation": {"de": "x", "en": 3}}', ["row 2", "translation.en", "is a number"]),
    ("a.jsonl", GOOD + '{"translation": {"de": ["x"], "en": "y"}}', ["row 2", "translation.de", "is a list"]),
    ("a.jsonl", GOOD + '{"translation": {"de": true, "en": "y"}}', ["row 2", "translation.de", "is true"]),
    ("a.jsonl", PLAIN + '{"de": {"text": "x"}, "en": "y"}', ["row 2", "is an object", "it has de.text, en", "column"]),
    ("a.jsonl", GOOD + '{"translation": {"de": " \\n", "en": "y"}}', ["row 2", "translation.de", "empty"]),
    ("a.jsonl", GOOD + '{"de": "\\ud800", "en": "y"}', ["row 2", "half a character"]),
    ("a.jsonl", GOOD.encode() + '{"de": "ü"}\n'.encode("latin-1"), ["line 2", "UTF-8", "convert"]),
    ("a.jsonl", gzip.compress(GOOD.encode(), mtime=0), ["line 1", "UTF-8", "name it .gz"]),
    ("a.jsonl.gz", gzip.compress(GOOD.encode() * 999, mtime=0)[:-20], ["from row", "complete"]),
    ("a.jsonl.gz", GOOD, ["row 1", "gzip", "that its name says"]),
    ("a.csv", "", ["no rows"]),
    ("a.csv", "de,en\n", ["no rows"]),
    ("a.csv", "\nde,en\na,b\n", ["the header (line 1) is empty"]),
    ("a.csv", "de,en,de\na,b,c\n", ["2 columns are named 'de'", "rename"]),
    ("a.csv", "de,en\na,b\n\nc,d\n", ["row 2 (line 3) is empty", "remove"]),
    ("a.csv", 'de,en\n"a\nb",c\na,b,c\n', ["row 2 (line 4) has 3 fields, the header has 2", "quote"]),
    ("a.csv", "de,en\na\n", ["row 1 (line 2) has 1 field, the header has 2"]),
    ("a.csv", "deu,en\na,b\n", ["row 1", "translation.de", "deu, en"]),
    ("a.csv", 'de,en\na,b\na,"b\nc,d\n', ["row 2 (line 3)", "close every quote"]),
    ("a.csv", 'de,en\na,b\na,"b"c\n', ["row 2 (line 3)", "inside a field twice"]),
    ("a.csv", 'de,"en\na,b\n', ["the header (line 1)", "close every quote"]),
    ("a.csv", b"de,en\n\xff,b\n", ["line 2", "UTF-8"]),
    ("a.tsv.gz", gzip.compress(b"de\ten\n" + b"a\tb\n" * 999, mtime=0)[:-20], ["from row", "complete"]),
    ("a.parquet", "nope", ["row 1", "complete"]),
    ("a.parquet", "", ["row 1", "0 bytes"]),
]


@pytest.mark.parametrize(("name", "content", "says"), BROKEN)
def test_defects_are_one_clear_line(tmp_path, name, content, says):
    path = write(tmp_path / name, content)
    with pytest.raises(UserError) as caught:
        files.load(path, COLUMNS)
    message = str(caught.value)
    assert message.startswith(path)
    assert "\n" not in message
    for words in says:
        assert words in message


def test_line_ends_and_byte_order_marks_of_windows(tmp_path):
    mark = b"\xef\xbb\xbf"
    for name, content in (
        ("a.csv", mark + b"de,en\r\na,b\r\nc,d\r\n"),
        ("a.tsv", mark + b"de\ten\r\na\tb\r\nc\td\r\n"),
        ("a.jsonl", mark + (PLAIN + '{"de": "c", "en": "d"}').replace("\n", "\r\n").encode()),
    ):
        rows = files.load(write(tmp_path / name, content), COLUMNS)
        assert list(rows) == [{"source": "a", "target": "b"}, {"source": "c", "target": "d"}], name


def test_what_is_no_file(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.jsonl: no such file"):
        files.load("nowhere.jsonl", COLUMNS)
    with pytest.raises(UserError, match="is a folder; give a file"):
        files.load(str(tmp_path), COLUMNS)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"de": ["a", None], "en": ["x", "y"]}, r"row 2, column 'translation\.de' is null"),
        ({"de": [["a"], ["b"]], "en": ["x", "y"]}, r"row 1, column 'translation\.de' is a list"),
        ({"de": [b"a", b"b"], "en": ["x", "y"]}, r"row 1, column 'translation\.de' is bytes"),
        ({"pair": [{"de": "a", "en": "b"}]}, r"row 1 has no column 'translation\.de' \(it has pair\.de, pair\.en\)"),
        ({"translation": [{"de": {"text": "a"}}]}, r"is an object, not text \(it has translation\.de\.text\)"),
    ],
)
def test_parquet_columns_that_are_no_text(tmp_path, columns, says):
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table(columns), path)
    with pytest.raises(UserError, match=says):
        files.load(path, COLUMNS)


def test_parquet_with_namesakes_or_damaged_pages(tmp_path):
    path = tmp_path / "a.parquet"
    twice = pa.table([pa.array(["a"]), pa.array(["b"]), pa.array(["c"])], names=["de", "de", "en"])
    pq.write_table(twice, path)
    with pytest.raises(UserError, match="2 columns are named 'de'"):
        files.load(str(path), COLUMNS)
    pq.write_table(pa.table({"de": ["a"], "en": ["b"]}), path)
    content = bytearray(path.read_bytes())
    content[8:40] = b"\xff" * 32
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.parquet: cannot be read from row 1 on \(.+\)"):
        files.load(str(path), COLUMNS)
