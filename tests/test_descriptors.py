"""What lies in a store is opened below its folder: never through a link, and as a regular file only."""

import gc
import os
import shutil
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ablate import descriptors
from ablate.errors import AblateError, RefusedError
from ablate.store import files, job_folder, lease, records, study_folder
from ablate.store.layout import Store
from ablate.store.records import Attempt

FREE = "0" * 64


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A folder outside of the store, as somebody's own."""
    folder = tmp_path / "private"
    folder.mkdir()
    for name in ("a.json", "log.txt", "lock", "lease-1", "checkpoint.pt", ".a.json.01234567"):
        (folder / name).write_text('{"mine": 1}\n')
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


USES: dict[str, Callable[[Path], object]] = {
    "read": lambda folder: files.read_json(folder / "a.json"),
    "lines": lambda folder: records.lines(folder / "a.json", Attempt),
    "append": lambda folder: files.append(folder / "a.json", {}),
    "log": lambda folder: files.open_binary(folder / "log.txt").close(),
    "weights": lambda folder: files.damage(folder / "checkpoint.pt"),
    "lock": lambda folder: job_folder.Folder(folder).lock(),
    "is held": lambda folder: files.is_held(folder / "lock"),
    "new": lambda folder: descriptors.new(folder / "a.json"),
    "sync": lambda folder: files.sync(folder / "a.json"),
}
THROUGH: dict[str, Callable[[Path], object]] = {
    "write": lambda folder: files.write(folder / "a.json", "new"),
    "sweep": lambda folder: job_folder.sweep(job_folder.Folder(folder)),
    "make": lambda folder: files.make(folder / "below" / "it"),
    "remove": lambda folder: descriptors.remove(folder / "a.json"),
    "remove a folder": lambda folder: descriptors.remove_folder(folder / "x"),
    "rename": lambda folder: descriptors.rename(folder / "a.json", "b.json"),
    "list": descriptors.names,
    "lease": lambda folder: lease.Watch(folder).take(has_lock=True),
    "hold": lambda folder: job_folder.try_to_hold(job_folder.Folder(folder), 0).__enter__(),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("what", ["link", "pipe", "folder"])
def test_what_is_no_regular_file_is_refused_at_once_and_left_as_it_is(
    here: Store, private: Path, use: str, what: str
) -> None:
    folder = here.job(FREE).path
    folder.mkdir()
    for path in private.iterdir():
        if what == "link":
            (folder / path.name).symlink_to(path)
        elif what == "pipe":
            os.mkfifo(folder / path.name)
        else:
            (folder / path.name).mkdir()
    before = content(private)
    if use == "new":  # of which nothing may be there
        with pytest.raises(FileExistsError):
            USES[use](folder)
    elif use == "sync" and what != "link":  # a folder may be synced
        pass
    else:
        with pytest.raises(RefusedError, match=rf"{folder}.+: is a {what}, "):
            USES[use](folder)
    assert content(private) == before


@pytest.mark.parametrize("use", USES | THROUGH)
@pytest.mark.parametrize("level", ["jobs", f"jobs/{FREE}"])
def test_no_folder_above_is_a_link_unless_it_is_the_stores_own(
    here: Store, private: Path, use: str, level: str
) -> None:
    folder, at = here.job(FREE).path, here.path / level
    if at.exists():
        at.rmdir()
    if level == "jobs":
        (private / FREE).mkdir()
        for path in [path for path in private.iterdir() if path.is_file()]:
            path.rename(private / FREE / path.name)
    at.symlink_to(private)
    before = content(private)
    with pytest.raises(RefusedError, match=f"{at}: is a link, and in a store nothing may be one: remove it"):
        (USES | THROUGH)[use](folder)
    assert content(private) == before


@pytest.mark.parametrize(
    "use", {name: None for name in USES | THROUGH if name not in ("new", "remove a folder")}
)
def test_the_store_itself_may_be_a_link_and_lie_below_one(tmp_path: Path, private: Path, use: str) -> None:
    (tmp_path / "disk" / "real" / "jobs").mkdir(parents=True)
    shutil.copytree(private, tmp_path / "disk" / "real" / "jobs" / FREE)
    (tmp_path / "mounted").symlink_to(tmp_path / "disk")
    (tmp_path / "mounted" / "store").symlink_to("real")
    (USES | THROUGH)[use](Store(tmp_path / "mounted" / "store").job(FREE).path)


def test_a_link_in_the_place_of_a_file_is_replaced_and_what_it_leads_to_is_left(
    here: Store, private: Path
) -> None:
    path = here.path / "studies" / "a.json"
    path.symlink_to(private / "a.json")
    files.write_json(path, {"new": 2})
    assert (files.read_json(path), path.is_symlink()) == ({"new": 2}, False)
    assert (private / "a.json").read_text() == '{"mine": 1}\n'
    path.unlink()
    path.symlink_to(private / "a.json")
    descriptors.remove(path)
    assert (private / "a.json").exists()
    assert not os.path.lexists(path)


def test_no_name_leads_out_of_the_store(here: Store, private: Path) -> None:
    with pytest.raises(RefusedError, match="leads out of the store"):
        files.read_json(here.path / "jobs" / ".." / ".." / "private" / "a.json")


@pytest.mark.parametrize(
    ("name", "size"), [("result.json", 64 << 20), ("journal.jsonl", 256 << 20), ("log.txt", 256 << 20)]
)
def test_no_more_is_read_of_a_file_than_such_a_file_may_have(here: Store, name: str, size: int) -> None:
    path = here.path / "jobs" / name
    path.touch()
    os.truncate(path, size + 1)
    with pytest.raises(
        RefusedError, match=rf"{name}: has .+ MB, and no such file .+ more than .+: remove it"
    ):
        files.open_binary(path)
    with pytest.raises(RefusedError, match="and no such file"):
        descriptors.read(path)


def test_a_file_that_has_no_end_is_refused_whatever_its_size_says() -> None:
    with pytest.raises(RefusedError, match="is a device, and must be a regular file"):
        descriptors.read(Path("/dev/zero"))
    path = Path("/proc/self/maps")  # of no size, and longer than that
    with pytest.raises(RefusedError, match="has 0 MB, and no such file"):
        descriptors.read(path, most=100)


def test_nobody_can_foresee_the_name_of_a_draft(here: Store) -> None:
    assert files.draft(here.path / "a") != files.draft(here.path / "a")


def test_a_study_whose_folder_is_a_link_does_not_hide_the_others(here: Store, private: Path) -> None:
    (here.path / "studies" / "theirs").symlink_to(private)
    (private / "study.json").write_text('{"study": {"name": "theirs"}}')
    assert study_folder.names(here) == ["theirs"]
    with pytest.raises(AblateError, match="studies/theirs: is a link"):
        study_folder.recall(here, "theirs")


class Held:
    """Something large that a caller holds."""


@pytest.mark.parametrize("name", ["missing", "loop"])
def test_an_error_keeps_nothing_that_its_callers_hold(here: Store, name: str) -> None:
    (here.path / "loop").symlink_to("loop")

    def caller() -> "weakref.ref[Held]":
        held = Held()
        with suppress(FileNotFoundError, RefusedError):
            descriptors.read(here.path / name)
        return weakref.ref(held)

    gc.disable()
    try:
        assert caller()() is None
    finally:
        gc.enable()


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names that are opened from here on, folders on the way included."""
    names: list[str] = []
    opening = os.open

    def counted(path: str, *options: int, **more: int) -> int:
        names.append(str(path))
        return opening(path, *options, **more)

    monkeypatch.setattr(os, "open", counted)
    return names


def filled(here: Store) -> Path:
    folder = here.job(FREE).path
    (folder / "outcomes").mkdir(parents=True)
    for name in ("a.json", "b.json", "outcomes/c.json"):
        (folder / name).write_text("{}")
    return folder


def test_the_way_to_a_held_folder_is_walked_once(here: Store, opens: list[str]) -> None:
    folder = filled(here)
    with descriptors.holding(folder):
        assert opens == [str(here.path), "jobs", FREE]
        opens.clear()
        with descriptors.holding(folder):  # again, by a function that does not know
            for name in ("a.json", "b.json", "outcomes/c.json"):
                assert files.read(folder / name) == b"{}"
            assert descriptors.names(folder) == ["a.json", "b.json", "outcomes"]
        files.write(folder / "new.json", "[]")
        assert files.read(folder / "new.json") == b"[]"
        draft = opens[5]
        assert opens == ["a.json", "b.json", "outcomes", "c.json", ".", draft, ".", "new.json"]
    opens.clear()
    files.read(folder / "a.json")
    assert opens == [str(here.path), "jobs", FREE, "a.json"]


def test_a_held_folder_is_the_same_whatever_takes_its_place(here: Store, private: Path) -> None:
    folder = filled(here)
    with descriptors.holding(folder):
        folder.rename(folder.with_name("elsewhere"))
        folder.symlink_to(private)
        assert files.read(folder / "a.json") == b"{}"
        (folder.with_name("elsewhere") / "d.json").symlink_to(private / "a.json")
        with pytest.raises(RefusedError):
            descriptors.open_file(folder / "d.json")
    with pytest.raises(RefusedError):
        files.read(folder / "a.json")


def test_a_folder_that_is_not_there_is_not_held(here: Store) -> None:
    folder = here.job(FREE).path
    before = len(list(Path("/proc/self/fd").iterdir()))
    with descriptors.holding(folder):
        files.write(folder / "a.json", "{}")
        assert files.read(folder / "a.json") == b"{}"
    with pytest.raises(ZeroDivisionError), descriptors.holding(folder):
        raise ZeroDivisionError
    assert len(list(Path("/proc/self/fd").iterdir())) == before
