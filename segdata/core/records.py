"""Packed records: a dataset at its training size, as raw bytes, written and opened with NumPy.

A record is H·W·4 bytes: red, green, blue and class id of each pixel in turn. A packed file is a
TFRecord of them, so any TFRecord reader can stream it, and a memory-mapped array, since pixels lie
at places that are known: of records of one size every (H·W·4+16) bytes, of others where the index
says. The index beside it holds for each record its place, size, the means of its channels, and
where its classes are; a map of instances may lie beside it too. The manifest is written last: what
it was made from, how many records there are and their checksum. A packed file is never written to
again: what is packed anew has another name. docs/records.md describes the format to the byte.
"""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import re
import secrets
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from segdata.core.system import arguments, files, parallel, tfrecord
from segdata.core.system.compiling import compiled

FORMAT = 2
"""Of the files; those of another are packed anew."""
PLACES = 32
"""Pixels of each class that the index keeps of a record, for crops that hold the class."""
NOWHERE = 0xFFFFFFFF
"""In the index, instead of a pixel's place, where a record has none of a class."""
_HEADER = tfrecord.HEADER
_FRAME = _HEADER + tfrecord.FOOTER
_FEW = 16  # classes that are counted one by one
_LONGEST = 65_535  # pixels of a side, for a place is two times 16 bits
_PART = ".part"  # the ending of what is not whole yet


def index_type(classes: int) -> np.dtype:
    """A row of the index, for records whose classes are below `classes`.

    `start` is the place of the first pixel in the packed file, in 32-bit words; `means` those of
    red, green and blue, 16 binary places; `objects` the largest number in the map of instances;
    `places` the row times 65,536 plus the column of some pixels of each class, evenly spread over
    all of them in reading order, or `NOWHERE`.
    """
    return np.dtype(
        [
            ("start", "<i8"),
            ("height", "<i4"),
            ("width", "<i4"),
            ("means", "<i4", 3),
            ("objects", "<i4"),
            ("places", "<u4", (classes, PLACES)),
        ]
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Records:
    """An open packed file, or some rows of it; the file stays on disk for as long as this is kept.

    Attributes:
        path: The TFRecord file.
        total: How many records it holds.
        size: Height and width of each in pixels; None where they differ.
        classes: The index knows where classes below this number are.
        has_instances: Whether there are maps of instances.
        checksum: CRC-32 of all records, with their frames, index rows and instances.
        rows: Which of its records these are, in order.
    """

    path: pathlib.Path
    total: int
    size: tuple[int, int] | None
    classes: int
    has_instances: bool
    checksum: int
    rows: range | np.ndarray
    _of: "Records | None" = dataclasses.field(default=None, repr=False)  # which keeps the files

    def __post_init__(self) -> None:
        if self._of:
            return
        for path in self.paths:
            if path.exists() and not path.is_file():
                raise OSError(f"{path} is no file but a folder, a pipe or a device. Remove it.")
            files.use(path, owner=self)

    def __reduce__(self) -> Any:
        """Another process, or a copy, keeps the file as well."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del given["_of"]
        return _reopened, (given,)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> np.ndarray:
        """One of them, memory-mapped: uint8 [H, W, 4], read-only."""
        if isinstance(number, slice):
            raise TypeError("records are taken one by one; `select` gives some of them.")
        return self._pixels(self.path, self.rows[number], _HEADER // 4, np.dtype("<u4")).view(
            np.uint8
        )

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.rows)

    @property
    def manifest(self) -> pathlib.Path:
        """The manifest beside the file, for `load`."""
        return self.path.with_name(f"{self.path.stem.rpartition('-')[0]}.json")

    @property
    def index_path(self) -> pathlib.Path:
        """The file of `index`."""
        return self.path.with_suffix(".index")

    @property
    def instances_path(self) -> pathlib.Path:
        """The file of the maps of instances, where there are any."""
        return self.path.with_suffix(".instances")

    @property
    def paths(self) -> list[pathlib.Path]:
        """All its files but the manifest."""
        return [self.path, self.index_path, *[self.instances_path] * self.has_instances]

    def select(self, rows: range | Iterable[int]) -> "Records":
        """Some of these, by their numbers from 0 to `count`, in that order; no file is copied.

        A stream draws for a row and an epoch; so a record that is chosen twice is augmented alike
        in both places of an epoch.

        Raises:
            ValueError: If there are none, or one is out of range.
        """
        if not isinstance(rows, range):
            try:
                rows = np.array([arguments.integer("rows", row) for row in rows], np.int64)
            except TypeError as error:
                raise ValueError(f"rows={rows!r:.60} is no sequence of numbers of rows.") from error
        ends = np.array([rows[0], rows[-1]] if isinstance(rows, range) and rows else rows)
        if not len(ends) or not 0 <= ends.min() <= ends.max() < self.count:
            raise ValueError(f"rows={rows!s:.60}: one at least, each from 0 to {self.count - 1:,}.")
        if isinstance(self.rows, range) and isinstance(rows, range) and rows.step > 0:
            chosen: range | np.ndarray = self.rows[rows.start : rows.stop : rows.step]
        else:
            chosen = np.asarray(self.rows)[np.asarray(rows)]
        return dataclasses.replace(self, rows=chosen, _of=self._of or self)

    def index(self) -> np.ndarray:
        """What is known of each record of the file, memory-mapped: `index_type` [total]."""
        return np.asarray(
            np.memmap(self.index_path, index_type(self.classes), "r", shape=(self.total,))
        )

    def words(self) -> np.ndarray:
        """The whole file, memory-mapped: uint32 [bytes/4], read-only."""
        return np.asarray(np.memmap(self.path, "<u4", "r"))

    def array(self) -> np.ndarray:
        """Records of one size, memory-mapped: uint8 [count, H, W, 4], read-only.

        It is a copy in memory where they are not evenly spaced in the file.

        Raises:
            ValueError: If their sizes differ.
        """
        if self.size is None:
            raise ValueError(f"{self.path}: its records differ in size; take them one by one.")
        stride = self.size[0] * self.size[1] * 4 + _FRAME
        held = np.memmap(self.path, np.uint8, "r", shape=(self.total, stride))
        whole = held[:, _HEADER : -tfrecord.FOOTER].reshape(self.total, *self.size, 4)
        if isinstance(self.rows, range):
            return whole[self.rows.start : self.rows.stop : self.rows.step]
        return whole[self.rows]

    def instances(self, number: int) -> np.ndarray:
        """The map of instances of one of them, memory-mapped: uint16 [H, W], 0 for background.

        Raises:
            ValueError: If there are none.
        """
        if not self.has_instances:
            raise ValueError(f"{self.path} has no maps of instances; pack with instances=True.")
        return self._pixels(self.instances_path, self.rows[number], 0, np.dtype("<u2"))[..., 0]

    def _pixels(self, path: pathlib.Path, row: int, lead: int, dtype: np.dtype) -> np.ndarray:
        """[H, W, 1] of a file that has one item a pixel, and `lead` + 1 before others' records."""
        found = self.index()[row]
        shape = int(found["height"]), int(found["width"]), 1
        # Each record of the packed file has a frame of four words, of which three come first.
        first = int(found["start"]) - 3 - 4 * int(row) if not lead else int(found["start"])
        return np.asarray(np.memmap(path, dtype, "r", first * dtype.itemsize, shape))

    def verify(self) -> None:
        """Reads all files once and compares them with their checksum, at 3 GB/s from RAM.

        Raises:
            OSError: If they differ, or cannot be read.
        """
        _require_whole(self)
        index, checksum = self.index(), 0
        with contextlib.ExitStack() as stack:
            data, *maps = (
                stack.enter_context(path.open("rb"))
                for path in self.paths
                if path != self.index_path
            )
            for row in index:
                area = int(row["height"]) * int(row["width"])
                parts = [data.read(4 * area + _FRAME), row.tobytes()]
                parts += [file.read(2 * area) for file in maps]
                for part in parts:
                    checksum = zlib.crc32(part, checksum)
        if checksum != self.checksum:
            raise OSError(f"{self.path} is damaged: delete it, and it is packed again.")


def load(manifest: str | os.PathLike[str]) -> Records:
    """Opens a packed file by its manifest, whatever it was made from.

    It is read only where its size, its time or its place on the disk are others than when it was
    written or last read.

    Args:
        manifest: `Records.manifest` of what was packed; `NAME.json`.

    Raises:
        OSError: If there is none, or the file is damaged.
        ValueError: If it is none, or of another format.
    """
    manifest = pathlib.Path(manifest)
    if not manifest.is_file():
        raise FileNotFoundError(f"{manifest}: there is no such manifest of a packed file.")
    try:
        noted = _read(manifest)
        found = noted["format"]
        if found != FORMAT:
            raise ValueError(f"its format is {found!r:.40}, not {FORMAT}; pack it again")
        return _opened(manifest, noted)
    except OSError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{manifest} is no manifest of a packed file: {error!s:.200}.") from error


def opened(
    manifest: pathlib.Path,
    *,
    size: tuple[int, int] | None,
    count: int,
    source: Mapping[str, Any],
    classes: int = 0,
    has_instances: bool = False,
) -> Records | None:
    """The same of a packed file that is whole, has as many records, and was made from this.

    Returns:
        None where there is none.
    """
    try:
        noted = _read(manifest)
        known = {"token": noted["token"], "crc32": noted["crc32"], "seen": noted["seen"]}
        wanted = _noted(source, size=size, classes=classes, has_instances=has_instances)
        return _opened(manifest, noted) if noted == {**wanted, "count": count, **known} else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None  # a manifest may hold anything


def _noted(
    source: Mapping[str, Any], *, size: tuple[int, int] | None, classes: int, has_instances: bool
) -> dict[str, Any]:
    """What a manifest says before the records are known."""
    return {
        "format": FORMAT,
        **source,
        "size": size and list(size),
        "classes": classes,
        "instances": has_instances,
    }


def _opened(manifest: pathlib.Path, noted: dict[str, Any]) -> Records:
    """What a manifest describes.

    Raises:
        OSError: If the file is missing or damaged.
        ValueError: If a field is odd; others may raise what they like.
    """
    count = arguments.integer("count", noted["count"], least=1)
    size = noted["size"]
    records = Records(
        path=_path(manifest, noted["token"]),
        total=count,
        size=None if size is None else arguments.size(size),
        classes=arguments.integer("classes", noted["classes"], least=0, most=256),
        has_instances=bool(noted["instances"]),
        checksum=arguments.integer("crc32", noted["crc32"], least=0),
        rows=range(count),
    )
    _require_whole(records)
    if _seen(records) != noted["seen"]:
        records.verify()
        with contextlib.suppress(OSError):  # where it may not be written, it is read each time
            _write_manifest(manifest, noted, records)
    return records


def _reopened(given: dict[str, Any]) -> Records:
    """What was pickled, if its files are still those."""
    records = Records(**given)
    _require_whole(records)
    return records


def _require_whole(records: Records) -> None:
    """Compares the index with the files, so that nothing beyond them is read; reads no record.

    Raises:
        OSError: If they differ.
        ValueError: If the index is of records of another size.
    """
    lengths = [path.stat().st_size for path in records.paths]
    if lengths[1] != records.total * index_type(records.classes).itemsize:
        raise OSError(f"{records.path} is cut: delete it, and it is packed again.")
    index = records.index()
    height, width = (index[side].astype(np.int64) for side in ("height", "width"))
    if records.size and ((height != records.size[0]) | (width != records.size[1])).any():
        raise ValueError(f"size={records.size}: its index says {height[0]}×{width[0]}.")
    pixels = np.concatenate([[0], np.cumsum(height * width)])
    frames = 3 + 4 * np.arange(records.total)
    expected = [4 * (pixels[-1] + 4 * records.total), 2 * pixels[-1]]
    is_whole = min(height.min(), width.min()) > 0 and max(height.max(), width.max()) <= _LONGEST
    is_whole = is_whole and (index["start"] == pixels[:-1] + frames).all()
    if not is_whole or [lengths[0], *lengths[2:]] != expected[: len(lengths) - 1]:
        raise OSError(f"{records.path} is cut: delete it, and it is packed again.")


def _read(manifest: pathlib.Path) -> Any:
    return json.loads(_text(manifest))


def _text(path: pathlib.Path) -> str:
    """Of a file, and not of a pipe, which would be waited for."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file.")
    return path.read_text()


Row = np.ndarray | tuple[np.ndarray, np.ndarray]
"""A record uint8 [H, W, 4], RGB and class id; where there are instances, with uint16 [H, W]."""


def write(
    manifest: pathlib.Path,
    rows: Iterable[Any] | Callable[[int], Iterable[Any]],
    *,
    size: tuple[int, int] | None,
    source: Mapping[str, Any],
    classes: int = 0,
    has_instances: bool = False,
    make: Callable[[Any], Row] | None = None,
) -> Records:
    """Writes a packed file and its manifest, under their names only when whole.

    Args:
        manifest: `NAME.json`, in a folder that is there. What was packed there before is removed
            when nobody uses it.
        rows: The records, or what `make` takes; or a function of how many are there already, which
            gives the others: then what a killed process has written is read, checked and kept.
            Nobody else may write there at the same time.
        size: H and W; None where they differ.
        source: What the rows were made from, kept in the manifest.
        classes: The index keeps where classes below this number are; up to 256.
        has_instances: Whether each row comes with a map of instances.
        make: What makes a record of each of `rows`, on all cores; None where they are records.

    Returns:
        The file, open.

    Raises:
        OSError: If there is no room, or the folder may not be written to.
        ValueError: If a row is of another kind or size.
    """
    files.remove_unfinished(manifest.parent)
    noted = _noted(source, size=size, classes=classes, has_instances=has_instances)
    kept = manifest.with_suffix(f".json{_PART}")
    token, sums = _begun(kept, noted) if callable(rows) else (None, [])
    remove_unused(manifest, but=token)  # first: a full disk needs the room
    token = token or secrets.token_hex(4)
    path = _path(manifest, token)
    finals = [path, path.with_suffix(".index"), *[path.with_suffix(".instances")] * has_instances]
    parts = [final.with_name(final.name + _PART) for final in finals]
    unwanted = [*parts, *finals, *[kept] * callable(rows)]
    try:
        if callable(rows):
            with files.replacing(kept) as place:
                place.write_text(json.dumps({**noted, "token": token}) + "\n")
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(kept.open("ab", buffering=0)) if callable(rows) else None
            opened_ = [stack.enter_context(part.open("a+b")) for part in parts]
            for file in opened_:
                files.hold(file.fileno())
            writer = _Writer(*opened_, classes=classes, log=log)
            writer.resume(sums)
            more = rows(writer.count) if callable(rows) else rows

            def framed(item: Any) -> _Frame:
                row = make(item) if make else item
                return _framed(row, size=size, classes=classes, maps=has_instances)

            for frame in parallel.ordered_map(framed, more):
                writer.add(frame)
            for file in opened_:
                file.flush()
                os.fsync(file.fileno())
        _require_written(parts, writer)
        for part, final in zip(parts, finals, strict=True):
            part.replace(final)
        records = Records(
            path=path,
            total=writer.count,
            size=size,
            classes=classes,
            has_instances=has_instances,
            checksum=writer.checksum,
            rows=range(writer.count),
        )
        _write_manifest(manifest, {**noted, "token": token}, records)
        unwanted = unwanted[len(parts) + len(finals) :]
    except OSError as error:
        raise OSError(f"{manifest.parent}: {manifest.stem} cannot be packed: {error}") from error
    except (KeyboardInterrupt, SystemExit):
        if callable(rows):
            unwanted = []  # the next one goes on
        raise
    finally:
        for left in unwanted:
            left.unlink(missing_ok=True)
    return records


def remove_unused(manifest: pathlib.Path, *, but: str | None = None) -> None:
    """Removes what was packed under this name before, but for what a process uses.

    Args:
        manifest: `NAME.json`.
        but: The token of files that stay.
    """
    for path in leftovers(manifest, but=but):
        files.remove_unused(path)


def leftovers(manifest: pathlib.Path, *, but: str | None = None) -> list[pathlib.Path]:
    """All files of this name, whole or not, but those of a token; not the manifest."""
    own = re.compile(
        re.escape(manifest.stem)
        + r"(-(?P<token>[0-9a-f]{8}))?[.](tfrecord|means|index|instances)([.]part)?"
    )
    found = ((own.fullmatch(path.name), path) for path in sorted(manifest.parent.iterdir()))
    return [path for match, path in found if match and not (but and match["token"] == but)]


def means_of(row: np.ndarray) -> np.ndarray:
    """Mean of each channel of records uint8 [..., H, W, 4]: int32 [..., 3], 16 binary places."""
    *many, height, width, _ = row.shape
    flat = np.ascontiguousarray(row).reshape(-1, height, width, 4)
    total = np.array([_sums(each) for each in flat], np.int64).reshape(*many, 3)
    area = height * width
    return ((total * (1 << 17) + area) // (2 * area)).astype("<i4")


def places_of(mask: np.ndarray, classes: int) -> np.ndarray:
    """Some pixels of each class of a mask uint8 [H, W]: `index_type`'s places [classes, 32]."""
    return _places(np.ascontiguousarray(mask), classes)


@compiled
def _places(mask: np.ndarray, classes: int) -> np.ndarray:
    height, width = mask.shape
    in_row = np.zeros((height, classes), np.int64)
    for y in range(height):
        row = mask[y]
        if classes <= _FEW:
            for label in range(classes):  # each over the whole row: so it becomes vector code
                found = np.int32(0)
                for x in range(width):
                    found += np.int32(row[x] == label)
                in_row[y, label] = found
        else:
            for x in range(width):
                if row[x] < classes:
                    in_row[y, row[x]] += 1
    places = np.full((classes, PLACES), np.uint32(NOWHERE), np.uint32)
    for label in range(classes):
        total = in_row[:, label].sum()
        y, before = 0, 0
        for k in range(PLACES if total else 0):
            wanted = (2 * k + 1) * total // (2 * PLACES)
            while before + in_row[y, label] <= wanted:
                before += in_row[y, label]
                y += 1
            x, left = 0, wanted - before
            while mask[y, x] != label or left:
                left -= mask[y, x] == label
                x += 1
            places[label, k] = np.uint32(y << 16 | x)
    return places


@compiled
def _sums(row: np.ndarray) -> np.ndarray:
    """Of red, green and blue over a record; int64 [3]."""
    sums = np.zeros(3, np.int64)
    for y in range(row.shape[0]):
        red, green, blue = np.uint32(0), np.uint32(0), np.uint32(0)
        for x in range(row.shape[1]):
            red += np.uint32(row[y, x, 0])
            green += np.uint32(row[y, x, 1])
            blue += np.uint32(row[y, x, 2])
        sums += np.array([red, green, blue], np.int64)
    return sums


class _Frame(NamedTuple):
    """A record as it is written, and what the index says of it."""

    data: bytes
    row: np.ndarray
    instances: bytes


def _framed(row: Row, *, size: tuple[int, int] | None, classes: int, maps: bool) -> _Frame:
    given: Any = row
    pixels, instances = given if maps else (given, None)
    is_record = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8
    is_record = is_record and pixels.ndim == 3 and pixels.shape[2] == 4 and pixels.size > 0
    if not is_record or (size or pixels.shape[:2]) != pixels.shape[:2]:
        raise ValueError(
            f"a record is {getattr(pixels, 'dtype', type(pixels).__name__)} "
            f"{list(np.shape(pixels))}, not uint8 [{'H, W' if size is None else size}, 4]."
        )
    if max(pixels.shape) > _LONGEST:
        raise ValueError(f"a record of {pixels.shape[0]}×{pixels.shape[1]}: at most 65,535 a side.")
    found = np.zeros((), index_type(classes))
    found["height"], found["width"] = pixels.shape[:2]
    found["means"], found["places"] = means_of(pixels), places_of(pixels[..., 3], classes)
    held = b""
    if instances is not None:
        if instances.dtype != np.uint16 or instances.shape != pixels.shape[:2]:
            raise ValueError(
                f"instances are {instances.dtype} {list(instances.shape)}, not uint16 "
                f"{list(pixels.shape[:2])}."
            )
        found["objects"], held = instances.max(), instances.astype("<u2").tobytes()
    return _Frame(tfrecord.framed(pixels.tobytes()), found, held)


class _Writer:
    """Appends records to the files, and to the checksum of what was meant.

    The log gets the checksum up to each record, as a line, so that what is there can be proved.
    """

    def __init__(
        self,
        data: BinaryIO,
        index: BinaryIO,
        *maps: BinaryIO,
        classes: int,
        log: io.RawIOBase | None,
    ):
        self._data, self._index, self._maps = data, index, maps
        self._classes, self._log = classes, log
        self.count, self.checksum, self.bytes = 0, 0, [0] * (2 + len(maps))

    def add(self, frame: _Frame) -> None:
        frame.row["start"] = (self.bytes[0] + _HEADER) // 4
        self._data.write(frame.data)
        self._index.write(frame.row.tobytes())
        for file in self._maps:
            file.write(frame.instances)
        self._count(frame)

    def _count(self, frame: _Frame) -> None:
        parts = [frame.data, frame.row.tobytes(), frame.instances][: len(self.bytes)]
        self.checksum = self._sum(frame)
        self.bytes = [size + len(part) for size, part in zip(self.bytes, parts, strict=True)]
        self.count += 1
        if self._log:
            self._log.write(f"{self.checksum:08x}\n".encode())

    def _sum(self, frame: _Frame) -> int:
        """The checksum up to a record that comes next."""
        checksum = self.checksum
        for part in (frame.data, frame.row.tobytes(), frame.instances):
            checksum = zlib.crc32(part, checksum)
        return checksum

    def resume(self, sums: Iterable[str]) -> None:
        """Counts the records that are there as they were logged, and cuts off the rest."""
        for file in (self._data, self._index, *self._maps):
            file.seek(0)
        for frame in self._there(sums):
            self._count(frame)
        for file, length in zip((self._data, self._index, *self._maps), self.bytes, strict=True):
            file.truncate(length)

    def _there(self, sums: Iterable[str]) -> Iterator[_Frame]:
        kind, most = index_type(self._classes), os.fstat(self._data.fileno()).st_size
        for expected in sums:
            row = self._index.read(kind.itemsize)
            if len(row) < kind.itemsize:
                return
            found = np.frombuffer(row, kind).reshape(())
            area = int(found["height"]) * int(found["width"])
            if not 0 < 4 * area <= most:
                return
            data = self._data.read(4 * area + _FRAME)
            frame = _Frame(data, found, b"".join(file.read(2 * area) for file in self._maps))
            if f"{self._sum(frame):08x}" != expected:
                return
            yield frame


def _begun(kept: pathlib.Path, noted: Mapping[str, Any]) -> tuple[str | None, list[str]]:
    """What a killed process began to write from the same: its token, the checksums it logged."""
    try:
        first, *sums = _text(kept).splitlines()
        found = json.loads(first)
        token = found.pop("token")
        _path(kept, token)
        return (token, sums) if found == noted else (None, [])
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None, []


def _require_written(parts: Iterable[pathlib.Path], writer: _Writer) -> None:
    for part, length in zip(parts, writer.bytes, strict=True):
        if part.stat().st_size != length:
            raise OSError(f"{part} does not hold what was written to it; is there room?")


def _path(manifest: pathlib.Path, token: str) -> pathlib.Path:
    if not re.fullmatch("[0-9a-f]{8}", token):
        raise ValueError(f"{manifest}: token={token!r} is not eight hexadecimal digits.")
    return manifest.with_name(f"{manifest.stem}-{token}.tfrecord")


def _seen(records: Records) -> list[list[int]]:
    """What changes where somebody writes to the files: size, time and place on the disk of each."""
    found = [path.stat() for path in records.paths]
    return [[stat.st_size, stat.st_mtime_ns, stat.st_ino] for stat in found]


def _write_manifest(manifest: pathlib.Path, noted: Mapping[str, Any], records: Records) -> None:
    noted = {
        **noted,
        "count": records.total,
        "crc32": records.checksum,
        "seen": _seen(records),
    }
    with files.replacing(manifest) as path:
        path.write_text(json.dumps(noted, indent=1))
