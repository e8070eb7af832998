"""Damaged inputs for `fuzz.py`: bytes, numbers, text, JSON, zips, PNGs.

What is behind a checksum is never reached where the checksum is wrong, so zips and PNGs are damaged
first and written with the right ones. Every function leaves its input sound now and then.
"""

import json
import random
import string
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

File = tuple[str, bytes]
Chunk = tuple[bytes, bytes]

_PNG = b"\x89PNG\r\n\x1a\n"
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_EXTRAS = (b"", b"", b"", b"\1\0\x10\0" + bytes(16), b"\1\0\4\0abcd", b"up\4\0\1abc", b"\0")
_CHUNKS = (b"tRNS", b"PLTE", b"eXIf", b"acTL", b"IDAT", b"iCCP")

_WORDS = (
    *("", " ", "0", "-1", "1", "1.5", "1e9", "nan", "None", "9" * 19, "9" * 5000, "x" * 300),
    *("٣", "²", "é", "e\u0301", "𝔘", "\u00a0", "\u2028", "\u202e", "\ufeff", "\x1b[2J", "\udcff"),
    *("\n", "\r", "\t", "\0", ",", '"', "..", "../x", "/x", "C:", "a\\b", "a//b", "./x", ".x"),
)
_VALUES = (
    *("null", "true", "[]", "{}", '""', "0", "1", "-1", "0.5", "1e400", "-1e400", "NaN", "1e308"),
    *('"x"', r'"\n"', r'"\ud800"', '"٣"', '"../x"', "[null]", "[1, 2]", "[[]]", '{"x": 1}'),
    *(str(2**31), str(-(2**63)), "9" * 5000, f'"{"x" * 5000}"', f"[{'0,' * 999}0]"),
    *("[" * 20 + "]" * 20, "[" * 9999 + "]" * 9999, '{"x":' * 9999 + "0" + "}" * 9999),
)


def number(rng: random.Random) -> int:
    """A whole number near a power of two, where limits are."""
    return (1 << rng.choice((0, 3, 7, 8, 10, 15, 16, 24, 31, 32, 63))) + rng.randrange(-2, 3)


def binary(rng: random.Random, sound: bytes, *, other: bytes = b"") -> bytes:
    """Bytes with up to four faults; of `other` stretches may come in."""
    found = bytearray(sound)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 4))):
        start = rng.randrange(len(found) + 1)
        some = slice(start, start + rng.choice((1, 1, 2, 4, 40)))
        match rng.randrange(7):
            case 0:
                found[some] = bytes(byte ^ 1 << rng.randrange(8) for byte in found[some])
            case 1:
                found[some] = rng.choice((b"\0", b"\xff")) * len(found[some])
            case 2:
                order = rng.choice(("little", "big"))
                found[start : start + 4] = (number(rng) % (1 << 32)).to_bytes(4, order)
            case 3:
                del found[start:]
            case 4:
                del found[some]
            case 5:
                found[start:start] = found[some] * rng.choice((1, 1, 300))
            case _:
                source = other or sound
                place = rng.randrange(len(source) + 1)
                found[some] = source[place : place + 40]
    return bytes(found)


def text(rng: random.Random, sound: str, *, separator: str = " ") -> str:
    """Text in which up to four words are others, gone, or there twice."""
    words = sound.split(separator)
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        place = rng.randrange(len(words) + 1)
        old = words[place : place + 1]
        new = rng.choice((rng.choice(_WORDS), str(number(rng)), rng.choice(string.printable)))
        words[place : place + 1] = rng.choice(
            ([new], [new, *old], ["".join([*old, new])], [], 2 * old)
        )
    return separator.join(words)


def name(rng: random.Random, sound: str) -> str:
    """The name of a file; one in ten is damaged."""
    return text(rng, sound, separator=rng.choice("/._"))[:300] if rng.random() < 0.1 else sound


def document(rng: random.Random, sound: str) -> str:
    """JSON in which up to three nodes have other values or names, or are gone."""
    root = [json.loads(sound)]
    values: list[str] = []
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
        node, key = rng.choice([*_places(root)])
        kind = rng.randrange(6)
        if kind == 0 and node is not root:
            del node[key]
        elif kind == 1 and isinstance(node, dict):
            node[rng.choice(_WORDS)] = node.pop(key)
        else:
            node[key] = f"\0{len(values)}"
            values.append(rng.choice(_VALUES))
    written = json.dumps(root[0], indent=1)
    for place, value in enumerate(values):
        written = written.replace(json.dumps(f"\0{place}"), value)
    return written


def zipped(rng: random.Random, files: Sequence[File]) -> bytes:
    """A zip of files, stored or deflated; in half of them a number of a header is another."""
    body, directory = bytearray(), bytearray()
    wrong = rng.randrange(len(files) + 1) if rng.random() < 0.5 else None
    for index, (called, content) in enumerate(files):
        encoded, extra = called.encode("utf-8", "surrogatepass"), rng.choice(_EXTRAS)
        method = rng.choice((0, 8))
        packed = zlib.compress(content, 1)[2:-4] if method else content
        about = [20, 0x800, method, 0, 33, zlib.crc32(content), len(packed), len(content)]
        here = [b"PK\3\4", *about, len(encoded), 0]
        there = [b"PK\1\2", 20, *about, len(encoded), len(extra), 0, 0, 0, 0, len(body)]
        if index == wrong:
            _spoil(rng, there, _CENTRAL)
            if rng.random() < 0.5:
                here[1:9] = there[2:10]
        body += _LOCAL.pack(*here) + encoded + packed
        directory += _CENTRAL.pack(*there) + encoded + extra
    end = [b"PK\5\6", 0, 0, len(files), len(files), len(directory), len(body), 0]
    if wrong == len(files):
        _spoil(rng, end, _END)
    return bytes(body + directory + _END.pack(*end))


def png(rng: random.Random, chunks: Sequence[Chunk]) -> bytes:
    """A PNG of chunks, of which one is damaged, of another kind, gone or there twice."""
    found = [*chunks]
    place = rng.randrange(len(found))
    kind, content = found[place]
    match rng.randrange(8):
        case 0:
            del found[place]
        case 1:
            found.insert(rng.randrange(len(found)), found[place])
        case 2:
            found[place] = (rng.choice(_CHUNKS), content)
        case 3 if kind == b"IDAT":
            found[place] = (kind, zlib.compress(binary(rng, zlib.decompress(content)), 1))
        case 4:
            pass
        case _:
            found[place] = (kind, binary(rng, content))
    return _PNG + b"".join(
        struct.pack(">I", len(content)) + kind + content + zlib.crc32(kind + content).to_bytes(4)
        for kind, content in found
    )


def _spoil(rng: random.Random, fields: list[Any], layout: struct.Struct) -> None:
    """Sets one number of a header, after its signature, to another."""
    place = rng.randrange(1, len(fields))
    bits = {"H": 16, "I": 32}[layout.format[2 + place]]
    fields[place] = number(rng) % (1 << bits)


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every value in a document, as what holds it and its key."""
    for key in [*node] if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], (dict, list)):
            yield from _places(node[key])
