"""HTML pages: each is one file, fetches nothing and has light and dark colours.

The frame and its style, and what several pages are made of; images are data URIs. What a page shows
is not known here.
"""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from PIL import Image

from segdata import console


def document(title: str, *, lead: str, body: str) -> str:
    """A whole page.

    Args:
        title: Text.
        lead: Text below the title.
        body: HTML.
    """
    return _DOCUMENT.format(title=escaped(title), lead=escaped(lead), body=body, style=_STYLE)


def escaped(text: str) -> str:
    """For text and for attributes; bytes of a name that are not UTF-8 have no place in a page."""
    return html.escape(console.printable(text))


def data_uri(pixels: np.ndarray, kind: Literal["PNG", "JPEG"] = "PNG") -> str:
    """An image as the address of itself.

    Args:
        pixels: uint8 [H, W] or [H, W, 3].
        kind: How to encode it.
    """
    buffer = io.BytesIO()
    options = {"quality": 88, "subsampling": 0} if kind == "JPEG" else {}
    Image.fromarray(pixels).save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def image(uri: str, name: str) -> str:
    """An image that shows its name where the mouse rests on it."""
    return f'<img alt="{escaped(name)}" title="{escaped(name)}" src="{uri}">'


def key(name: str, colour: Sequence[int] | np.ndarray | None) -> str:
    """An entry of a legend.

    Args:
        name: Text.
        colour: RGB; None for hatching.
    """
    look = (
        'class="hatched"' if colour is None else f'style="background:rgb{tuple(map(int, colour))}"'
    )
    return f'<span class="key"><i {look}></i>{escaped(name)}</span>'


def table(rows: Iterable[Sequence[str]], *, caption: str = "", heads: Sequence[str] = ()) -> str:
    """A table of text in a frame of its own; the first cell of each row names it."""
    top = f"<caption>{escaped(caption)}</caption>" if caption else ""
    if heads:
        top += f"<thead><tr>{''.join(f'<th>{escaped(head)}</th>' for head in heads)}</tr></thead>"
    body = "".join(
        f"<tr><th>{escaped(name)}</th>"
        + "".join(f"<td>{escaped(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, *cells in rows
    )
    return f'<div class="card"><table>{top}<tbody>{body}</tbody></table></div>'


_STYLE = """
:root { color-scheme: light dark; --back: #fbfbfa; --card: #fff; --ink: #1d2127; --soft: #667080;
  --rule: #e3e5e9; --s0: #2a6fdb; --s1: #d9622b; --error: #c5303c; --warning: #b26a00;
  --note: #4a6c94; --sound: #23824a; }
@media (prefers-color-scheme: dark) { :root { --back: #14171c; --card: #1c2027; --ink: #e6e8eb;
  --soft: #98a2b0; --rule: #2f353f; --s0: #6ea8ff; --s1: #ff9a62; --error: #ff7b80;
  --warning: #f2b253; --note: #9fbde0; --sound: #6fd497; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 66rem; background: var(--back);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2.6rem 0 .8rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
h1, h2, h3, p, small, .key { overflow-wrap: anywhere; }
p, small { color: var(--soft); margin: .2rem 0 .8rem; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: .9rem 1.1rem; margin: 0 0 1rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(24rem, 100%), 1fr));
  gap: 1rem; align-items: start; }
.cards > .card { margin: 0; }
.error { --tone: var(--error); } .warning { --tone: var(--warning); } .note { --tone: var(--note); }
.sound { --tone: var(--sound); }
.verdict { display: inline-block; padding: .35rem .8rem; border-radius: 8px; font-weight: 600;
  color: var(--tone); border: 1px solid currentColor; margin-top: .6rem; }
section.card { border-left: 4px solid var(--tone); } section.card h3 { margin-top: 0; }
.pill { color: var(--tone); border: 1px solid currentColor; border-radius: 99px; font-size: .75rem;
  padding: .05rem .55rem; margin-right: .6rem; text-transform: uppercase; letter-spacing: .04em; }
.key { color: var(--soft); font-size: .85rem; display: inline-block; margin-right: 1rem; }
.key i { display: inline-block; width: .7rem; height: .7rem; margin-right: .35rem;
  border-radius: 3px; }
.hatched { background: repeating-linear-gradient(135deg, #999 0 2px, #6666 2px 4px); }
figure { margin: 0; } figcaption { color: var(--soft); }
.card figcaption { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 1rem;
  margin-bottom: .4rem; }
.card figcaption b { color: var(--ink); }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 11px; paint-order: stroke; stroke: var(--card);
  stroke-width: 3px; }
.grid { stroke: var(--rule); } .mark { stroke: var(--soft); stroke-dasharray: 3 3; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.line.s0 { stroke: var(--s0); } .line.s1 { stroke: var(--s1); }
.dot.s0 { fill: var(--s0); } .dot.s1 { fill: var(--s1); }
i.s0 { background: var(--s0); } i.s1 { background: var(--s1); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .4rem; }
th { text-align: left; font-weight: 500; vertical-align: top; padding: .22rem 1.2rem .22rem 0; }
td { padding: .22rem 0; overflow-wrap: anywhere; }
tbody th, .cards td + td { color: var(--soft); }
tr + tr > *, thead + tbody > tr > * { border-top: 1px solid var(--rule); }
.figures .card { overflow-x: auto; }
.figures tbody th { overflow-wrap: anywhere; min-width: 7rem; }
.figures td, .figures th + th { text-align: right; padding: .22rem 0 .22rem 1rem; }
.figures td { white-space: nowrap; }
@media (max-width: 36rem) { body { padding: 1.5rem .8rem 3rem; } .card { padding: .8rem; }
  .figures table { font-size: .8rem; } .figures tbody th { min-width: 4.5rem; padding-right: 0; }
  .figures td, .figures th + th { padding-left: .5rem; } .figures thead th { font-size: .72rem; } }
.gallery { table-layout: fixed; } .gallery th:first-child { width: 3.2rem; }
.gallery td { padding: .35rem .35rem .35rem 0; }
.gallery th { padding-top: .5rem; font-size: .85rem; }
.gallery img { display: block; width: 100%; border-radius: 6px; }
.cases, .strip, .case > div { display: flex; flex-wrap: wrap; gap: .8rem; }
.case > div { gap: .4rem; } .case small { display: block; max-width: 20rem; }
.cases figure, .strip figure { width: 9.4rem; }
.cases img, .strip img { display: block; width: 9.4rem; max-height: 14rem; object-fit: contain;
  border-radius: 6px; }
.cases figcaption, .strip figcaption { display: block; font-size: .78rem; line-height: 1.35;
  margin-top: .2rem; overflow-wrap: anywhere; }
.none { display: grid; place-items: center; height: 9.4rem; color: var(--soft); font-size: .8rem;
  border: 1px dashed var(--rule); border-radius: 6px; }
details { color: var(--soft); font-size: .85rem; margin-top: .5rem; } summary { cursor: pointer; }
ul { margin: .4rem 0 0; padding-left: 1.1rem; } li { overflow-wrap: anywhere; }
"""

_DOCUMENT = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<p>{lead}</p>
{body}
</body>
</html>
"""
