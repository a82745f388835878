"""The few requests that the JupyterHub spawner makes of Perijove's service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from perijove.model import Job, JobSpec, OperatorError, PerijoveError, UnavailableError


class ServiceClient:
    """Acts for users with one token. All methods raise :class:`~perijove.model.PerijoveError`.

    :class:`UnavailableError` means that the service did not answer, which says nothing about any job.
    """

    def __init__(self, url: str, token: str, *, timeout: float = 30.0) -> None:
        self._http = httpx.AsyncClient(
            base_url=f"{url.rstrip('/')}/api/v1",
            headers={"Authorization": f"Bearer {token}"},
            timeout=timeout,
            trust_env=False,
        )

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def site(self) -> dict[str, Any]:
        """What an options form needs to know."""
        answer: dict[str, Any] = await self._ask("GET", "/site")
        return answer

    async def submit(self, spec: JobSpec, owner: str, key: str) -> Job:
        """The durable new job, owned by `owner`; the same one again when repeated with the same `key`."""
        body = spec.model_dump(mode="json", exclude_unset=True)
        answer = await self._ask("POST", "/jobs", json=body, params={"owner": owner}, key=key)
        return Job.model_validate(answer)

    async def job(self, number: int) -> Job:
        """The job as it is now."""
        return Job.model_validate(await self._ask("GET", f"/jobs/{number}"))

    async def live(self, owner: str, name: str) -> list[Job]:
        """Jobs of `owner` of that name that have not ended, newest first."""
        page = await self._ask("GET", "/jobs", params={"owner": owner, "name": name, "state": "live"})
        return [Job.model_validate(job) for job in page["jobs"]]

    async def kill(self, number: int) -> Job:
        """Ask for its end; it ends some time after."""
        return Job.model_validate(await self._ask("POST", f"/jobs/{number}/kill"))

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        key: str = "",
    ) -> Any:
        headers = {"Idempotency-Key": key} if key else None
        try:
            response = await self._http.request(method, path, params=params, json=json, headers=headers)
        except httpx.HTTPError as error:
            raise UnavailableError(
                f"Perijove's service does not answer: {error or type(error).__name__}"
            ) from error
        if response.is_success:
            return response.json()
        if response.headers.get("content-type", "").startswith("application/problem+json"):
            raise PerijoveError.from_problem(response.json())
        kind = UnavailableError if response.status_code in {429, 502, 503, 504} else OperatorError
        raise kind(f"{method} {path} was answered with status {response.status_code}")
