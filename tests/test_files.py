"""Files that are there whole or not at all, and folders that one run at a time writes."""

import subprocess
import sys
from threading import Timer

import pytest

from pipelines.cli import UserError, explained
from pipelines.files import replacing, result_file, sole_writer

HOLD = "import sys; from pathlib import Path; from pipelines.files import sole_writer\n"
HOLD += "with sole_writer(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"


def test_another_process_is_refused_until_the_first_one_is_gone(tmp_path):
    folder = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="out: another run is writing there now; wait"), sole_writer(folder):
            pass
        other.kill()
    with sole_writer(folder):
        pass


def test_who_has_patience_waits_for_another_process(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        Timer(0.3, other.kill).start()
        with sole_writer(tmp_path, patience=30):
            assert other.wait() != 0


def test_the_same_process_may_hold_a_folder_twice_and_keeps_it_until_the_outer_end(tmp_path):
    attempt = [sys.executable, "-c", HOLD, str(tmp_path)]

    def other():
        return subprocess.run(attempt, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    with sole_writer(tmp_path):
        with sole_writer(tmp_path / "." / ""):
            pass
        assert "another run is writing there now" in other().stderr
    assert other().returncode == 0


def test_a_folder_for_results_that_takes_no_file_is_told_before_the_work(tmp_path):
    assert result_file(str(tmp_path), "task", "name") == tmp_path / "task/name.json"
    assert not list((tmp_path / "task").iterdir())
    with pytest.raises(UserError, match=r"^/proc/self: nothing can be written there \(.+\); choose another folder"):
        result_file("/proc", "self", "name")


def test_what_cannot_be_written_is_told_by_its_own_name(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError) as error, replacing(tmp_path / "taken") as temporary:
        temporary.write_text("x")
    assert error.value.filename == str(tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_full_disk_is_told_with_the_file(tmp_path):
    def fill() -> None:
        with replacing(tmp_path / "new") as temporary:
            temporary.symlink_to("/dev/full")
            temporary.write_text("x")

    with pytest.raises(OSError, match="No space left") as error:
        fill()
    assert explained(error.value, "evaluate").startswith(f"{tmp_path}/new: No space left on device; make room on the")
    assert not list(tmp_path.iterdir())
