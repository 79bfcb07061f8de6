"""Records: read as they were written, byte for byte, and what is none is refused."""

import json
import math
import struct
import tarfile
from collections import Counter
from pathlib import Path

import pytest
import record_files
from hypothesis import given
from hypothesis import strategies as st

from ablate.errors import StoreError
from ablate.store import complaint, files, records
from ablate.store.records import Attempt, Epoch, Evaluation, Failure, Result, SeedCurve

NUMBERS = st.one_of(st.floats(), st.integers(-(2**53), 2**53))


@given(st.dictionaries(st.text(max_size=5), NUMBERS, max_size=4), NUMBERS)
def test_every_number_is_read_bit_by_bit_and_written_as_it_was(
    metrics: dict[str, float], seconds: float
) -> None:
    line = json.dumps(record_files.epoch(1, metrics=metrics, seconds=seconds), ensure_ascii=False)
    epoch = Epoch.model_validate_json(line.encode())
    assert json.dumps(records.plain(epoch), ensure_ascii=False) == line
    for name, value in metrics.items():
        read = epoch.metrics[name]
        assert type(read) is type(value)
        if not math.isnan(value):
            assert struct.pack("d", read) == struct.pack("d", value)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        # before attempts named their study
        (Attempt, {"attempt": 1, "timestamp": 1, "pid": 2, "device": "cpu"}),
        (Failure, {"kind": "stall", "error": "x", "timestamp": 1}),
        (Result, record_files.result(best_epoch=1, parameters=7)),  # before peak_memory and streamed
        (
            Evaluation,
            record_files.evaluation(
                classes=["a"], confusion=[[3]], calibration=[[1, 0.5, 1.0]], seconds=0.5
            ),
        ),
        (Evaluation, record_files.evaluation(status="at_chance", reason="older than confusions")),
        (
            SeedCurve,
            {"rates": [0.1], "losses": ["inf"], "accuracies": [0.5], "stopped": "diverged", "timestamp": 1},
        ),
    ],
)  # fmt: skip
def test_what_an_earlier_version_wrote_is_read_and_written_again_with_the_same_keys(
    tmp_path: Path, kind: type[records.Record], content: files.Json
) -> None:
    files.write_json(tmp_path / "before", content)
    record = records.read(tmp_path / "before", kind)
    assert record is not None
    records.write(tmp_path / "after", record)
    assert files.read_json(tmp_path / "after") == content
    assert (tmp_path / "after").stat().st_size == (tmp_path / "before").stat().st_size


KINDS = {
    "recipe.json": records.JobRecipe, "result.json": Result, "outcome.json": Evaluation,
    "failure.json": Failure, "search.json": records.Search, "trials.json": records.Trials,
    "range.json": records.RangeTest,
}  # fmt: skip


def test_the_files_of_an_old_store_are_written_again_byte_for_byte(tmp_path: Path) -> None:
    with tarfile.open(Path(__file__).parents[1] / "golden" / "store.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    seen = Counter[str]()
    for path in (tmp_path / "store").rglob("*.json*"):
        name, before = path.name, path.read_bytes()
        kind = SeedCurve if name.startswith("curve-") else KINDS.get(name)
        if kind is not None:
            record = records.read(path, kind)
            assert record is not None
            records.write(path, record)
        elif name in ("journal.jsonl", "attempts.jsonl"):
            lines = records.lines(path, Epoch if name == "journal.jsonl" else Attempt)
            path.unlink()
            for line in lines:
                records.append(path, line)
        else:
            continue
        assert path.read_bytes() == before, path
        assert all(complaint.of(name, part) == "" for part in before.splitlines())
        seen["curve" if name.startswith("curve-") else name] += 1
    assert set(seen) == {*KINDS, "curve", "journal.jsonl", "attempts.jsonl"}


def test_what_a_later_version_adds_is_left_out(tmp_path: Path) -> None:
    files.write_json(tmp_path / "result.json", record_files.result(colour="blue"))
    assert records.read(tmp_path / "result.json", Result) == Result.model_validate_json(
        json.dumps(record_files.result())
    )


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"status": "finished"}', "\xff"])
def test_what_is_no_record_is_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "result.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(StoreError, match="ablate doctor says what to do"):
        records.read(tmp_path / "result.json", Result)
    assert complaint.of("result.json", text.encode("latin-1"))


@pytest.mark.parametrize("name", ["status", "reason", "epochs", "train_images", "timestamp", "metrics"])
def test_a_key_that_is_missing_is_named(name: str) -> None:
    content = {key: part for key, part in record_files.result().items() if key != name}
    assert complaint.of("result.json", json.dumps(content).encode()) == f"has no {name}"
    assert complaint.of("result.json", json.dumps(record_files.result()).encode()) == ""


def test_a_text_is_no_number() -> None:
    content = record_files.epoch(1, metrics={"train/loss": "0.5"})
    assert complaint.of("journal.jsonl", json.dumps(content).encode()) == "is not what ablate writes there"


def test_lines_end_at_the_first_that_is_torn_or_none_of_theirs(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for number in (1, 2):
        files.append(path, record_files.epoch(number))
    whole = path.read_bytes()
    assert [line.epoch for line in records.lines(path, Epoch)] == [1, 2]
    for tail in (b'{"epoch": 3', b'{"epoch": 3}\n' + whole, b"\n" + whole):
        path.write_bytes(whole + tail)
        assert [line.epoch for line in records.lines(path, Epoch)] == [1, 2]
    assert records.lines(tmp_path / "none", Epoch) == []
