"""Directories: a real slapd, with TLS; who gets in, and what a name or a password may not do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import free_port
from slapd import ADMIN, ADMIN_PASSWORD, BASE, Slapd, has_slapd, slapd
from tests.conftest import absent

from perijove_hub.auth.arrivals import Verified
from perijove_hub.auth.configuration import LdapSettings
from perijove_hub.auth.ldap import Directory, filled, first_value
from perijove_hub.auth.refusals import ProviderDownError

PASSWORD = "grace's password"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    if not has_slapd():
        absent("slapd is not installed")
    with slapd(tmp_path_factory.mktemp("slapd")) as running:
        yield running


def searching(server: Slapd, **more: Any) -> Directory:
    """A directory where people are searched for."""
    settings = {
        "servers": [server.ldaps],
        "ca_file": server.ca_file,
        "bind_dn": ADMIN,
        "bind_password": ADMIN_PASSWORD,
        "base": BASE,
        **more,
    }
    return Directory("campus", LdapSettings.model_validate(settings), Path("/"))


def direct(server: Slapd, **more: Any) -> Directory:
    """A directory where the name says which entry is meant."""
    settings = {
        "servers": [server.ldap],
        "ca_file": server.ca_file,
        "user_dn": f"uid={{username}},{BASE}",
        **more,
    }
    return Directory("campus", LdapSettings.model_validate(settings), Path("/"))


WAYS = pytest.mark.parametrize("way", [searching, direct], ids=["search-ldaps", "direct-starttls"])


@WAYS
@pytest.mark.parametrize("name", ["grace", "GRACE", " grace "])
async def test_the_right_password_gets_in_under_the_directorys_own_name(
    server: Slapd, way: Any, name: str
) -> None:
    found = await way(server).check(name, PASSWORD)
    assert found == Verified(
        provider="campus",
        subject="grace",
        username="grace",
        email="grace@example.test",
        full_name="Grace Hopper",
        groups=("Compiler Group",),
    )


@WAYS
@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("grace", ""),  # RFC 4513, 5.1.2: an unauthenticated bind succeeds
        ("grace", "wrong"),
        ("", PASSWORD),
        ("", ""),
        ("*", PASSWORD),
        ("gra*", PASSWORD),
        ("grace)(uid=*", PASSWORD),
        ("grace\0", PASSWORD),
        ("grace,ou=people,dc=test", PASSWORD),
        ("grace,ou=people,dc=test+uid=x", PASSWORD),
        ("{dn}", PASSWORD),
        ("nobody", PASSWORD),
        ("x" * 10_000, PASSWORD),
    ],
)
async def test_nothing_else_gets_in(server: Slapd, way: Any, name: str, password: str) -> None:
    assert await way(server).check(name, password) is None


@WAYS
async def test_a_name_with_signs_of_filters_and_dns_is_a_name(server: Slapd, way: Any) -> None:
    found = await way(server).check("odd,name*", "odd password")
    assert found is not None and found.username == "odd,name*" and found.email == ""


async def test_groups_may_be_searched_for(server: Slapd) -> None:
    directory = searching(server, group_base="ou=groups,dc=test", email_verified=True)
    found = await directory.check("grace", PASSWORD)
    assert found is not None and found.groups == ("Compiler Group",) and found.email_verified


async def test_the_next_server_is_asked_when_one_is_away(server: Slapd) -> None:
    away = f"ldaps://localhost:{free_port()}"
    found = await searching(server, servers=[away, server.ldaps]).check("grace", PASSWORD)
    assert found is not None


async def test_a_server_that_is_silent_is_left_after_its_time(server: Slapd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"ldap://localhost:{silent.getsockname()[1]}"
        directory = searching(server, servers=[url, server.ldaps], timeout=1, plaintext=True)
        assert await directory.check("grace", PASSWORD) is not None


@pytest.mark.parametrize("url", ["ldaps", "ldap"])
async def test_a_certificate_of_a_stranger_gets_no_password(server: Slapd, url: str) -> None:
    directory = searching(server, servers=[getattr(server, url)], ca_file=None)
    with pytest.raises(ProviderDownError):
        await directory.check("grace", PASSWORD)


async def test_a_certificate_for_another_name_gets_no_password(server: Slapd) -> None:
    directory = searching(server, servers=[server.ldaps.replace("localhost", "127.0.0.1")])
    with pytest.raises(ProviderDownError):
        await directory.check("grace", PASSWORD)


async def test_no_password_goes_where_the_search_is_refused(server: Slapd) -> None:
    with pytest.raises(ProviderDownError):
        await searching(server, bind_password="wrong").check("grace", PASSWORD)


def test_what_is_filled_in_is_not_looked_at_again() -> None:
    assert filled("(&(a={username})(b={dn}))", {"username": "{dn}", "dn": "x"}) == "(&(a={dn})(b=x))"
    assert filled("(x={other})", {"username": "u"}) == "(x={other})"


@pytest.mark.parametrize(
    ("dn", "name"), [("cn=staff,ou=groups,dc=x", "staff"), ("staff", "staff"), ("cn=a\\,b,dc=x", "a\\,b")]
)
def test_the_name_of_a_group_is_the_first_of_its_dn(dn: str, name: str) -> None:
    assert first_value(dn) == name
