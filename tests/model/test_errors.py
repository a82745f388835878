"""Errors survive the wire: the class, the text and the fields that the service named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.model import ErrorCode, FieldError, InvalidSpecError, OperatorError, PerijoveError


def subclasses(cls: type[PerijoveError]) -> list[type[PerijoveError]]:
    return [found for sub in cls.__subclasses__() for found in (sub, *subclasses(sub))]


CLASSES = [cls for cls in subclasses(PerijoveError) if cls.__module__ == "perijove.model.errors"]
FIELDS = st.lists(
    st.builds(FieldError, st.text(max_size=9), st.text(max_size=9), st.text(max_size=9)), max_size=3
)


@pytest.mark.parametrize("cls", CLASSES)
@given(message=st.none() | st.text(min_size=1), errors=FIELDS)
def test_an_error_comes_back_as_it_was(
    cls: type[PerijoveError], message: str | None, errors: list[FieldError]
) -> None:
    error = cls(message, errors=errors)
    back = PerijoveError.from_problem(json.loads(json.dumps(error.problem())))
    assert type(back) is cls
    assert back.errors == tuple(errors)
    assert str(back) == str(error)


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_without_a_message_says_what_its_class_means(cls: type[PerijoveError]) -> None:
    assert str(cls()) == cls.__doc__
    assert cls().problem()["title"] == cls.__doc__
    assert 400 <= cls.status < 600


def test_every_code_has_one_class() -> None:
    assert sorted(cls.code for cls in CLASSES) == sorted(ErrorCode)


def test_fields_make_the_message() -> None:
    error = InvalidSpecError(
        errors=[FieldError("memory", "'x'", "must be a size"), FieldError("", "", "and more")]
    )
    assert str(error) == "memory: must be a size (given: 'x'); and more"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda t: st.lists(t) | st.dictionaries(st.text(), t),
)
PARTS = st.sampled_from(["code", "detail", "title", "status", "errors", "type"])


@given(st.dictionaries(PARTS, JSON))
def test_any_document_makes_some_error(problem: dict[str, Any]) -> None:
    """A proxy in between answers with documents of its own."""
    error = PerijoveError.from_problem(problem)
    assert str(error)
    if problem.get("code") not in list(ErrorCode):
        assert type(error) is OperatorError
