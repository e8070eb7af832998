"""What is missing for a build of a dataset, each with how to fix it. Changes nothing."""

import dataclasses
import os
import pathlib
import shlex
import shutil

from segdata import console, sources
from segdata.core.system import files
from segdata.kaggle import api, downloads, transfer
from segdata.sources import File, Source

_RATE = 10_000_000  # bytes a second, for estimates: 100 Mbit/s with overheads


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        subject: What was checked.
        state: Its state.
        fix: The command or the page that fixes it; "" where nothing is wrong.
    """

    subject: str
    state: str
    fix: str = ""

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong."""
        return not self.fix

    def __str__(self) -> str:
        lines = [f"{'ok ' if self.is_well else 'BAD'} {self.subject}: {self.state}"]
        lines += [] if self.is_well else [f"    {self.fix}"]
        return "\n".join(map(console.printable, lines))


def examine(name: str, folder: str | os.PathLike[str], *, config: str = "default") -> list[Finding]:
    """Checks files, credentials, rules, disk and time; reads every file to its end.

    Kaggle is asked only if something is to be fetched.

    Args:
        name: Of the source.
        folder: Where its files should be; it need not exist.
        config: The builder's config that the files are for.

    Returns:
        The findings, in the order in which to fix them.

    Raises:
        ValueError: If there is no such source or config.
    """
    source = sources.named(name, offer="fetch")
    folder = pathlib.Path(folder)
    command = downloads.command(name, folder, config=config)
    if not source.kaggle:
        command = f"Put it there; it is from {source.homepage}."
    files = downloads.needed(source, config)
    troubles = {file: downloads.damage(folder, source, file) for file in files}
    paths = {file: downloads.path_of(folder, name, file) for file in files}
    checked = [_file(file, paths[file], trouble, command) for file, trouble in troubles.items()]
    missing = [file for file, trouble in troubles.items() if trouble]
    place = Finding("folder", str(folder))
    if not source.kaggle:
        return [place, *checked]
    if not missing:
        return [place, *checked, Finding("Kaggle", "not asked: there is nothing to fetch")]
    if _is_locked(folder):
        place = Finding(
            "folder", f"{folder}: another fetch is running here", "Wait until it is done."
        )
    asked, sizes = _kaggle(source, missing)
    left = sum(
        max(0, sizes.get(file, file.about) - downloads.part_of(paths[file]).size)
        for file in missing
    )
    disk, duration = _disk(folder, left, name), _duration(left, "" if sizes else "about ")
    return [place, *asked, disk, *checked, duration]


def _file(file: File, path: pathlib.Path, trouble: str, command: str) -> Finding:
    part = downloads.part_of(path)
    if not trouble:
        there = f"{path.stat().st_size:,} bytes, whole" if path.exists() else "found unpacked"
        return Finding(path.name, there)
    if part.size and part.identity():
        return Finding(path.name, f"begun: {part.size:,} bytes are there", command)
    state = trouble.removeprefix(f"{path}: ")
    if file.is_optional and not path.exists():
        state += " A build works without it."
    return Finding(path.name, state, command)


def _kaggle(source: Source, missing: list[File]) -> tuple[list[Finding], dict[File, int]]:
    """Signs in and requests each file without reading it; the findings, and the sizes."""
    remotes = {file: downloads.remote(source, file) for file in missing}
    remote = remotes[missing[0]]
    accept = downloads.sentence(remote.terms)
    sizes = {}
    try:
        client = api.sign_in(log=lambda _: None, attempts=1)
        for file, remote in remotes.items():
            size = transfer.size_of(client, remote)
            if size is not None:
                sizes[file] = size
    except api.CredentialsError as error:
        state, _, fix = str(error).partition(". ")
        unknown = Finding("rules", "not known before signing in", accept)
        return [Finding("credentials", state, fix), unknown], {}
    except api.AccessError as error:
        state, _, _ = str(error).partition(f": {remote.terms}")
        return [_signed_in(), Finding("rules", state, accept)], {}
    except api.FetchError as error:
        fix = f"Check {remote.page} and your network, then run this again."
        return [_signed_in(), Finding("Kaggle", str(error).partition(": see what")[0], fix)], {}
    return [_signed_in(), Finding("rules", "accepted: every missing file can be downloaded")], sizes


def _signed_in() -> Finding:
    return Finding("credentials", ", ".join(api.credentials()))


def _disk(folder: pathlib.Path, needed: int, name: str) -> Finding:
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    state = (
        f"{downloads.spelled(free)} free in {place}, {downloads.spelled(needed)} to be fetched, "
        "and about as much again for the dataset"
    )
    if not os.access(place, os.W_OK):
        return Finding(
            "disk", f"{place} may not be written to", f"chmod u+w {shlex.quote(str(place))}"
        )
    if needed > free:
        return Finding("disk", state, f"segdata fetch {name} --to A_LARGER_DISK")
    return Finding("disk", state)


def _duration(needed: int, about: str) -> Finding:
    seconds = needed / _RATE
    spelled = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
    return Finding("time", f"{about}{spelled} to fetch, at {_RATE / 1e6:.0f} MB/s")


def _is_locked(folder: pathlib.Path) -> bool:
    try:
        with (folder / downloads.LOCK).open() as lock:
            return files.hold(lock.fileno()) is False
    except OSError:
        return False
