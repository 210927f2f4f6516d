"""What every pipeline says in the same words."""

import pytest

from pipelines.cli import UserError, check_whole, counted


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (2000, "2,000 rows"), (1000, "1,000 rows")]
)
def test_one_is_singular_and_thousands_are_set_apart(number, words):
    assert counted(number, "row") == words


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", True, None])
def test_what_is_no_whole_number_is_refused_by_its_key(value):
    with pytest.raises(UserError, match=f"^limit={value}: must be a whole number of at least 1$"):
        check_whole("limit", value)
    with pytest.raises(UserError, match=r"^limit=0: must be .* at least 1, or null for all rows$"):
        check_whole("limit", 0, null="all rows")


def test_whole_numbers_and_null_where_it_means_something_pass():
    check_whole("limit", 1)
    check_whole("seed", 0, least=0)
    check_whole("limit", None, null="all rows")
