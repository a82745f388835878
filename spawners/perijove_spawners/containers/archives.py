"""An archive of an image, made by a stranger, as what an engine may load: one image under one name of ours.

Archives name images as they like, and an engine gives away names to whoever comes last: loaded as it is, one
could pass for ``python:3``. So what is handed to the engine is written anew from the parts that count, in the
form of ``docker save`` (the one that all engines read): the image's configuration, its layers, our name.

Both forms of archives are read: Docker's (``manifest.json``) and OCI's image layout (``index.json``, see the
OCI Image Format Specification, image-layout.md).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from perijove.model import format_size
from perijove_spawners.launcher import LaunchError

_NAMES = 10_000
"""Names in an archive; an image has at most 127 layers."""
_TEXT = 8 << 20
"""Bytes of a manifest or a configuration."""
_PIECE = 1 << 20
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class ArchiveError(LaunchError):
    """It is no archive of an image, or none that may be loaded."""


@dataclass(frozen=True, slots=True)
class Contents:
    """The one image in an archive: names of its files there."""

    config: str
    layers: tuple[str, ...]


class ImageArchive:
    """An uncompressed tar file with one image. Made and used in one thread; to be closed."""

    def __init__(self, path: Path, *, arch: str = "", limit: int) -> None:
        """`arch` is chosen where there are several (Go's words), `limit` are bytes of all layers, unpacked.

        :class:`ArchiveError` says what is wrong.
        """
        self._limit = limit
        try:
            self._tar = tarfile.open(path, "r:")  # noqa: SIM115 -- closed by close()
        except (tarfile.TarError, OSError) as error:
            raise ArchiveError(f"the image is no uncompressed tar archive ({error})") from None
        try:
            self._files = _files(self._tar)
            self._contents = self._find(arch)
            self._config = self._read(self._contents.config)
            self._check()
        except ArchiveError:
            self.close()
            raise
        except (tarfile.TarError, OSError, EOFError, ValueError, LookupError, TypeError) as error:
            self.close()
            raise ArchiveError(f"the image's archive is damaged ({error})") from error

    def close(self) -> None:
        """Close the file."""
        self._tar.close()

    @property
    def image_id(self) -> str:
        """The id that all engines give the image: the digest of its configuration."""
        return f"sha256:{hashlib.sha256(self._config).hexdigest()}"

    def under(self, name: str) -> Iterator[bytes]:
        """The bytes of an archive of the same image that is called `name` and nothing else."""
        config = f"{self.image_id.removeprefix('sha256:')}.json"
        layers = [f"{number}/layer.tar" for number in range(len(self._contents.layers))]
        manifest = json.dumps([{"Config": config, "RepoTags": [name], "Layers": layers}]).encode()
        for path, data in (("manifest.json", manifest), (config, self._config)):
            yield from _member(path, len(data), io.BytesIO(data))
        for path, source in zip(layers, self._contents.layers, strict=True):
            with self._open(source) as file:
                yield from _member(path, self._files[source].size, file)
        yield b"\0" * 2 * tarfile.BLOCKSIZE

    def _open(self, name: str) -> BinaryIO:
        if (found := self._files.get(name)) is None:
            raise ArchiveError(f"the image's archive has no {name}")
        file = self._tar.extractfile(found)
        assert file is not None, "only regular files are in the list"
        return file  # type: ignore[return-value]

    def _read(self, name: str) -> bytes:
        with self._open(name) as file:
            data = file.read(_TEXT + 1)
        if len(data) > _TEXT:
            raise ArchiveError(f"{name} in the image's archive has more than {format_size(_TEXT)}")
        return data

    def _json(self, name: str) -> Any:
        return json.loads(self._read(name))

    def _find(self, arch: str) -> Contents:
        if "manifest.json" in self._files:
            images = self._json("manifest.json")
            if len(images) != 1:
                raise ArchiveError(f"the archive holds {len(images)} images; it must hold one")
            return Contents(_clean(images[0]["Config"]), tuple(_clean(one) for one in images[0]["Layers"]))
        if "index.json" not in self._files:
            raise ArchiveError("the archive holds no image: neither manifest.json nor index.json is in it")
        manifest = self._manifest(self._json("index.json"), arch)
        layers = tuple(_blob(layer["digest"]) for layer in manifest["layers"])
        return Contents(_blob(manifest["config"]["digest"]), layers)

    def _manifest(self, index: Any, arch: str, depth: int = 4) -> Any:
        listed = [one for one in index["manifests"] if _architecture(one) in {"", arch} or not arch]
        if len(listed) > 1:
            listed = [one for one in listed if _architecture(one)]
        if len(listed) != 1 or not depth:
            raise ArchiveError(
                f"the archive holds {len(listed)} images for {arch or 'this node'}; it must hold one"
            )
        found = self._json(_blob(listed[0]["digest"]))
        return self._manifest(found, arch, depth - 1) if "manifests" in found else found

    def _check(self) -> None:
        config = json.loads(self._config)
        known = len(config["rootfs"]["diff_ids"])
        if known != len(self._contents.layers):
            raise ArchiveError(f"the image has {known} layers, and its archive {len(self._contents.layers)}")
        left = self._limit
        for name in self._contents.layers:
            with self._open(name) as file:
                left -= _unpacked(file, self._files[name].size, left)


def _files(tar: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    """Regular files by name. ``docker save`` writes a layer that comes twice as a link to the first."""
    found: dict[str, tarfile.TarInfo] = {}
    links: dict[str, str] = {}
    for number, member in enumerate(tar):
        if number >= _NAMES:
            raise ArchiveError(f"the image's archive has more than {_NAMES:,} files")
        name = _clean(member.name)
        if member.isreg():
            found[name] = member
        elif member.issym():
            links[name] = _clean(posixpath.join(posixpath.dirname(name), member.linkname))
    for name, target in links.items():
        if target in found:
            found.setdefault(name, found[target])
    return found


def _clean(name: str) -> str:
    return posixpath.normpath(name)


def _blob(digest: str) -> str:
    kind, _, value = digest.partition(":")
    return f"blobs/{kind}/{value}"


def _architecture(listed: Any) -> str:
    return str((listed.get("platform") or {}).get("architecture") or "")


def _unpacked(file: BinaryIO, size: int, left: int) -> int:
    """Bytes of a layer when unpacked; :class:`ArchiveError` beyond `left`."""
    start = file.read(4)
    file.seek(0)
    if start.startswith(_ZSTD):
        raise ArchiveError("a layer of the image is compressed by zstd; gzip or none would be accepted")
    if start.startswith(_GZIP):
        size = 0
        with gzip.open(file) as unpacked:
            while size <= left and (piece := unpacked.read(_PIECE)):
                size += len(piece)
    if size > left:
        raise ArchiveError("the image is larger than this node accepts (engine option archive_limit)")
    return size


def _member(path: str, size: int, file: BinaryIO) -> Iterator[bytes]:
    info = tarfile.TarInfo(path)
    info.size = size
    yield info.tobuf(tarfile.GNU_FORMAT)
    while piece := file.read(_PIECE):
        yield piece
    yield b"\0" * (-size % tarfile.BLOCKSIZE)
