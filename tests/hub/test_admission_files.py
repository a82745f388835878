"""What a job may take in, leave behind and be shut off from, as admission says it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.hub.test_admission import ada, refused

from perijove.model import Capabilities
from perijove_hub.settings import VolumeSetting

from .conftest import node

HEX = "5" * 64
CONTAINERS = Capabilities(
    name="docker",
    containers=True,
    features=frozenset({"archives", "sealed", "stdin", "stdout", "ports", "volumes"}),
    networks=frozenset({"none", "bridge"}),
)
PLAIN = Capabilities(name="process", features=frozenset({"stdin", "stdout"}))
BARE = Capabilities(name="bare", containers=True)
NODE = node("n1", launchers=[CONTAINERS, PLAIN, BARE])


def wrong(launcher: str = "docker", **spec: Any) -> tuple[str, str]:
    """The field and the message of the one thing that is wrong."""
    (error,) = refused({"launcher": launcher, **spec}, NODE)
    return error.field, error.message


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("file:/result.csv", "a file directly in / cannot be kept"),
        ("glob:/*.png", "a file directly in / cannot be kept"),
        ("dir:/", "a file directly in / cannot be kept"),
        ("dir:/usr", "which none in /usr may"),
        ("file:/etc/passwd", "which none in /etc may"),
        ("file://etc//passwd", "which none in /etc may"),
        ("file:/lib64/x/y", "which none in /lib64 may"),
        ("file:/in/x", "which none in /in may"),
        ("glob:/run/perijove/*", "which none in /run may"),
        ("file:/home/ada/x", "its volume /home/ada is there"),
        ("file:/home/ada/sub/x", "its volume /home/ada is there"),
        ("file:/home/x", "its volume /home/ada is there"),
    ],
)
def test_no_output_takes_the_place_of_what_is_there(place: str, said: str) -> None:
    field, message = wrong(outputs={"a": place})
    assert field == "outputs.a" and said in message


def test_outputs_have_places_that_the_launcher_can_give() -> None:
    places = ["file:/data/x", "dir:/out", "glob:/a/b/*.x", "glob:**/*", "dir:.", "fd:1", "fd:5", "record:x"]
    outputs = {f"o{number}": place for number, place in enumerate(places)}
    assert ada({"launcher": "docker", "outputs": outputs}, NODE)
    assert wrong("process", outputs={"a": "file:/data/x"})[1].startswith(
        "launcher process has the node's own"
    )
    assert wrong("bare", outputs={"a": "fd:3"})[1].startswith("file descriptors from 3 on are not supported")
    assert wrong(outputs={"a": "file:."})[1].startswith("names no file")
    field, message = wrong(outputs={"a": "fd:1"}, stdout="/tmp/x")
    assert (field, message) == ("outputs.a", "stdout sends that to /tmp/x; leave out one of the two")
    many = {f"o{number}": f"file:/d{number}/x" for number in range(33)}
    assert wrong(outputs=many) == ("outputs", "absolute places in more than 32 folders")


def test_a_sealed_job_has_no_volumes_in_its_way() -> None:
    spec = {"launcher": "docker", "sealed": True, "outputs": {"a": "file:/home/ada/x"}}
    volumes = {"data": VolumeSetting(source="/srv/data", target="/data")}
    assert ada(spec, NODE, volumes=volumes)
    assert wrong(sealed=True, cwd="/home/ada")[1] == "outside the volumes of this job, which are at: none"
    assert wrong(sealed=True, ports=[80])[0] == "ports"
    assert wrong("process", sealed=True) == ("sealed", "sealed jobs not supported by launcher process")


def test_what_has_no_image_has_no_entrypoint() -> None:
    assert ada({"launcher": "docker", "entrypoint": "image"}, NODE)
    assert wrong("process", entrypoint="image")[1] == "not supported by launcher process: it runs no images"


def test_an_input_may_be_standard_input() -> None:
    spec = {"inputs": {"x": f"sha256:{HEX}"}, "stdin": "x"}
    assert ada({"launcher": "process", **spec}, NODE)
    field, message = wrong("bare", **spec)
    assert (field, message) == ("stdin", "an input as standard input not supported by launcher bare")


def test_an_image_may_be_an_archive_of_ones_own() -> None:
    image = f"archive:sha256:{HEX}"
    assert ada({"launcher": "docker", "image": image}, NODE).spec.image == image
    assert wrong("bare", image=image)[1] == "images given as archives are not supported by launcher bare"
    assert wrong(image="archive:sha256:12")[1].startswith("must be archive:sha256: and the 64")
    for name in (f"localhost/perijove/archive:{HEX}", f"perijove/archive:{HEX}"):
        (error,) = refused({"launcher": "docker", "image": name}, NODE, images=["*"])
        assert error.message.startswith("an image that came as an archive is named archive:sha256:...")
    (error,) = refused({"launcher": "docker", "image": image}, NODE, images=["lab/*"])
    assert error.message.startswith("not on this site's list of images")
    (error,) = refused({"launcher": "docker", "image": image}, NODE, owns=lambda _: False)
    assert (error.field, error.value) == ("image", f"sha256:{HEX}")
