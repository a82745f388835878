"""Local accounts and the trial account: who gets in, and how fast passwords may be tried."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove_hub.auth.local import REMEMBERED_NAMES, LocalAuthenticator, Throttle, is_person


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def authenticator(tmp_path: Path) -> LocalAuthenticator:
    (tmp_path / "password").write_text("correct horse\n")
    made = LocalAuthenticator(trial_user="tour", password_file=str(tmp_path / "password"))
    made.throttle = Throttle(first=10.0, clock=Clock())
    made.refusal_takes = 0.0
    return made


async def login(authenticator: LocalAuthenticator, name: str, password: str) -> str | None:
    data: Any = {"username": name, "password": password}
    return await authenticator.authenticate(None, data)


async def test_the_trial_account_gets_in_with_its_password(authenticator: LocalAuthenticator) -> None:
    assert await login(authenticator, "tour", "correct horse") == "tour"
    assert await login(authenticator, "Tour", "correct horse") == "tour"


@pytest.mark.parametrize("password", ["", "correct horse\n", "Correct horse", "correct hörse", "x" * 100_000])
async def test_nothing_but_the_password_gets_in(authenticator: LocalAuthenticator, password: str) -> None:
    assert await login(authenticator, "tour", password) is None


@pytest.mark.parametrize("name", ["root", "daemon", "no-such-account", "", "tour\0", "../tour", "x" * 10_000])
async def test_system_and_unknown_accounts_stay_out(authenticator: LocalAuthenticator, name: str) -> None:
    assert await login(authenticator, name, "correct horse") is None


async def test_after_a_failure_even_the_right_password_waits(authenticator: LocalAuthenticator) -> None:
    clock = Clock()
    authenticator.throttle = Throttle(first=2.0, clock=clock)
    assert await login(authenticator, "tour", "wrong") is None
    assert await login(authenticator, "tour", "correct horse") is None
    clock.now += 2.1
    assert await login(authenticator, "tour", "correct horse") == "tour"


async def test_without_a_password_file_nobody_is_the_trial_account(tmp_path: Path) -> None:
    authenticator = LocalAuthenticator(trial_user="tour", password_file=str(tmp_path / "absent"))
    assert await login(authenticator, "tour", "") is None


async def test_an_empty_password_file_lets_nobody_in(authenticator: LocalAuthenticator) -> None:
    authenticator.password_file = os.devnull
    assert await login(authenticator, "tour", "") is None


def test_root_is_no_person() -> None:
    assert not is_person("root")
    assert not is_person("no-such-account")


@given(st.lists(st.integers(min_value=0, max_value=40), max_size=30))  # fractions do not add up exactly
def test_the_wait_is_bounded_and_grows_while_failures_follow_each_other(pauses: list[int]) -> None:
    clock = Clock()
    throttle = Throttle(first=0.5, longest=15.0, clock=clock)
    before = 0.0
    for pause in pauses:
        clock.now += pause
        throttle.failed("eve")
        wait = throttle.wait("eve")
        assert 0 < wait <= 15.0
        if pause <= 30:
            assert wait >= before
        before = wait
        assert throttle.wait("alice") == 0
    throttle.succeeded("eve")
    assert throttle.wait("eve") == 0


def test_names_are_not_remembered_without_end() -> None:
    throttle = Throttle(clock=Clock())
    for i in range(REMEMBERED_NAMES + 100):
        throttle.failed(f"name{i}")
    assert throttle.wait("name0") == 0
    assert throttle.wait(f"name{REMEMBERED_NAMES + 99}") > 0
