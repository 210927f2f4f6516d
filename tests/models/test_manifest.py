"""What counts as a complete checkpoint."""

import json

import pytest

from pipelines.models import manifest


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "weights").write_bytes(b"1234")
    (tmp_path / "config").write_text("{}")
    (tmp_path / ".hidden").write_text("not a member")
    (tmp_path / "subfolder").mkdir()
    manifest.write(tmp_path, step=3)
    return tmp_path


def test_a_sealed_folder_is_complete(folder) -> None:
    assert manifest.is_complete(folder)
    about = manifest.check(folder)
    assert about["step"] == 3
    assert sorted(about["files"]) == ["config", "weights"]
    assert about["files"]["weights"] == {
        "size": 4,
        "sha256": "03ac674216f3e15c761ee1a5e255f067953623c8b388b4459e13f978d7c846f4",
    }


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("weights", b"123", "weights has 3 bytes instead of 4"),
        ("weights", b"1235", "weights is corrupt"),
        ("weights", None, "weights is missing"),
        ("manifest.json", None, "it has no manifest.json"),
        ("manifest.json", b'{"format": 1, "fi', "its manifest.json cannot be read"),
        ("manifest.json", b'{"format": 2, "files": {}}', "its manifest.json is not of format 1"),
        *(
            ("manifest.json", json.dumps(content).encode(), "its manifest.json is not of format 1")
            for content in (
                [],
                {"format": 1},
                {"format": 1, "files": ["weights"]},
                {"format": 1, "files": {"weights": "1234"}},
                {"format": 1, "files": {"weights": {"sha256": ""}}},
                {"format": 1, "files": {"weights": {"size": 4}}},
                {"format": 1, "files": {}, "identity": ["seed"]},
            )
        ),
        ("manifest.json", b'{"format": 1, "files": {"weights": {"size": "4", "sha256": 4}}}', "4 bytes instead of 4"),
        ("manifest.json", b'{"format": 1, "files": {"weights": {"size": 4, "sha256": 4}}}', "weights is corrupt"),
    ],
)
def test_any_damage_is_found_and_named(folder, name, content, told) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    assert not manifest.is_complete(folder)
    with pytest.raises(manifest.IncompleteError, match=told):
        manifest.check(folder)


def test_files_that_are_not_members_may_change(folder) -> None:
    (folder / "log").write_text("later")
    (folder / ".hidden").write_text("changed")
    assert manifest.is_complete(folder)


def test_members_can_be_named(tmp_path) -> None:
    (tmp_path / "weights").write_bytes(b"1")
    (tmp_path / "log").write_text("still growing")
    manifest.write(tmp_path, ["weights"])
    (tmp_path / "log").write_text("has grown")
    assert manifest.is_complete(tmp_path)
