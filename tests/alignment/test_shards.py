import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import files
from pipelines.alignment import shards
from pipelines.alignment.shards import Plan, ShardFolder
from pipelines.cli import UserError
from pipelines.models import manifest

IDENTITY = {"task.source": "abc", "align.temperature": 0.0}


def row(index, sample=0, tokens=(7, 8, 1)):
    return {"index": index, "sample": sample, "source": f"Satz {index}", "target": "so", "tokens": list(tokens)}


def folder_with_two_shards(path, identity=IDENTITY):
    folder = ShardFolder(path / "outputs", Plan(rows=3, shard_rows=2, samples=1), identity)
    folder.write(0, [row(0), row(1, tokens=[1])])
    folder.write(1, [row(2)])
    return folder


@given(rows=st.integers(1, 50), shard_rows=st.integers(1, 60), samples=st.integers(1, 3))
def test_every_input_is_in_exactly_one_shard(rows, shard_rows, samples):
    plan = Plan(rows=rows, shard_rows=shard_rows, samples=samples)
    ranges = [plan.inputs(shard) for shard in range(plan.shards)]
    assert [index for inputs in ranges for index in inputs] == list(range(rows))
    assert sum(map(plan.outputs, range(plan.shards))) == rows * samples
    assert all(0 < len(inputs) <= shard_rows for inputs in ranges)


def test_rows_come_back_in_order_with_their_tokens(tmp_path):
    folder = folder_with_two_shards(tmp_path)
    folder.finish({"outputs": 3})
    dataset = folder.dataset()
    assert dataset["index"][:] == [0, 1, 2]
    assert dataset["tokens"][:] == [[7, 8, 1], [1], [7, 8, 1]]
    assert dataset["source"][2] == "Satz 2"


def test_the_manifest_lists_rows_and_hashes_and_nothing_partial_stays(tmp_path):
    folder = folder_with_two_shards(tmp_path)
    (folder.path / ".shard-00001.parquet.999.tmp").write_bytes(b"of a killed run")
    folder.finish({"outputs": 3})
    written = json.loads((folder.path / "manifest.json").read_text())
    assert written["identity"] == IDENTITY
    assert written["rows"] == {"shard-00000.parquet": 2, "shard-00001.parquet": 1}
    assert written["files"]["shard-00000.parquet"]["sha256"] == manifest.sha256(folder.file(0))
    assert sorted(file.name for file in folder.path.iterdir()) == [
        "manifest.json",
        "shard-00000.parquet",
        "shard-00001.parquet",
    ]


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize(
    ("identity", "named"),
    [
        ({**IDENTITY, "align.temperature": 0.7}, r"align\.temperature is 0\.0 there and 0\.7 now"),
        ({**IDENTITY, "seed": 3}, r"seed is \(not set\) there and 3 now"),
        ({"task.source": "abc"}, r"align\.temperature is 0\.0 there and \(not set\) now"),
    ],
)
def test_another_run_is_refused_by_the_key_that_differs(tmp_path, complete, identity, named):
    folder = folder_with_two_shards(tmp_path)
    if complete:
        folder.finish({})
        folder.file(0).unlink()
        folder.file(1).unlink()
    other = ShardFolder(folder.path, folder.plan, identity)
    with pytest.raises(UserError, match=named):
        other.finished(range(2))


def test_a_truncated_shard_is_named_and_removed(tmp_path, capsys):
    folder = folder_with_two_shards(tmp_path)
    whole = folder.file(0).read_bytes()
    folder.file(0).write_bytes(whole[:-20])
    assert folder.finished(range(2)) == [1]
    assert "shard-00000.parquet is damaged" in capsys.readouterr().out
    assert folder.missing() == [0]


def test_a_changed_byte_is_found_by_the_manifest(tmp_path, capsys):
    folder = folder_with_two_shards(tmp_path)
    folder.finish({})
    content = bytearray(folder.file(1).read_bytes())
    content[10] ^= 1
    folder.file(1).write_bytes(content)
    assert folder.finished(range(2)) == [0]
    assert "shard-00001.parquet is damaged" in capsys.readouterr().out


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    folder = ShardFolder(tmp_path, Plan(rows=1, shard_rows=1, samples=1), IDENTITY)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards.pq, "write_table", full)
    with pytest.raises(UserError, match="No space left"):
        folder.write(0, [row(0)])
    assert list(tmp_path.iterdir()) == []


def test_a_shard_appears_under_its_name_only_when_it_is_whole(tmp_path, monkeypatch):
    folder = ShardFolder(tmp_path, Plan(rows=1, shard_rows=1, samples=1), IDENTITY)
    seen = []

    def replace(partial, final):
        seen.append((shards.pq.read_table(partial).num_rows, final.exists()))
        partial.rename(final)

    monkeypatch.setattr(files.os, "replace", replace)
    folder.write(0, [row(0)])
    assert seen == [(1, False)]
    assert folder.finished([0]) == [0]


def test_the_manifest_of_something_else_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    manifest.write(tmp_path, identity={"train.seed": 0})
    folder = ShardFolder(tmp_path, Plan(rows=1, shard_rows=1, samples=1), IDENTITY)
    with pytest.raises(UserError, match=r"train\.seed is 0 there and \(not set\) now"):
        folder.finished([0])


def test_without_its_manifest_a_folder_continues_from_the_shards(tmp_path):
    folder = folder_with_two_shards(tmp_path)
    folder.finish({})
    (folder.path / "manifest.json").write_text("{")
    assert folder.finished(range(2)) == [0, 1]
