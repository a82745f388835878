"""What administrators do: policy, reservations, maintenance, draining nodes."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from perijove.cli.moments import clock, date, seconds
from perijove.cli.session import AsJson, note, print_json, print_table, talk
from perijove.inert import printable
from perijove.model.errors import UserError
from perijove.options import words

File = Annotated[str, typer.Argument(metavar="FILE", help="YAML; - for standard input.")]
_HELP = {"no_args_is_help": True, "rich_markup_mode": "markdown"}

policy = typer.Typer(help="See and change the policy of the queue (administrators).", **_HELP)  # type: ignore[arg-type]
reservation = typer.Typer(help="Keep nodes for some, from a date to a date.", **_HELP)  # type: ignore[arg-type]
maintenance = typer.Typer(help="Let nothing start for a while; what runs goes on.", **_HELP)  # type: ignore[arg-type]


@policy.command("show")
def policy_show(
    version: Annotated[
        int | None, typer.Option(help="An earlier one; see `perijove policy versions`.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the policy in force, as YAML.

    perijove policy show > policy.yaml
    """
    text = talk(lambda client: client.policy(version))
    if as_json:
        print_json({"policy": text})
    else:
        typer.echo(text, nl=not text.endswith("\n"))


@policy.command("check")
def policy_check(file: File, as_json: AsJson = False) -> None:
    """Say whether a policy could be applied, and how it differs from the one in force; nothing changes.

    perijove policy check new.yaml
    """
    text = _read(file)
    lines = talk(lambda client: client.check_policy(text))
    if as_json:
        print_json({"valid": True, "difference": lines})
        return
    for line in lines:
        typer.echo(printable(line))
    note("it could be applied" if lines else "it says what the policy in force says")


@policy.command("apply")
def policy_apply(file: File, as_json: AsJson = False) -> None:
    """Replace the policy; it holds from now on, also for jobs that wait already.

    perijove policy apply new.yaml
    """
    text = _read(file)

    async def applying(client: Any) -> int | None:
        await client.set_policy(text)
        versions = await client.policy_versions()
        return versions[0]["version"] if versions else None

    version = talk(applying)
    if as_json:
        print_json({"version": version})
    else:
        note(f"the policy is in force, as version {version}")


@policy.command("versions")
def policy_versions(as_json: AsJson = False) -> None:
    """List all policies there were, the newest first, and who applied them.

    perijove policy versions
    """
    found = talk(lambda client: client.policy_versions())
    if as_json:
        print_json(found)
        return
    rows = [[row["version"], clock(row["at"]), row["by"] or "-"] for row in found]
    print_table(["VERSION", "APPLIED", "BY"], rows, numbers={"VERSION"})


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UserError(f"{file} cannot be read: {reason}") from None


@reservation.command("ls")
def reservation_ls(as_json: AsJson = False) -> None:
    """List reservations that have not ended.

    perijove reservation ls
    """
    found = talk(lambda client: client.reservations())
    if as_json:
        print_json(found)
        return
    rows = [
        [
            row["name"],
            ",".join(row["nodes"]),
            clock(date(row["start"])),
            clock(date(row["end"])),
            "you" if row.get("mine") else ",".join([*row["users"], *row["projects"]]) or "others",
            row.get("reason") or "",
        ]
        for row in found
    ]
    titles = ["NAME", "NODES", "FROM", "TO", "FOR", "REASON"]
    print_table(titles, rows, wide={"NODES", "FOR", "REASON"})


@reservation.command("set")
def reservation_set(
    name: Annotated[str, typer.Argument(help="What to call it; jobs ask for it by --reservation.")],
    nodes: Annotated[list[str], typer.Option(help="Names or patterns of nodes; several with commas.")],
    start: Annotated[str, typer.Option(help="A date and time of this machine's zone; `now` too.")] = "now",
    end: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    duration: Annotated[str | None, typer.Option(help="Instead of an end: 8h, 2d, ...")] = None,
    users: Annotated[list[str] | None, typer.Option(help="For these users, or @GROUP.")] = None,
    projects: Annotated[list[str] | None, typer.Option(help="For the jobs of these projects.")] = None,
    reason: Annotated[str, typer.Option(help="What for.")] = "",
    as_json: AsJson = False,
) -> None:
    """Keep nodes for users or projects; for nobody when none are named. An existing one is changed.

    perijove reservation set course --nodes 'gpu-*' --start 2026-09-01T08:00 --duration 10h --projects course

    perijove reservation set rewiring --nodes n1,n2 --end 2026-09-02T18:00 --reason "new switch"
    """
    if (end is None) == (duration is None):
        raise typer.BadParameter("say when it ends: --end or --duration")
    begin = _instant("--start", start)
    finish = _instant("--end", end) if end is not None else begin + seconds("--duration", str(duration))
    body = {
        "nodes": words(nodes or ()),
        "start": _iso(begin),
        "end": _iso(finish),
        "users": words(users or ()),
        "projects": words(projects or ()),
        "reason": reason,
    }
    found = talk(lambda client: client.reserve(name, body))
    if as_json:
        print_json(found)
    else:
        note(f"{', '.join(body['nodes'])} kept from {clock(begin)} to {clock(finish)}")


@reservation.command("rm")
def reservation_rm(name: Annotated[str, typer.Argument(help="Its name.")]) -> None:
    """Keep the nodes of a reservation for nobody any more.

    perijove reservation rm course
    """
    talk(lambda client: client.unreserve(name))


def _instant(option: str, text: str) -> float:
    if text == "now":
        return time.time()
    try:
        return date(text)
    except ValueError:
        raise UserError(f"{option}: must be a date such as 2026-09-01T08:00 (given: {text})") from None


def _iso(at: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(int(at), UTC).isoformat()


@maintenance.command("on")
def maintenance_on(
    text: Annotated[str, typer.Argument(metavar="[REASON]", help="Why; users read it.")] = "",
    reason: Annotated[str, typer.Option(help="The same, as perijove drain has it.")] = "",
    as_json: AsJson = False,
) -> None:
    """Let no job start any more. Jobs are still accepted and wait; those that run go on.

    perijove maintenance on "new disks, until noon"
    """
    _maintain(True, reason or text, as_json)


@maintenance.command("off")
def maintenance_off(as_json: AsJson = False) -> None:
    """Let jobs start again.

    perijove maintenance off
    """
    _maintain(False, "", as_json)


@maintenance.command("status")
def maintenance_status(as_json: AsJson = False) -> None:
    """Say whether maintenance is on.

    perijove maintenance status
    """
    _maintained(talk(lambda client: client.maintenance()), as_json)


def _maintain(on: bool, reason: str, as_json: bool) -> None:
    _maintained(talk(lambda client: client.set_maintenance(on, reason)), as_json)


def _maintained(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
    elif found["on"]:
        typer.echo(printable(": ".join(filter(None, ["maintenance is on", found.get("reason")]))))
    else:
        typer.echo("maintenance is off")


def drain(
    node: Annotated[str, typer.Argument(help="Its name; see `perijove nodes`.")],
    reason: Annotated[str, typer.Option(help="Why; users read it.")] = "",
    as_json: AsJson = False,
) -> None:
    """Let no more jobs start on a node; those that run go on (administrators).

    perijove drain n1 --reason "a fan is broken"
    """
    found = talk(lambda client: client.drain(node, reason))
    if as_json:
        print_json(found)
    else:
        left = found.get("jobs", 0)
        note(f"{node} takes no more jobs; {left or 'none'} {'run' if left != 1 else 'runs'} there")


def undrain(
    node: Annotated[str, typer.Argument(help="Its name.")],
    as_json: AsJson = False,
) -> None:
    """Let jobs start on a node again.

    perijove undrain n1
    """
    found = talk(lambda client: client.undrain(node))
    if as_json:
        print_json(found)
    else:
        note(f"{node} takes jobs again")


def remove_node(
    node: Annotated[str, typer.Argument(help="The node, see `perijove nodes`.")],
    force: Annotated[bool, typer.Option("--force", help="Also while jobs are there; they are lost.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove a node for good: it may not connect any more, whoever has its key (administrators).

    perijove remove-node n7

    perijove remove-node n7 --force
    """
    path = f"/nodes/{quote(node, safe='')}/remove"
    found = talk(lambda client: client.request_json("POST", path, body={"force": force}))
    if as_json:
        print_json(found)
        return
    note(
        f"{node} is removed; {found['certificates']} certificates are refused, {found['jobs']} jobs were lost"
    )
