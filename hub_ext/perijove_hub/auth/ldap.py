"""Directories (LDAP, RFC 4511): whether a password is right, and who that is."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ldap3 import BASE, NONE, SIMPLE, SUBTREE, Connection, Server, Tls
from ldap3.core.exceptions import LDAPException
from ldap3.core.results import RESULT_BUSY, RESULT_SUCCESS, RESULT_UNAVAILABLE
from ldap3.utils.conv import escape_filter_chars
from ldap3.utils.dn import escape_rdn, parse_dn

from perijove_hub.auth.arrivals import Verified
from perijove_hub.auth.configuration import LdapSettings
from perijove_hub.auth.refusals import ProviderDownError

log = logging.getLogger("jupyterhub.perijove")

AT_ONCE = 8
MOST_GROUPS = 1000
LONGEST = 255


class Directory:
    """One section of ``login: ldap:``; its servers are asked in turn until one answers."""

    def __init__(self, name: str, settings: LdapSettings, state: Path) -> None:
        self.name, self.title, self._settings = name, settings.title or name, settings
        self._password = settings.secret(state)
        # Threads of its own: a directory that hangs delays nobody but those who ask it.
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix=f"ldap-{name}")
        check = ssl.CERT_REQUIRED
        self._tls = Tls(validate=check, ca_certs_file=str(settings.ca_file) if settings.ca_file else None)

    async def check(self, username: str, password: str) -> Verified | None:
        """Who that is; None when name or password are wrong.

        Raises :class:`ProviderDownError` when no server answers.
        """
        # A bind with a name and no password is anonymous, and succeeds (RFC 4513, 5.1.2).
        if not password or not username.strip() or len(username) > LONGEST or not username.isprintable():
            return None
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._ask_in_turn, username, password)

    def _ask_in_turn(self, username: str, password: str) -> Verified | None:
        for url in self._settings.servers:
            try:
                return self._ask(url, username, password)
            except (LDAPException, OSError) as error:
                log.warning("directory %s: %s: %s", self.name, url, type(error).__name__)
        raise ProviderDownError(self.title, f"no server of the directory {self.name} answers")

    def _ask(self, url: str, username: str, password: str) -> Verified | None:
        settings = self._settings
        if settings.user_dn:
            dn = filled(settings.user_dn, {"username": escape_rdn(username)})
            with self._connection(url, dn, password) as connection:
                if not _binds(connection):
                    return None
                entry = self._entry(connection, dn, "(objectClass=*)", BASE)
                return self._person(entry, self._groups(connection, entry)) if entry else None
        with self._connection(url, settings.bind_dn or None, self._password or None) as connection:
            if not _binds(connection):
                log.error("directory %s: %s does not let us search it", self.name, url)
                raise ProviderDownError(self.title, "the directory does not let this hub search")
            wanted = filled(settings.filter, {"username": escape_filter_chars(username)})
            entry = self._entry(connection, settings.base, wanted, SUBTREE)
            if entry is None:
                return None
            with self._connection(url, entry["dn"], password) as theirs:
                if not _binds(theirs):
                    return None
            return self._person(entry, self._groups(connection, entry))

    def _connection(self, url: str, dn: str | None, password: str | None) -> _Opened:
        parts, settings = urlsplit(url), self._settings
        secure = parts.scheme == "ldaps"
        server = Server(
            parts.hostname,
            port=parts.port or (636 if secure else 389),
            use_ssl=secure,
            tls=self._tls,
            get_info=NONE,
            connect_timeout=settings.timeout,
        )
        connection = Connection(
            server,
            user=dn,
            password=password,
            authentication=SIMPLE if dn else None,
            receive_timeout=math.ceil(settings.timeout),
            auto_referrals=False,
            read_only=True,
            check_names=False,
        )
        return _Opened(connection, start_tls=not secure and not settings.plaintext)

    def _entry(self, connection: Connection, base: str, wanted: str, scope: str) -> dict[str, Any] | None:
        """The one entry there is; None for none, and for several."""
        settings = self._settings
        names = (settings.username_attribute, settings.email_attribute, settings.name_attribute)
        attributes = [name for name in (*names, settings.groups_attribute) if name]
        connection.search(base, wanted, search_scope=scope, attributes=attributes, size_limit=2)
        found = _entries(connection)
        if len(found) > 1:
            log.error("directory %s: several entries for one name; make the filter say which", self.name)
        return found[0] if len(found) == 1 else None

    def _groups(self, connection: Connection, entry: dict[str, Any] | None) -> tuple[str, ...]:
        if entry is None:
            return ()
        settings = self._settings
        if not settings.group_base:
            named = [first_value(dn) for dn in _values(entry, settings.groups_attribute)]
        else:
            words = {"dn": entry["dn"], "username": self._username(entry)}
            wanted = filled(
                settings.group_filter, {name: escape_filter_chars(word) for name, word in words.items()}
            )
            connection.search(
                settings.group_base,
                wanted,
                search_scope=SUBTREE,
                attributes=[settings.group_attribute],
                size_limit=MOST_GROUPS,
            )
            named = [
                value
                for group in _entries(connection)
                for value in _values(group, settings.group_attribute)[:1]
            ]
        return tuple(dict.fromkeys(name for name in named if name))

    def _username(self, entry: dict[str, Any]) -> str:
        """As the directory writes it: names are compared there without regard to case."""
        return min(_values(entry, self._settings.username_attribute), default="")

    def _person(self, entry: dict[str, Any], groups: tuple[str, ...]) -> Verified | None:
        settings, name = self._settings, self._username(entry)
        if not name:
            log.error("directory %s: an entry without %s", self.name, settings.username_attribute)
            return None
        email = next(iter(_values(entry, settings.email_attribute)), "")
        return Verified(
            provider=self.name,
            subject=name,
            username=name,
            email=email,
            email_verified=bool(email) and settings.email_verified,
            full_name=next(iter(_values(entry, settings.name_attribute)), ""),
            groups=groups,
        )


class _Opened:
    """A connection, encrypted unless it was said otherwise before a password goes over it."""

    def __init__(self, connection: Connection, *, start_tls: bool) -> None:
        self._connection, self._start_tls = connection, start_tls

    def __enter__(self) -> Connection:
        self._connection.open()
        if self._start_tls and not self._connection.start_tls():
            raise LDAPException("the server offers no StartTLS")
        return self._connection

    def __exit__(self, *error: object) -> None:
        self._connection.unbind()


def filled(template: str, words: Mapping[str, str]) -> str:
    """`template` with ``{name}`` replaced, in one go: what is filled in is not looked at again."""
    return re.sub(r"\{(\w+)\}", lambda match: words.get(match[1], match[0]), template)


def first_value(dn: str) -> str:
    """``staff`` of ``cn=staff,ou=groups,dc=example``; what is no DN is a name already."""
    try:
        return str(parse_dn(dn)[0][1])
    except (LDAPException, IndexError):
        return dn


def _binds(connection: Connection) -> bool:
    if connection.bind():
        return True
    code = connection.result["result"]
    if code in {RESULT_BUSY, RESULT_UNAVAILABLE, RESULT_SUCCESS}:
        raise LDAPException(f"result {code}")
    return False


def _entries(connection: Connection) -> list[dict[str, Any]]:
    return [one for one in connection.response or () if one.get("type") == "searchResEntry"]


def _values(entry: Mapping[str, Any], attribute: str) -> list[str]:
    """The attribute's values as text, whatever case its name has."""
    for name, value in entry["attributes"].items():
        if name.lower() == attribute.lower():
            listed = value if isinstance(value, list) else [value]
            words = [one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in listed]
            return [word for word in words if word and len(word) <= LONGEST * 4 and word.isprintable()]
    return []
