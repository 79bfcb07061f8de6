"""The folder of a range test: every path in it, and what lies there, checked when it is read.

range.json         what is tested: sweep, seeds
curve-<seed>.json  the curve of one seed
<seed>/            log, lock and failure of that seed's attempt, as in the folder of a job
suggestion.json    what the curves suggest, written last
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ablate.errors import StoreError
from ablate.recipe import range_test
from ablate.recipe.range_test import Suggestion
from ablate.store import files, job_folder, records
from ablate.store.job_folder import Folder
from ablate.store.records import RangeTest, SeedCurve
from ablate.store.search_folder import spoilt


@dataclass(frozen=True, slots=True)
class RangeFolder:
    """The paths of one range test."""

    path: Path

    @property
    def test(self) -> Path:
        """The file with what is tested."""
        return self.path / "range.json"

    @property
    def suggestion(self) -> Path:
        """The file with what the curves suggest."""
        return self.path / "suggestion.json"

    def curve(self, seed: int) -> Path:
        """Return the path of the curve of one seed."""
        return self.path / f"curve-{seed}.json"

    def seed(self, seed: int) -> Folder:
        """Return the folder of one seed's attempt."""
        return Folder(self.path / str(seed))


def is_running(folder: RangeFolder, seeds: tuple[int, ...]) -> bool:
    """Whether a process sweeps one of the seeds."""
    return any(job_folder.is_running(folder.seed(seed)) for seed in seeds)


def read_test(folder: RangeFolder) -> RangeTest | None:
    """Return what is tested; None before it has begun."""
    return records.read(folder.test, RangeTest)


def read_suggestion(folder: RangeFolder) -> Suggestion | None:
    """Return what a range test suggests; None where it has not ended.

    Raises a StoreError where the file is not what ablate writes.
    """
    try:
        return records.SUGGESTION.validate_json(files.read(folder.suggestion))
    except FileNotFoundError:
        return None
    except ValidationError:
        raise spoilt(folder.suggestion) from None


def write_suggestion(folder: RangeFolder, suggestion: Suggestion) -> None:
    """Write what a range test suggests."""
    files.write_json(folder.suggestion, dataclasses.asdict(suggestion))


def read_seed_curve(folder: RangeFolder, seed: int) -> SeedCurve | None:
    """Return the curve of one seed as it was written."""
    return records.read(folder.curve(seed), SeedCurve)


def read_curves(folder: RangeFolder) -> dict[int, range_test.Curve]:
    """Return the curves of a range test, by seed."""
    curves = {}
    for path in sorted(folder.path.glob("curve-*.json")):
        try:
            written = records.read(path, SeedCurve)
            if written is not None:
                curves[int(path.stem.removeprefix("curve-"))] = written.curve()
        except (StoreError, KeyError, TypeError, ValueError, AssertionError):
            raise spoilt(path) from None
    return curves
