"""Downloads one file from Kaggle to a part on disk, resuming where it broke off.

The `kaggle` package sends the request; the bytes of the answer are received here. Its own transfer
(2.2.4) overwrites the part with the body of an error, tries a full disk six times and does not
check which file a resumed answer belongs to. Which files a dataset needs and what is in them is not
known here; TensorFlow is not imported.
"""

import dataclasses
import errno
import json
import pathlib
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import tqdm

from segdata.core.system import files
from segdata.kaggle import api
from segdata.kaggle.api import FetchError, Remote

if TYPE_CHECKING:
    import requests

_CHUNK = 1 << 16  # bytes; the most that a broken connection loses
_LARGEST_NOTE = 1 << 20  # bytes
_FAR = 4  # times the approximate size; more is another file, or has no end
_CHANGES = 3  # of a file while it is being received


@dataclasses.dataclass(frozen=True)
class Identity:
    """Identifies a version of a file on a server.

    Attributes:
        validator: Its ETag, else its Last-Modified; None if the server sends neither.
        size: In bytes; None if the server does not send it.
    """

    validator: str | None
    size: int | None

    @classmethod
    def of(cls, response: "requests.Response") -> "Identity":
        """From the answer to a request for the whole file."""
        headers = response.headers
        # With a content encoding, the length is not that of the file.
        size = "" if "Content-Encoding" in headers else headers.get("Content-Length", "")
        validator = headers.get("ETag") or headers.get("Last-Modified")
        return cls(validator, api.whole_number(size))


@dataclasses.dataclass(frozen=True)
class Part:
    """The first bytes of a file, with a note of the version that they belong to.

    The note has the format of the `kaggle` command's, so that its downloads can be resumed.
    """

    path: pathlib.Path

    @property
    def note(self) -> pathlib.Path:
        """The file with the identity."""
        return self.path.with_name(self.path.name + ".kaggle-partial")

    @property
    def size(self) -> int:
        """In bytes; 0 if there is none."""
        return self.path.stat().st_size if self.path.exists() else 0

    def identity(self) -> Identity | None:
        """The version that it is part of; None if unknown."""
        note = noted(self.note)
        return Identity(note.get("validator"), note.get("size")) if note else None

    def begin(self, identity: Identity) -> None:
        """Removes the bytes and writes the note of a new version."""
        self.discard()
        text = json.dumps({"validator": identity.validator, "size": identity.size})
        with files.replacing(self.note) as unfinished:
            unfinished.write_text(text)

    def discard(self) -> None:
        """Removes the bytes and, after them, the note."""
        for path in (self.path, self.note):
            path.unlink(missing_ok=True)


def noted(path: pathlib.Path) -> dict[str, Any]:
    """The object in a small JSON file; empty if there is no such file or object."""
    try:
        if not path.is_file():
            return {}
        with path.open("rb") as file:
            found = json.loads(file.read(_LARGEST_NOTE))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def size_of(client: "api.KaggleApi", remote: Remote) -> int | None:
    """A file's size in bytes, from one request as for a download; None if Kaggle does not send it.

    Raises:
        FetchError: If the file cannot be downloaded.
    """
    import requests

    try:
        response = api.ask(client, remote)
    except requests.RequestException as error:
        passing = FetchError(f"{remote.file}: {api.reason(error)}")
        raise (api.diagnosis(error, remote) or passing) from error
    with response:
        _refuse_page(response, b"", remote)
        return Identity.of(response).size


def download(
    client: "api.KaggleApi", remote: Remote, part: Part, *, log: Callable[[str], None]
) -> None:
    """Completes a part, through all errors that pass by themselves.

    Args:
        client: From `api.sign_in`.
        remote: The file.
        part: The bytes so far, and where to write.
        log: Called with a line of text on each wait or restart.

    Raises:
        FetchError: If it cannot be completed; what was received stays in the part.
    """
    import requests

    failures = changes = 0
    while True:
        before = part.size
        try:
            return _receive(api.ask(client, remote), remote, part, log)
        except _ChangedError as error:
            part.discard()
            changes += 1
            if changes > _CHANGES:
                raise FetchError(
                    f"{remote.file} changes on Kaggle's side faster than it can be fetched: "
                    f"{changes} versions so far. Run this again later."
                ) from error
            log(f"{remote.file}: it has changed on Kaggle's side; starting over.")
        except _EndlessError as error:
            part.discard()
            raise FetchError(
                f"{remote.file}: Kaggle sends more than {_FAR * remote.about:,} bytes, which it "
                f"cannot be, and does not say how many follow. See {remote.page}."
            ) from error
        except requests.RequestException as error:
            if error.response is not None:
                error.response.close()
            if fatal := api.diagnosis(error, remote):
                raise fatal from error
            failures = 1 if part.size > before else failures + 1
            api.wait(error, remote.file, failures=failures, log=log)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise FetchError(
                    f"{part.path.parent}: the disk is full after {part.size:,} bytes of "
                    f"{remote.file}. Make room and run this again: it resumes there."
                ) from error
            raise


class _ChangedError(Exception):
    """The server has another version of the file than the part."""


class _EndlessError(Exception):
    """The server sends far more than the file can be, without a length."""


def _receive(
    response: "requests.Response", remote: Remote, part: Part, log: Callable[[str], None]
) -> None:
    """Receives the rest of a file; `response` is an answer to a request for all of it."""
    import requests

    identity = Identity.of(response)
    _refuse_page(response, b"", remote)
    if part.size and (why := _unfit(part, identity)):
        part.discard()
        log(f"{remote.file}: {why}; starting over.")
    start = part.size
    if start and start == identity.size:
        response.close()
        return
    if start:
        response = _ask_for_rest(response, start, identity)
        if response.status_code == 200:  # the server cannot resume, or has a newer file
            _refuse_page(response, b"", remote)
            before, identity, start = identity, Identity.of(response), 0
            why = (
                "Kaggle cannot resume it"
                if identity == before
                else "it has changed on Kaggle's side"
            )
            log(f"{remote.file}: {why}; starting over.")
    with response:
        if not start:
            part.discard()
        _check_space(part, remote, (identity.size or 0) - start)
        if not start:
            part.begin(identity)
        _write(response, remote, part, identity.size)
    if identity.size is not None and part.size < identity.size:
        raise requests.ConnectionError(f"{part.size:,} of {identity.size:,} bytes came")


def _unfit(part: Part, identity: Identity) -> str:
    """Why a part cannot be resumed; "" if it can."""
    begun = part.identity()
    if begun is None:
        return "the version of the part is unknown"
    if begun != identity:
        return "it has changed on Kaggle's side since it was begun"
    return "" if identity.validator else "Kaggle does not say which version it has"


def _write(response: "requests.Response", remote: Remote, part: Part, size: int | None) -> None:
    bar = tqdm.tqdm(
        desc=remote.file,
        total=size,
        initial=part.size,
        unit="B",
        unit_scale=True,
        leave=False,
        disable=None,  # where nobody watches
    )
    most = _FAR * remote.about if size is None else size
    with bar, part.path.open("ab") as file:
        for chunk in response.iter_content(_CHUNK):
            if not file.tell():
                _refuse_page(response, chunk, remote)
            if file.tell() + len(chunk) > most:
                raise _ChangedError if size is not None else _EndlessError
            file.write(chunk)
            bar.update(len(chunk))


def _ask_for_rest(
    whole: "requests.Response", start: int, identity: Identity
) -> "requests.Response":
    """Requests all but the first bytes, from the address of the answer to the whole request."""
    import requests

    whole.close()
    request = whole.request.copy()
    request.headers["Range"] = f"bytes={start}-"
    if identity.validator and not identity.validator.startswith("W/"):  # weak ones never match
        request.headers["If-Range"] = identity.validator
    request.headers["Accept-Encoding"] = "identity"
    with requests.Session() as session:
        settings = session.merge_environment_settings(whole.url, {}, True, None, None)
        response = session.send(request, timeout=api.TIMEOUT, **settings)
    response.history = [*whole.history, whole]
    if response.status_code == 416:
        response.close()
        raise _ChangedError
    response.raise_for_status()
    if response.status_code == 206:
        validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
        place = response.headers.get("Content-Range", "")
        if (
            validator not in (None, identity.validator)
            or not place.startswith(f"bytes {start}-")
            or (identity.size and place.rpartition("/")[2] not in ("*", str(identity.size)))
        ):
            response.close()
            raise _ChangedError
    return response


def _refuse_page(response: "requests.Response", head: bytes, remote: Remote) -> None:
    """Raises FetchError if the answer is no zip, before any of it is written."""
    is_page = response.headers.get("Content-Type", "").startswith("text/html")
    if is_page or b"<html" in head[:1024].lower() or b"<!doctype" in head[:1024].lower():
        response.close()
        raise FetchError(
            f"Kaggle sent a web page instead of {remote.file}: {remote.terms}. Then run this again."
        )
    if not b"PK".startswith(head[:2]):
        response.close()
        raise FetchError(
            f"what Kaggle sent for {remote.file} is not a zip: it begins with {head[:8]!r}. "
            f"See {remote.page}."
        )


def _check_space(part: Part, remote: Remote, needed: int) -> None:
    free = shutil.disk_usage(part.path.parent).free
    if needed > free:
        raise FetchError(
            f"{part.path.parent}: {remote.file} needs {needed:,} bytes more and {free:,} are free. "
            "Make room, or fetch to a larger disk with --to."
        )
