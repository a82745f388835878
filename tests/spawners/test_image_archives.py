"""Images given as archives: read as a stranger's, written anew, loaded under one name that is ours."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import docker
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.spawners.real_node import RealNode

from perijove.model import Account, Outcome, ReasonCode, State
from perijove_spawners.containers.archives import ArchiveError, ImageArchive

ALICE = Account("alice", 4242, 4242, "/home/alice")
NAME = "localhost/perijove/archive:x"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar_of(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            tar.addfile(member, io.BytesIO(data))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return buffer.getvalue()


def config_of(*layers: bytes, **config: Any) -> bytes:
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        }
    ).encode()


def docker_archive(*layers: bytes, tags: tuple[str, ...] = (), **config: Any) -> bytes:
    """As ``docker save`` writes it; with any tags it likes."""
    files = {f"{number}/layer.tar": layer for number, layer in enumerate(layers)}
    manifest = [{"Config": "config.json", "RepoTags": list(tags), "Layers": list(files)}]
    legacy = {tag.partition(":")[0]: {tag.partition(":")[2]: "0"} for tag in tags}
    return tar_of(
        {
            "config.json": config_of(*layers, **config),
            **files,
            "manifest.json": json.dumps(manifest).encode(),
            "repositories": json.dumps(legacy).encode(),
        }
    )


def oci_archive(*layers: bytes, name: str = "", packed: bool = True, **config: Any) -> bytes:
    """An OCI image layout."""
    blobs: dict[str, bytes] = {}

    def keep(data: bytes, kind: str) -> dict[str, Any]:
        blobs[f"blobs/sha256/{digest_of(data)[7:]}"] = data
        return {
            "mediaType": f"application/vnd.oci.image.{kind}",
            "digest": digest_of(data),
            "size": len(data),
        }

    kind = "layer.v1.tar+gzip" if packed else "layer.v1.tar"
    manifest = {
        "schemaVersion": 2,
        "config": keep(config_of(*layers, **config), "config.v1+json"),
        "layers": [keep(gzip.compress(layer) if packed else layer, kind) for layer in layers],
    }
    found = keep(json.dumps(manifest).encode(), "manifest.v1+json")
    found["annotations"] = {"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name}
    index = {"schemaVersion": 2, "manifests": [found]}
    return tar_of(
        {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode(), **blobs}
    )


def rewritten(data: bytes, folder: Path, *, limit: int = 1 << 30) -> dict[str, bytes]:
    """The files of what an engine gets."""
    (folder / "archive").write_bytes(data)
    archive = ImageArchive(folder / "archive", arch="amd64", limit=limit)
    try:
        with tarfile.open(fileobj=io.BytesIO(b"".join(archive.under(NAME)))) as tar:
            return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    finally:
        archive.close()


LAYERS = tar_of({"one": b"1"}), tar_of({"two": b"2"})


@pytest.mark.parametrize(
    "data",
    [
        docker_archive(*LAYERS, tags=("python:3", "debian:bookworm")),
        oci_archive(*LAYERS, name="python:3"),
        oci_archive(*LAYERS, name="python:3", packed=False),
    ],
    ids=["docker", "oci", "oci unpacked"],
)
def test_an_engine_gets_the_image_and_no_name_but_ours(data: bytes, tmp_path: Path) -> None:
    files = rewritten(data, tmp_path)
    [image] = json.loads(files["manifest.json"])
    assert image["RepoTags"] == [NAME]
    assert files[image["Config"]] == config_of(*LAYERS)
    layers = [files[name] for name in image["Layers"]]
    assert [gzip.decompress(one) if one[:2] == b"\x1f\x8b" else one for one in layers] == list(LAYERS)
    assert set(files) == {"manifest.json", image["Config"], *image["Layers"]}


def test_a_layer_that_comes_twice_is_a_link(tmp_path: Path) -> None:
    one = LAYERS[0]
    manifest = [{"Config": "c.json", "Layers": ["a/layer.tar", "b/layer.tar"]}]
    files = {
        "c.json": config_of(one, one),
        "a/layer.tar": one,
        "manifest.json": json.dumps(manifest).encode(),
    }
    found = rewritten(tar_of(files, {"b/layer.tar": "../a/layer.tar"}), tmp_path)
    assert [found[name] for name in json.loads(found["manifest.json"])[0]["Layers"]] == [one, one]


def manifest(**image: Any) -> bytes:
    return json.dumps([{"Config": "c.json", "Layers": [], **image}]).encode()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no uncompressed tar"),
        (gzip.compress(docker_archive(*LAYERS)), "no uncompressed tar"),
        (tar_of({"hello": b"x"}), "holds no image: neither manifest.json nor index.json"),
        (tar_of({"manifest.json": b"[]"}), "holds 0 images; it must hold one"),
        (tar_of({"manifest.json": b"{"}), "damaged"),
        (tar_of({"manifest.json": b'{"a": 1}'}), "damaged"),
        (tar_of({"manifest.json": manifest()}), "has no c.json"),
        (tar_of({"manifest.json": manifest(), "c.json": b"[]"}), "damaged"),
        (
            tar_of({"manifest.json": manifest(Layers=["/etc/shadow"]), "c.json": config_of(b"x")}),
            "has no /etc/",
        ),
        (tar_of({"manifest.json": manifest(), "c.json": config_of(b"x")}), "has 1 layers, and its archive 0"),
        (tar_of({"manifest.json": b" " * (9 << 20)}), "more than 8M"),
        (tar_of({"index.json": b'{"manifests": []}'}), "holds 0 images"),
        (tar_of({f"f{n}": b"" for n in range(10_001)}), "more than 10,000 files"),
        (docker_archive(b"\x28\xb5\x2f\xfd" + b"x" * 600), "compressed by zstd"),
        (docker_archive(*LAYERS)[:3000], "damaged"),
    ],
)
def test_what_is_no_image_is_said(data: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=said) as error:
        rewritten(data, tmp_path)
    assert not error.value.transient


def test_a_link_out_of_the_archive_is_nothing(tmp_path: Path) -> None:
    data = tar_of({"manifest.json": manifest()}, {"c.json": "/etc/passwd"})
    with pytest.raises(ArchiveError, match=r"has no c\.json"):
        rewritten(data, tmp_path)


def test_a_layer_that_unpacks_to_more_than_is_allowed_is_not_loaded(tmp_path: Path) -> None:
    bomb = bytes(64 << 20)
    with pytest.raises(ArchiveError, match="larger than this node accepts"):
        rewritten(oci_archive(bomb), tmp_path, limit=32 << 20)
    with pytest.raises(ArchiveError, match="larger than this node accepts"):
        rewritten(docker_archive(*LAYERS), tmp_path, limit=1000)


@given(
    cut=st.integers(0, 100_000),
    bits=st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 255)), max_size=8),
)
def test_no_damage_is_more_than_an_error(
    cut: int, bits: list[tuple[int, int]], tmp_path_factory: Any
) -> None:
    data = bytearray(oci_archive(*LAYERS))
    for at, value in bits:
        data[at % len(data)] = value
    with contextlib.suppress(ArchiveError):
        rewritten(bytes(data[: cut or None]), tmp_path_factory.getbasetemp())


# On the engines


@pytest.fixture(params=["docker", "podman"])
async def node(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RealNode]:
    url = request.getfixturevalue(f"{request.param}_url")
    made = RealNode(tmp_path, request.param, ALICE, url=url)
    await made.open()
    yield made
    await made.close()
    api = engine(made)
    for image in api.images(name="localhost/perijove/archive"):
        api.remove_image(image["Id"], force=True)


def engine(node: RealNode) -> Any:
    return docker.APIClient(base_url=node.url, timeout=60)


async def ran(node: RealNode, archive: bytes, *command: str, **fields: Any) -> Outcome:
    digest = node.store.put([archive]).digest
    return await node.run(*command, image=f"archive:{digest}", outputs={"said": "fd:1"}, **fields)


BUILD = r"""
set -e
cd "$PERIJOVE_JOB_DIR/output" && touch hello
tar -chf layer.tar /bin/bash $(ldd /bin/bash | grep -o '/[^ ]*') -C . hello
digest=$(sha256sum layer.tar | cut -d' ' -f1)
cat > config.json << END
{"architecture": "amd64", "os": "linux",
 "config": {"Entrypoint": ["/bin/bash", "-c", "echo built; echo /h*; echo \$0"]},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$digest"]}}
END
echo '[{"Config": "config.json", "RepoTags": ["perijove-test:base"],
        "Layers": ["layer.tar"]}]' > manifest.json
tar -cf image.tar manifest.json config.json layer.tar
"""


@pytest.mark.engine
async def test_a_job_builds_the_image_of_another(node: RealNode, test_image: str) -> None:
    before = engine(node).inspect_image(test_image)["Id"]
    built = await node.run(script=BUILD, image=test_image, outputs={"image": "file:image.tar", "log": "fd:2"})
    assert built.state is State.SUCCEEDED, node.text(built.outputs["log"])
    image = f"archive:{built.outputs['image']}"
    for words in ((), ("argument",)):
        outcome = await node.run(*words, image=image, entrypoint=True, outputs={"said": "fd:1"})
        assert outcome.state is State.SUCCEEDED, outcome.message
        assert node.text(outcome.outputs["said"]).splitlines()[:2] == ["built", "/hello"]
    assert node.text(outcome.outputs["said"]).splitlines()[2] == "argument"
    # The archive calls itself by the name of the test image.
    assert engine(node).inspect_image(test_image)["Id"] == before
    assert not [name for name in await node.launcher.images() if "archive" in name]


@pytest.mark.engine
async def test_an_oci_layout_runs_and_takes_no_name(node: RealNode, test_image: str) -> None:
    before = engine(node).inspect_image(test_image)["Id"]
    built = await node.run(script=BUILD, image=test_image, outputs={"layer": "file:layer.tar"})
    with node.store.open(built.outputs["layer"]) as file:
        layer = file.read()
    archive = oci_archive(layer, name=test_image, Env=["GREETING=hello"])
    outcome = await ran(node, archive, "/bin/bash", "-c", "echo $GREETING")
    assert outcome.state is State.SUCCEEDED, outcome.message
    assert node.text(outcome.outputs["said"]) == "hello\n"
    assert outcome.image_digest == digest_of(config_of(layer, Env=["GREETING=hello"]))
    assert engine(node).inspect_image(test_image)["Id"] == before


@pytest.mark.engine
async def test_an_image_without_a_shell_opens_no_files(node: RealNode) -> None:
    file = node.store.put([b"x"])
    outcome = await ran(node, docker_archive(LAYERS[0]), "/one", inputs={"x": file.digest}, stdin="x")
    assert outcome.reason is ReasonCode.LAUNCH_FAILED and not outcome.transient
    assert "has no /bin/sh, which stdin and outputs fd:3 to fd:9 need" in outcome.message


@pytest.mark.engine
async def test_an_archive_that_is_none_fails_the_job_alone(node: RealNode) -> None:
    outcome = await ran(node, b"hello", "true")
    assert outcome.reason is ReasonCode.LAUNCH_FAILED and not outcome.transient
    assert outcome.message.startswith("the image is no uncompressed tar archive")
    broken = docker_archive(b"no layer at all")
    outcome = await ran(node, broken, "true")
    assert outcome.reason is ReasonCode.LAUNCH_FAILED, outcome.message
    missing = await node.run("true", image="archive:sha256:" + "0" * 64)
    assert missing.message.startswith("the image's archive could not be fetched: sha256:0000")
    assert not list((node.directory / "launcher" / "archives").iterdir())
