"""Secrets and logins at image registries: set and removed by whoever has them, and told to jobs only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from perijove.loop import LOOP
from perijove.transport import Transport

if TYPE_CHECKING:
    from perijove.client import AsyncClient

Document = dict[str, Any]


class SecretRequests(Transport):
    """The part of the client that is about secrets."""

    async def secrets(self, project: str | None = None) -> list[Document]:
        """Names of your secrets, or of a project's, and when each was set."""
        return list(await self.request_json("GET", "/secrets", {"project": project}))

    async def set_secret(self, name: str, value: str | bytes, *, project: str | None = None) -> Document:
        """Set a secret of yours, or of a project that you lead; at most 64 KiB."""
        content = value.encode() if isinstance(value, str) else value
        path = f"/secrets/{quote(name, safe='')}"
        headers = {"Content-Type": "application/octet-stream"}
        answer = await self.request_json("PUT", path, {"project": project}, content=content, headers=headers)
        return dict(answer)

    async def remove_secret(self, name: str, *, project: str | None = None) -> None:
        """Remove a secret; jobs that were given it keep it until they end."""
        await self.request("DELETE", f"/secrets/{quote(name, safe='')}", {"project": project})

    async def registries(self, project: str | None = None) -> list[Document]:
        """At which image registries you have a login, or a project has."""
        return list(await self.request_json("GET", "/registries", {"project": project}))

    async def set_registry(
        self, host: str, username: str, password: str, *, project: str | None = None
    ) -> Document:
        """Keep a login at an image registry, with which jobs fetch their images."""
        path, body = f"/registries/{quote(host, safe='')}", {"username": username, "password": password}
        return dict(await self.request_json("PUT", path, {"project": project}, body=body))

    async def remove_registry(self, host: str, *, project: str | None = None) -> None:
        """Forget a login at an image registry."""
        await self.request("DELETE", f"/registries/{quote(host, safe='')}", {"project": project})

    async def rotate_secrets(self) -> int:
        """Encrypt all secrets with a new key (administrators); how many were."""
        return int((await self.request_json("POST", "/secrets/rotate"))["secrets"])


class SecretCalls:
    """The part of the plain client that is about secrets."""

    async_client: AsyncClient

    def secrets(self, project: str | None = None) -> list[Document]:
        """Names of your secrets, or of a project's, and when each was set."""
        return LOOP.run(self.async_client.secrets(project))

    def set_secret(self, name: str, value: str | bytes, *, project: str | None = None) -> Document:
        """Set a secret of yours, or of a project that you lead; at most 64 KiB."""
        return LOOP.run(self.async_client.set_secret(name, value, project=project))

    def remove_secret(self, name: str, *, project: str | None = None) -> None:
        """Remove a secret; jobs that were given it keep it until they end."""
        LOOP.run(self.async_client.remove_secret(name, project=project))

    def registries(self, project: str | None = None) -> list[Document]:
        """At which image registries you have a login, or a project has."""
        return LOOP.run(self.async_client.registries(project))

    def set_registry(
        self, host: str, username: str, password: str, *, project: str | None = None
    ) -> Document:
        """Keep a login at an image registry, with which jobs fetch their images."""
        return LOOP.run(self.async_client.set_registry(host, username, password, project=project))

    def remove_registry(self, host: str, *, project: str | None = None) -> None:
        """Forget a login at an image registry."""
        LOOP.run(self.async_client.remove_registry(host, project=project))

    def rotate_secrets(self) -> int:
        """Encrypt all secrets with a new key (administrators); how many were."""
        return LOOP.run(self.async_client.rotate_secrets())
