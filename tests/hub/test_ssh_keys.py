"""Public keys for SSH: what is taken, and what would give somebody more than a login."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from perijove_hub.settings import Settings
from perijove_hub.tokens.ssh_keys import public_key

from .people import People, form_in, people


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Keys as ssh-keygen makes them."""
    folder, found = tmp_path_factory.mktemp("keys"), {}
    for kind, bits in (("ed25519", ""), ("ecdsa", "521"), ("rsa", "3072"), ("rsa", "2048")):
        path = folder / f"{kind}{bits}"
        size = ["-b", bits] if bits else []
        words = ["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", "ada@host", "-f", str(path)]
        subprocess.run(words, check=True)
        found[path.name] = path.with_suffix(".pub").read_text()
    return found


def security_key() -> str:
    """As a security key makes it (OpenSSH's PROTOCOL.u2f): kind, 32 bytes, application."""
    parts = (b"sk-ssh-ed25519@openssh.com", bytes(range(32)), b"ssh:")
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return f"sk-ssh-ed25519@openssh.com {base64.b64encode(blob).decode()} ada@host"


def test_keys_have_the_fingerprint_that_ssh_keygen_prints(keys: dict[str, str], tmp_path: Path) -> None:
    for line in (keys["ed25519"], keys["ecdsa521"], keys["rsa3072"], security_key()):
        path = tmp_path / "key.pub"
        path.write_text(line)
        printed = subprocess.run(["ssh-keygen", "-lf", path], capture_output=True, text=True, check=True)
        key = public_key(line)
        assert key.fingerprint in printed.stdout.split()
        assert key.line == line.strip()
        assert (key.kind, key.comment) == (line.split()[0], "ada@host")


def test_what_is_no_plain_key_is_refused(keys: dict[str, str]) -> None:
    good = keys["ed25519"].strip()
    kind, encoded, _ = good.split()
    for line in (
        "",
        "x",
        kind,
        keys["rsa2048"],
        f'command="rm -rf /" {good}',
        f"no-pty,{good}",
        f"{good}\n{good}",
        f'{kind} {encoded} x\rcommand="id" {good}',
        f"{good}\0",
        f"{kind} {encoded[:-8]} x",
        f"ecdsa-sha2-nistp256 {encoded} x",
        f"ssh-ed25519-cert-v01@openssh.com {encoded} x",
        f"ssh-dss {encoded} x",
        f"# {good}",
        f"{kind} {encoded} {'x' * 3000}",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
    ):
        with pytest.raises(ValueError, match=r"must|key"):
            public_key(line)


@given(st.text())
def test_no_text_becomes_two_lines(text: str) -> None:
    try:
        key = public_key(f"ssh-ed25519 {text}")
    except ValueError:
        return
    assert key.line.isprintable()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[People]:
    async with people(Settings(state=tmp_path_factory.mktemp("site"))) as found:
        yield found


@pytest.mark.asyncio(loop_scope="module")
async def test_keys_are_their_owners(site: People, keys: dict[str, str]) -> None:
    alice = site.by("alice")
    added = (await alice.post("/keys", json={"key": keys["ed25519"]})).json()
    assert (await alice.post("/keys", json={"key": keys["ed25519"]})).status_code == 201
    wrong = await alice.post("/keys", json={"key": keys["rsa2048"]})
    assert "3072" in wrong.json()["errors"][0]["message"]
    assert [one["fingerprint"] for one in (await alice.get("/keys")).json()] == [added["fingerprint"]]
    for who, status in (("alice", 200), ("spawner", 200), ("bob", 404), ("boss", 404)):
        answer = await site.by(who).get("/users/alice/keys")
        assert answer.status_code == status
        if status == 200:
            assert answer.json()["lines"] == [keys["ed25519"].strip()]
    assert (await site.by("bob").delete(f"/keys/{added['fingerprint']}")).status_code == 404
    assert (await site.by("reader").post("/keys", json={"key": keys["ecdsa521"]})).status_code == 403
    assert (await alice.delete(f"/keys/{added['fingerprint']}")).status_code == 204
    assert (await alice.get("/keys")).json() == []


@pytest.mark.asyncio(loop_scope="module")
async def test_the_page_adds_and_removes_keys(site: People, keys: dict[str, str]) -> None:
    browser = site.browser("bob")
    form = form_in((await browser.get("/account")).text)
    pressed = await browser.post("/account", data={"form": form, "verb": "add", "key": keys["rsa3072"]})
    assert pressed.status_code == 303
    fingerprint = public_key(keys["rsa3072"]).fingerprint
    assert fingerprint.replace("+", "&#43;") in (page := (await browser.get("/account")).text) or (
        fingerprint in page
    )
    fields = {"form": form, "verb": "remove", "key": fingerprint}
    assert (await browser.post("/account", data=fields)).status_code == 303
    assert "ada@host" not in (await browser.get("/account")).text
