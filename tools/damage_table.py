"""Every kind of damage, done to a drawn source, and what the user is told: a table in Markdown.

    python tools/damage_table.py

`segdata build` prints the same sentence after `segdata build: error: `. Sources lie in `FOLDER`.
"""

import pathlib
import shutil
import sys
import tempfile

from segdata import sources
from segdata.archives import ArchiveError
from segdata.inspection import raw
from segdata.testing import damage, damage_kinds


def main() -> int:
    """Prints the table; returns how many lines are not what the table of kinds promises."""
    surprises = 0
    print("| kind | what has happened | source | outcome | what the user sees |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        drawn = pathlib.Path(folder, "drawn")
        small = {"carvana": {"size": (96, 144), "views": 1}}
        for name in sources.names():
            if draw := sources.named(name).draw:
                draw(drawn / name, examples=7, seed=0, **small.get(name, {}))
        for name, kind in damage_kinds.KINDS.items():
            for source in sources.names():
                if name not in damage.kinds(source):
                    continue
                promised = damage.outcome(name, source=source)
                place = pathlib.Path(folder, f"{source}-{name}")
                shutil.copytree(drawn / source, place)
                damage.inflict(name, place, source=source, seed=0)
                outcome, told = _told(source, place)
                surprises += outcome != promised
                shown = told.replace(str(place), "FOLDER").replace("|", "\\|")
                print(f"| `{name}` | {kind.what} | {source} | {outcome} | {shown} |")
                shutil.rmtree(place)
    return surprises


def _told(source: str, folder: pathlib.Path) -> tuple[damage_kinds.Outcome, str]:
    """What becomes of a source, and the first thing that is said about it."""
    try:
        found = raw.collection(source, manual_dir=folder)
    except ArchiveError as error:
        return "archive refused", str(error)
    for _, _, fault in found.faults:
        return "example refused", fault
    for pending in found.stream():
        try:
            pending.read()
        except ArchiveError as error:
            return "example refused", str(error)
    return "read", ""


if __name__ == "__main__":
    sys.exit(main())
