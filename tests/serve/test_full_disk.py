"""A full disk under a service: it says so, writes nothing half, and goes on once there is room."""

import re
import sys
import time
from contextlib import suppress

import mounts
import pytest
from commands import TINY
from servers import Process, answers, free_port
from services import Client


def fill(disk):
    """Write until the disk is full, and return the file that fills it."""
    filler = disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
    with pytest.raises(OSError, match="No space left"):
        (disk / "one more").write_bytes(bytes(4096))
    (disk / "one more").unlink()
    return filler


def everything(store):
    """List what a store has, without locks and the lease that the dispatcher renews."""
    return {path for path in store.rglob("*") if not re.search("lock|lease|log", path.name)}


@pytest.mark.slow  # a service, and a run under it
def test_a_full_disk_is_told_and_the_service_goes_on_once_there_is_room(tmp_path):
    with mounts.small(tmp_path / "disk", "200m"):
        store = tmp_path / "disk" / "mlruns"
        asked = Client(free_port())
        command = [sys.executable, "-m", "ablate", "serve", "--port", asked.port, "--store", store]
        service = Process(command, tmp_path / "log.txt", {"ABLATE_TOKEN": ""})
        try:
            service.wait_until(lambda: answers(f"http://127.0.0.1:{asked.port}/api/v1/health"))
            before, filler = everything(store), fill(tmp_path / "disk")
            refused = asked.post("/queue", TINY)
            assert (refused.status, len(refused.mistakes)) == (507, 1)
            assert "No space left on device" in refused.mistakes[0]
            assert asked.get("/queue").json == []
            assert asked("GET", "/", Accept="text/html").status == 200
            assert everything(store) == before
            filler.unlink()
            identity = asked.post("/queue", TINY).json["id"]
            filler = fill(tmp_path / "disk")  # while it is started, or just before
            assert asked.post("/queue", TINY.replace("tiny", "other")).status == 507
            filler.unlink()
            end = time.monotonic() + 300
            while (state := asked.get(f"/queue/{identity}").json["state"]) != "done":
                assert state in {"waiting", "running", "failed"}, asked.get(f"/queue/{identity}").text
                if state == "failed":  # its run has met the full disk
                    asked.post(f"/queue/{identity}/resume")
                assert time.monotonic() < end, "waited too long"
                time.sleep(0.2)
            assert asked.get("/studies/tiny/status").json["total"] == {"finished": 8}
            assert [entry["study"] for entry in asked.get("/queue").json] == ["tiny"]
            assert answers(f"http://127.0.0.1:{asked.port}/api/v1/health")
        finally:
            service.stop()
