"""Settings that are wrong are refused with a line for each, which shows no secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from perijove.model import OperatorError
from perijove_hub.settings import Settings

WRONG = """
images: 3
login:
  providers:
    lab: {client_id: x, client_secret: hunter2-hunter2, preset: oidcc}
    hub: {client_id: x, client_secret: hunter2-hunter2, client_secret_file: y, preset: github}
"""


def test_each_wrong_field_is_named_and_no_secret_is_shown(tmp_path: Path) -> None:
    (tmp_path / "perijove.yaml").write_text(WRONG)
    with pytest.raises(OperatorError) as refused:
        Settings.read(tmp_path)
    text = str(refused.value)
    assert "images: 3: must be a list" in text
    assert "login.providers.lab.preset: 'oidcc': must be one of oidc" in text
    assert "login.providers.hub: give client_secret or client_secret_file, not both" in text
    assert "hunter2" not in text


@pytest.mark.parametrize("text", ["a: [", "\tx: 1"])
def test_what_is_not_yaml_is_said_to_be_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "perijove.yaml").write_text(text)
    with pytest.raises(OperatorError, match="is not YAML"):
        Settings.read(tmp_path)
