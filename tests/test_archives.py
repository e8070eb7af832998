import errno
import io
import os
import pathlib
import pickle
import random
import struct
import sys
import traceback
import warnings
import zipfile
import zlib

import pytest

from segdata import archives
from segdata.archives import trees
from segdata.core.system.parallel import ordered_map

RANDOM = random.Random(0)
FILES = {"a/1.bin": RANDOM.randbytes(3000), "a/b/2.txt": b"two" * 999, "top": b"", "z.bin": b"z"}


def packed(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # duplicate names are meant
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def written(folder: pathlib.Path, data: bytes) -> pathlib.Path:
    path = folder / "some.zip"
    path.write_bytes(data)
    return path


def patched(data: bytes, *, directory: dict[int, bytes]) -> bytes:
    """Overwrites fields of the first entry of a zip's central directory, by their offset in it."""
    at = data.index(b"PK\1\2")
    for offset, value in directory.items():
        data = data[: at + offset] + value + data[at + offset + len(value) :]
    return data


@pytest.fixture(params=["folder", "deflated", "stored", "stored in stored", "deflated in stored",
                        "stored in deflated"])  # fmt: skip
def tree(request, tmp_path, monkeypatch) -> trees.Tree:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    methods = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED}
    if request.param == "folder":
        for name, data in FILES.items():
            path = tmp_path / "folder" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return trees.open(tmp_path / "folder")
    inner, _, outer = request.param.partition(" in ")
    data = packed(FILES, methods[inner])
    if not outer:
        return trees.open(written(tmp_path, data))
    path = written(tmp_path, packed({"before": b"x" * 77, "in/side.zip": data}, methods[outer]))
    return trees.open(path).sub("in/side.zip")


def test_a_tree_reads_the_same_from_folders_zips_and_zips_in_zips(tree):
    assert tree.names == tuple(sorted(FILES))
    assert {name: tree.read(name) for name in tree.names} == FILES


def test_threads_and_copies_read_the_same_tree(tree):
    copy = pickle.loads(pickle.dumps(tree))
    names = 200 * list(FILES)
    assert list(ordered_map(copy.read, names, threads=8)) == [FILES[name] for name in names]


def test_a_folder_of_a_tree_is_a_tree(tree):
    assert tree.sub("a").names == ("1.bin", "b/2.txt")
    assert tree.sub("a").sub("b").read("2.txt") == FILES["a/b/2.txt"]
    assert "a" in tree
    assert "a/b/2.txt" in tree
    assert "a/" not in tree
    assert "b" not in tree


def test_what_is_missing_is_named(tree):
    with pytest.raises(archives.ArchiveError, match=r"there is no file 'a/3\.bin'"):
        tree.read("a/3.bin")
    with pytest.raises(archives.ArchiveError, match="there is no folder or zip 'b'"):
        tree.sub("b")


def test_nothing_at_the_path_is_said(tmp_path):
    with pytest.raises(archives.ArchiveError, match=r"none\.zip: there is no such"):
        trees.open(tmp_path / "none.zip")


def test_a_deflated_zip_in_a_zip_is_inflated_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = written(tmp_path, packed({"inner.zip": packed(FILES)}))
    outer = trees.open(path)
    assert not (tmp_path / "cache").exists()
    outer.sub("inner.zip")
    (copy,) = (tmp_path / "cache" / "segdata").iterdir()
    before = copy.stat().st_mtime_ns
    assert trees.open(path).sub("inner.zip").read("z.bin") == b"z"
    assert copy.stat().st_mtime_ns == before


def test_a_stored_zip_in_a_zip_is_not_copied(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = written(tmp_path, packed({"inner.zip": packed(FILES)}, zipfile.ZIP_STORED))
    assert trees.open(path).sub("inner.zip").read("z.bin") == b"z"
    assert not (tmp_path / "cache").exists()


def test_a_damaged_inner_zip_leaves_nothing_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = patched(packed({"inner.zip": packed(FILES)}), directory={16: b"\0\0\0\0"})
    with pytest.raises(archives.ArchiveError, match="checksum"):
        trees.open(written(tmp_path, data)).sub("inner.zip")
    assert list((tmp_path / "cache" / "segdata").iterdir()) == []


def test_an_inner_zip_larger_than_the_disk_is_refused_in_time(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = packed({"inner.zip": packed(FILES)})
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(archives.ArchiveError, match="1,000 are free"):
        trees.open(written(tmp_path, data)).sub("inner.zip")
    assert list((tmp_path / "cache" / "segdata").iterdir()) == []


def with_comment(data: bytes, crc: int) -> bytes:
    """A zip with a comment of 4 bytes that give it a CRC-32: it is linear in them."""
    data = data[:-2] + b"\4\0"
    base = zlib.crc32(data + bytes(4))
    rows = []
    for bit in range(32):
        comment = (1 << bit).to_bytes(4)
        rows.append((zlib.crc32(data + comment) ^ base, 1 << bit))
    wanted, found = crc ^ base, 0
    while rows:  # Gauss, over two elements
        pivot, change = rows.pop()
        high = 1 << (pivot.bit_length() - 1)
        rows = [(r ^ pivot, c ^ change) if r & high else (r, c) for r, c in rows]
        if wanted & high:
            wanted, found = wanted ^ pivot, found ^ change
    return data + found.to_bytes(4)


def test_no_inner_zip_stands_in_for_another_of_its_checksum_and_size(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    genuine = packed({"x": b"genuine"}, zipfile.ZIP_STORED)
    forged = with_comment(packed({"x": b"forged!"}, zipfile.ZIP_STORED), zlib.crc32(b""))
    genuine = with_comment(genuine, zlib.crc32(forged))
    assert (len(forged), zlib.crc32(forged)) == (len(genuine), zlib.crc32(genuine))
    for data, expected in ((forged, b"forged!"), (genuine, b"genuine")):
        archive = trees.open(written(tmp_path, packed({"inner.zip": data})))
        assert archive.sub("inner.zip").read("x") == expected


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_a_damaged_copy_of_an_inner_zip_is_made_anew(tmp_path, monkeypatch, damage):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = written(tmp_path, packed({"inner.zip": packed(FILES)}))
    trees.open(path).sub("inner.zip")
    (copy,) = (tmp_path / "cache" / "segdata").iterdir()
    data = copy.read_bytes()
    at = data.index(FILES["a/1.bin"][:9]) if FILES["a/1.bin"][:9] in data else 100
    flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    copy.write_bytes({"flipped": flipped, "cut": data[:-50], "empty": b""}[damage])
    tree = trees.open(path).sub("inner.zip")
    assert {name: tree.read(name) for name in tree.names} == FILES
    assert copy.read_bytes() == data


@pytest.mark.parametrize("claim", [{}, {20: struct.pack("<I", 1 << 31)}])
def test_an_inner_zip_that_swells_leaves_nothing(tmp_path, monkeypatch, claim):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = patched(packed({"inner.zip": bytes(50_000_000)}), directory=claim)
    with pytest.raises(archives.ArchiveError, match="more than 20 times as many"):
        trees.open(written(tmp_path, data)).sub("inner.zip")
    assert not (tmp_path / "cache").exists()


def test_what_is_no_zip_does_not_stay_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = written(tmp_path, packed({"inner.zip": b"no zip" * 100}))
    with pytest.raises(archives.ArchiveError, match=r"inner\.zip: it is not a zip"):
        trees.open(path).sub("inner.zip")
    assert list((tmp_path / "cache" / "segdata").iterdir()) == []


def test_what_killed_inflations_left_is_removed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    left = tmp_path / "cache" / "segdata" / "unfinished-0123456789abcdef.zip"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"PK")
    trees.open(written(tmp_path, packed({"inner.zip": packed(FILES)}))).sub("inner.zip")
    assert not left.exists()


def test_a_disk_that_fills_up_while_inflating_is_said_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    path = written(tmp_path, packed({"inner.zip": packed(FILES)}))
    with pytest.raises(archives.ArchiveError, match=r"inner\.zip is .* No space left .* Make room"):
        trees.open(path).sub("inner.zip")
    assert list((tmp_path / "cache" / "segdata").iterdir()) == []


def directory_of(count: int) -> bytes:
    """A zip of a directory alone."""
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", *[20, 0, 20, 0], *[0] * 14)
    entry = entry[:28] + struct.pack("<H", 1) + entry[30:]
    entries = b"".join(entry + b"x" for _ in range(count))
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, *[count & 0xFFFF] * 2, len(entries), 0, 0)
    return entries + end


def test_a_zip_of_too_many_files_is_refused_before_they_are_listed(tmp_path):
    import tracemalloc

    path = written(tmp_path, directory_of(270_000))
    tracemalloc.start()
    with pytest.raises(archives.ArchiveError, match="lists 270,000 files, more than the 262,144"):
        trees.open(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # the directory itself has 12.7 MB


def test_a_directory_of_too_many_bytes_is_not_read(tmp_path):
    size = 1 << 27
    path = written(tmp_path, b"PK\1\2")
    with path.open("r+b") as file:
        file.seek(size)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, size, 0, 0))
    with pytest.raises(archives.ArchiveError, match="134,217,728 bytes, more than the 67,108,864"):
        trees.open(path)


def test_a_small_archive_takes_little_memory_whatever_lies_deflated_in_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = written(tmp_path, packed({"inner.zip": directory_of(200_000)}))
    assert path.stat().st_size < 40_000
    with pytest.raises(archives.ArchiveError, match="more than 20 times as many"):
        trees.open(path).sub("inner.zip")


def deflated(name: str, data: bytes, *, swelling: float) -> bytes:
    """A zip of one deflated member, which is about so many times as long as it is packed."""
    plain = zlib.compressobj(0, zlib.DEFLATED, -15)
    head = plain.compress(data[: int(len(data) / swelling)]) + plain.flush(zlib.Z_FULL_FLUSH)
    tight = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = head + tight.compress(data[int(len(data) / swelling) :]) + tight.flush()
    sizes = struct.pack("<3I2H", zlib.crc32(data), len(body), len(data), len(name), 0)
    local = struct.pack("<4s5H", b"PK\3\4", 20, 0, 8, 0, 33) + sizes + name.encode() + body
    entry = struct.pack("<4s6H", b"PK\1\2", 20, 20, 0, 8, 0, 33) + sizes
    entry += struct.pack("<3H2I", 0, 0, 0, 0, 0) + name.encode()
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(entry), len(local), 0)
    return local + entry + end


def test_zips_deflated_in_each_other_do_not_swell_by_each(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = packed({"x": bytes(30 << 20)}, zipfile.ZIP_STORED)
    for _ in range(3):
        data = deflated("x.zip", data, swelling=15)
    tree = trees.open(written(tmp_path, data))
    inner = tree.sub("x.zip")
    with pytest.raises(archives.ArchiveError, match="more than 2 times as many"):
        inner.sub("x.zip")
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.zip")) < 4 << 20


@pytest.mark.parametrize("offset", [2**63 - 1, 2**63, 2**64 - 1, 10_000])
def test_a_member_beyond_the_end_is_named(tmp_path, offset):
    data = packed({"a": b"a"}, zipfile.ZIP_STORED)
    start, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    extra = struct.pack("<HHQ", 1, 8, offset)
    entry = bytearray(data[start:end])
    entry[30:32], entry[42:46] = struct.pack("<H", len(extra)), b"\xff" * 4
    entry += extra
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(entry), start, 0)
    path = written(tmp_path, data[:start] + entry + tail)
    with pytest.raises(archives.ArchiveError, match=f"{path}: "):
        trees.open(path).read("a")


def test_a_name_through_more_folders_than_anyone_makes_is_refused(tmp_path):
    assert trees.open(written(tmp_path, packed({"a/" * 63 + "x": b""}))).names
    data = packed({"a/" * 30_000 + "x": b""})
    with pytest.raises(archives.ArchiveError, match="leads through 30,000 folders, more than"):
        trees.open(written(tmp_path, data))


def test_litter_and_folders_are_passed_over(tmp_path):
    litter = {"__MACOSX/a/._1.bin": b"", "a/._1.bin": b"", ".DS_Store": b"", "a/": b"", "b/": b""}
    assert trees.open(written(tmp_path, packed(litter | FILES))).names == tuple(sorted(FILES))
    for name in litter | FILES:
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(b"")
    assert trees.open(tmp_path / "folder").names == tuple(sorted(FILES))


def test_backslashes_and_dots_in_names_are_made_plain(tmp_path):
    data = packed({"./a\\1.bin": b"1", "b//2.bin": b"2"})
    assert trees.open(written(tmp_path, data)).names == ("a/1.bin", "b/2.bin")


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "..\\x", "\\x", "C:\\x", "a/.."])
def test_names_that_leave_the_archive_are_refused(tmp_path, name):
    with pytest.raises(archives.ArchiveError, match="leads out of the archive"):
        trees.open(written(tmp_path, packed({"ok": b"", name: b""})))


def test_a_name_that_occurs_twice_is_refused(tmp_path):
    data = packed({"a/x": b"1", "a\\x": b"2"})
    with pytest.raises(archives.ArchiveError, match="'a/x' is in it twice"):
        trees.open(written(tmp_path, data))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<!DOCTYPE html><html>Sign in</html>", "a web page"),
        (b"GIF89a", "it is not a zip: it begins with b'GIF89a'"),
        (b"", "it is not a zip"),
        (packed(FILES)[:-30], "begins like a zip and has no readable end"),
        (packed(FILES)[:2000], "begins like a zip and has no readable end"),
    ],
)
def test_what_is_not_a_whole_zip_is_told_apart(tmp_path, data, message):
    with pytest.raises(archives.ArchiveError, match=message):
        trees.open(written(tmp_path, data))


@pytest.mark.parametrize(
    ("directory", "message"),
    [
        ({8: b"\1\0"}, "is encrypted"),
        ({10: b"\x0c\0"}, "packed with method 12"),
        ({16: b"\0\0\0\0"}, "is damaged: its checksum is [0-9a-f]{8}, not 00000000"),
        ({24: struct.pack("<I", 2999)}, "is longer than the 2,999 bytes it claims"),
        ({24: struct.pack("<I", 3001)}, "is cut: 3,000 of 3,001 bytes"),
        ({20: struct.pack("<I", 1 << 20)}, "its last [0-9,]+ bytes are missing|is longer than"),
        ({20: struct.pack("<I", 1000)}, "is cut: [0-9,]+ of 3,000 bytes"),
        ({42: struct.pack("<I", 5)}, "is not at byte 5"),
    ],
)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_member_that_is_not_what_it_claims_is_refused(tmp_path, method, directory, message):
    data = patched(packed({"a/1.bin": FILES["a/1.bin"], "b": b"b"}, method), directory=directory)
    tree = trees.open(written(tmp_path, data))
    with pytest.raises(archives.ArchiveError, match=message) as caught:
        tree.read("a/1.bin")
    assert "some.zip: a/1.bin" in str(caught.value)
    assert tree.read("b") == b"b"


def test_a_damaged_stream_is_refused(tmp_path):
    data = bytearray(packed({"a": b"text " * 1000}))
    data[40:50] = bytes(10)
    with pytest.raises(archives.ArchiveError, match=r"some\.zip: a is (damaged|cut)"):
        trees.open(written(tmp_path, bytes(data))).read("a")


@pytest.mark.parametrize("data", [bytes(5_000_001), RANDOM.randbytes(3_000_001)])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_files_of_many_chunks_are_read_whole(tmp_path, method, data):
    assert trees.open(written(tmp_path, packed({"a": data}, method))).read("a") == data


def test_a_folder_that_cannot_be_listed_is_said(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(archives.ArchiveError, match="cannot be listed: Permission denied"):
        trees.open(tmp_path)


def test_a_bomb_is_stopped_at_the_size_it_claims(tmp_path):
    bomb = packed({"a": bytes(200_000_000)})
    data = patched(bomb, directory={24: struct.pack("<I", 10)})
    with pytest.raises(archives.ArchiveError, match="longer than the 10 bytes"):
        trees.open(written(tmp_path, data)).read("a")


LAYOUTS = {
    "folder": {"part/x": b"x"},
    "zip": {"part.zip": packed({"x": b"x"})},
    "doubled folder": {"part/part/x": b"x"},
    "zip of its folder": {"part.zip": packed({"part/x": b"x"})},
    "zip in a folder of its name": {"part/part.zip": packed({"x": b"x"})},
    "folder in an outer folder": {"outer/part/x": b"x"},
    "zip in an outer folder": {"outer/part.zip": packed({"x": b"x"})},
    "folder in an outer zip": {"outer.zip": packed({"part/x": b"x"})},
    "zip in an outer zip": {"outer.zip": packed({"part.zip": packed({"x": b"x"})}, 0)},
    "zip in a doubled outer zip": {"outer.zip": packed({"outer/part.zip": packed({"x": b"x"})}, 0)},
    "zip in folders of an outer zip": {
        "outer.zip": packed({"a/b/part.zip": packed({"x": b"x"})}, 0)
    },
    "folder beside its zip": {"part/x": b"x", "part/y": b"y", "part.zip": packed({"x": b"x"})},
}
BARE = {
    "folders": {"left/x": b"x", "right/y": b"y", "other/z": b"z"},
    "folders in an outer folder": {"outer/left/x": b"x", "outer/right/y": b"y"},
    "folders in an outer zip": {"outer.zip": packed({"left/x": b"x", "right/y": b"y"})},
    "folders in a folder of an outer zip": {
        "outer.zip": packed({"a/left/x": b"x", "a/right/y": b""})
    },
}


def laid_out(folder: pathlib.Path, files: dict[str, bytes]) -> pathlib.Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_source_is_found_wherever_unpacking_left_it(tmp_path, layout):
    laid_out(tmp_path, LAYOUTS[layout])
    found = trees.find(tmp_path, "part", within=["other", "outer"])
    assert found is not None
    assert found.read("x") == b"x"
    assert trees.find(tmp_path, "absent", within=["other", "outer"]) is None


@pytest.mark.parametrize("layout", BARE)
def test_folders_side_by_side_are_what_would_hold_them(tmp_path, layout):
    laid_out(tmp_path, BARE[layout])
    found = trees.find(tmp_path, "part", within=["outer"], parts=["left", "right"])
    assert found is not None
    assert found.names == ("left/x", "right/y")
    assert found.read("left/x") == b"x"
    assert trees.find(tmp_path, "part", within=["outer"], parts=["left", "middle"]) is None


@pytest.mark.parametrize(
    "files",
    [
        {"part/x": b"x", "part.zip": packed({"x": b"x", "y": b"y"})},
        {"outer/part/x": b"x", "outer.zip": packed({"part/x": b"x", "part/y": b"y"})},
    ],
)
def test_a_folder_that_lacks_files_of_the_zip_beside_it_is_refused(tmp_path, files):
    laid_out(tmp_path, files)
    with pytest.raises(archives.ArchiveError, match=r"lacks 1 of the files of .*, such as y: an"):
        trees.find(tmp_path, "part", within=["outer"])


def test_a_link_to_a_folder_around_it_adds_nothing(tmp_path):
    laid_out(tmp_path, {"a/x": b"x", "b/y": b"y"})
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a" / "aside").symlink_to(tmp_path / "b", target_is_directory=True)
    (tmp_path / "b" / "back").symlink_to(tmp_path / "a", target_is_directory=True)
    found = trees.open(tmp_path)
    assert found.names == ("a/aside/y", "a/x", "b/back/x", "b/y")
    assert found.read("b/back/x") == b"x"


def test_folders_linked_to_each_other_are_entered_by_one_link_each(tmp_path):
    names = [f"d{number}" for number in range(8)]
    laid_out(tmp_path, {f"{name}/x": name.encode() for name in names})
    for name in names:
        for other in names:
            if other != name:
                (tmp_path / name / f"to-{other}").symlink_to(tmp_path / other)
    found = trees.open(tmp_path)
    assert {f"{name}/x" for name in names} <= set(found.names)
    assert len(found.names) == 16
    assert all(found.read(name) for name in found.names)


def test_links_to_folders_elsewhere_are_followed(tmp_path):
    laid_out(tmp_path, {"elsewhere/a/x": b"x", "elsewhere/a/b/y": b"y", "here/z": b"z"})
    (tmp_path / "here" / "inner").symlink_to(tmp_path / "elsewhere" / "a" / "b")
    (tmp_path / "here" / "outer").symlink_to(tmp_path / "elsewhere")
    expected = ("inner/y", "outer/a/b/y", "outer/a/x", "z")
    assert trees.open(tmp_path / "here").names == expected


def test_folders_in_each_other_are_walked_however_deep(tmp_path):
    depth = 300
    here, limit = os.getcwd(), sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(len(traceback.extract_stack()) + depth - 100)
        os.chdir(tmp_path)
        for _ in range(depth):
            os.mkdir("a")
            os.chdir("a")
        pathlib.Path("x").write_bytes(b"x")
        (name,) = trees.open(tmp_path).names
        assert name == "a/" * depth + "x"
    finally:
        sys.setrecursionlimit(limit)
        os.chdir(here)


def test_pieces_are_the_bytes_and_checked_alike(tmp_path):
    data = random.Random(1).randbytes(3 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b", data)
    (tmp_path / "c").write_bytes(data)
    packed, folder = trees.open(tmp_path / "a.zip"), trees.open(tmp_path)
    for pieces in (list(packed.chunks("b")), list(folder.chunks("c"))):
        assert b"".join(pieces) == data
        assert max(map(len, pieces)) <= 1 << 20
    with pytest.raises(archives.ArchiveError, match="there is no file 'x'"):
        next(packed.chunks("x"))
