"""Which points a pair can decode with, in few words, and what is no policy."""

from bild.policies.base import Policy
from pipelines.decoding.grid import grouped, is_a


def test_a_reason_is_told_once():
    reasons = ["a 1: no", "b: other: why", "a 2: no", "a 3: no", "c: other: how"]
    assert grouped(reasons) == ["a 1 and 2 others: no", "b: other: why", "c: other: how"]
    assert grouped(["a: no", "b: no"]) == ["a and 1 other: no"]
    assert grouped([]) == []


def test_a_path_that_leads_nowhere_is_no_class_and_logs_nothing(caplog, capsys):
    assert is_a(Policy, "bild.BigLittle")
    for target in ("bild.BigLitle", "nothing.at.all", None, 3, "", "bild", "bild.generate", "bild.RowStats"):
        assert not is_a(Policy, target)
    assert not caplog.records
    assert capsys.readouterr() == ("", "")
