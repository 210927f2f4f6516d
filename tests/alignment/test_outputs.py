import subprocess
import sys
from collections import Counter

import pytest

from pipelines.alignment.outputs import Processes
from pipelines.cli import UserError
from tests.alignment import stand_in
from tests.launch import launched


def files(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def counting(stop_at=None, error=KeyboardInterrupt):
    """The stand-in's decode that notes how often each output was written, and stops before one."""
    seen = Counter()

    def decode(inputs, numbers):
        for place, output in stand_in.decode(inputs, numbers):
            if seen.total() == stop_at:
                raise error
            seen[numbers[place]] += 1
            yield place, output

    return decode, seen


def test_rows_are_the_answers_to_the_sources_in_order(tmp_path):
    folder, summary = stand_in.fill(tmp_path)
    dataset, given = folder.dataset(), stand_in.sources(23)
    assert dataset["index"][:] == [row for row in range(23) for _ in range(2)]
    assert dataset["sample"][:] == [0, 1] * 23
    for one in dataset:
        number = 2 * one["index"] + one["sample"]
        assert one["tokens"] == stand_in.answer(*given.encode([one["source"]]), number)
        assert one["source"] == given.texts[one["index"]]
    assert summary["outputs"] == 46
    assert summary["tokens"] == sum(map(len, dataset["tokens"]))


def test_a_shard_is_handed_over_whole_and_longest_first(tmp_path):
    widths = []

    def decode(inputs, numbers):
        widths.append([len(row) for row in inputs])
        return stand_in.decode(inputs, numbers)

    stand_in.fill(tmp_path, decode, rows=8)
    assert [len(one) for one in widths] == [5 * 2, 3 * 2]
    assert all(one == sorted(one, reverse=True) for one in widths)


def test_the_bar_counts_rows_as_they_come(tmp_path, monkeypatch):
    counts = []

    class Bar:
        def __init__(self, total, **_):
            self.total, self.n = total, 0

        def update(self, rows=1):
            self.n += rows

        def __enter__(self):
            return self

        def __exit__(self, *_):
            assert self.n == self.total

    def decode(inputs, numbers):
        for output in stand_in.decode(inputs, numbers):
            counts.append(bars[0].n)
            yield output

    bars = []
    monkeypatch.setattr("pipelines.alignment.outputs.tqdm", lambda **k: bars.append(Bar(**k)) or bars[0])
    stand_in.fill(tmp_path, decode)
    assert counts == list(range(46))


@pytest.mark.parametrize("stop_at", [0, 1, 9, 10, 25, 40, 45])
def test_interrupted_anywhere_the_rest_is_written_once_and_equal(tmp_path, stop_at, capsys):
    stand_in.fill(tmp_path / "whole")
    first, seen_first = counting(stop_at)
    with pytest.raises(KeyboardInterrupt):
        stand_in.fill(tmp_path / "stopped", first)
    assert "the same command continues" in capsys.readouterr().out
    second, seen_second = counting()
    stand_in.fill(tmp_path / "stopped", second)
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")
    again = {number for number in seen_first if seen_second[number]}
    assert len(again) <= 5 * 2  # one shard of 5 inputs, 2 samples each


def test_killed_and_started_again(tmp_path):
    stand_in.fill(tmp_path / "whole")
    command = [sys.executable, "-m", "tests.alignment.stand_in", str(tmp_path / "killed")]
    assert subprocess.run([*command, "28"], capture_output=True).returncode == -9
    kept = {name for name in files(tmp_path / "killed") if name.endswith(".parquet")}
    assert kept == {"shard-00000.parquet", "shard-00001.parquet"}  # 10 outputs a shard
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "outputs: 3 shards to generate, 2 from before" in done.stdout
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_two_processes_share_the_shards(tmp_path):
    stand_in.fill(tmp_path / "alone")
    with launched(tmp_path, "tests.alignment.stand_in", str(tmp_path / "shared")) as both:
        assert both.wait(120) == 0, both.printed()
    assert "rank 0 decoded 26 outputs" in both.printed()  # shards 0, 2, 4; the last one has 3 inputs
    assert "rank 1 decoded 20 outputs" in both.printed()  # shards 1, 3
    assert files(tmp_path / "shared") == files(tmp_path / "alone")


def test_a_process_waits_for_the_shards_of_the_others(tmp_path, monkeypatch):
    """Process 1 of 2 writes the other shards while process 0 sleeps between two looks at the folder."""
    from pipelines.alignment import outputs

    events = []

    def other(_):
        events.append("slept")
        monkeypatch.setattr(outputs.time, "sleep", lambda _: None)
        plan = stand_in.Plan(rows=23, shard_rows=5, samples=2)
        folder = stand_in.ShardFolder(tmp_path, plan, {"task.source": "abc"})
        for shard in (1, 3):
            rows = outputs._answer(plan, shard, stand_in.sources(23), stand_in.decode, lambda: None)
            folder.write(shard, rows)

    monkeypatch.setattr(outputs.time, "sleep", other)
    stand_in.fill(tmp_path, processes=Processes(0, 2, lambda: None))
    assert events == ["slept"]
    assert (tmp_path / "manifest.json").exists()


def test_a_finished_folder_is_not_generated_again(tmp_path):
    _, before = stand_in.fill(tmp_path)
    decode, seen = counting()
    _, after = stand_in.fill(tmp_path, decode)
    assert not seen
    assert after == before


def test_empty_and_cut_outputs_are_kept_and_counted(tmp_path):
    answers = {0: [stand_in.EOS], 1: [5, 6, 7]}

    def decode(inputs, numbers):
        written = [stand_in.Written(answers.get(len(row) % 5, [5, stand_in.EOS])) for row in inputs]
        return enumerate(written)

    folder, summary = stand_in.fill(tmp_path, decode, samples=1)
    given = stand_in.sources(23)
    lengths = [len(row) % 5 for row in given.encode(given.texts)]
    assert summary["empty"] == lengths.count(0) > 0
    assert summary["cut"] == lengths.count(1) > 0
    assert len(folder.dataset()) == 23


def test_only_empty_outputs_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"every output in .* is empty"):
        stand_in.fill(tmp_path, lambda inputs, _: enumerate([stand_in.Written([stand_in.EOS])] * len(inputs)))
