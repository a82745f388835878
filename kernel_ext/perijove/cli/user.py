"""What administrators, and leads of projects, do about users and guests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote

import typer

from perijove.cli.moments import clock, instant, seconds
from perijove.cli.session import AsJson, note, print_json, print_table, talk
from perijove.model.errors import UserError
from perijove.model.quantities import format_size, parse_size

user = typer.Typer(
    help="See, let in, keep out and remove users (administrators) and guests (leads of their project too).",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Name = Annotated[str, typer.Argument(help="The user's name; see `perijove user ls`.")]
Expires = Annotated[
    str | None, typer.Option("--expires", help="When the account ends: 30d, or a date 2026-12-31.")
]
Cpu = Annotated[str | None, typer.Option("--cpu", help="CPU time in all: 100h.")]
Gpu = Annotated[str | None, typer.Option("--gpu", help="GPU time in all: 10h.")]
Disk = Annotated[str | None, typer.Option("--disk", help="What the home may take: 20G.")]
Project = Annotated[str | None, typer.Option("--project", help="The project that the guest works in.")]


@user.command("ls")
def ls(
    waiting: Annotated[bool, typer.Option("--waiting", help="Only who waits to be activated.")] = False,
    guests: Annotated[bool, typer.Option("--guests", help="Only guests.")] = False,
    as_json: AsJson = False,
) -> None:
    """List users; leads see the guests of their projects.

    perijove user ls --waiting
    """
    wanted = {"state": "waiting" if waiting else None, "kind": "guest" if guests else None}
    found = talk(lambda client: client.request_json("GET", "/users", wanted))
    if as_json:
        print_json(found)
        return
    rows = [
        [
            one["name"],
            one["kind"],
            one["state"],
            one.get("project") or "-",
            clock(one.get("expires")),
            clock(one.get("last_login")),
            one.get("full_name") or one.get("email") or "-",
        ]
        for one in found
    ]
    print_table(["NAME", "KIND", "STATE", "PROJECT", "EXPIRES", "LAST LOGIN", "WHO"], rows, wide={"WHO"})


@user.command("show")
def show(name: Name, as_json: AsJson = False) -> None:
    """Show what is known of a user.

    perijove user show dave
    """
    found = _ask("GET", _path(name))
    if as_json:
        print_json(found)
        return
    budget = found.get("budget") or {}
    logins = [f"{one['provider']} {one['subject']}" for one in found.get("identities") or []]
    facts = {
        "name": found["name"],
        "state": f"{found['kind']}, {found['state']}",
        "who": " ".join(filter(None, [found.get("full_name"), found.get("email")])),
        "logins": ", ".join(logins),
        "account": found.get("account") or (f"number {found['number']}" if found.get("number") else ""),
        "home": found.get("home") or "",
        "disk": _sizes(found.get("disk_used"), budget.get("disk")),
        "project": found.get("project") or "",
        "sponsor": found.get("sponsor") or "",
        "CPU minutes": _number(budget.get("cpu_minutes")),
        "GPU minutes": _number(budget.get("gpu_minutes")),
        "expires": clock(found.get("expires")),
        "last login": clock(found.get("last_login")),
    }
    print_table(["FIELD", "VALUE"], [[key, value] for key, value in facts.items() if value], wide={"VALUE"})


@user.command("add")
def add(
    name: Annotated[str, typer.Argument(help="As system accounts are called.")],
    login: Annotated[
        list[str] | None, typer.Option("--login", help="PROVIDER:SUBJECT that will mean them; several.")
    ] = None,
    guest: Annotated[bool, typer.Option("--guest", help="A guest, who still waits to be activated.")] = False,
    number: Annotated[
        int | None, typer.Option("--number", help="In the site's range of uids; by default a free one.")
    ] = None,
    email: Annotated[str, typer.Option("--email", help="Their address.")] = "",
    full_name: Annotated[str, typer.Option("--full-name", help="What they are called.")] = "",
    project: Project = None,
    expires: Expires = None,
    as_json: AsJson = False,
) -> None:
    """Make a user who has not logged in yet.

    perijove user add carol --login university:c0ffee

    perijove user add pseven --number 42
    """
    body: dict[str, Any] = {
        "name": name,
        "kind": "guest" if guest else "member",
        "email": email,
        "full_name": full_name,
        "identities": [_login(one) for one in login or ()],
        **_terms(expires, None, None, None, project),
    }
    if number is not None:
        body["number"] = number
    _done(_ask("POST", "/users", body), as_json, "is a user now")


@user.command("activate")
def activate(
    name: Name,
    expires: Expires = None,
    cpu: Cpu = None,
    gpu: Gpu = None,
    disk: Disk = None,
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """Let in somebody who waits.

    perijove user activate dave --project moon --expires 90d --cpu 100h --disk 20G
    """
    body = _terms(expires, cpu, gpu, disk, project)
    _done(_ask("POST", _path(name, "activate"), body), as_json, "may come in")


@user.command("disable")
def disable(
    name: Name,
    drain: Annotated[bool, typer.Option("--drain", help="Jobs that run go on.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="End all of their jobs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Keep somebody out; their sessions, tokens and, unless drained, jobs end.

    perijove user disable dave --drain
    """
    if drain and stop:
        raise typer.BadParameter("--drain and --stop: only one of the two")
    body = {"jobs": "drain" if drain else "stop"} if drain or stop else {}
    _done(_ask("POST", _path(name, "disable"), body), as_json, "is kept out")


@user.command("enable")
def enable(name: Name, as_json: AsJson = False) -> None:
    """Let somebody in again who was disabled.

    perijove user enable dave
    """
    _done(_ask("POST", _path(name, "enable")), as_json, "may come in again")


@user.command("extend")
def extend(
    name: Name,
    expires: Expires = None,
    cpu: Cpu = None,
    gpu: Gpu = None,
    disk: Disk = None,
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """Give a guest more time, or another budget.

    perijove user extend dave --expires 30d --gpu 20h
    """
    body = _terms(expires, cpu, gpu, disk, project)
    if not body:
        raise typer.BadParameter("say what to give: --expires, --cpu, --gpu, --disk or --project")
    _done(_ask("POST", _path(name, "extend"), body), as_json, "has it")


@user.command("promote")
def promote(
    name: Name,
    account: Annotated[
        str | None, typer.Option("--account", help="System account to work on; else a number of their own.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a guest a member: name, jobs and files stay theirs.

    perijove user promote dave --account dave
    """
    body = {"account": account} if account is not None else {}
    _done(_ask("POST", _path(name, "promote"), body), as_json, "is a member")


@user.command("remove")
def remove(
    name: Name,
    files: Annotated[
        str, typer.Option("--files", help="`kept`, `deleted`, or the user whose they are from now on.")
    ] = "kept",
    as_json: AsJson = False,
) -> None:
    """Remove somebody for good; nobody else ever gets the name.

    perijove user remove dave --files alice
    """
    _done(_ask("POST", _path(name, "remove"), {"files": files}), as_json, "is removed")


@user.command("release")
def release(name: Name, as_json: AsJson = False) -> None:
    """Let another guest have the account of the pool that a former one had.

    perijove user release dave
    """
    _done(_ask("POST", _path(name, "release")), as_json, "holds no account any more")


@user.command("link")
def link(
    name: Name,
    login: Annotated[str, typer.Argument(metavar="PROVIDER:SUBJECT", help="The login.")],
    remove: Annotated[bool, typer.Option("--remove", help="It means them no more.")] = False,
    as_json: AsJson = False,
) -> None:
    """Have another login of a provider mean this user.

    perijove user link alice github:583231
    """
    verb = "unlink" if remove else "link"
    _done(_ask("POST", _path(name, verb), _login(login)), as_json, f"is {verb}ed")


@user.command("sign-out")
def sign_out(name: Name, as_json: AsJson = False) -> None:
    """End all sessions, tokens and notebook servers of somebody, when a laptop was lost.

    perijove user sign-out alice
    """
    _done(_ask("POST", _path(name, "sign-out")), as_json, "is signed out everywhere")


@user.command("invite")
def invite(
    project: Project = None,
    email: Annotated[str, typer.Option("--email", help="Only who has this verified address may come.")] = "",
    expires: Expires = None,
    cpu: Cpu = None,
    gpu: Gpu = None,
    disk: Disk = None,
    until: Annotated[str | None, typer.Option("--until", help="How long the link works: 14d.")] = None,
    as_json: AsJson = False,
) -> None:
    """Invite a guest; prints the link to send, once.

    perijove user invite --project moon --email dave@example.org --expires 90d --cpu 100h
    """
    body = {"email": email, **_terms(expires, cpu, gpu, disk, project)}
    if until is not None:
        body["until"] = _moment("--until", until)
    found = _ask("POST", "/invitations", body)
    if as_json:
        print_json(found)
        return
    note(f"invitation {found['id']}, until {clock(found['expires'])}; send this link, it works once:")
    typer.echo(found["link"])


@user.command("invitations")
def invitations(
    withdraw: Annotated[
        int | None, typer.Option("--withdraw", help="Let this one open nothing any more.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List invitations, or withdraw one.

    perijove user invitations --withdraw 3
    """
    if withdraw is not None:
        talk(lambda client: client.request("DELETE", f"/invitations/{withdraw}"))
        note(f"invitation {withdraw} opens nothing any more")
        return
    found = _ask("GET", "/invitations")
    if as_json:
        print_json(found)
        return
    rows = [
        [
            str(one["id"]),
            one.get("project") or "-",
            one.get("email") or "anybody",
            one["by"],
            clock(one["expires"]),
            one.get("used_by") or "-",
        ]
        for one in found
    ]
    print_table(["ID", "PROJECT", "FOR", "BY", "UNTIL", "USED BY"], rows, numbers={"ID"})


# ---- inside


def _ask(method: str, path: str, body: Any = None) -> Any:
    return talk(lambda client: client.request_json(method, path, body=body))


def _path(name: str, verb: str = "") -> str:
    return f"/users/{quote(name, safe='')}{'/' if verb else ''}{verb}"


def _done(found: dict[str, Any], as_json: bool, said: str) -> None:
    if as_json:
        print_json(found)
    else:
        note(f"{found['name']} {said} ({found['kind']}, {found['state']})")


def _login(text: str) -> dict[str, str]:
    provider, colon, subject = text.partition(":")
    if not (provider and colon and subject):
        raise UserError(f"a login is PROVIDER:SUBJECT, as github:583231 (given: {text})")
    return {"provider": provider, "subject": subject}


def _terms(
    expires: str | None, cpu: str | None, gpu: str | None, disk: str | None, project: str | None
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if expires is not None:
        found["expires"] = _moment("--expires", expires)
    budget = {
        "cpu_minutes": None if cpu is None else seconds("--cpu", cpu) / 60,
        "gpu_minutes": None if gpu is None else seconds("--gpu", gpu) / 60,
        "disk": None if disk is None else _bytes(disk),
    }
    if given := {key: value for key, value in budget.items() if value is not None}:
        found["budget"] = given
    if project is not None:
        found["project"] = project
    return found


def _moment(option: str, text: str) -> float:
    try:
        return instant(text)
    except ValueError as error:
        raise UserError(f"{option}: {error} (given: {text})") from None


def _bytes(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise UserError(f"--disk: {error} (given: {text})") from None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _sizes(used: int | None, limit: int | None) -> str:
    parts: Sequence[str] = [format_size(one) for one in (used, limit) if one is not None]
    return " of ".join(parts)
