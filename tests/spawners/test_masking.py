"""Secrets in what a job shows: found however it is cut into pieces, and nothing else is touched."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perijove_spawners.node.masking import Mask, masked

VALUE = b"hunter2-is-no-good"
values = st.lists(st.binary(min_size=6, max_size=40).filter(lambda one: len(one.strip()) >= 6), max_size=3)


def test_the_value_its_lines_and_its_base64_are_hidden() -> None:
    key = b"-----BEGIN-----\nfirst line of it\nsecond line of it\n"
    mask = Mask([VALUE, key])
    for shown in (
        VALUE,
        b"token=" + VALUE + b"&x",
        b"second line of it",
        base64.b64encode(VALUE).rstrip(b"="),
        json.dumps({"key": key.decode()}).encode(),
    ):
        hidden = mask.stars(b"<" + shown + b">")
        assert len(hidden) == len(shown) + 2
        assert b"****" in hidden
        assert VALUE not in hidden
        assert b"line of it" not in hidden
    basic = base64.b64encode(b"user:" + VALUE)
    left = mask.stars(basic).replace(b"*", b"")
    assert len(left) < 12, "only what also depends on the name before it, and on the padding"
    wrapped = base64.encodebytes(b"x" * 3 + key * 3)
    assert Mask([b"xxx" + key * 3]).stars(wrapped).count(b"*") > len(wrapped) - 8


def test_what_is_short_or_another_text_stays() -> None:
    assert not Mask([b"short"])
    assert not Mask([b"", b"\n \n"])
    text = b"hunter2 is as good as another"
    assert Mask([VALUE]).stars(text) == text
    assert "hunter2" not in repr(Mask([VALUE]))


@settings(max_examples=40)
@given(values, st.binary(max_size=200), st.data())
def test_all_at_once_and_piece_by_piece_are_the_same(
    secrets: list[bytes], text: bytes, data: st.DataObject
) -> None:
    for secret in secrets:
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + secret + text[at:]
    mask = Mask(secrets)
    whole = mask.stars(text)
    assert len(whole) == len(text)
    found, offset = b"", 0
    while offset < len(text):
        limit = data.draw(st.integers(1, 64))
        start, wanted = mask.window(offset, limit)
        piece = mask.cut(text[start : start + wanted], offset, limit, ended=True)
        assert 0 < len(piece) <= limit
        found += piece
        offset += len(piece)
    assert found == whole


@settings(max_examples=40)
@given(values, st.binary(max_size=100), st.data())
def test_a_log_that_grows_never_shows_the_beginning_of_a_value(
    secrets: list[bytes], text: bytes, data: st.DataObject
) -> None:
    for secret in secrets:
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + secret + text[at:]
    mask, whole = Mask(secrets), Mask(secrets).stars(text)
    there = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    found = b""
    for size in there:
        start, wanted = mask.window(len(found), 1000)
        found += mask.cut(text[:size][start : start + wanted], len(found), 1000, ended=False)
        assert whole.startswith(found)
    start, wanted = mask.window(len(found), 1000)
    assert found + mask.cut(text[start:], len(found), 1000, ended=True) == whole


async def test_a_reader_that_gives_little_at_once_is_asked_again() -> None:
    text = b"." * 50 + VALUE + b"." * 50

    async def read(offset: int, limit: int) -> bytes:
        return text[offset : offset + min(limit, 7)]

    for offset in range(40, 80):
        got = await masked(read, Mask([VALUE]), offset, 20, ended=True)
        assert got == Mask([VALUE]).stars(text)[offset : offset + 20]


def test_json_and_notebooks_get_three_stars() -> None:
    mask = Mask([VALUE, b'with "quotes" \xc3\xa4'])
    value = {"a": [f"x{VALUE.decode()}y", 1, None, 0.5], VALUE.decode(): 'with "quotes" ä'}
    assert mask.hidden_in(value) == {"a": ["x***y", 1, None, 0.5], "***": "***"}
    notebook = {"cells": [{"outputs": [{"text": ["a\n", 'with "quotes" ä\n']}]}], "nbformat": 4}
    for ascii_only in (True, False):
        kept = mask.notebook(json.dumps(notebook, ensure_ascii=ascii_only).encode())
        assert json.loads(kept)["cells"][0]["outputs"][0]["text"] == ["a\n", "***\n"]
    clean = b'{"cells":   []}'
    assert mask.notebook(clean) is clean
    assert mask.notebook(b"{" + VALUE) == b"{" + b"*" * len(VALUE)


@pytest.mark.parametrize("size", [100, 64 << 10])
def test_long_values_and_many_lines_take_no_long_time(size: int) -> None:
    value = b"\n".join(b"line %d of a long secret" % i for i in range(size // 25))
    mask = Mask([value])
    text = b"a log without any of it\n" * 20_000 + value[: len(value) // 2]
    start, wanted = mask.window(0, len(text))
    assert start == 0
    shown = mask.cut(text[:wanted], 0, len(text), ended=False)
    assert b"of a long secret" not in shown
