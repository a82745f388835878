"""Names and numbers of users: one fixed translation, nobody's twice, whatever newcomers call themselves."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perijove.model import ConflictError, InvalidSpecError
from perijove_hub.users.configuration import UidRange
from perijove_hub.users.names import LONGEST, free_name, is_name, is_reserved, normalised
from perijove_hub.users.uids import free_number, name_of, number_named, number_of, uid_of

UIDS = UidRange()


def test_number_42_is_user20042() -> None:
    assert (uid_of(42, UIDS), name_of(42, UIDS)) == (20_042, "user20042")
    assert (number_of(20_042, UIDS), number_named("user20042", UIDS)) == (42, 42)


@given(st.integers(1, 9999))
def test_numbers_names_and_uids_are_one_to_one(number: int) -> None:
    uid = uid_of(number, UIDS)
    assert number_of(uid, UIDS) == number_named(name_of(number, UIDS), UIDS) == number


@given(st.integers().filter(lambda n: not 1 <= n <= 9999))
def test_outside_the_range_there_is_nothing(number: int) -> None:
    with pytest.raises(InvalidSpecError, match="1 to 9999"):
        uid_of(number, UIDS)
    with pytest.raises(InvalidSpecError, match="20001 to 29999"):
        number_of(20_000 + number, UIDS)


@pytest.mark.parametrize(
    "name", ["user20000", "user30000", "user020042", "user\uff120042", "user", "alice", "20042"]
)
def test_other_names_mean_no_number(name: str) -> None:
    assert number_named(name, UIDS) is None


@given(st.sets(st.integers(1, 20)), st.sets(st.integers(1, 20)))
def test_a_number_is_never_given_twice_nor_a_uid_of_the_system(used: set[int], system: set[int]) -> None:
    few = UidRange(first=20_000, last=20_020)
    given_now = set(used)
    while True:
        try:
            number = free_number(given_now, few, lambda uid: uid - 20_000 in system)
        except ConflictError:
            break
        assert number not in given_now | system
        given_now.add(number)
    assert given_now | system == set(range(1, 21)) | used | system


@settings(max_examples=300)
@given(st.lists(st.text(), max_size=3))
def test_whatever_somebody_is_called_their_name_is_one_of_an_account(wishes: list[str]) -> None:
    name = normalised(*wishes)
    assert is_name(name)
    again = free_name(name, lambda one: one == name or is_reserved(one, UIDS))
    assert is_name(again)
    assert again != name
    assert len(again) <= LONGEST
    assert not is_reserved(again, UIDS)


@pytest.mark.parametrize(
    ("wish", "name"),
    [
        ("Jörg Müller", "jorg-muller"),
        ("dave@example.org", "dave"),
        ("../../etc/passwd", "etc-passwd"),
        ("0day", "day"),
        ("perijove-login", "login"),
        ("日本", "someone"),
        ("root\n", "root"),
    ],
)
def test_names_as_people_expect_them(wish: str, name: str) -> None:
    assert normalised(wish) == name
