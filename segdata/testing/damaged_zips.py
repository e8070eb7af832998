"""Damage to zips: each change damages a zip of a synthetic source.

A change takes the zip and the name of one of its members, and returns the name that messages about
the damage must have.
"""

import io
import pathlib
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable

Change = Callable[[pathlib.Path, str], str]
Files = dict[str, bytes]

_LITTER = (".DS_Store", "._{}", "__MACOSX/._{}", "Thumbs.db", "desktop.ini", "@eaDir/{}/{}",
           ".ipynb_checkpoints/{}", "$RECYCLE.BIN/{}", "{}.part", "readme.txt")  # fmt: skip


def member(change: Callable[[bytes], bytes]) -> Change:
    """Other bytes of one member."""

    def inflict(path: pathlib.Path, victim: str) -> str:
        files = read(path)
        write(path, files | {victim: change(files[victim])})
        return victim

    return inflict


def renamed(name: Callable[[str], str]) -> Change:
    """Another name for one member."""

    def inflict(path: pathlib.Path, victim: str) -> str:
        write(path, {name(n) if n == victim else n: data for n, data in read(path).items()})
        return name(victim)

    return inflict


def all_renamed(name: Callable[[str], str]) -> Change:
    """Other names for all members."""

    def inflict(path: pathlib.Path, _: str) -> str:
        write(path, {name(n): data for n, data in read(path).items()})
        return path.name

    return inflict


def copied(name: Callable[[str], str]) -> Change:
    """One member again, under another name."""

    def inflict(path: pathlib.Path, victim: str) -> str:
        files = read(path)
        write(path, files | {name(victim): files[victim]})
        return name(victim)

    return inflict


def without(path: pathlib.Path, victim: str) -> str:
    """One member is missing."""
    write(path, {name: data for name, data in read(path).items() if name != victim})
    return victim


def without_folder(path: pathlib.Path, victim: str) -> str:
    """One member's whole folder is missing; what named it is the folder around."""
    folder = victim.rpartition("/")[0]
    write(path, {n: data for n, data in read(path).items() if not n.startswith(f"{folder}/")})
    return folder.rpartition("/")[0]


def with_empty_folder(path: pathlib.Path, victim: str) -> str:
    """One member's folder is there and empty."""
    named = without_folder(path, victim)
    write(path, read(path) | {f"{victim.rpartition('/')[0]}/": b""})
    return named


def littered(path: pathlib.Path, victim: str) -> str:
    """Files of operating systems and browsers are beside one member."""
    folder, _, base = victim.rpartition("/")
    files = read(path)
    litter = {f"{folder}/{name.replace('{}', base)}": b"\0\5\x16\7" for name in _LITTER}
    write(path, files | litter)
    return path.name


def with_names(*names: str) -> Change:
    """Members under names that a zip should not have."""

    def inflict(path: pathlib.Path, _: str) -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a name occurs twice on purpose
            with zipfile.ZipFile(path, "a") as archive:
                for name in names:
                    archive.writestr(zipfile.ZipInfo(name), b"strange")
        return path.name

    return inflict


def with_misspelt_names(path: pathlib.Path, _: str) -> str:
    """Names in Latin-1 are marked as UTF-8."""
    all_renamed(lambda name: f"Mönche/{name}")(path, "")
    return _edited(lambda data: data.replace("ö".encode(), b"\xf6\xf6"))(path, "")


def contents(data: bytes) -> Change:
    """Something else in place of the whole zip."""
    return _edited(lambda _: data)


def without_end(path: pathlib.Path, victim: str) -> str:
    """The second half is missing."""
    return _edited(lambda data: data[: len(data) // 2])(path, victim)


def without_middle(path: pathlib.Path, victim: str) -> str:
    """A third is missing, the end is there."""
    return _edited(lambda data: data[: len(data) // 3] + data[2 * len(data) // 3 :])(path, victim)


def with_prefix(path: pathlib.Path, victim: str) -> str:
    """A program comes before it, which would unpack it."""
    return _edited(lambda data: b"MZ" + bytes(5000) + data)(path, victim)


def with_tail(path: pathlib.Path, victim: str) -> str:
    """Some bytes come after it."""
    return _edited(lambda data: data + bytes(100))(path, victim)


def with_comment(path: pathlib.Path, _: str) -> str:
    """It has a comment."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"from a browser"
    return path.name


def in_parts(path: pathlib.Path, _: str) -> str:
    """It is the last of two."""
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    for info in infos:
        patched({34: b"\1\0"})(path, info.filename)
    return path.name


def repacked(method: int) -> Change:
    """All members are packed with another method."""

    def inflict(path: pathlib.Path, _: str) -> str:
        write(path, read(path), method=method)
        return path.name

    return inflict


def packed_apart(method: int) -> Change:
    """One member is packed with another method."""

    def inflict(path: pathlib.Path, victim: str) -> str:
        files = read(path)
        data = files.pop(victim)
        write(path, files)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(zipfile.ZipInfo(victim), data, method)
        return victim

    return inflict


def of_large_headers(path: pathlib.Path, _: str) -> str:
    """Every member has the header of one that may pass 4 GB."""
    files = read(path)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as file:
                file.write(data)
    return path.name


def streamed(path: pathlib.Path, _: str) -> str:
    """It was written without going back: sizes and checksums follow the members."""
    pipe = _Pipe()
    files = read(path)
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    path.write_bytes(pipe.getvalue())
    return path.name


def patched(directory: dict[int, bytes], *, local: dict[int, bytes] | None = None) -> Change:
    """Other fields of one member, by their offsets in the directory and in its local header."""

    def inflict(path: pathlib.Path, victim: str) -> str:
        data = bytearray(path.read_bytes())
        name = victim.encode()
        for at, fields in ((data.rindex(name) - 46, directory), (data.index(name) - 30, local)):
            for offset, value in (fields or {}).items():
                data[at + offset : at + offset + len(value)] = value
        path.write_bytes(data)
        return victim

    return inflict


def flipped(path: pathlib.Path, victim: str) -> str:
    """Some bits of one member are flipped."""
    data = bytearray(path.read_bytes())
    at = data.index(victim.encode()) + len(victim) + 20
    data[at] ^= 0xFF
    path.write_bytes(data)
    return victim


def swelling(path: pathlib.Path, victim: str) -> str:
    """One member claims 10 bytes and inflates to 16 MB."""
    member(lambda _: bytes(1 << 24))(path, victim)
    repacked(zipfile.ZIP_DEFLATED)(path, victim)
    return patched({24: struct.pack("<I", 10)})(path, victim)


def misnamed_inside(path: pathlib.Path, victim: str) -> str:
    """One member has another name in its local header than in the directory."""
    return patched({}, local={30: b"X"})(path, victim)


def overlapping(path: pathlib.Path, victim: str) -> str:
    """Two members are at the same place."""
    with zipfile.ZipFile(path) as archive:
        other = next(info for info in archive.infolist() if info.filename != victim)
    return patched({42: struct.pack("<I", other.header_offset)})(path, victim)


def link_inside(path: pathlib.Path, victim: str) -> str:
    """One member is a symbolic link."""
    files = read(path)
    files.pop(victim)
    write(path, files)
    info = zipfile.ZipInfo(victim)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, "/data/elsewhere")
    return victim


def nested(times: int, *, method: int = zipfile.ZIP_STORED) -> Change:
    """It is in a zip of its name, and that in another."""

    def inflict(path: pathlib.Path, victim: str) -> str:
        for _ in range(times):
            write(path, {path.name: path.read_bytes()}, method=method)
        return path.name

    return inflict


def read(path: pathlib.Path) -> Files:
    """All members of a zip."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: pathlib.Path, files: Files, *, method: int = zipfile.ZIP_STORED) -> None:
    """A zip of these members, the same whenever it is written."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)


class _Pipe(io.BytesIO):
    """A file that cannot seek."""

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        raise OSError("a pipe has no place")


def _edited(change: Callable[[bytes], bytes]) -> Change:
    def inflict(path: pathlib.Path, _: str) -> str:
        path.write_bytes(change(path.read_bytes()))
        return path.name

    return inflict
