"""The table of all kinds of damage and their outcomes.

An archive with a kind of damage is read as if undamaged, costs one example, or is refused as a
whole, as stated here. The table drives the tests.
"""

import os
import pathlib
import posixpath
import zipfile
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, get_args

from segdata.sources import Layout
from segdata.testing import damaged_folders as folders
from segdata.testing import damaged_images as images
from segdata.testing import damaged_zips as zips

Outcome = Literal["read", "example refused", "archive refused"]


class Kind(NamedTuple):
    """One kind of damage.

    Attributes:
        what: The damage, in a line.
        outcomes: Layout to outcome; those that it cannot happen to are missing.
        change: Applies it to the zip that holds the victim.
        part: The kind of the victim.
    """

    what: str
    outcomes: Mapping[Layout, Outcome]
    change: zips.Change
    part: Literal["photo", "mask"] = "photo"


def _each(outcome: Outcome, *layouts: Layout) -> dict[Layout, Outcome]:
    """The same for some layouts; for all if none are named."""
    return dict.fromkeys(layouts or get_args(Layout), outcome)


def _photo(what: str, change: images.Change, outcomes: Mapping[Layout, Outcome]) -> Kind:
    return Kind(what, outcomes, zips.member(change))


def _mask(what: str, change: images.Change, outcomes: Mapping[Layout, Outcome]) -> Kind:
    return Kind(what, outcomes, zips.member(change), "mask")


def _file(what: str, change: Callable[[pathlib.Path], object], *layouts: Layout) -> Kind:
    return Kind(what, _each("example refused", *layouts), folders.unpacked(change))


def _called(form: str) -> Callable[[str], str]:
    """A name by the folder, the stem and the ending of another."""

    def name(old: str) -> str:
        folder, _, base = old.rpartition("/")
        stem, ending = posixpath.splitext(base)
        return form.format(folder=folder, stem=stem, ending=ending, ENDING=ending.upper(), old=old)

    return name


_CAR, _STREET, _NUCLEI = get_args(Layout)
_READ, _EXAMPLE, _ARCHIVE = _each("read"), _each("example refused"), _each("archive refused")
_PAGE = b"<!DOCTYPE html><html><title>Sign in</title></html>"

_PHOTOS = {
    "cut": _photo("a photo ends in the middle", images.cut, _EXAMPLE),
    "empty": _photo("a photo has no bytes", images.emptied, _EXAMPLE),
    "page-as-photo": _photo("a photo is a web page", images.web_page, _EXAMPLE),
    "tiff-as-photo": _photo("a photo is a TIFF", images.saved_as("TIFF"), _EXAMPLE),
    "webp-as-photo": _photo("a photo is a WebP", images.saved_as("WEBP"), _EXAMPLE),
    "postscript-as-photo": _photo("a photo is PostScript", images.postscript, _EXAMPLE),
    "garbage-exif": _photo(
        "a photo's EXIF is garbage",
        images.with_garbage_exif,
        _each("read", _CAR, _STREET) | _each("example refused", _NUCLEI),
    ),
    "jpeg-as-png": _photo(
        "an image is a JPEG called .png",
        images.in_mode("RGB", "JPEG"),
        _each("example refused", _NUCLEI),
    ),
    "png-as-jpeg": _photo(
        "a photo is a PNG called .jpg",
        images.saved_as("PNG"),
        _each("example refused", _CAR, _STREET),
    ),
    "bomb": _photo(
        "a small photo claims 60,000×60,000 pixels", images.claims(60_000, 60_000), _EXAMPLE
    ),
    "no-pixels": _photo("a photo claims 0×0 pixels", images.claims(0, 0), _EXAMPLE),
    "tail": _photo("bytes follow a photo's end", images.with_tail, _READ),
    "turned": _photo(
        "EXIF turns a photo",
        images.turned,
        _each("read", _CAR, _NUCLEI) | _each("example refused", _STREET),
    ),
    "cmyk": _photo(
        "a photo is CMYK, inverted as Adobe does it",
        images.in_mode("CMYK", "JPEG", quality=95),
        _each("read", _CAR) | _each("example refused", _STREET),
    ),
    "cmyk-unmarked": _photo(
        "a photo is CMYK without Adobe's mark",
        images.without_adobe,
        _each("example refused", _CAR, _STREET),
    ),
    "grey": _photo(
        "a photo has no colours",
        images.in_mode("L", "JPEG", quality=95),
        _each("read", _CAR) | _each("example refused", _STREET),
    ),
    "progressive": _photo(
        "a photo is a progressive JPEG",
        images.saved_as("JPEG", quality=95, progressive=True),
        _each("read", _CAR, _STREET),
    ),
    "two-pictures": _photo(
        "a JPEG holds a second, small picture, as of a phone",
        images.two_pictures,
        _each("read", _CAR, _STREET),
    ),
    "twelve-bits": _photo(
        "a JPEG claims 12 bits a channel",
        images.twelve_bits,
        _each("example refused", _CAR, _STREET),
    ),
    "half-height": _photo(
        "a JPEG claims half its height", images.of_half_height, _each("example refused", _CAR)
    ),
    "odd-width": _photo(
        "a pair is one column short", images.narrowed, _each("example refused", _STREET)
    ),
    "photo-alone": _photo(
        "a pair has lost its mask half", images.left_half, _each("example refused", _STREET)
    ),
}

_PNGS = {
    name: _photo(what, change, _each("read", _NUCLEI))
    for name, what, change in (
        ("grey-alpha", "an image is grey with alpha", images.in_mode("LA", "PNG")),
        ("plain", "an image is 8-bit RGB", images.in_mode("RGB", "PNG")),
        ("palette", "an image has a palette of greys", images.with_palette),
        ("16-bit", "an image has 16 bits a channel", images.of_16_bits),
        ("16-bit-grey", "an image has 16 bits and is grey", images.of_16_bits_grey),
        ("interlaced", "an image comes in seven passes", images.interlaced),
        ("transparent", "an image has a transparent colour", images.with_transparent_colour),
        ("long-data", "an image holds 16 MB more than it has room for", images.with_long_data),
    )
} | {
    name: _photo(what, change, _each("example refused", _NUCLEI))
    for name, what, change in (
        ("animated", "an image moves", images.two_frames),
        ("wrong-chunk", "a chunk of an image has a wrong checksum", images.with_wrong_checksum),
        ("unended", "an image lacks its last chunk", images.unended),
        ("long-text", "an image has a comment that inflates to 16 MB", images.with_long_text),
    )
}

_LABELLED = _each("example refused", _CAR, _NUCLEI)
_MASKS = {
    "cut-mask": _mask("a mask ends in the middle", images.cut, _LABELLED),
    "empty-mask": _mask("a mask has no bytes", images.emptied, _LABELLED),
    "jpeg-as-mask": _mask("a mask is a JPEG", images.in_mode("L", "JPEG"), _LABELLED),
    "bomb-mask": _mask(
        "a mask claims 60,000×60,000 pixels", images.claims(60_000, 60_000), _LABELLED
    ),
    "small-mask": _mask("a mask has half the size of its photo", images.shrunk, _LABELLED),
    "animated-mask": _mask("a mask has two frames", images.two_frames, _LABELLED),
    "smooth-mask": _mask("a mask has soft edges", images.smooth, _each("read", _CAR, _NUCLEI)),
    "mask-of-ones": _mask(
        "a mask has grey levels 0 and 1", images.of_ones, _each("read", _CAR, _NUCLEI)
    ),
    "inverted-palette": _mask(
        "a mask's palette begins with white", images.inverted_palette, _each("read", _CAR, _NUCLEI)
    ),
    "one-bit-mask": _mask("a mask has one bit a pixel", images.one_bit, _each("read", _NUCLEI)),
    "rgba-mask": _mask("a mask is RGBA", images.rgba, _each("read", _NUCLEI)),
    "own-palette": _mask(
        "a mask's palette is the frame's own", images.with_own_palette, _each("read", _CAR)
    ),
    "see-through-mask": _mask(
        "a mask's background is transparent", images.see_through, _each("read", _CAR)
    ),
    "flipped-size": _mask(
        "a mask's frame is huge, by flipped bits",
        images.with_flipped_size,
        _each("example refused", _CAR),
    ),
    "cropped-mask": _mask(
        "a mask's frame is smaller than the mask", images.cropped_frame, _each("read", _CAR)
    ),
}

_LISTINGS = {
    "no-photo": Kind("a mask has no photo", _LABELLED, zips.without),
    "no-mask": Kind("a photo has no mask", _each("example refused", _CAR), zips.without, "mask"),
    "no-masks": Kind(
        "an image has no folder of masks",
        _each("example refused", _NUCLEI),
        zips.without_folder,
        "mask",
    ),
    "empty-masks": Kind(
        "an image's folder of masks is empty",
        _each("example refused", _NUCLEI),
        zips.with_empty_folder,
        "mask",
    ),
    "copy": Kind(
        "a photo is there again as a copy",
        _EXAMPLE,
        zips.copied(_called("{folder}/{stem} (1){ending}")),
    ),
    "twins": Kind(
        "two photos differ in the case of their names",
        _EXAMPLE,
        zips.copied(_called("{folder}/{stem}{ENDING}")),
    ),
    "misnamed": Kind(
        "a photo has a camera's name",
        _each("example refused", _CAR, _STREET),
        zips.renamed(_called("{folder}/IMG_0001{ending}")),
    ),
    "misplaced": Kind(
        "an image is in a folder of another name",
        _each("example refused", _NUCLEI),
        zips.renamed(lambda name: name.replace("/images/", "/pictures/")),
    ),
    "upper-case": Kind(
        "a name ends in upper case", _READ, zips.renamed(_called("{folder}/{stem}{ENDING}"))
    ),
    "jpeg-ending": Kind(
        "a name ends in .jpeg",
        _each("read", _CAR, _STREET),
        zips.renamed(_called("{folder}/{stem}.jpeg")),
    ),
    "alphabets": Kind(
        "all files are in folders of other alphabets",
        _READ,
        zips.all_renamed(_called("Загрузки/画像 é/{old}")),
    ),
    "deep": Kind(
        "all files are forty folders deep", _READ, zips.all_renamed(_called("a/" * 40 + "{old}"))
    ),
    "doubled": Kind(
        "the top folder is doubled", _READ, zips.all_renamed(_called("stage1_train/train_hq/{old}"))
    ),
    "litter": Kind("systems and browsers left files behind", _READ, zips.littered),
}

_ZIPS = {
    "page": Kind("a zip is a web page", _ARCHIVE, zips.contents(_PAGE)),
    "no-bytes": Kind("a zip has no bytes", _ARCHIVE, zips.contents(b"")),
    "no-members": Kind("a zip holds nothing", _ARCHIVE, zips.contents(b"PK\5\6" + bytes(18))),
    "rar": Kind("a zip is a RAR archive", _ARCHIVE, zips.contents(b"Rar!\x1a\7\0" + bytes(99))),
    "no-end": Kind("a zip ends in the middle", _ARCHIVE, zips.without_end),
    "no-middle": Kind("a zip lacks its middle", _ARCHIVE, zips.without_middle),
    "in-parts": Kind("a zip is the last of several parts", _ARCHIVE, zips.in_parts),
    "upwards": Kind("a name leads out of the zip", _ARCHIVE, zips.with_names("../../x.jpg")),
    "absolute": Kind("a name begins at the root", _ARCHIVE, zips.with_names("/etc/x.jpg")),
    "drive": Kind("a name begins with a drive", _ARCHIVE, zips.with_names("C:\\x.jpg")),
    "same-name": Kind("two members have one name", _ARCHIVE, zips.with_names("a/x.jpg", "a/x.jpg")),
    "misspelt": Kind("names claim to be UTF-8 and are not", _ARCHIVE, zips.with_misspelt_names),
    "too-deep": Kind("a zip is in itself twenty times", _ARCHIVE, zips.nested(20)),
    "nested": Kind("a zip in a zip in a zip", _READ, zips.nested(2)),
    "nested-deflated": Kind(
        "a zip deflated in a zip", _READ, zips.nested(1, method=zipfile.ZIP_DEFLATED)
    ),
    "deflated": Kind("a zip is deflated", _READ, zips.repacked(zipfile.ZIP_DEFLATED)),
    "zip64": Kind("a zip has 64-bit headers", _READ, zips.of_large_headers),
    "streamed": Kind("sizes follow the members of a zip", _READ, zips.streamed),
    "self-extracting": Kind("a program comes before a zip", _READ, zips.with_prefix),
    "zip-tail": Kind("bytes come after a zip", _READ, zips.with_tail),
    "comment": Kind("a zip has a comment", _READ, zips.with_comment),
    "backslashes": Kind(
        "names have backslashes", _READ, zips.all_renamed(lambda name: name.replace("/", "\\"))
    ),
    "dots": Kind("names begin with a dot", _READ, zips.all_renamed(_called("./{old}"))),
    "local-sizes": Kind(
        "a member's own header gives other sizes",
        _READ,
        zips.patched({}, local={18: b"\1\0\0\0\1\0\0\0"}),
    ),
} | {
    name: Kind(what, _EXAMPLE, change)
    for name, what, change in (
        ("encrypted", "a member is encrypted", zips.patched({8: b"\1\0"}, local={6: b"\1\0"})),
        ("bzip2", "a member is packed with bzip2", zips.packed_apart(zipfile.ZIP_BZIP2)),
        ("lzma", "a member is packed with LZMA", zips.packed_apart(zipfile.ZIP_LZMA)),
        ("deflate64", "a member is packed with deflate64", zips.patched({10: b"\x09\0"})),
        ("wrong-crc", "a member has a wrong checksum", zips.patched({16: bytes(4)})),
        ("flipped", "bits of a member are flipped", zips.flipped),
        ("swelling", "a member inflates to far more than it claims", zips.swelling),
        ("enormous", "a member claims 4 GB", zips.patched({24: b"\xf0\xff\xff\xff"})),
        ("too-long", "a member claims more bytes than it has", zips.patched({24: b"\0\0\0\4"})),
        ("elsewhere", "a member is not where the zip says", zips.patched({42: b"\5\0\0\0"})),
        ("contradiction", "a member has two names", zips.misnamed_inside),
        ("overlap", "two members are at the same place", zips.overlapping),
        ("link", "a member is a symbolic link", zips.link_inside),
    )
}

_FOLDERS = {
    "unpacked": Kind("the zip is unpacked", _READ, folders.unpacked(lambda _: None)),
    "unpacked-bare": Kind(
        "train and val are there without a folder around",
        _each("read", _STREET),
        folders.unpacked_bare,
    ),
    "half-unpacked": Kind("a folder beside the zip lacks a file", _ARCHIVE, folders.half_unpacked),
    "linked": Kind("a file is a link to a file", _READ, folders.unpacked(folders.linked)),
    "linked-folder": Kind("a folder is a link", _READ, folders.unpacked(folders.folder_linked)),
    "linked-upwards": Kind("a link leads back up", _READ, folders.unpacked(folders.linked_upwards)),
    "dangling": _file("a file is a link to nothing", folders.dangling),
    "linked-to-itself": _file("a file is a link to itself", folders.linked_to_itself),
    "pipe": _file("a file is a pipe", folders.pipe),
    "folder-as-file": _file("a file is an empty folder", folders.folder_instead, _CAR, _NUCLEI),
    "forbidden": Kind(
        "a file may not be read, except by root",
        _EXAMPLE if getattr(os, "geteuid", lambda: 0)() else _READ,  # Windows may read it too
        folders.unpacked(folders.forbidden),
    ),
    "enormous-file": _file("a file is 8 GB of zeros", folders.enormous),
}

KINDS: Mapping[str, Kind] = _PHOTOS | _PNGS | _MASKS | _LISTINGS | _ZIPS | _FOLDERS
"""All kinds by name."""
