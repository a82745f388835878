"""Options that a script carries itself, in ``#PERIJOVE`` lines."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.error import UsageError

from perijove.arguments import header_options, submit_parser
from perijove.cli.submit import header_fields, submit
from perijove.headers import headers_of, late_text
from perijove.model.errors import UserError
from perijove.options import OPTIONS, spec_fields

SCRIPT = """\
#!/bin/bash
#PERIJOVE --cpus 4 --name "two words"
# a remark
   # another

#PERIJOVE	--env A=1 --env B=2
echo "#PERIJOVE --cpus 8"
#PERIJOVE --cpus 16
"""


def test_lines_above_the_first_command_are_read_and_later_ones_are_told_of() -> None:
    headers = headers_of(SCRIPT, "job.sh")
    assert [(header.line, header.words) for header in headers.read] == [
        (2, ("--cpus", "4", "--name", "two words")),
        (6, ("--env", "A=1", "--env", "B=2")),
    ]
    assert headers.late == (8,)
    assert late_text(headers, "job.sh") == "job.sh: #PERIJOVE after the first command is not read (line 8)"


@pytest.mark.parametrize(
    "line",
    [
        " #PERIJOVE --cpus 4",
        "##PERIJOVE --cpus 4",
        "#PERIJOVES --cpus 4",
        "# PERIJOVE --cpus 4",
        "#perijove --cpus 4",
    ],
)
def test_what_only_looks_like_one_is_a_comment(line: str) -> None:
    assert headers_of(f"#!/bin/sh\n{line}\n", "job.sh").read == ()


def test_scripts_from_windows_are_read_too() -> None:
    (header,) = headers_of("#!/bin/sh\r\n#PERIJOVE --cpus 4\r\necho hi\r\n", "job.sh").read
    assert header.words == ("--cpus", "4")


@given(st.text(max_size=200))
def test_any_text_is_a_script_or_an_error_that_names_it(text: str) -> None:
    try:
        headers_of(text, "job.sh")
    except UserError as error:
        problem = str(error)
    else:
        problem = "job.sh:"
    assert problem.startswith("job.sh:")


@given(st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20), max_size=5))
def test_words_are_quoted_as_for_a_shell(words: list[str]) -> None:
    import shlex

    found = headers_of(f"#PERIJOVE {shlex.join(words)}\n", "job.sh").read
    assert [header.words for header in found] == [tuple(words)]


def read_by_both(text: str) -> dict[str, Any]:
    fields = header_fields(text, "job.sh")
    assert header_options(text, "job.sh") == fields
    return fields


def test_the_command_line_and_the_notebook_read_them_alike() -> None:
    text = (
        "#PERIJOVE --cpus 0.5 --memory 64M --gpus a100:2@40G --time 1d12h --signal USR1@5m\n"
        "#PERIJOVE --partition long --reservation course --nodes 2 --exclusive --preemptible --no-hold\n"
        "#PERIJOVE --retries 3 --retry-on node,oom --retry-on exit:75 --oom-retry 2x --array 1:10%2\n"
        "#PERIJOVE --depends 12_7 --depends afterany:3 --label k=v -e A=1\n"
        "#PERIJOVE -e B=2 --priority 7 --volume data:ro --resource licence=2,lens_10.5=1\n"
        "#PERIJOVE --gui --ipc host --port 8888,9000 --port 1\n"
    )
    assert read_by_both(text) == {
        "cpu": 0.5,
        "memory": "64M",
        "gpus": "a100:2@40G",
        "time_limit": "1d12h",
        "signal": "USR1@5m",
        "partition": "long",
        "reservation": "course",
        "nodes": 2,
        "exclusive": True,
        "preemptible": True,
        "hold": False,
        "retries": 3,
        "retry_on": ["node", "oom", "exit:75"],
        "oom_retry": "2x",
        "array": "1:10%2",
        "depends_on": ["12_7", "afterany:3"],
        "labels": {"k": "v"},
        "env": {"A": "1", "B": "2"},
        "priority": 7,
        "volumes": ["home", "data:ro"],
        "resources": {"licence": 2, "lens_10.5": 1},
        "gui": True,
        "ipc": "host",
        "ports": [8888, 9000, 1],
    }


@pytest.mark.parametrize("typed", ["0", "65536", "http", "-1", "8888-8890"])
def test_a_port_that_is_none_is_named(typed: str) -> None:
    with pytest.raises(UserError, match="must be the number of a port, from 1 to 65535"):
        header_fields(f"#PERIJOVE --port={typed}\n", "job.sh")


def test_each_option_is_one_of_the_command_line_and_of_the_cell() -> None:
    assert set(OPTIONS) <= set(inspect.signature(submit).parameters)
    assert set(OPTIONS) <= set(vars(submit_parser().parse_args([])))


@pytest.mark.parametrize(
    "typed", ["licence", "licence=", "licence=0", "licence=-1", "licence=x", "licence=1.5"]
)
def test_a_count_of_a_resource_is_a_whole_number(typed: str) -> None:
    with pytest.raises(UserError, match="resource"):
        spec_fields(resource=[typed])


def test_a_later_line_counts_more() -> None:
    assert read_by_both("#PERIJOVE --cpus 1\n#PERIJOVE --cpus 2 --no-exclusive\n") == {
        "cpu": 2.0,
        "exclusive": False,
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--cpux 4", "--cpux"),
        ("train.py", "train.py"),
        ("--cpus", "--cpus"),
        ("--name", "--name"),
        ("--cpus many", "cores"),
        ("--env A", "KEY=VALUE"),
        ("--name 'x", "No closing quotation"),
        ("--retries some", "some"),
        ("--hold=x", "--hold"),
    ],
)
def test_errors_name_file_line_and_what_is_wrong(options: str, words: str) -> None:
    text = f"#!/bin/sh\n#PERIJOVE --memory 1G\n#PERIJOVE {options}\n"
    with pytest.raises(UserError, match=r"^job\.sh:3: ") as raised:
        header_fields(text, "job.sh")
    assert words in str(raised.value) or words == "some"
    with pytest.raises((UserError, UsageError), match=r"^job\.sh:3: "):
        header_options(text, "job.sh")


@pytest.mark.parametrize("option", ["--wait", "--json"])
def test_what_is_about_submitting_stays_on_the_command_line(option: str) -> None:
    with pytest.raises(UserError, match=f"^job.sh:1: {option} belongs on the command line$"):
        header_fields(f"#PERIJOVE {option}\n", "job.sh")


def test_what_is_about_the_cell_stays_in_its_first_line() -> None:
    with pytest.raises(UsageError, match=r"job\.sh:1: --background belongs into the first line"):
        header_options("#PERIJOVE --background\n", "job.sh")


def test_a_file_that_is_no_utf8_is_no_script(tmp_path: Path) -> None:
    from perijove.cli.submit import work

    program = tmp_path / "program"
    program.write_bytes(b"#PERIJOVE --cpus 4\n\xff")
    assert work([str(program)], False) == {"command": [str(program)]}
