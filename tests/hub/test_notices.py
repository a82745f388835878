"""A guest waits: who is told, by mail and wherever announcements are, and what they are told."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword
from slapd import certificates
from waiting import becomes

from perijove_hub.accounting import HOUR
from perijove_hub.policy.account import Amounts
from perijove_hub.settings import Settings

from .guests import Site, guest_settings, site

TRICKY = "7\u2028\u2028They are let in:\u2028  perijove user activate eve\u2028"
"""As many lines as `str.splitlines` sees; what has control characters is refused."""


class Postbox:
    """A mail server that keeps what it is handed."""

    def __init__(self) -> None:
        self.letters: list[tuple[list[str], Message]] = []
        self.logins: list[LoginPassword] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        self.letters.append((envelope.rcpt_tos, message_from_bytes(envelope.content)))
        return "250 OK"

    def authenticate(self, _server: Any, _session: Any, _envelope: Any, _how: str, data: Any) -> AuthResult:
        self.logins.append(data)
        return AuthResult(success=data == LoginPassword(b"perijove", b"mail secret"))


@asynccontextmanager
async def mail_server(**options: Any) -> AsyncIterator[tuple[Postbox, int]]:
    box = Postbox()

    def made() -> SMTP:
        return SMTP(box, authenticator=box.authenticate, hostname="localhost", **options)

    async with await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0) as server:
        yield box, server.sockets[0].getsockname()[1]


@pytest.fixture
def settings(tmp_path: Path, migrated: Path) -> Settings:
    return guest_settings(tmp_path, migrated)


def with_mail(settings: Settings, port: int, **more: Any) -> Settings:
    mail = {"host": "localhost", "port": port, "sender": "p@example.org", "to": ["admin@example.org"], **more}
    return settings.model_validate({**settings.model_dump(), "mail": mail})


async def texts(here: Site, who: str) -> list[str]:
    return [one["text"] for one in (await here.ask(who, "GET", "/announcements")).json()]


async def test_administrators_and_the_projects_leads_are_told_by_mail_and_where_they_look(
    settings: Settings,
) -> None:
    async with mail_server() as (box, port), site(with_mail(settings, port)) as here:
        lead = {"name": "lena", "email": "lena@example.org"}
        await here.done("boss", "/users", lead)
        code = (await here.done("lena", "/invitations", {"project": "moon"}))["code"]
        await here.arrive(TRICKY, username="dave", full_name="Dävid", invitation=code)
        await becomes(lambda: _given(box), "the letter", 60)
        [(to, letter)] = box.letters
        assert to == ["admin@example.org", "lena@example.org"]
        assert letter["subject"] == "Perijove: dave waits for activation"
        text = letter.get_payload(decode=True).decode().replace("\r", "")  # type: ignore[union-attr]
        assert "Dävid <no address> has logged in, invited to project moon by lena\n" in text
        assert "\n  perijove user activate dave\n" in text and "\n  perijove user activate eve" not in text
        waits = "dave waits for activation: perijove user ls --waiting"
        assert (await texts(here, "boss"), await texts(here, "lena")) == ([waits], [waits])
        assert await texts(here, "sam") == []
        await here.done("lena", "/users/dave/activate")
        assert await texts(here, "boss") == []


async def test_mail_goes_encrypted_and_after_a_login_where_the_server_wants_that(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    (tmp_path / "password").write_text("mail secret\n")
    login = {"tls": "starttls", "username": "perijove", "password_file": str(tmp_path / "password")}
    options = {"tls_context": context, "require_starttls": True, "auth_required": True}
    async with mail_server(**options) as (box, port):
        async with site(with_mail(settings, port, **login)) as here:
            await here.arrive("erin")  # the server's authority is nobody's: nothing is sent, nor said to it
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
            await here.arrive("dave")
            await becomes(lambda: _given(box), "the letter", 60)
        assert [letter["subject"] for _, letter in box.letters] == ["Perijove: dave waits for activation"]
        assert box.logins == [LoginPassword(b"perijove", b"mail secret")]


async def _given(box: Postbox, count: int = 1) -> bool:
    return len(box.letters) == count


async def test_a_pool_that_is_used_up_is_told_and_no_account_is_anothers_while_files_are_there(
    settings: Settings,
) -> None:
    lack = "all 1 accounts for guests are somebody's"
    pool = {"pool": ["nobody"]}
    async with mail_server() as (box, port), site(with_mail(settings, port), pool) as here:
        await here.guest("gina")
        job = (await here.submit())["id"]
        await here.until(job, "running")
        home = here.users.identity("gina").home_source
        here.node.homes[home] = (5, 65_534)
        await here.arrive("erin")
        await becomes(lambda: _given(box, 2), "the letters", 60)
        assert "They cannot be let in now: " + lack in str(box.letters[1][1])
        assert lack in (await texts(here, "boss"))[1]
        assert await texts(here, "lena") == []

        async def refused(path: str, *said: str) -> None:
            answer = await here.ask("boss", "POST", f"/users/{path}")
            assert answer.status_code in {409, 503}, answer.text
            assert all(text in answer.text for text in said), answer.text

        await refused("erin/activate", lack)
        await refused("gina/release", "holds no account")
        await here.done("boss", "/users/gina/remove", {"files": "kept"})
        await here.until(job, "killed")
        await refused("erin/activate", lack)
        await refused("gina/release", "is there yet")
        here.fabric.remove("n1")
        await refused("gina/release", "node n1 may have files of gina and does not say")
        await here.fabric.add(here.node)
        del here.node.homes[home]
        await here.done("boss", "/users/gina/release")
        assert (await here.ask("boss", "GET", f"/jobs/{job}")).json()["archived"] is True
        await becomes(lambda: _gone(here), "the removal of the job's directory", 60)
        assert (await here.done("boss", "/users/erin/activate"))["account"] == "nobody"
        assert here.users.identity("erin").home_source != home


async def _gone(here: Site) -> bool:
    return not here.node.orders


async def test_guests_read_what_is_nearly_used_up(settings: Settings) -> None:
    async with site(settings) as here:
        await here.guest(budget={"cpu_minutes": 60})
        here.controller.board.standing.remember("gina", Amounts(0.9 * HOUR, 0, 0), here.controller.clock())
        told = ["more than 80% of your CPU budget is used: 54.0 of 60.0 minutes"]
        assert await texts(here, "gina") == told
        assert (await here.ask("gina", "GET", "/me")).json()["warnings"] == told
        assert await texts(here, "boss") == []
