import ast
import collections
import io
import pathlib
import random
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import EpsImagePlugin, ExifTags, Image

from segdata.archives import ArchiveError, images
from segdata.testing import damaged_images

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
SAVED_AS = {kind: kind.upper() for kind in images.KINDS}


def encoded(kind: str, pixels: np.ndarray = PIXELS, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.XResolution] = 72.0
    exif[ExifTags.Base.ImageDescription] = "a description"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"a comment"
    return exif


@pytest.mark.parametrize("kind", images.KINDS)
def test_each_kind_is_opened_where_it_is_allowed_and_refused_by_name_elsewhere(kind: images.Kind):
    data = encoded(SAVED_AS[kind])
    with images.opened(data, name="some.zip: a", kinds=[kind]) as image:
        assert images.rgb(image).size == (32, 24)
    others: list[images.Kind] = [other for other in images.KINDS if other != kind]
    with (
        pytest.raises(ArchiveError, match=f"^some.zip: a is a {kind}, not a .* or "),
        images.opened(data, name="some.zip: a", kinds=others),
    ):
        pass


@pytest.mark.parametrize(
    "data",
    [
        *(encoded(kind) for kind in ("AVIF", "DDS", "PPM", "TGA", "JPEG2000", "ICO")),
        b"qoif\0\0\0\1\0\0\0\1\3\0",
        b"BLP2\1\0\0\0",
        damaged_images.postscript(b""),
        b"\x89PNG",
        b"text",
    ],
    ids=lambda data: repr(data[:4]),
)
def test_other_formats_are_refused_and_no_program_is_started(monkeypatch, tmp_path, data):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("started"))
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    with (
        pytest.raises(ArchiveError, match=r"photo\.png is no picture: .*, not a PNG, JPEG, GIF"),
        images.opened_file(path) as image,
    ):
        image.load()


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WebP", "PNG"])
def test_what_moves_is_refused(kind):
    more = {"save_all": True, "append_images": [Image.fromarray(255 - PIXELS)]}
    with (
        pytest.raises(ArchiveError, match=r"^a has 2 frames"),
        images.opened(encoded(SAVED_AS[kind], **more), name="a", kinds=images.KINDS),
    ):
        pass


def test_frames_are_not_counted():
    """A chain of 200,000 empty ones, in 1.2 MB, took Pillow minutes."""
    count, start = 200_000, 8
    tags = [
        (256, 8),
        (257, 8),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 0),
        (277, 1),
        (278, 8),
        (279, 64),
    ]
    first = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags
    )
    chain = start + len(first) + 4
    links = b"".join(
        struct.pack("<HI", 0, chain + 6 * i if i < count else 0) for i in range(1, count + 1)
    )
    data = b"II*\0" + struct.pack("<I", start) + first + struct.pack("<I", chain) + links
    with (
        pytest.raises(ArchiveError, match=r"^a has 2 frames or more"),
        images.opened(data, name="a", kinds=images.KINDS),
    ):
        pass


def test_a_jpeg_of_many_scans_is_refused():
    """Each goes over all pixels: 200 of 53 bytes took 13 s."""
    data = encoded("JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    with (
        pytest.raises(ArchiveError, match=r"^a is a JPEG of 1\d\d scans; up to 100 are decoded"),
        images.opened(data[:-2] + 100 * scan + data[-2:], name="a"),
    ):
        pass
    with images.opened(data, name="a") as image:
        image.load()


def test_a_side_that_no_image_has_is_refused():
    with (
        pytest.raises(ArchiveError, match=r"^a claims 70,000×1 pixels; sides up to 65,536 are"),
        images.opened(encoded("PNG", np.zeros((1, 70_000), np.uint8)), name="a"),
    ):
        pass


def test_a_bmp_of_run_lengths_is_refused():
    """Of 1,082 bytes, Pillow makes gigabytes of zeros."""
    body, palette = b"\0\2\0\0\0\xff\0\1", bytes(1024)
    header = struct.pack("<IiiHHIIiiII", 40, 1 << 15, 1 << 10, 1, 8, 1, len(body), 0, 0, 256, 0)
    start = 14 + len(header) + len(palette)
    data = b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + palette + body
    with (
        pytest.raises(ArchiveError, match=r"^a is a BMP of run lengths.* Save it as a PNG"),
        images.opened(data, name="a", kinds=images.KINDS) as image,
    ):
        image.load()


def test_a_gif_of_many_comments_is_refused():
    """Pillow joins them in time that grows with their square: two minutes for 10 MB."""
    comment = b"\x21\xfe" + (b"\xff" + b"A" * 255) * 17_000 + b"\0"
    data = b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0x80, 0, 0) + bytes(6) + comment
    with (
        pytest.raises(ArchiveError, match=r"^a is a GIF of 4,352,0.* up to 4,194,304 are read"),
        images.opened(data, name="a", kinds=images.KINDS),
    ):
        pass


def test_more_pixels_than_are_decoded_are_refused_whatever_the_kind():
    white = np.full((6_000, 6_000), 255, np.uint8)
    options: dict[str, dict[str, Any]] = {
        "TIFF": {"compression": "tiff_deflate"},
        "WebP": {"lossless": True, "method": 0},
    }
    for kind in ("PNG", "GIF", "TIFF", "WebP"):
        data = encoded(SAVED_AS[kind], white, **options.get(kind, {}))
        assert len(data) < 200_000
        with (
            pytest.raises(ArchiveError, match=r"^a claims 6,000×6,000 pixels; up to 33,554,432"),
            images.opened(data, name="a", kinds=images.KINDS),
        ):
            pass


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WebP"])
def test_an_image_is_turned_as_its_exif_says(kind: images.Kind, orientation):
    from PIL import ImageOps

    data = encoded(SAVED_AS[kind], exif=turned(orientation), lossless=True)
    with images.opened(data, name="a", kinds=[kind]) as image:
        expected = ImageOps.exif_transpose(image)
        np.testing.assert_array_equal(np.asarray(images.upright(image)), np.asarray(expected))


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Some bits flipped, bytes set, cut out or put in; checksums of a PNG mended, or not."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(min(len(found), rng.choice((200, len(found)))))
        match rng.randrange(5):
            case 0:
                found[at] = rng.choice((0, 1, 127, 255))
            case 1:
                del found[at : at + rng.randrange(1, 8)]
            case _:
                found[at] ^= 1 << rng.randrange(8)
    return bytes(found)


def mended(data: bytes) -> bytes:
    """A PNG with the right checksums, as far as its chunks can be told apart."""
    found, at = data[:8], 8
    while len(data) >= at + 12:
        size = int.from_bytes(data[at : at + 4])
        content = data[at + 8 : at + 8 + size]
        found += damaged_images._png([(data[at + 4 : at + 8], content)])[8:]
        at += 12 + size
    return found


def test_of_damage_to_images_nothing_escapes_but_an_error_that_names_the_file():
    rng = random.Random(0)
    grey = PIXELS[..., 0]
    pool = [
        *(encoded(SAVED_AS[kind]) for kind in ("PNG", "JPEG", "GIF", "BMP", "WebP")),
        *(encoded(SAVED_AS[kind], exif=turned(6)) for kind in ("PNG", "JPEG")),
        *(encoded(kind, grey) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF")),
        encoded("JPEG", progressive=True, icc_profile=bytes(50)),
        encoded("PNG", (PIXELS > 127)[..., 0]),
        encoded("GIF", transparency=0, comment=b"hello"),
        encoded("TIFF", compression="tiff_lzw"),
    ]
    uses = [
        lambda image: images.rgb(images.upright(image)),
        lambda image: np.asarray(image),
        lambda image: (image.draft("RGB", (image.width // 8, 1)), image.load()),
        lambda image: image.convert("L").resize((3, 3)),
    ]
    outcomes = collections.Counter[str | bool]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of odd EXIF that it reads nevertheless
        for _ in range(6_000):
            data = damaged(rng.choice(pool), rng)
            data = mended(data) if data.startswith(b"\x89PNG\r\n\x1a\n") else data
            try:
                with images.opened(data, name="some.zip: a", kinds=images.KINDS) as image:
                    rng.choice(uses)(image)
            except ArchiveError as error:
                said = str(error)
                outcomes[said.startswith("some.zip: a ") and "\n" not in said] += 1
            else:
                outcomes["read"] += 1
    assert not outcomes[False]
    assert min(outcomes[True], outcomes["read"]) > 1_000


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), RecursionError("deep"), MemoryError(), StopIteration(), UserWarning("a\nb")],
)
def test_whatever_is_raised_while_decoding_becomes_one_line_that_names_the_file(error):
    with (
        pytest.raises(ArchiveError, match=r"^some\.zip: a is no readable PNG: .*\.$") as caught,
        images.opened(encoded("PNG"), name="some.zip: a"),
    ):
        raise error
    assert len(str(caught.value).splitlines()) == 1


def test_images_are_opened_nowhere_else():
    root = pathlib.Path(images.__file__).parent.parent
    for path in [*root.glob("segdata/**/*.py"), *root.glob("unet/**/*.py")]:
        opens = [
            node
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute)
            and ast.unparse(node) in ("Image.open", "PIL.Image.open")
        ]
        assert not opens or path.name == "records.py", path


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (96, 144), (161, 519)])
@pytest.mark.parametrize("values", [[0], [255], [0, 1, 255], range(256)])
def test_a_mask_is_read_as_it_was_written(shape, values):
    mask = np.random.default_rng(0).choice(np.array(values, np.uint8), shape)
    data = images.mask_png(mask)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), mask)
    np.testing.assert_array_equal(tf.io.decode_png(data)[..., 0], mask)


def filtered(pixels: np.ndarray, kinds: Any) -> bytes:
    """A PNG of grey levels [H, W], each row with a filter of its own."""
    rows = bytearray()
    height, width = pixels.shape
    padded = np.pad(pixels, ((1, 0), (1, 0))).astype(int)
    for y, kind in enumerate(kinds):
        left, above, corner = padded[y + 1, :-1], padded[y, 1:], padded[y, :-1]
        nearest = np.abs([above - corner, left - corner, left + above - 2 * corner]).argmin(axis=0)
        paeth = np.choose(nearest, [left, above, corner])
        guess = [0 * left, left, above, (left + above) // 2, paeth][kind % 5]
        rows += bytes([kind]) + ((pixels[y] - guess) & 255).astype(np.uint8).tobytes()
    return damaged_images._png(
        [
            (b"IHDR", struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)),
            (b"IDAT", zlib.compress(bytes(rows))),
            (b"IEND", b""),
        ]
    )


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (24, 33)])
def test_grey_levels_are_decoded_as_pillow_does_whatever_their_filters(shape):
    rng = np.random.default_rng(0)
    for _ in range(50):
        pixels = rng.integers(0, 256, shape, np.uint8) & rng.choice([1, 255])
        data = filtered(pixels, rng.integers(0, 5, shape[0]))
        with images.opened(data, name="a") as image:
            np.testing.assert_array_equal(np.asarray(image), pixels)
        np.testing.assert_array_equal(images.grey(data), pixels)
        assert images.grey(filtered(pixels, [*[0] * (shape[0] - 1), 5])) is None


def test_only_whole_grey_pngs_are_decoded_without_pillow():
    """Of what is damaged and has right checksums nothing is decoded that Pillow refuses."""
    rng = random.Random(0)
    whole = [images.mask_png(PIXELS[..., 0]), filtered(PIXELS[..., 0], [i % 5 for i in range(24)])]
    outcomes = collections.Counter[bool]()
    for _ in range(3_000):
        data = mended(damaged(rng.choice(whole), rng))
        found = images.grey(data)
        outcomes[found is None] += 1
        if found is not None:
            with images.opened(data, name="a") as image:
                np.testing.assert_array_equal(np.asarray(image), found)
    assert min(outcomes.values()) > 20
    alpha = np.concatenate([PIXELS, PIXELS[..., :1]], axis=-1)
    for other in (PIXELS, alpha, PIXELS[..., :1] > 127, PIXELS[..., 0].astype(np.uint16)):
        assert images.grey(encoded("PNG", other.squeeze())) is None
    assert images.grey(encoded("PNG", PIXELS[..., 0], transparency=3)) is None
    assert images.grey(b"") is None
    bomb = [
        (b"IHDR", struct.pack(">2I5B", 9, 9, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(99))),
    ]
    assert images.grey(damaged_images._png([*bomb, (b"IEND", b"")])) is None


def test_class_ids_are_read_of_every_kind_of_mask():
    classes = PIXELS[..., 0] % 3
    palette = Image.fromarray(classes)
    palette.putpalette([9, 9, 9, 1, 1, 1, 0, 0, 0])
    indexed = io.BytesIO()
    palette.save(indexed, "PNG")
    for data in (images.mask_png(classes), indexed.getvalue()):
        np.testing.assert_array_equal(images.classes_of_png(data, name="a"), classes)
    one_bit = images.classes_of_png(encoded("PNG", classes > 0), name="a")
    np.testing.assert_array_equal(one_bit, (classes > 0) * 255)
    for data in (encoded("PNG"), encoded("JPEG", classes), images.mask_png(classes)[:-20], b""):
        with pytest.raises(ArchiveError, match=r"^the mask of b "):
            images.classes_of_png(data, name="the mask of b")


def test_a_flat_mask_is_small():
    mask = np.zeros((1280, 1918), np.uint8)
    mask[300:900, 400:1500] = 1
    assert len(images.mask_png(mask)) < 5_000
    assert images.mask_png(mask) == images.mask_png(np.asfortranarray(mask))
