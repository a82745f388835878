"""Images: what a reference means, what patterns mean, who may run which, and over REST."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from perijove.model import FieldError, InvalidSpecError
from perijove_hub.admission import Asker, Site
from perijove_hub.admission.lists import Lists
from perijove_hub.api.images import images_seen
from perijove_hub.policy.document import load
from perijove_hub.policy.patterns import loose_pattern, pattern
from perijove_hub.settings import Settings
from perijove_spawners.references import HUB, Reference, manifest_of, registry_of, repository_of, written

from .conftest import node
from .test_admission import ada, refused
from .test_roles import site

DIGEST, OTHER = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"


# ---- references


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("python", "docker.io/library/python:latest"),
        ("python:3.12-slim", "docker.io/library/python:3.12-slim"),
        ("lab/tools", "docker.io/lab/tools:latest"),
        ("docker.io/python", "docker.io/library/python:latest"),
        ("Docker.IO/library/python", "docker.io/library/python:latest"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:5000/x:1", "localhost:5000/x:1"),
        ("REGISTRY.lab.example/a/b", "registry.lab.example/a/b:latest"),
        (f"python@{DIGEST}", f"docker.io/library/python@{DIGEST}"),
        (f"r.example:5000/a:1@{DIGEST}", f"r.example:5000/a:1@{DIGEST}"),
    ],
)
def test_references_have_one_form(text: str, full: str) -> None:
    assert str(Reference.parse(text)) == full
    assert str(Reference.parse(full)) == full


@pytest.mark.parametrize(
    "text",
    [
        "Python",
        "a/B",
        "-x",
        "a//b",
        "a/",
        "/a",
        "a:",
        "a:-1",
        "a@sha256:1",
        f"a@sha512:{'a' * 64}",
        f"a@{DIGEST}@{DIGEST}",
        "a" * 64,
        f"sha256:{'a' * 64}",
        "sha256:abcdef",
        "a/../b",
        "a..b",
        "x.example:port/a",
        "a/" * 128 + "a",
        "",
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must|has|named|digits"):
        Reference.parse(text)


@pytest.mark.parametrize(
    ("text", "repository"),
    [
        ("python:3", "docker.io/library/python"),
        (f"index.{HUB}/lab/x@{DIGEST}", "docker.io/lab/x"),
        (f"R.example:5000/a/b:1@{DIGEST}", "r.example:5000/a/b"),
        ("localhost/x:1", "localhost/x"),
        (DIGEST, DIGEST),
        ("<none>:<none>", "<none>:<none>"),
    ],
)
def test_a_repository_is_one_by_whatever_name_and_an_id_is_none(text: str, repository: str) -> None:
    assert repository_of(text) == repository
    assert registry_of(text) == (repository.partition("/")[0] if "/" in repository else "docker.io")


@pytest.mark.parametrize(
    ("text", "names", "manifest"),
    [
        ("python:3", [f"python@{DIGEST}"], f"docker.io/library/python@{DIGEST}"),
        ("r.example/a", [f"b@{OTHER}", "r.example/a:2", f"r.example/a@{DIGEST}"], f"r.example/a@{DIGEST}"),
        (f"r.example/a:9@{DIGEST}", [f"r.example/a@{d}" for d in (OTHER, DIGEST)], f"r.example/a@{DIGEST}"),
        (f"r.example/a@{DIGEST}", [f"r.example/a@{OTHER}"], None),
        ("r.example/a", [f"r.example/b@{DIGEST}", "r.example/a:1", f"<none>@{DIGEST}"], None),
        ("localhost/a", [f"localhost/a@{DIGEST}"], None),
        (DIGEST, [f"r.example/a@{DIGEST}"], None),
    ],
)
def test_the_manifest_of_an_image_is_that_of_its_own_registry(
    text: str, names: list[str], manifest: str | None
) -> None:
    assert manifest_of(text, names) == manifest


def test_no_name_is_taken_for_the_beginning_of_an_images_id() -> None:
    assert written("cafe", Reference.parse("cafe")) == "cafe:latest"
    assert written("cafe:1", Reference.parse("cafe:1")) == "cafe:1"
    assert written("lab/cafe", Reference.parse("lab/cafe")) == "lab/cafe"


words = st.text("ab9", min_size=1, max_size=3)
hosts = st.sampled_from(["", "docker.io/", "registry.example/", "localhost:5000/", "localhost/"])
paths = st.lists(words, min_size=1, max_size=3).map("/".join)
tags = st.sampled_from(["", ":latest", ":1", ":2.0"])
digests = st.sampled_from(["", f"@{DIGEST}", f"@{OTHER}"])
references = st.builds(lambda h, p, t, d: f"{h}{p}{t}{d}", hosts, paths, tags, digests).filter(
    lambda text: not text.startswith("sha256")
)


@examples(max_examples=50)
@given(references)
def test_the_full_form_means_the_same_and_patterns_mean_themselves(text: str) -> None:
    reference = Reference.parse(text)
    assert Reference.parse(str(reference)) in {reference, Reference.parse(f"{reference.name}:latest")}
    assert pattern(text).meets(reference)
    assert pattern("**").meets(reference)
    assert loose_pattern("*").meets(reference)
    if reference.digest is None:
        assert pattern(reference.name).meets(reference)
        # a tag says nothing of what a digest is
        assert not pattern(f"{reference.name}:{reference.tag or 'latest'}").meets(
            Reference.parse(f"{reference.name}:{reference.tag or 'latest'}@{OTHER}")
        )


@examples(max_examples=50)
@given(references, references)
def test_a_pattern_without_wildcards_means_one_repository(one: str, other: str) -> None:
    first, second = Reference.parse(one), Reference.parse(other)
    if pattern(one).meets(second):
        assert first.name == second.name
        assert first.digest in {None, second.digest}


@pytest.mark.parametrize(
    ("text", "image", "meets"),
    [
        ("python", "python:3", True),
        ("python", f"python:3@{DIGEST}", True),
        ("python:3.*", "python:3.12", True),
        ("python:3.*", "python:4", False),
        ("python:3.12", "docker.io/library/python:3.12", True),
        ("python:3.12", f"python:3.12@{OTHER}", False),
        ("python:3.12", f"python@{OTHER}", False),
        ("python:3.12@*", f"python:3.12@{OTHER}", True),
        (f"python@{DIGEST}", f"python:9@{DIGEST}", True),
        (f"python@{DIGEST}", f"python@{OTHER}", False),
        (f"python@{DIGEST}", "python:3", False),
        ("*", "python", True),
        ("*", "lab/python", False),
        ("*", "evil.example/python", False),
        ("lab/*", "lab/a/b", False),
        ("lab/**", "lab/a/b", True),
        ("r.example/*", "r.example/a", True),
        ("r.example/*", "r.example/a/b", False),
        ("r.example/*", "r.example:5000/a", False),
        ("r.example/*", "r.example.evil/a", False),
        ("r?example/*", "rxexample/a", True),
        ("*.example/a", "r.example/a", True),
        ("*.example/a", "evil.com/r.example/a", False),
        ("r.example/a", "r_example/a", False),
        ("python:*", f"python@{DIGEST}", True),
        ("archive:*", "python", False),
    ],
)
def test_patterns(text: str, image: str, meets: bool) -> None:
    assert pattern(text).meets(Reference.parse(image)) is meets


@pytest.mark.parametrize(
    ("text", "image", "meets"),
    [
        ("r.example/*", "r.example/a/b:1", True),
        ("python:3.*", "python:3.12", True),
        ("python:3.*", f"python:3.12@{OTHER}", False),
        ("nb:*", f"nb:1@{OTHER}", True),
        ("nb:*", "docker.io/library/nb:1", True),
        ("nb", "nb:1", True),
        ("nb:*", "evil.example/nb:1", False),
    ],
)
def test_patterns_of_the_setting(text: str, image: str, meets: bool) -> None:
    assert loose_pattern(text).meets(Reference.parse(image)) is meets


# ---- the policy

POLICY = f"""
projects:
  genomics: {{members: [ada], images: ["r.example/bio/**"]}}
  physics: {{members: [ada, bob]}}
images:
  base: {{image: "python:3.12-slim", description: "Python", default: true, pull: never}}
  bio:
    {{image: "r.example/bio/base:1", projects: [genomics], default: true, digest: "{DIGEST}", pull: always}}
  hers: {{image: "r.example/hers:1", users: [eve]}}
allowed_images: [{{image: "alpine:3.*", pull: always}}]
grants: {{any_image: ["@staff"]}}
"""


def run(spec: dict[str, Any], **more: Any) -> str | None:
    return ada({"launcher": "docker", **spec}, policy=more.pop("policy", POLICY), **more).spec.image


def wrong(spec: dict[str, Any], **more: Any) -> FieldError:
    (error,) = refused({"launcher": "docker", **spec}, policy=more.pop("policy", POLICY), **more)
    return error


def test_a_job_without_an_image_gets_its_projects_default_else_the_sites() -> None:
    assert run({"project": "genomics"}) == f"r.example/bio/base:1@{DIGEST}"
    assert run({"project": "physics"}) == "python:3.12-slim"
    assert run({}, policy="{}") == "perijove-notebook:latest"


def test_images_have_names_and_their_digest_is_run_whatever_the_tag_means() -> None:
    physics = {"project": "physics"}
    assert run({"image": "base", **physics}) == "python:3.12-slim"
    for asked in ("bio", "r.example/bio/base:1", "R.example/bio/base:1"):
        assert run({"image": asked}) == f"r.example/bio/base:1@{DIGEST}"
    assert run({"image": "r.example/bio/other:2"}) == "r.example/bio/other:2"
    for asked in ("bio", "hers", "r.example/bio/other:2", f"python:3.12-slim@{OTHER}"):
        error = wrong({"image": asked, **physics})
        assert (error.field, error.value) == ("image", asked)
        assert "allowed: base, alpine:3.*" in error.message
        assert "r.example" not in error.message


def test_a_project_that_one_is_not_in_tells_nothing_of_its_images() -> None:
    errors = refused({"launcher": "docker", "image": "x.example/a", "project": "secret"}, policy=POLICY)
    assert {error.field for error in errors} == {"project", "image"}
    assert all("bio" not in error.message for error in errors)


def test_who_may_run_any_image_and_what_nobody_may() -> None:
    staff = frozenset({"staff"})
    assert run({"image": "x.example/a"}, groups=staff) == "x.example/a"
    assert run({"image": "cafe"}, groups=staff) == "cafe:latest"
    assert wrong({"image": "x.example/a"}).field == "image"
    for image in (
        "localhost/perijove/archive:1",
        "LOCALHOST/perijove/archive:1",
        "perijove/archive:1",
        f"localhost/perijove/archive@{DIGEST}",
    ):
        assert "came as an archive" in wrong({"image": image}, groups=staff).message
    for image in ("Python", f"sha256:{'a' * 64}", "a" * 64):
        assert wrong({"image": image}, groups=staff).field == "image"


def test_patterns_of_the_setting_and_of_the_policy_are_joined() -> None:
    assert run({"image": "alpine:3.20"}, images=["busybox:*"]) == "alpine:3.20"
    assert run({"image": "busybox:1"}, images=["busybox:*"]) == "busybox:1"
    wanted = "r.example:5000/nb:1"
    assert run({"image": "r.example:5000/nb:2"}, default_image=wanted) == "r.example:5000/nb:2"
    assert wrong({"image": "r.example:5000/other"}, default_image=wanted).field == "image"


def test_when_a_node_asks_the_registry_is_what_the_list_says() -> None:
    lists = Lists(Settings(mode="hub"), load(POLICY))
    assert lists.pull_of("python:3.12-slim", None) == "never"
    assert lists.pull_of(f"r.example/bio/base:1@{DIGEST}", "genomics") == "always"
    assert lists.pull_of("alpine:3.20", None) == "always"
    for image in (None, "busybox", "Not One", f"archive:{DIGEST}"):
        assert lists.pull_of(image, None) is None


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("images: {a: {image: 'A B'}}", "images.a.image"),
        ("images: {a: {image: localhost/perijove/archive:1}}", "images.a.image"),
        ("images: {a: {image: x, digest: sha256:1}}", "images.a.digest"),
        (f"images: {{a: {{image: 'x@{OTHER}', digest: '{DIGEST}'}}}}", "images.a"),
        ("images: {a: {image: x, pull: sometimes}}", "images.a.pull"),
        ("images: {a: {image: x, runenv: COBOL}}", "images.a.runenv"),
        ("images: {a: {image: x, features: {NX: 1}}}", "images.a"),
        ("images: {a: {image: x, projects: [nowhere]}}", "images.a.projects"),
        ("images: {a: {image: x, default: true}, b: {image: y, default: true}}", "images.b.default"),
        ("allowed_images: ['a b']", "allowed_images"),
        ("allowed_images: ['r.example/a**']", "allowed_images"),
        ("allowed_images: ['r.example/A']", "allowed_images"),
        ("images_by_convention: {prefix: 'Calc-'}", "images_by_convention.prefix"),
    ],
)
def test_a_policy_with_wrong_images_is_refused(text: str, field: str) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        load(text)
    assert any(error.field.startswith(field) for error in caught.value.errors), caught.value.errors


def test_what_was_admitted_may_be_submitted_again() -> None:
    spec = ada({"launcher": "docker", "image": "bio"}, policy=POLICY).spec
    again = ada(spec.model_dump(mode="json", exclude_unset=True), policy=POLICY).spec
    assert again.image == spec.image


# ---- over REST


async def test_administrators_name_images_and_everybody_sees_their_own(settings: Settings) -> None:
    async with site(settings) as by:
        policy = "# a comment\nprojects: {genomics: {members: [alice]}}\n"
        headers = {"Content-Type": "text/yaml"}
        assert (await by["boss"].put("/policy", content=policy, headers=headers)).status_code == 200
        body = {"image": "r.example/bio:1", "projects": ["genomics"], "description": "Biology"}
        made = await by["boss"].put("/images/bio", json=body)
        assert made.status_code == 200, made.text
        assert (made.json()["name"], made.json()["projects"]) == ("bio", ["genomics"])
        for who in ("alice", "bob", "spawner"):
            for method, path in (("PUT", "/images/x"), ("DELETE", "/images/bio"), ("PUT", "/volumes/x")):
                answer = await by[who].request(method, path, json=body)
                assert answer.status_code == 403, (who, answer.text)
        [hers] = [one for one in (await by["alice"].get("/images")).json() if one["name"]]
        assert (hers["name"], hers["description"], hers["projects"]) == ("bio", "Biology", [])
        assert not [one for one in (await by["bob"].get("/images")).json() if one["name"]]
        assert (await by["alice"].get("/site")).json()["descriptions"] == {"bio": "Biology"}
        wrong = await by["boss"].put("/images/bad", json={"image": "No Image"})
        assert wrong.status_code == 422
        assert (await by["boss"].delete("/images/none")).status_code == 404
        assert (await by["boss"].delete("/images/bio")).status_code == 204
        assert (await by["boss"].get("/policy")).text.count("bio") == 0


def test_images_that_nodes_have_already_are_known(settings: Settings) -> None:
    policy = load(POLICY)
    nodes = [
        node("n1", images=["python:3.12-slim", "alpine:3.20", "secret:1"]),
        node("n2", images=["alpine:3.20"]),
    ]
    seen = images_seen(Site(Settings(mode="hub"), policy, nodes), Asker(policy, "bob"))
    assert {one.name or one.image: one.nodes for one in seen} == {"base": ["n1"], "alpine:3.20": ["n1", "n2"]}
