"""The options of ``perijove submit`` and ``run``, of which ``perijove sweep`` has most."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Option

from perijove.cli.session import partitions, projects

Command = Annotated[
    list[str],
    typer.Argument(
        metavar="COMMAND...", help="The program and its arguments, or a script file.", show_default=False
    ),
]
WHERE = "Where"
RESOURCES = "Resources"
FILES = "Files and environment"
QUEUE = "Queue"
"""Parts of the help."""

Name = Annotated[str | None, Option(help="What to call the job.")]
Image = Annotated[str | None, Option(help="Container image to run in.", rich_help_panel=WHERE)]
Runenv = Annotated[str | None, Option(help="NAME[-VERSION]; see `perijove runenvs`.", rich_help_panel=WHERE)]
Require = Annotated[list[str] | None, Option(help="FEATURE[-VERSION] of it.", rich_help_panel=WHERE)]
User = Annotated[str | None, Option(help="root in its container, where granted.", rich_help_panel=WHERE)]
Launcher = Annotated[
    str | None, Option(help="docker, podman, process, ...: see `perijove nodes`.", rich_help_panel=WHERE)
]
Node = Annotated[str | None, Option(help="Run on this node only.", rich_help_panel=WHERE)]
Cpus = Annotated[
    str | None, Option("--cpus", "--cpu", "-c", help="Cores, such as 2 or 0.5.", rich_help_panel=RESOURCES)
]
Memory = Annotated[
    str | None, Option("--memory", "-m", help="Memory, such as 512M or 8G.", rich_help_panel=RESOURCES)
]
Gpus = Annotated[
    str | None,
    Option(
        "--gpus",
        "-g",
        help="GPUs: 2, a100, a100:2, or 2@40G for at least so much memory.",
        rich_help_panel=RESOURCES,
    ),
]
Time = Annotated[
    str | None,
    Option(
        "--time", "-t", help="Stop it after this long: 90s, 30m, 1d12h, 2:00:00.", rich_help_panel=RESOURCES
    ),
]
Shm = Annotated[str | None, Option(help="Size of /dev/shm.", rich_help_panel=RESOURCES)]
TmpDisk = Annotated[
    str | None,
    Option(help="Scratch space on the node, as 20G; $PERIJOVE_SCRATCH.", rich_help_panel=RESOURCES),
]
Resource = Annotated[
    list[str] | None,
    Option(help="NAME=COUNT of what else nodes count, such as licence=1.", rich_help_panel=RESOURCES),
]
Array = Annotated[
    str | None,
    Option(
        "--array",
        "-a",
        help="A job for each number: START:END[:STEP], then %N for at most N at once.",
        rich_help_panel=QUEUE,
    ),
]
Depends = Annotated[
    list[str] | None,
    Option(
        "--depends",
        "-d",
        help="Wait for another job: afterok:ID (or just ID), afterany:ID, afternotok:ID,"
        " after:ID; 12_7 is a member.",
        rich_help_panel=QUEUE,
    ),
]
Partition = Annotated[
    str | None, Option(help="Group of nodes to run on.", autocompletion=partitions, rich_help_panel=WHERE)
]
Reservation = Annotated[
    str | None, Option(help="Run on the nodes that this reservation keeps.", rich_help_panel=WHERE)
]
Nodes = Annotated[
    int | None,
    Option(
        help="So many nodes at once, each with all that is asked for; started together.",
        rich_help_panel=RESOURCES,
    ),
]
Exclusive = Annotated[
    bool | None,
    Option("--exclusive/--no-exclusive", help="Share the node with no other job.", rich_help_panel=RESOURCES),
]
Signal = Annotated[
    str | None,
    Option(
        metavar="NAME@TIME",
        help="Warn it some time before its time limit: USR1@5m.",
        rich_help_panel=RESOURCES,
    ),
]
Preemptible = Annotated[
    bool | None,
    Option(
        "--preemptible/--no-preemptible",
        help="It may be stopped, with notice, for a job that is not.",
        rich_help_panel=QUEUE,
    ),
]
Constraint = Annotated[
    list[str] | None, Option(help="KEY=VALUE label that the node must bear.", rich_help_panel=WHERE)
]
Priority = Annotated[int | None, Option(help="From 0 to 100; 50 when not given.", rich_help_panel=QUEUE)]
Project = Annotated[
    str | None,
    Option(
        help="On whose account it runs; see `perijove projects`.",
        autocompletion=projects,
        rich_help_panel=QUEUE,
    ),
]
Volume = Annotated[
    list[str] | None,
    Option(help="A volume of this site, NAME or NAME:ro, beside the home.", rich_help_panel=FILES),
]
Network = Annotated[
    str | None,
    Option(
        help="none, bridge, user, project or host.",
        autocompletion=lambda: ["none", "bridge", "user", "project", "host"],
        rich_help_panel=FILES,
    ),
]
Port = Annotated[
    list[str] | None,
    Option(
        metavar="NUMBER",
        help="It serves something there; `perijove show` says where that is reached.",
        rich_help_panel=FILES,
    ),
]
Ipc = Annotated[
    str | None,
    Option(
        metavar="private|host",
        help="host: share memory and semaphores with the node, where granted.",
        autocompletion=lambda: ["private", "host"],
        rich_help_panel=WHERE,
    ),
]
Gui = Annotated[
    bool | None,
    Option("--gui/--no-gui", help="Open windows on the node's screen, where granted.", rich_help_panel=WHERE),
]
Env = Annotated[
    list[str] | None,
    Option("--env", "-e", help="KEY=VALUE for the job's environment.", rich_help_panel=FILES),
]
Secret = Annotated[
    list[str] | None,
    Option(metavar="NAME[=file|env|env:VAR]", help="See `perijove secret`.", rich_help_panel=FILES),
]
Label = Annotated[list[str] | None, Option("--label", "-l", help="KEY=VALUE to find it by.")]
Cwd = Annotated[
    str | None,
    Option(help="Working directory; this one where the job sees it, else the home.", rich_help_panel=FILES),
]
Hold = Annotated[
    bool | None,
    Option("--hold/--no-hold", help="Do not start it before `perijove release`.", rich_help_panel=QUEUE),
]
Retries = Annotated[
    int | None,
    Option(help="Run it again this often when it fails or its node is lost.", rich_help_panel=QUEUE),
]
RetryOn = Annotated[
    list[str] | None,
    Option(help="Only after these: failure, node, oom, time, exit:CODE; with commas.", rich_help_panel=QUEUE),
]
OomRetry = Annotated[
    str | None,
    Option(
        metavar="FACTOR",
        help="When out of memory, again with so many times as much: 2x.",
        rich_help_panel=QUEUE,
    ),
]
Wait = Annotated[bool, Option("--wait", "-w", help="Stream its output and exit as it does.")]
