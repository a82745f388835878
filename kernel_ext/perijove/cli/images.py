"""Commands about what jobs run in and see: images, environments, volumes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from perijove.cli.session import AsJson, note, print_json, print_table, talk
from perijove.options import words

_HELP = {"no_args_is_help": True, "rich_markup_mode": "markdown"}

image = typer.Typer(help="Name images for jobs to ask for (administrators).", **_HELP)  # type: ignore[arg-type]
volume = typer.Typer(help="List directories of the nodes for jobs to ask for (administrators).", **_HELP)  # type: ignore[arg-type]

Name = Annotated[str, typer.Argument(help="What jobs ask for it by.")]
Users = Annotated[list[str] | None, typer.Option(help="For these users, or @GROUP; all by default.")]
Projects = Annotated[list[str] | None, typer.Option(help="For the jobs of these projects; all by default.")]
Description = Annotated[str, typer.Option(help="For people.")]


def images(as_json: AsJson = False) -> None:
    """List images that your jobs may ask for; * marks those of jobs that name none.

    perijove images
    """
    _list(talk(lambda client: client.images()), as_json, "NAME IMAGE DESCRIPTION FOR ON_NODES", _image)


def _image(row: dict[str, Any]) -> list[str]:
    return [
        f"{row['name'] or row['image']}{' *' if row['default'] else ''}",
        row["image"] if row["name"] else "",
        row.get("description") or "",
        _audience(row),
        ",".join(row["nodes"]) or "-",
    ]


def runenvs(as_json: AsJson = False) -> None:
    """List environments that your jobs may ask for by --runenv and --require.

    perijove runenvs
    """
    _list(talk(lambda client: client.runenvs()), as_json, "RUNENV FEATURES OS IMAGE NODE", _runenv)


def _runenv(row: dict[str, Any]) -> list[str]:
    return [
        "-".join(row["runenv"]),
        " ".join("-".join(feature) for feature in row["features"]),
        row["os"],
        row.get("image") or "",
        row.get("node") or "any",
    ]


def volumes(as_json: AsJson = False) -> None:
    """List volumes that your jobs may ask for by --volume.

    perijove volumes
    """
    _list(talk(lambda client: client.volumes()), as_json, "NAME SEEN_AT MODE DESCRIPTION SOURCE FOR", _volume)


def _volume(row: dict[str, Any]) -> list[str]:
    return [
        row["name"],
        row.get("target") or "your home",
        "ro" if row["read_only"] else "rw",
        row.get("description") or "",
        row.get("source") or "",
        _audience(row),
    ]


def _list(
    found: list[dict[str, Any]], as_json: bool, columns: str, words: Callable[[dict[str, Any]], list[str]]
) -> None:
    """A table without the columns in which nothing stands; of `columns` each _ is a space."""
    if as_json:
        print_json(found)
        return
    titles = [title.replace("_", " ") for title in columns.split()]
    rows = [words(row) for row in found]
    shown = [i for i in range(len(titles)) if i == 0 or any(row[i] for row in rows)]
    print_table(
        [titles[i] for i in shown],
        [[row[i] for i in shown] for row in rows],
        wide={"IMAGE", "DESCRIPTION", "FEATURES", "SOURCE", "FOR", "ON NODES"},
    )


def _audience(row: dict[str, Any]) -> str:
    """For whom it is, as administrators are told; nothing when it is for all."""
    names = [name for name in (*row.get("users", ()), *row.get("projects", ())) if name != "*"]
    return ",".join(names)


@image.command("set")
def image_set(
    name: Name,
    reference: Annotated[str, typer.Argument(metavar="IMAGE", help="Reference: registry/repository:tag.")],
    description: Description = "",
    users: Users = None,
    projects: Projects = None,
    default: Annotated[bool, typer.Option(help="Jobs that name none get it.")] = False,
    pull: Annotated[str | None, typer.Option(help="missing, always or never.")] = None,
    digest: Annotated[str | None, typer.Option(help="sha256:...: run this, whatever the tag means.")] = None,
    runenv: Annotated[str | None, typer.Option(help="The environment that it holds: NAME-VERSION.")] = None,
    feature: Annotated[list[str] | None, typer.Option(help="NAME=VERSION of what else it holds.")] = None,
    platform: Annotated[list[str] | None, typer.Option(help="Where it runs: linux/amd64.")] = None,
    as_json: AsJson = False,
) -> None:
    """Give an image a name that jobs may ask for; one that is there is replaced.

    perijove image set r registry.lab.example/tools/r:4.4 --description "R with Bioconductor" --default

    perijove image set cobol registry.lab.example/cobol:42 --runenv COBOL-42 --feature NX=2020
    """
    body = {
        "image": reference,
        "description": description,
        **_for(users, projects),
        "default": default,
        "pull": pull,
        "digest": digest,
        "runenv": runenv,
        "features": dict(_pair(text) for text in feature or ()),
        "platforms": words(platform or ()),
    }
    found = talk(lambda client: client.set_image(name, body))
    if as_json:
        print_json(found)
    else:
        note(f"{name} is {found['image']}")


@image.command("rm")
def image_rm(name: Name) -> None:
    """Take an image's name away; jobs that wait keep the image.

    perijove image rm r
    """
    talk(lambda client: client.remove_image(name))


@volume.command("set")
def volume_set(
    name: Name,
    source: Annotated[str, typer.Argument(help="Path on the nodes; may hold {user}, {project}, {home}.")],
    target: Annotated[str, typer.Argument(help="Path in the job; likewise.")],
    description: Description = "",
    read_only: Annotated[bool, typer.Option("--read-only", help="Nobody may write to it.")] = False,
    users: Users = None,
    projects: Projects = None,
    as_json: AsJson = False,
) -> None:
    """Let jobs ask for a directory of the nodes by a name; one that is there is replaced.

    perijove volume set genomes /srv/genomes /genomes --read-only --projects genomics
    """
    body = {
        "source": source,
        "target": target,
        "description": description,
        "read_only": read_only,
        **_for(users, projects),
    }
    found = talk(lambda client: client.set_volume(name, body))
    if as_json:
        print_json(found)
    else:
        note(f"{name} is {found['source']}, seen at {found['target']}")


@volume.command("rm")
def volume_rm(name: Name) -> None:
    """Let no more jobs ask for a volume.

    perijove volume rm genomes
    """
    talk(lambda client: client.remove_volume(name))


def _for(users: list[str] | None, projects: list[str] | None) -> dict[str, list[str]]:
    return {"users": words(users or ()) or ["*"], "projects": words(projects or ()) or ["*"]}


def _pair(text: str) -> tuple[str, str]:
    name, equals, version = text.partition("=")
    if not equals or not name or not version:
        raise typer.BadParameter(f"must be NAME=VERSION, not {text}", param_hint="--feature")
    return name, version
