"""``perijove project``, ``quota`` and ``join-token``: what administrators and leads change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

import typer

from perijove.cli.moments import clock
from perijove.cli.session import AsJson, note, print_json, print_table, talk
from perijove.model.errors import UserError

project = typer.Typer(
    help="Make and change projects (administrators); leads change who is in theirs.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
join_token = typer.Typer(
    help="Let hosts join as nodes (administrators).", no_args_is_help=True, rich_markup_mode="markdown"
)
Name = Annotated[str, typer.Argument(help="The project's name.")]
User = Annotated[str, typer.Argument(help="A user; of administrators also a pattern, or @GROUP.")]
Cpus = Annotated[float | None, typer.Option(help="Cores at once.")]
Memory = Annotated[str | None, typer.Option(help="Memory at once, as 64G.")]
Gpus = Annotated[int | None, typer.Option(help="GPUs at once.")]
Running = Annotated[int | None, typer.Option(help="Jobs that run at once.")]
Pending = Annotated[int | None, typer.Option(help="Jobs that wait at once.")]
CpuHours = Annotated[float | None, typer.Option(help="Core-hours over the policy's window.")]
GpuHours = Annotated[float | None, typer.Option(help="GPU-hours over it.")]
Description = Annotated[str | None, typer.Option(help="What it is for.")]
Lead = Annotated[bool, typer.Option("--lead", help="As one who leads it (administrators).")]


LIMITS = ("cpus", "memory", "gpus", "running", "pending", "cpu_hours", "gpu_hours")
"""Options that are limits of the policy."""


def _limits(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in LIMITS if given.get(name) is not None}


@project.command("add")
@project.command("set")
def set_project(
    name: Name,
    description: Description = None,
    cpus: Cpus = None,
    memory: Memory = None,
    gpus: Gpus = None,
    running: Running = None,
    pending: Pending = None,
    cpu_hours: CpuHours = None,
    gpu_hours: GpuHours = None,
    as_json: AsJson = False,
) -> None:
    """Make a project, or change what is given: of limits all that are not given are taken back.

    perijove project add genomics --description "The genome lab" --cpus 64 --gpu-hours 500

    perijove project set genomics --cpus 128
    """
    limits = _limits(locals())
    body: dict[str, Any] = {} if description is None else {"description": description}
    body |= {"limits": limits} if limits else {}
    _done("PUT", f"/projects/{_quoted(name)}", body, as_json)


@project.command("rm")
def remove_project(name: Name) -> None:
    """Remove a project. Its jobs stay, and so does what they were charged.

    perijove project rm genomics
    """
    talk(lambda client: client.request("DELETE", f"/projects/{_quoted(name)}"))


@project.command("add-member")
def add_member(name: Name, user: User, lead: Lead = False, as_json: AsJson = False) -> None:
    """Let somebody have jobs in a project.

    perijove project add-member genomics ada
    """
    _done("POST", f"/projects/{_quoted(name)}/members", {"user": user, "lead": lead}, as_json)


@project.command("rm-member")
def remove_member(name: Name, user: User, lead: Lead = False, as_json: AsJson = False) -> None:
    """Let them have no more jobs in it; those that are there go on.

    perijove project rm-member genomics ada
    """
    place = f"/projects/{_quoted(name)}/members/{_quoted(user)}"
    _done("DELETE", f"{place}?lead=true" if lead else place, None, as_json)


@project.command("limit")
def limit_members(
    name: Name,
    member: Annotated[str | None, typer.Option(help="Only this one; else each of them.")] = None,
    cpus: Cpus = None,
    memory: Memory = None,
    gpus: Gpus = None,
    running: Running = None,
    cpu_hours: CpuHours = None,
    gpu_hours: GpuHours = None,
    as_json: AsJson = False,
) -> None:
    """Say what members may use at most within what all of a project may; without limits: as much.

    perijove project limit genomics --cpus 16

    perijove project limit genomics --member ada --cpus 32 --gpus 2
    """
    limits = _limits(locals())
    place = f"/projects/{_quoted(name)}"
    place += f"/members/{_quoted(member)}/limits" if member is not None else "/member-limits"
    _done("PUT", place, limits, as_json)


def quota(
    user: Annotated[str, typer.Argument(help="The user's name.")],
    cpus: Cpus = None,
    memory: Memory = None,
    gpus: Gpus = None,
    running: Running = None,
    pending: Pending = None,
    cpu_hours: CpuHours = None,
    gpu_hours: GpuHours = None,
    none: Annotated[bool, typer.Option("--none", help="Take all limits of the user back.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a user may use at most over all projects (administrators); other limits are taken back.

    perijove quota ada --cpus 32 --memory 128G --running 50
    """
    limits = _limits(locals())
    if bool(limits) == none:
        raise UserError("give limits, as --cpus 32, or --none")
    _done("PUT", f"/users/{_quoted(user)}/limits", limits, as_json)


@join_token.command("create")
def create_token(
    node: Annotated[str, typer.Argument(help="What the node is to be called.")], as_json: AsJson = False
) -> None:
    """Print a token with which one host may join as that node, once, within an hour.

    perijove join-token create n7
    """
    made = talk(lambda client: client.request_json("POST", "/nodes/join-tokens", body={"node": node}))
    if as_json:
        print_json(made)
        return
    typer.echo(made["token"])
    note(f"on the host: perijove node --join URL --name {node} --state DIR, and give it this token")
    if not made["reachable"]:
        note(f"the scheduler listens at {made['scheduler']}, for this host alone: see up --scheduler-host")


@join_token.command("ls")
def list_tokens(as_json: AsJson = False) -> None:
    """List the tokens of the last days, and which were used.

    perijove join-token ls
    """
    found = talk(lambda client: client.request_json("GET", "/nodes/join-tokens"))
    if as_json:
        print_json(found)
        return
    rows = [[one["node"], one["by"], clock(one["expires"]), clock(one["used"])] for one in found]
    print_table(["NODE", "BY", "EXPIRES", "USED"], rows)


@join_token.command("rm")
def remove_token(node: Annotated[str, typer.Argument(help="The node that did not join yet.")]) -> None:
    """Let the token of a node hold no more.

    perijove join-token rm n7
    """
    talk(lambda client: client.request("DELETE", f"/nodes/join-tokens/{_quoted(node)}"))


def _done(method: str, place: str, body: Any, as_json: bool) -> None:
    found = talk(lambda client: client.request_json(method, place, body=body))
    if as_json:
        print_json(found)
    else:
        done = "is a project now" if found.get("made") else "is changed; `perijove audit` says how"
        note(f"{found['name']} {done}")


def _quoted(name: str) -> str:
    return quote(name, safe="")
