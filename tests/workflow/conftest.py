"""The folder of a study, for the tests of its commands."""

import pytest
from projects import TEXT


@pytest.fixture
def proj(tmp_path, monkeypatch):
    """Make a folder with a study file and its store, and go there."""
    folder = tmp_path / "proj"
    folder.mkdir()
    (folder / "pets.toml").write_text(TEXT)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("ABLATE_STORE", raising=False)
    return folder
