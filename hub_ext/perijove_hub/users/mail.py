"""Telling administrators and leads by e-mail that somebody waits (RFC 5321, RFC 5322)."""

from __future__ import annotations

import asyncio
import logging
import smtplib
import ssl
from collections.abc import Sequence
from email.message import EmailMessage
from pathlib import Path

from perijove.model import User
from perijove_hub.users.configuration import MailSettings

log = logging.getLogger(__name__)
PATIENCE = 20.0
"""Seconds that the server has to answer."""


def message(settings: MailSettings, to: Sequence[str], user: User, lack: str = "") -> EmailMessage:
    """What is sent of a guest who waits. Names are the guest's own words: they make no lines of their own.

    `lack`: why they cannot be let in now.
    """
    found = EmailMessage()
    found["From"] = settings.sender
    found["To"] = ", ".join(dict.fromkeys(to))
    found["Subject"] = f"Perijove: {user.name} waits for activation"
    project = f", invited to project {user.project} by {user.sponsor}" if user.project else ""
    logins = ", ".join(_line(f"{one.provider} {one.subject}") for one in user.identities)
    address = _line(user.email)
    found.set_content(
        f"{_line(user.full_name) or user.name} <{address or 'no address'}> has logged in{project}\n"
        f"({logins}) and waits.\n\n"
        f"  perijove user show {user.name}\n"
        f"  perijove user activate {user.name}\n"
        + (f"\nThey cannot be let in now: {lack}.\n" if lack else "")
    )
    return found


def _line(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


async def tell(settings: MailSettings, to: Sequence[str], user: User, lack: str = "") -> None:
    """Send it. What does not succeed is logged: who waits is in `perijove user ls --waiting` too."""
    try:
        await asyncio.to_thread(send, settings, message(settings, to, user, lack))
    except (OSError, ValueError, smtplib.SMTPException) as error:
        log.error("nobody was told by mail that %s waits: %s", user.name, error)


def send(settings: MailSettings, letter: EmailMessage) -> None:
    """Hand it to the server. Raises :class:`OSError` and :class:`smtplib.SMTPException`."""
    context = ssl.create_default_context()
    if settings.tls == "tls":
        server: smtplib.SMTP = smtplib.SMTP_SSL(
            settings.host, settings.port, timeout=PATIENCE, context=context
        )
    else:
        server = smtplib.SMTP(settings.host, settings.port, timeout=PATIENCE)
    with server:
        if settings.tls == "starttls":
            server.starttls(context=context)
        if settings.username is not None and settings.password_file is not None:
            server.login(settings.username, Path(settings.password_file).read_text().strip())
        server.send_message(letter)
