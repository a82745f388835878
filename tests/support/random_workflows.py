"""Random workflows: every field, references that lead somewhere, no cycles."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from perijove.model import Workflow, parse_workflow

NAMES = ["prep", "fit", "a.b", "report-2", "X", "#3", "volumes", "env"]
PARAMETERS = ["lr", "xs", "name"]
digests = st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:".__add__)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
tricky = st.sampled_from(
    ["no", "1:30", "1e3", "~", "", " x", "x ", "a: b", "#c", "0o7", "$${{ item }}", "é\x85\u2028"]
)
words = st.sampled_from(["alpha", "node-1", "x.y"])
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts.filter(lambda text: "${{" not in text)
    | tricky,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(texts.filter(lambda key: key not in {"from", "pickle", "value"}), inner, max_size=3)
    ),
    max_leaves=5,
)
OUTPUTS = {"table": "file:table.csv", "plots": "glob:/out/*.png", "loss": "record:loss", "log": "fd:1"}
OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "launcher": words,
    "node": words,
    "constraints": st.dictionaries(st.sampled_from(["arch", "disk"]), words),
    "os": st.just("linux"),
    "partition": words,
    "reservation": words,
    "exclusive": st.booleans(),
    "cpu": st.sampled_from([0.5, 1, 4]),
    "memory": st.sampled_from(["8G", "1500M", 1 << 30, (4 << 20) + 1]),
    "gpus": st.sampled_from([0, 2, "a100:2", "2@40G"]),
    "resources": st.dictionaries(words, st.integers(1, 5)),
    "time_limit": st.sampled_from(["1d12h", 90, "1:30:00"]),
    "signal": st.just("USR1@5m"),
    "shm_size": st.just("64M"),
    "tmp_disk": st.just("10G"),
    "volumes": st.sampled_from([[], ["home"], ["home", "data:ro"]]),
    "cwd": st.sampled_from(["/data", "sub dir"]),
    "env": st.dictionaries(st.sampled_from(["A", "B_1"]), texts.filter(lambda t: "${{" not in t) | tricky),
    "sealed": st.booleans(),
    "network": st.sampled_from(["none", "bridge", "user"]),
    "user": st.just("root"),
    "priority": st.integers(0, 100),
    "preemptible": st.booleans(),
    "retries": st.integers(0, 5),
    "retry_on": st.lists(st.sampled_from(["node", "exit:75"]), max_size=2),
    "oom_retry": st.just("2x"),
    "labels": st.dictionaries(words, words),
}
SOME_OPTIONS = st.fixed_dictionaries({}, optional=OPTIONS)
IMAGES = st.sampled_from(["python:3.12", "archive:sha256:" + "0" * 64, "lab/x@sha256:" + "1" * 64])


@st.composite
def steps(draw: st.DrawFn, name: str, before: dict[str, Any]) -> dict[str, Any]:
    """A step that may refer to those `before` it."""
    given: dict[str, Any] = draw(SOME_OPTIONS)
    if given.get("sealed"):
        given.pop("volumes", None)
        given.pop("network", None)
    if draw(st.booleans()):
        given["map"] = draw(st.sampled_from(["parameters:xs", [1, {"a": "no"}, "x"], []]))
    elsewhere = [f"jobs:{other}/{output}" for other, known in before.items() for output in known]
    references = [*elsewhere, "parameters:lr", *(["item", "item:k", "index"] if "map" in given else [])]
    some = st.sampled_from(references)
    arguments = (
        json_values
        | st.builds(lambda one: {"from": one}, some)
        | st.builds(lambda v: {"value": v}, json_values)
    )
    filled = tricky | some.map("x ${{{{ {} }}}} y".format)
    match draw(st.sampled_from(["command", "image", "entrypoint", "script", "notebook", "function"])):
        case "command":
            given["command"] = draw(st.lists(filled | tricky, min_size=1, max_size=3))
        case "image":
            given |= {"entrypoint": "image", "image": draw(IMAGES)}
        case "entrypoint":
            given |= {"entrypoint": ["sh", "-c"], "command": [draw(filled)]}
        case "script":
            given |= {
                "script": draw(filled.filter(bool)) + "\nb\n",
                "args": draw(st.lists(filled, max_size=2)),
            }
        case "notebook":
            given["notebook"] = draw(st.sampled_from(["nb.ipynb", "sha256:" + "2" * 64]))
            given["parameters"] = draw(st.dictionaries(st.sampled_from(["p", "q"]), arguments, max_size=2))
        case "function":
            given |= {"function": draw(digests), "args": draw(st.lists(arguments, max_size=2))}
            given["parameters"] = draw(st.dictionaries(st.sampled_from(["p", "q"]), arguments, max_size=2))
            if not given.get("sealed") and draw(st.booleans()):
                given["isolation"] = "shared"
    flip = st.booleans()
    if draw(flip):
        given["image"] = draw(IMAGES | st.sampled_from([one for one in elsewhere if "[" not in one] or ["x"]))
    places = some | digests | st.sampled_from(["file:a b.csv", "dir:data", "https://x/y", "s3://b/k"])
    if inputs := draw(st.dictionaries(st.sampled_from(["data", "x.csv", "y+z"]), places, max_size=2)):
        given["inputs"] = inputs | {"lit": {"value": draw(json_values)}, "all": [draw(places)]}
        given["stdin"] = draw(st.sampled_from(sorted(inputs)))
    given["outputs"] = draw(st.fixed_dictionaries({}, optional={k: st.just(v) for k, v in OUTPUTS.items()}))
    named = [other for other in before if not other.startswith("#")]
    if draw(flip) and named:
        given["after"] = [draw(st.sampled_from(named))]
    if draw(flip):
        given["when"] = draw(
            some.flatmap(lambda r: st.sampled_from([r, f"not {r}", f"{r} < 0.5", f'{r} == "no"']))
        )
    if draw(flip):
        given["cache"] = draw(flip)
    return given


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A native document."""
    found: dict[str, Any] = {
        "parameters": {
            "lr": draw(st.sampled_from([0.1, 1, {"type": "number", "description": "rate"}])),
            "xs": draw(st.sampled_from([[1, 2], {"type": "list", "default": []}, {"default": {"a": 1}}])),
            "name": draw(
                st.sampled_from(["no", None, True, {"type": "text", "choices": ["a", "b"], "default": "b"}])
            ),
        }
    }
    if draw(st.booleans()):
        found |= {"name": draw(st.sampled_from(["fit", "workflow", "a b"])), "description": draw(tricky)}
        found["fail_fast"] = draw(st.booleans())
    if draw(st.booleans()):
        options = {
            k: OPTIONS[k] for k in ("cpu", "memory", "gpus", "volumes", "labels", "sealed", "priority")
        }
        found["defaults"] = draw(st.fixed_dictionaries({}, optional=options | {"image": IMAGES}))
        if found["defaults"].get("sealed"):
            found["defaults"].pop("volumes", None)
    made: dict[str, Any] = {}
    known: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1, max_size=4)):
        step = draw(steps(name, known))
        if found.get("defaults", {}).get("sealed") and "sealed" not in step:
            step["sealed"] = False
        made[name] = step
        if not name.startswith("#"):
            known[name] = step["outputs"]
    return {**found, "steps": made}


workflows: st.SearchStrategy[Workflow] = documents().map(parse_workflow)
