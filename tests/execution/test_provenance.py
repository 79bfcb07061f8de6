"""What a result came from: git is asked, and starts nothing that a repository names."""

import subprocess

import pytest

from ablate.execution import provenance


@pytest.fixture
def hook(tmp_path):
    """Return a program, and the file that it leaves behind."""
    program, ran = tmp_path / "hook", tmp_path / "ran"
    program.write_text(f"#!/bin/sh\necho \"$0 $*\" >> '{ran}'\ncat\n")
    program.chmod(0o755)
    return program, ran


def git(folder, *arguments):
    somebody = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    command = ["git", "-C", folder, *somebody, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_repository_is_described_and_none_of_its_programs_is_started(tmp_path, hook):
    program, ran = hook
    folder = tmp_path / "project"
    git(tmp_path, "init", "-q", folder)
    (folder / "net.py").write_text("WIDTH = 8\n")
    (folder / ".gitattributes").write_text("*.py diff=own\n")
    git(folder, "add", "."), git(folder, "commit", "-qm", "first")
    (folder / "net.py").write_text("WIDTH = 16\n")
    for name in ("core.fsmonitor", "diff.external", "diff.own.command", "diff.own.textconv", "core.pager"):
        git(folder, "config", name, program)
    (folder / ".git/hooks/post-index-change").write_text(program.read_text())
    (folder / ".git/hooks/post-index-change").chmod(0o755)
    git(folder, "status"), git(folder, "diff", "HEAD")
    assert ran.exists()  # git itself does start them
    ran.unlink()
    told = provenance.git(folder)
    assert not ran.exists(), ran.read_text()
    assert told["commit"] == git(folder, "-c", "core.fsmonitor=", "rev-parse", "HEAD").strip()
    assert told["dirty"]
    assert "-WIDTH = 8\n+WIDTH = 16\n" in told["diff"]


def test_a_folder_that_somebody_has_made_a_bare_repository_is_none(tmp_path, hook):
    program, ran = hook
    folder, source = tmp_path / "store", tmp_path / "source"
    git(tmp_path, "init", "-q", source)
    git(source, "commit", "-qm", "first", "--allow-empty")
    git(tmp_path, "clone", "-q", "--bare", source, folder)
    for name, value in (("core.bare", "false"), ("core.worktree", folder), ("core.fsmonitor", program)):
        git(folder, "config", name, value)
    git(folder, "status")
    assert ran.exists()
    ran.unlink()
    assert provenance.git(folder) == {}
    assert not ran.exists(), ran.read_text()
