"""A whole installation with its hub, to which people log in; and a browser that only follows redirections."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from installation import Installation, installed

from perijove_hub.private_files import kept_secret
from perijove_hub.up.trial import TrialAccount, trial_account


class LoginSite:
    """What `up` runs, from the side of those who come."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.state, self.url = installation.state, installation.url
        self.api = f"{self.url}/services/perijove/api/v1"
        self.trial: TrialAccount = trial_account(self.state)

    @property
    def log(self) -> str:
        """What the hub and the service printed."""
        return (self.state / "log" / "hub.log").read_text(errors="replace")

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """The service, as an administrator."""
        token = kept_secret(self.state / "hub" / "setup.token")
        answer = httpx.request(
            method, f"{self.api}{path}", headers={"Authorization": f"Bearer {token}"}, timeout=60, **more
        )
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def refusals(self) -> list[dict[str, Any]]:
        """What the audit log has of logins that were refused."""
        found: list[dict[str, Any]] = self.ask("GET", "/audit?act=login+refused&limit=500")["entries"]
        return found


class Browser:
    """Follows redirections as a browser does, and stops where a test wants to look."""

    def __init__(self, site: LoginSite) -> None:
        self.site = site
        self.http = httpx.Client(base_url=site.url, timeout=60)

    def until(
        self, url: str, stop: Callable[[httpx.Response], bool] = lambda answer: False
    ) -> httpx.Response:
        """The first answer that is no redirection, or where `stop` says so."""
        for _ in range(12):
            answer = self.http.get(url)
            if not answer.is_redirect or stop(answer):
                return answer
            assert answer.next_request is not None
            url = str(answer.next_request.url)
        raise AssertionError(f"redirected without end, at last to {url}")

    def log_in(self, provider: str = "lab", next_url: str = "/hub/token") -> httpx.Response:
        """By a provider that asks nothing."""
        return self.until(f"/hub/login/{provider}?next={next_url}")

    def answer(self, provider: str = "lab") -> str:
        """The address that the provider sends this browser to, not followed."""
        found = self.until(f"/hub/login/{provider}", is_callback)
        return found.headers["Location"]

    def form(self, username: str, password: str, **more: str) -> httpx.Response:
        """Name and password on the login page."""
        page = self.http.get("/hub/login")
        xsrf = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
        assert xsrf is not None, page.text
        data = {"username": username, "password": password, "_xsrf": xsrf[1], **more}
        return self.http.post("/hub/login?next=/hub/token", data=data)

    def projects(self) -> list[str]:
        """The projects of who is logged in, as the service has them."""
        page = self.http.get("/hub/token")
        xsrf = re.search(r'xsrf_token: "([^"]+)"', page.text)
        assert xsrf is not None and self.name is not None, page.text
        made = self.http.post(
            f"/hub/api/users/{self.name}/tokens",
            headers={"X-XSRFToken": xsrf[1], "Referer": f"{self.site.url}/hub/token"},
            json={"expires_in": 600},
        )
        headers = {"Authorization": f"Bearer {made.json()['token']}"}
        found = httpx.get(f"{self.site.api}/projects", headers=headers, timeout=60)
        assert found.status_code == 200, found.text
        return [project["name"] for project in found.json()]

    @property
    def name(self) -> str | None:
        """Who is logged in."""
        page = self.http.get("/hub/token")
        found = re.search(r'user: "([^"]+)"', page.text)
        return found[1] if found and page.status_code == 200 else None


def is_callback(answer: httpx.Response) -> bool:
    """Whether a provider sends the browser back."""
    return "/callback?" in answer.headers["Location"]


@contextmanager
def login_site(
    state: Path,
    login: str,
    secrets: dict[str, str],
    env: dict[str, str] | None = None,
    *,
    port: int = 0,
    launcher: str = "process",
) -> Iterator[LoginSite]:
    """`login` is what stands under ``login:``, `secrets` files of the state directory that it names."""
    state.mkdir(mode=0o711)
    (state / "perijove.yaml").write_text(login)
    for name, text in secrets.items():
        (state / name).write_text(text)
        (state / name).chmod(0o600)
    with installed(state, "--port", str(port), "--launcher", launcher, env=env) as installation:
        yield LoginSite(installation)
