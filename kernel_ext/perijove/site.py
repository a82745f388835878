"""What is asked of a site rather than of a job: nodes, usage, shares, policy, reservations, maintenance."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from perijove.content import Progress, Source, download, fetch_url, upload
from perijove.secret_requests import SecretRequests

Document = dict[str, Any]


class SiteRequests(SecretRequests):
    """The part of the client that is about the site."""

    _site: Document | None = None

    async def upload(self, source: Source, *, progress: Progress | None = None) -> str:
        """Store bytes, a file or a folder for a job's ``inputs``; its digest. Nothing is sent twice.

        `progress` is called with how many bytes are done, and of how many.
        """
        return await upload(self, source, progress=progress)

    async def download(
        self, digest: str, target: str | os.PathLike[str], *, progress: Progress | None = None
    ) -> Path:
        """Fetch a file or folder that is yours, checked against its digest; where it is."""
        return await download(self, digest, target, progress=progress)

    async def fetch_url(self, url: str) -> str:
        """Store what a URL gives; its digest. One that ends in ``#sha256=HEX`` is checked."""
        return await fetch_url(self, url)

    async def store(self) -> Document:
        """What the content store holds, and what is yours of it; bytes."""
        return await self._get("/store")

    async def collect(self, *, older_than: str | float = 0, dry_run: bool = False) -> Document:
        """Remove from the store what nothing needs (administrators); what was, or would be, removed."""
        body = {"dry_run": dry_run, **({"older_than": older_than} if older_than else {})}
        return dict(await self.request_json("POST", "/store/gc", body=body))

    async def sign_file(self, digest: str, *, method: str = "GET", seconds: int = 3600) -> Document:
        """A URL by which the file can be fetched, or sent (``PUT``), without a token, for so long."""
        body = {"digest": digest, "method": method, "seconds": seconds}
        return dict(await self.request_json("POST", "/files/sign", body=body))

    async def nodes(self) -> list[Document]:
        """Each node and what is free on it."""
        answer = await self.request_json("GET", "/nodes")
        return list(answer["nodes"] if isinstance(answer, dict) else answer)

    async def site(self) -> Document:
        """What this site offers; asked once."""
        if self._site is None:
            self._site = await self.request_json("GET", "/site")
        return self._site

    async def me(self) -> Document:
        """Who the token belongs to."""
        return await self._get("/me")

    # what was used, and what is due

    async def usage(
        self,
        by: str | Sequence[str] = "owner",
        *,
        since: str | float | None = None,
        until: str | float | None = None,
        owner: str | None = None,
        project: str | None = None,
    ) -> list[Document]:
        """What jobs held: rows of ``jobs``, ``cpu_hours``, ``memory_hours`` (GiB), ``gpu_hours``.

        `by`: one or several of owner, project, day, image, node, partition, kind. `since` (30 days ago when
        not given) and `until`: a date ``2026-07-31`` (UTC), so long ago (``7d``), or seconds since the epoch.
        """
        axes = by if isinstance(by, str) else ",".join(by)
        params = {"by": axes, "since": since, "until": until, "owner": owner, "project": project}
        return await self._list("/usage", params)

    async def top(self, limit: int = 50) -> list[Document]:
        """Running jobs by what they use now: ``{"job", "stats"}``, the busiest first."""
        return await self._list("/top", {"limit": limit})

    async def share(self) -> list[Document]:
        """The fair share: what is due to each user and project, and what they had."""
        return await self._list("/share")

    async def projects(self) -> list[Document]:
        """One's projects, with what they may use and have used."""
        return await self._list("/projects")

    # for administrators

    async def policy(self, version: int | None = None) -> str:
        """The policy in force, or an earlier version of it, as YAML."""
        return (await self.request("GET", "/policy", {"version": version})).text

    async def check_policy(self, text: str) -> list[str]:
        """How the policy `text` differs from the one in force, as lines of a diff; nothing is changed.

        Raises :class:`~perijove.model.InvalidSpecError` that names the fields at fault.
        """
        answer = await self.request_json("POST", "/policy/check", content=text.encode(), headers=_YAML)
        return list(answer["difference"])

    async def set_policy(self, text: str) -> None:
        """Replace the policy."""
        await self.request("PUT", "/policy", content=text.encode(), headers=_YAML)

    async def policy_versions(self) -> list[Document]:
        """All policies there were, the newest first: ``version``, ``at``, ``by``."""
        return await self._list("/policy/versions")

    async def reservations(self) -> list[Document]:
        """Nodes that are kept for some, now or later."""
        return await self._list("/reservations")

    async def reserve(self, name: str, reservation: Mapping[str, Any]) -> Document:
        """Keep nodes: ``nodes``, ``start``, ``end``, ``users``, ``projects``, ``reason``."""
        path = f"/reservations/{quote(name, safe='')}"
        return dict(await self.request_json("PUT", path, body=dict(reservation)))

    async def unreserve(self, name: str) -> None:
        """Remove a reservation."""
        await self.request("DELETE", f"/reservations/{quote(name, safe='')}")

    async def images(self) -> list[Document]:
        """Images that one's jobs may ask for, and which nodes have them already."""
        return await self._list("/images")

    async def set_image(self, name: str, image: Mapping[str, Any]) -> Document:
        """Give an image a name: ``image``, ``description``, ``users``, ``projects``, ``default``, ..."""
        return dict(await self.request_json("PUT", f"/images/{quote(name, safe='')}", body=dict(image)))

    async def remove_image(self, name: str) -> None:
        """Take an image's name away."""
        await self.request("DELETE", f"/images/{quote(name, safe='')}")

    async def runenvs(self) -> list[Document]:
        """Environments that one's jobs may ask for by ``runenv`` and ``require``."""
        return await self._list("/runenvs")

    async def volumes(self) -> list[Document]:
        """Volumes that one's jobs may ask for."""
        return await self._list("/volumes")

    async def set_volume(self, name: str, volume: Mapping[str, Any]) -> Document:
        """Let jobs ask for a directory of the nodes: ``source``, ``target``, ``read_only``, ``users``, ..."""
        return dict(await self.request_json("PUT", f"/volumes/{quote(name, safe='')}", body=dict(volume)))

    async def remove_volume(self, name: str) -> None:
        """Let no more jobs ask for a volume."""
        await self.request("DELETE", f"/volumes/{quote(name, safe='')}")

    async def maintenance(self) -> Document:
        """Whether nothing starts for now, and why: ``on``, ``reason``."""
        return await self._get("/maintenance")

    async def set_maintenance(self, on: bool, reason: str = "") -> Document:
        """Let nothing start any more, or again; what runs goes on."""
        return dict(await self.request_json("PUT", "/maintenance", body={"on": on, "reason": reason}))

    async def drain(self, node: str, reason: str = "") -> Document:
        """Let no more jobs start on a node; those that run go on."""
        return dict(await self.request_json("POST", _node(node, "drain"), body={"reason": reason}))

    async def undrain(self, node: str) -> Document:
        """Let jobs start on a node again."""
        return dict(await self.request_json("POST", _node(node, "undrain")))

    async def _get(self, path: str) -> Document:
        return dict(await self.request_json("GET", path))

    async def _list(self, path: str, params: Mapping[str, Any] | None = None) -> list[Document]:
        return list(await self.request_json("GET", path, params))


_YAML = {"Content-Type": "text/yaml"}


def _node(name: str, verb: str) -> str:
    return f"/nodes/{quote(name, safe='')}/{verb}"
