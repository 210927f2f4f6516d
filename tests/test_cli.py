"""What every pipeline says in the same words."""

import pytest

from pipelines.cli import counted


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (2000, "2,000 rows"), (1000, "1,000 rows")]
)
def test_one_is_singular_and_thousands_are_set_apart(number, words):
    assert counted(number, "row") == words
