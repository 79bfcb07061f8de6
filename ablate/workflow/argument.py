"""The STUDY argument of a command: a file, or the name of a study in the store; and the study's seeds."""

import difflib
import os
from dataclasses import replace
from pathlib import Path

from ablate.errors import AblateError, StoreError
from ablate.planning.resolve import resolve
from ablate.recipe import fields
from ablate.store import layout, origin, study_folder
from ablate.store.layout import Store
from ablate.store.study_folder import Past
from ablate.study import conditions
from ablate.study import file as study_file
from ablate.study.conditions import Expression
from ablate.study.file import Study

LONGEST_NAME = 255  # bytes of a file's name; what is longer is the name of a study
LONGEST_PATH = 4095  # bytes
NAMED = 5  # files named in one message
FOLDERS = ("", "studies")  # below the current one, where people keep study files


def load(text: str, sets: tuple[str, ...], store: Store, seeds: int | None = None) -> Study:
    """Return the study of a STUDY argument: a file, with its `--set`s, or the name of a study as last run.

    `seeds`: so many seeds instead of the study's own. Without, seeds that an earlier `--seeds` has added
    stay; the study's notes list the seeds that the store has and the study leaves out. Raises a StudyError
    with every mistake, or a StoreError when there is no such file or study.
    """
    path = Path(text)
    if is_file(text):
        if not (_may_exist(path) and path.exists()):
            raise StoreError(f"{path}: there is no such file{_meant(text)}")
        own = study_file.load(path, sets)
        if submitted := origin.submitted(path.absolute().parent, store.path):
            own = replace(own, relative_to=str(Path(submitted.file).parent))  # its images are beside its file
    else:
        if sets:
            raise AblateError(
                f'--set changes a study file, and "{text}" is a study of the store: name its file'
            )
        own = _recall(text, store)
    return _noted(own, sets, store, seeds)


def recall(name: str, store: Store) -> Study:
    """Return a study of the store as last run: never a file, whatever the name looks like."""
    return _noted(study_folder.recall(store, name), (), store, None)


def _noted(own: Study, sets: tuple[str, ...], store: Store, seeds: int | None) -> Study:
    """Return a study under the seeds that are meant, with its notes."""
    old = study_folder.past(store, own.name)
    chosen, added = _seeded(own, sets, store, seeds, old)
    omits = "" if old is None else _omitted(chosen, store, old)
    notes = (_elsewhere(own, store, old), added, omits)
    return replace(chosen, notes=tuple(note for note in notes if note), omits=omits)


def read(text: str) -> str:
    """Return the text of a study file that is to be copied. Raises an AblateError where there is none."""
    path = Path(text)
    if not is_file(text):
        raise StoreError(f'a study file must be named, such as tiny.toml, got "{text}"{_meant(text)}')
    if not (_may_exist(path) and path.exists()):
        raise StoreError(f"{path}: there is no such file{_meant(text)}")
    return study_file.read(path)


def condition(text: str | None) -> Expression | None:
    """Return what `--only` asks of the recipes. Raises an AblateError with all that is wrong with it."""
    if text is None:
        return None
    read, wrong = conditions.parse(text, fields.fields())
    if wrong:
        raise AblateError("\n".join(f"--only: {sentence}" for sentence in wrong))
    return read


def is_file(text: str) -> bool:
    """Whether a STUDY argument means a file: it ends in .toml, or is the path of one, with a separator.

    A plain name means a study of the store: whoever writes to the current folder must not put a file, and
    with it code, in its place.
    """
    path = Path(text)
    return path.suffix == ".toml" or (os.sep in text and _may_exist(path) and path.is_file())


def _may_exist(path: Path) -> bool:
    """Whether a path is short enough for a file system, which raises an error for a longer one."""
    return len(os.fsencode(path)) <= LONGEST_PATH and all(
        len(os.fsencode(part)) <= LONGEST_NAME for part in path.parts
    )


def _recall(name: str, store: Store) -> Study:
    """Return a study of the store.

    Raises a StoreError where it has none, with another store that has it, or the file that may be meant.
    """
    try:
        return study_folder.recall(store, name)
    except StoreError as error:
        if study_folder.past(store, name) is not None or name in study_folder.names(store):
            raise
        hint = study_folder.hint(store, name)
        raise StoreError(f"{error}; {hint}" if hint else f"{error}{_meant(name)}") from None


def _meant(text: str) -> str:
    """Return the part of a message that names the study file that may be meant; empty where none is near."""
    path, near = Path(text), dict[str, None]()
    if not _may_exist(path):
        return ""
    if path.is_file():
        return f"; there is a file of that name, which is meant by .{os.sep}{text}"
    if path.is_dir():
        inside = sorted(map(str, path.glob("*.toml")))
        return f"; it is a folder, with {', '.join(inside[:NAMED])}: name the file" if inside else ""
    names = {path.name, f"{path.name}.toml"}
    for folder in dict.fromkeys([path.parent, *map(Path, FOLDERS)]):
        files = {file.name: file for file in sorted(folder.glob("*.toml"))} if folder.is_dir() else {}
        close = [name for name in files if name in names] or difflib.get_close_matches(path.name, files, n=1)
        near |= dict.fromkeys(str(files[name]) for name in close)
    exact = [file for file in near if Path(file).name in names]
    meant = (exact or list(near))[:1]
    if not meant:
        return ""
    is_here = Path(meant[0]).parent == Path()
    return f"; there is a {meant[0]} here" if is_here else f"; there is {meant[0]}"


def _elsewhere(study: Study, store: Store, old: Past | None) -> str:
    """Return a note where the current folder's store lacks a study that the store beside its file has."""
    beside = Store(Path(study.folder) / layout.USUAL)
    is_usual = store.path == Path(layout.USUAL).absolute()
    if old is not None or not study.folder or not is_usual or beside.path.resolve() == store.path.resolve():
        return ""
    if not layout.is_store(beside.path) or study_folder.past(beside, study.name) is None:
        return ""
    path = os.path.relpath(beside.path)
    return (
        f'no run of "{study.name}" is in {os.path.relpath(store.path)}; '
        f"{path}, beside the study, has it: --store {path}"
    )


def _seeded(
    study: Study, sets: tuple[str, ...], store: Store, asked: int | None, old: Past | None
) -> tuple[Study, str]:
    """Return the study under the seeds that are meant, and a note on seeds of an earlier `--seeds`."""
    if asked is not None:
        return _with_seeds(study, sets, asked), ""
    has_own = any(setting.partition("=")[0].strip() == "seeds" for setting in sets)
    if old is None or old.asked_seeds is None or old.asked_seeds <= len(study.seeds) or has_own:
        return study, ""
    more = _with_seeds(study, sets, old.asked_seeds)
    added = _there(more, store, [seed for seed in more.seeds if seed not in study.seeds])
    undone = f"--seeds {len(study.seeds)}"
    if not added:
        if origin.is_alike(
            old.raw, old.text, study
        ):  # the run that asked for them was stopped before the first
            return more, f"--seeds {old.asked_seeds} was asked for, and stays: {undone} undoes it"
        return study, ""
    were, _, them = _words(added)
    stay = "stays" if len(added) == 1 else "stay"
    return more, f"{were} added by --seeds {old.asked_seeds}, and {stay}: {undone} leaves {them} out"


def _omitted(study: Study, store: Store, old: Past) -> str:
    """Return a note on the seeds that the store has of a study's cells, and the study leaves out."""
    left = _there(study, store, [seed for seed in old.seeds if seed not in study.seeds])
    if not left:
        return ""
    seeds = sorted({*study.seeds, *left})
    by_count = study_file.more_seeds(study.seeds, len(seeds))
    fits = set(range(by_count) if isinstance(by_count, int) else by_count) == set(seeds)
    _, are, them = _words(left)
    option = f"--seeds {len(seeds)}" if fits else f"--set seeds={seeds}"
    return f"{are} in the store and not in this report: {option} shows {them}"


def _words(seeds: list[int]) -> tuple[str, str, str]:
    listed = ", ".join(map(str, seeds))
    if len(seeds) == 1:
        return f"seed {listed} was", f"seed {listed} is", "it"
    return f"seeds {listed} were", f"seeds {listed} are", "them"


def _with_seeds(study: Study, sets: tuple[str, ...], count: int) -> Study:
    """Return a study under so many seeds, as the store is to know it."""
    seeds = study_file.more_seeds(study.seeds, count)
    if study.folder:
        more = study_file.load(Path(study.source), (*sets, f"seeds={seeds}"))
    else:
        more = study_file.check(
            {**study.raw, "seeds": seeds}, study.source, f"{study.text}\n# --set seeds={seeds}"
        )
    return replace(more, asked_seeds=count, relative_to=study.relative_to)


def _there(study: Study, store: Store, seeds: list[int]) -> list[int]:
    """Return the seeds, of some, under which a cell of a study has been trained, or begun."""
    if not seeds:
        return []
    jobs = resolve(study, store, seeds=tuple(seeds)).jobs
    begun = {
        job.seed for job in jobs if store.job(job.id).attempts.exists() or store.job(job.id).result.exists()
    }
    return [seed for seed in seeds if seed in begun]
