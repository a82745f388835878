"""Files and folders on their way to the content store and back, checked against their digests.

Nothing is sent that the service has already from the same user.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote, urldefrag

from perijove.model.errors import OperatorError, UnavailableError, UserError
from perijove.model.trees import FILE, Entry, Manifest, is_tree

if TYPE_CHECKING:
    from perijove.transport import Transport

Progress = Callable[[int, int], None]
"""Told how many bytes are done, and of how many."""
Source = str | os.PathLike[str] | bytes
CHUNK = 1 << 20
SMALL = 64 << 10
"""Bytes that are sent without asking whether they are there."""
AT_ONCE = 4
"""Files sent or fetched at the same time."""
ASKED = 10_000
"""Digests asked for at once."""
PATIENCE = 600.0
"""Seconds that the service may take over what it was sent."""


async def upload(client: Transport, source: Source, *, progress: Progress | None = None) -> str:
    """Store bytes, a file or a folder; the digest, for a job's ``inputs``.

    Raises ``OSError`` for what cannot be read, and :class:`~perijove.model.UserError` for a folder that
    holds links, devices or the like, or a file that changes while it is sent.
    """
    if isinstance(source, bytes):
        digest = FILE + hashlib.sha256(source).hexdigest()
        if len(source) <= SMALL or await _missing(client, [digest]):
            await _post(client, source)
        return digest
    path = Path(source)
    info = await asyncio.to_thread(path.stat)
    if stat.S_ISDIR(info.st_mode):
        return await _upload_folder(client, path, progress)
    sending = _Sending(client, await asyncio.to_thread(_of_file, path, path.name), progress)
    await sending.send()
    return sending.files[0].digest


async def download(
    client: Transport, digest: str, target: str | os.PathLike[str], *, progress: Progress | None = None
) -> Path:
    """Fetch a file or folder of yours; `target` is there when all of it is, and right.

    A file replaces one of that name. A folder must not be there: ``FileExistsError``.
    """
    path = Path(target)
    if is_tree(digest):
        return await _download_folder(client, digest, path, progress)
    await _fetch(client, f"/files/{quote(digest, safe='')}", None, digest, path, 0o644)
    return path


async def fetch_url(client: Transport, url: str, *, progress: Progress | None = None) -> str:
    """Store what a URL (``http``, ``https``, ``s3``) gives; its digest.

    A URL that ends in ``#sha256=HEX`` is checked: :class:`~perijove.model.UserError` when it gives another
    file, or none.
    """
    address, fragment = urldefrag(url)
    key, _, expected = fragment.partition("=")
    if fragment and (key != "sha256" or len(expected) != 64):
        raise UserError(f"{url}: after # there may be sha256= and 64 hexadecimal digits")
    fetch = _read_bucket if address.startswith("s3:") else _read_web
    with tempfile.TemporaryDirectory(prefix="perijove-") as folder:
        path = Path(folder, "content")
        found = await fetch(address, path)
        if expected and found != FILE + expected.lower():
            raise UserError(f"{address} gives {found}, and not sha256:{expected.lower()}")
        return await upload(client, path, progress=progress)


async def _read_web(address: str, path: Path) -> str:
    import httpx

    try:
        async with (
            httpx.AsyncClient(follow_redirects=True, timeout=60) as http,
            http.stream("GET", address) as answer,
        ):
            if answer.is_error:
                raise UserError(f"{address} was answered with {answer.status_code}")
            return await _written(path, answer.aiter_bytes(CHUNK))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UserError(f"{address} cannot be fetched: {error or type(error).__name__}") from error


async def _read_bucket(address: str, path: Path) -> str:
    try:
        import s3fs
    except ImportError:
        raise UserError(f"{address} cannot be fetched: s3fs is not installed here") from None
    try:
        await asyncio.to_thread(lambda: s3fs.S3FileSystem().get_file(address, str(path)))
    except Exception as error:  # whatever botocore raises
        raise UserError(f"{address} cannot be fetched: {error or type(error).__name__}") from error
    return (await asyncio.to_thread(_of_file, path, "")).digest


# ---- there


@dataclass(frozen=True, slots=True)
class _File:
    """A file to be sent."""

    path: Path
    name: str
    digest: str
    size: int
    executable: bool


class _Sending:
    """Sends what is missing of some files."""

    def __init__(self, client: Transport, files: _File | list[_File], progress: Progress | None) -> None:
        self.files = [files] if isinstance(files, _File) else files
        self._client, self._progress = client, progress
        self._done, self._total = 0, sum(file.size for file in self.files)
        self._limit = asyncio.Semaphore(AT_ONCE)

    async def send(self) -> None:
        """All of them, each content once."""
        unlike = {file.digest: file for file in self.files}
        missing = await _missing(self._client, unlike)
        self._advance(self._total - sum(unlike[digest].size for digest in missing))
        await _together(self._send(unlike[digest]) for digest in missing)

    async def _send(self, file: _File) -> None:
        async with self._limit:
            answer = await _post(self._client, lambda: self._pieces(file.path))
        if answer != file.digest:
            raise UserError(f"{file.path} changed while it was sent")

    async def _pieces(self, path: Path) -> AsyncIterator[bytes]:
        with await asyncio.to_thread(path.open, "rb") as file:
            while piece := await asyncio.to_thread(file.read, CHUNK):
                self._advance(len(piece))
                yield piece

    def _advance(self, size: int) -> None:
        self._done = min(self._done + size, self._total)
        if self._progress is not None:
            self._progress(self._done, self._total)


async def _upload_folder(client: Transport, folder: Path, progress: Progress | None) -> str:
    files = await asyncio.to_thread(lambda: [_of_file(path, name) for path, name in _walk(folder)])
    await _Sending(client, files, progress).send()
    entries = [Entry(file.name, file.digest, file.size, file.executable) for file in files]
    try:
        manifest = Manifest.of(entries)
    except ValueError as error:
        raise UserError(f"{folder}: {error}") from None
    answer = await client.request_json(
        "POST", "/files/tree", content=manifest.encoded(), headers={"Content-Type": "application/json"}
    )
    return str(answer["digest"])


def _walk(folder: Path) -> Iterator[tuple[Path, str]]:
    with os.scandir(folder) as listed:
        for one in sorted(listed, key=lambda entry: entry.name):
            path = folder / one.name
            if one.is_dir(follow_symlinks=False):
                yield from ((file, f"{one.name}/{name}") for file, name in _walk(path))
            elif one.is_file(follow_symlinks=False):
                yield path, one.name
            else:
                kind = "a link" if one.is_symlink() else "neither a file nor a folder"
                raise UserError(f"{path} is {kind}: a folder that is stored holds files and folders only")


def _of_file(path: Path, name: str) -> _File:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise UserError(f"{path} is neither a file nor a folder")
        while piece := file.read(CHUNK):
            digest.update(piece)
            size += len(piece)
    return _File(path, name, FILE + digest.hexdigest(), size, bool(info.st_mode & stat.S_IXUSR))


async def _missing(client: Transport, digests: Collection[str]) -> list[str]:
    found: list[str] = []
    listed = list(digests)
    for i in range(0, len(listed), ASKED):
        answer = await client.request_json("POST", "/files/missing", body={"digests": listed[i : i + ASKED]})
        found += answer["missing"]
    return found


async def _post(client: Transport, content: bytes | Callable[[], AsyncIterator[bytes]]) -> str:
    headers = {"Content-Type": "application/octet-stream"}
    return str((await client.request_json("POST", "/files", content=content, headers=headers))["digest"])


# ---- and back


async def _download_folder(client: Transport, digest: str, target: Path, progress: Progress | None) -> Path:
    if await asyncio.to_thread(os.path.lexists, target):
        raise FileExistsError(errno.EEXIST, "it is there already", str(target))
    path = f"/files/{quote(digest, safe='')}"
    answer = await client.request("GET", path)
    try:
        manifest = await asyncio.to_thread(Manifest.parse, answer.content)
    except ValueError as error:
        raise OperatorError(f"the service sent no folder: {error}") from None
    if manifest.digest != digest:
        raise OperatorError(f"the service sent another folder than {digest}")
    fresh = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    limit, done, total = asyncio.Semaphore(AT_ONCE), 0, manifest.size

    async def fetch(entry: Entry) -> None:
        nonlocal done
        async with limit:
            file = fresh / entry.path
            await asyncio.to_thread(lambda: file.parent.mkdir(parents=True, exist_ok=True))
            mode = 0o755 if entry.executable else 0o644
            await _fetch(client, path, {"path": entry.path}, entry.digest, file, mode)
        done += entry.size
        if progress is not None:
            progress(done, total)

    try:
        await _together(map(fetch, manifest.entries))
        await asyncio.to_thread(_keep, fresh, target, 0o755)
    except BaseException:
        await asyncio.to_thread(shutil.rmtree, fresh, ignore_errors=True)
        raise
    return target


async def _fetch(
    client: Transport, url: str, params: dict[str, str] | None, digest: str, target: Path, mode: int
) -> None:
    import httpx

    descriptor, name = await asyncio.to_thread(
        tempfile.mkstemp, dir=target.parent, prefix=f".{target.name[:100]}-"
    )
    os.close(descriptor)
    fresh = Path(name)
    try:
        async with client.stream("GET", url, params, read_timeout=PATIENCE) as answer:
            found = await _written(fresh, answer.aiter_bytes(CHUNK))
        if found != digest:
            raise OperatorError(f"what came is {found}, and not {digest}: it was damaged on the way")
        await asyncio.to_thread(_keep, fresh, target, mode)
    except httpx.TransportError as error:
        raise UnavailableError(f"{client.url} did not finish its answer: {error}") from error
    finally:
        await asyncio.to_thread(fresh.unlink, missing_ok=True)


def _keep(fresh: Path, target: Path, mode: int) -> None:
    fresh.chmod(mode)
    fresh.replace(target)


async def _together(work: Iterable[Coroutine[None, None, None]]) -> None:
    """All of it at once; at the first error the rest is given up."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _written(path: Path, pieces: AsyncIterator[bytes]) -> str:
    """Write them to a file; the digest of all."""
    digest = hashlib.sha256()
    file: BinaryIO
    with path.open("wb") as file:
        async for piece in pieces:
            digest.update(piece)
            await asyncio.to_thread(file.write, piece)
    return FILE + digest.hexdigest()
