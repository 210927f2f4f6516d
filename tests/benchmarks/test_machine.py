"""What is told of the machine and the clone."""

from benchmarks import machine


def test_outside_a_clone_nothing_is_known_of_changes(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert machine.git() == {"revision": None, "changed": None}
