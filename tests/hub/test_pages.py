"""The queue page: who may see it, and that a user's text stays text."""

from __future__ import annotations

from .conftest import TOKEN, Service


async def test_the_page_needs_a_login_and_takes_the_printed_link(service: Service) -> None:
    root = "http://service/"
    assert (await service.http.get(root)).status_code == 401
    assert (await service.http.get(root, params={"token": "wrong"})).status_code == 401
    entered = await service.http.get(root, params={"token": TOKEN}, follow_redirects=True)
    assert entered.status_code == 200
    assert TOKEN not in str(entered.url)
    assert "HttpOnly" in entered.history[0].headers["set-cookie"]


async def test_a_name_cannot_become_markup(service: Service) -> None:
    await service.submit(name="<script>alert(1)</script>")
    page = await service.http.get("http://service/", params={"token": TOKEN}, follow_redirects=True)
    assert "&lt;script&gt;alert(1)" in page.text
    assert "<script" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


async def test_the_cookie_opens_no_rest(service: Service) -> None:
    await service.http.get("http://service/", params={"token": TOKEN}, follow_redirects=True)
    service.http.headers.pop("Authorization")
    assert (await service.http.get("http://service/")).status_code == 200
    assert (await service.http.get("/jobs")).status_code == 401
