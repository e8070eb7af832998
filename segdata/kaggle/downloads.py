"""Downloads the files that a dataset is built from: only those that are missing or damaged.

A file gets its name when it is complete and checked; until then it is `NAME.part`. Sizes and
SHA-256 of downloaded files are kept in `segdata-fetched.json` beside them. TensorFlow is not
imported: this is for the command line, and for builders that find no files.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import shlex
from collections.abc import Callable, Iterator
from typing import Any

from segdata import archives, console, sources
from segdata.archives import trees
from segdata.core.system import files, parallel
from segdata.kaggle import api, transfer
from segdata.sources import File, Source

MANIFEST = "segdata-fetched.json"
LOCK = ".segdata-fetch.lock"
_LARGE = 1 << 30  # bytes; checking a larger file takes a while, so it is logged


def fetch(
    name: str,
    folder: str | os.PathLike[str],
    *,
    config: str = "default",
    log: Callable[[str], None] = console.log,
) -> list[pathlib.Path]:
    """Downloads the files that a folder lacks, and checks the others.

    Args:
        name: Of the source.
        folder: The folder to download to; made if missing.
        config: The builder's config that the files are for.
        log: Called with lines of text on the progress.

    Returns:
        The files that were downloaded.

    Raises:
        api.FetchError: If a file cannot be downloaded, or another fetch is running in the folder.
        ValueError: If there is no such source or config, or it is not on Kaggle.
    """
    source = sources.named(name, offer="fetch")
    wanted = needed(source, config)
    if not source.kaggle:
        raise ValueError(f"{name} is not on Kaggle; it is from {source.homepage}.")
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        files.remove_unfinished(folder)
        missing = [file for file in wanted if not _is_there(folder, source, file, log)]
        client = api.sign_in(log=log) if missing else None
        if missing:
            about = spelled(sum(file.about for file in missing))
            log(f"{', '.join(file.name for file in missing)}: about {about}, into {folder}.")
        for file in missing:
            _fetch(client, remote(source, file), path_of(folder, name, file), log)
    return [path_of(folder, name, file) for file in missing]


def supply(source: Source, folder: str | os.PathLike[str], *, config: str = "default") -> None:
    """Downloads for a builder that found no files; without credentials, raises instructions.

    Args:
        source: What is built.
        folder: TFDS's manual folder.
        config: The builder's config.

    Raises:
        FileNotFoundError: If there are no credentials, or it is not on Kaggle; the message has
            instructions.
        api.FetchError: If a file cannot be downloaded.
    """
    if config not in _files(source):
        config = "default"
    if not source.kaggle or not api.credentials():
        raise FileNotFoundError(instructions(source, folder, config=config))
    fetch(source.name, folder, config=config)


def needed(source: Source, config: str = "default") -> tuple[File, ...]:
    """The files that a config of a builder reads.

    Raises:
        ValueError: If there is no such config.
    """
    known = _files(source)
    if config not in known:
        raise ValueError(
            f"{source.name} has no files of its own for {config!r}; there are {', '.join(known)}."
        )
    return known[config]


def remote(source: Source, file: File) -> api.Remote:
    """A file on Kaggle."""
    return api.Remote(source.kaggle, file.name, file.about)


def command(name: str, folder: str | os.PathLike[str], *, config: str = "default") -> str:
    """The command that downloads the files."""
    flag = "" if config == "default" else f" --config {config}"
    to = "" if pathlib.Path(folder) == default_folder() else f" --to {shlex.quote(str(folder))}"
    return f"segdata fetch {name}{flag}{to}"


def instructions(source: Source, folder: str | os.PathLike[str], *, config: str = "default") -> str:
    """Three lines: which files go where, how to sign in, what to run; two if not on Kaggle."""
    files = needed(source, config)
    which = (
        f"{folder}: {source.name} is built from {', '.join(file.name for file in files)}, or the "
        "folders they unpack to; put them there.\n"
    )
    if not source.kaggle:
        return f"{which}They are from {source.homepage}."
    return (
        f"{which}To have them fetched: {api.SIGN_IN} {sentence(remote(source, files[0]).terms)}\n"
        f"Then build again, or run: {command(source.name, folder, config=config)}"
    )


def spelled(size: int) -> str:
    """A number of bytes in MB or GB."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def default_folder() -> pathlib.Path:
    """TFDS's manual folder, where `tfds build` looks."""
    data_dir = os.environ.get("TFDS_DATA_DIR") or files.home() / "tensorflow_datasets"
    return pathlib.Path(data_dir, "downloads", "manual")


def damage(folder: pathlib.Path, source: Source, file: File) -> str:
    """What is wrong with a file in a folder, such as that it is missing; "" if nothing is.

    A downloaded file is compared with its SHA-256, any other is read to its last checksum. Unpacked
    files, and zips that hold everything, count if a builder finds them.
    """
    path = path_of(folder, source.name, file)
    if path.exists():
        if transfer.Part(path).note.exists():
            return f"{path}: the kaggle command left it half done."
        if entry := manifest(path.parent).get(file.name):
            whole = path.stat().st_size == entry["size"] and _sha256(path) == entry["sha256"]
            return "" if whole else f"{path}: it is not what was fetched."
        try:
            check(path)
        except archives.ArchiveError as error:
            return str(error)
        return ""
    return "" if _elsewhere(folder, source, file) else f"{path}: there is no such file."


def check(path: pathlib.Path) -> None:
    """Reads a zip to its last checksum.

    Raises:
        archives.ArchiveError: If it is damaged.
    """
    tree = trees.open(path)
    for _ in parallel.ordered_map(lambda member: sum(map(len, tree.chunks(member))), tree.names):
        pass


def manifest(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
    """The files that were checked in a folder: name to size and SHA-256."""
    return {
        name: entry
        for name, entry in transfer.noted(folder / MANIFEST).items()
        if isinstance(entry, dict)
        and isinstance(entry.get("size"), int)
        and isinstance(entry.get("sha256"), str)
    }


def path_of(folder: pathlib.Path, name: str, file: File) -> pathlib.Path:
    """The path of a file in a folder or in the dataset's own folder in it; else where it goes."""
    own = folder / name / file.name
    return own if own.exists() else folder / file.name


def part_of(path: pathlib.Path) -> transfer.Part:
    """The part of a file that has been downloaded so far."""
    return transfer.Part(path.with_name(f"{path.name}.part"))


def _files(source: Source) -> dict[str, tuple[File, ...]]:
    """Config to its files; those that have none of their own read the default's."""
    default = source.configs[0].files
    own = {config.name: config.files for config in source.configs if config.files != default}
    return {"default": default, **own}


def _is_there(folder: pathlib.Path, source: Source, file: File, log: Callable[[str], None]) -> bool:
    path = path_of(folder, source.name, file)
    if path.exists() and path.stat().st_size > _LARGE:
        log(f"{file.name} is being checked.")
    if trouble := damage(folder, source, file):
        if path.exists():
            log(f"{file.name} is fetched again: {trouble}")
        return False
    if path.exists():
        part_of(path).discard()  # a kill after the last byte may have left it
        if file.name not in manifest(path.parent):
            _record(path)
    log(f"{file.name} is complete.")
    return True


def _fetch(
    client: Any,
    remote: api.Remote,
    path: pathlib.Path,
    log: Callable[[str], None],
) -> None:
    part = part_of(path)
    _adopt(transfer.Part(path), part)
    if part.size:
        log(f"{path.name} resumes after {part.size:,} bytes.")
    for attempt in (1, 2):
        transfer.download(client, remote, part, log=log)
        try:
            check(part.path)
            break
        except archives.ArchiveError as error:
            part.discard()
            if attempt == 2:
                gist = str(error).removeprefix(f"{part.path}: ").partition(". ")[0]
                raise api.FetchError(
                    f"{path.name} arrives damaged, twice in a row: {gist}. See {remote.page}."
                ) from error
            log(f"{path.name} arrived damaged; starting over.")
    with part.path.open("rb") as written:
        os.fsync(written.fileno())
    part.path.replace(path)
    part.discard()
    _record(path)
    log(f"{path.name}: {path.stat().st_size:,} bytes, complete.")


def _record(path: pathlib.Path) -> None:
    entry = {"sha256": _sha256(path), "size": path.stat().st_size}
    entries = manifest(path.parent) | {path.name: entry}
    text = json.dumps(entries, indent=1, sort_keys=True) + "\n"
    with files.replacing(path.parent / MANIFEST) as unfinished:
        unfinished.write_text(text)


def _adopt(begun: transfer.Part, part: transfer.Part) -> None:
    """Takes over the part that the `kaggle` command left under the final name."""
    if not begun.note.exists():
        return
    if part.note.exists():  # our own part comes first
        begun.discard()
        return
    if begun.path.exists():
        begun.path.replace(part.path)
    begun.note.replace(part.note)


def _elsewhere(folder: pathlib.Path, source: Source, file: File) -> bool:
    """Whether a builder finds the file's content elsewhere."""
    if any((place / file.stem).is_file() for place in (folder, folder / source.name)):
        return True
    with contextlib.suppress(archives.ArchiveError):
        return source.find(file.stem, folder=folder) is not None
    return False


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
    """Locks a folder for one fetch at a time, where locks are supported."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(files.locked(folder / LOCK))
        except files.HeldError as error:
            raise api.FetchError(
                f"{folder}: another `segdata fetch` is running here; "
                "run this again when it is done."
            ) from error
        yield
