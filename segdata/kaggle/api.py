"""A wrapper around the Kaggle client: credentials, signing in, requests, and diagnosis of errors.

The only module that imports `kaggle` and `kagglesdk`, some of whose private parts it needs;
`tests/test_kaggle_client.py` states each. The `kaggle` package (2.2.4) signs in when imported,
waits without a timeout, prints, and calls `exit`; none of that happens here. Bytes are received in
`transfer`. TensorFlow is not imported, `kaggle` only when a client is made.
"""

import contextlib
import dataclasses
import datetime
import email.utils
import io
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from segdata.core.system import files

if TYPE_CHECKING:
    import requests
    from kaggle import KaggleApi

TIMEOUT = (15, 60)  # seconds without a connection, without a byte
ATTEMPTS = 6  # in a row without a new byte
_LONGEST_WAIT = 3600.0  # seconds in a Retry-After

SIGN_IN = (
    "Create an API token at https://www.kaggle.com/settings and save it as "
    "~/.kaggle/access_token, or run `kaggle auth login`."
)


class FetchError(OSError):
    """A file that could not be downloaded, and why."""


class CredentialsError(FetchError):
    """No credentials, or none that Kaggle accepts."""


class AccessError(FetchError):
    """Valid credentials of an account that has not accepted the terms of a page."""


@dataclasses.dataclass(frozen=True)
class Remote:
    """A file on Kaggle.

    Attributes:
        slug: The competition, or `owner/name` of a dataset.
        file: The name of the file; a dataset is one zip.
        about: Its approximate size in bytes.
    """

    slug: str
    file: str
    about: int

    @property
    def is_dataset(self) -> bool:
        """Whether it belongs to a dataset, not to a competition."""
        return "/" in self.slug

    @property
    def page(self) -> str:
        """The address of its page for a browser."""
        return f"https://www.kaggle.com/{'datasets' if self.is_dataset else 'c'}/{self.slug}"

    @property
    def terms(self) -> str:
        """What to do in a browser before it can be downloaded."""
        if self.is_dataset:
            return f"open {self.page}, signed in with the same account, and do what it asks for"
        return f"accept the rules at {self.page}/rules, signed in with the same account"


def credentials() -> list[str]:
    """Where there are Kaggle credentials, valid or not; nothing is imported or sent."""
    home = files.home()
    settings = pathlib.Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config", "kaggle")
    places = [home / ".kaggle" / name for name in ("access_token", "access_token.txt")]
    places += [home / ".kaggle" / name for name in ("kaggle.json", "credentials.json")]
    places += [settings / "kaggle.json"]
    if folder := os.environ.get("KAGGLE_CONFIG_DIR"):
        places += [pathlib.Path(folder, "kaggle.json")]
    found = [name for name in ("KAGGLE_API_TOKEN", "KAGGLE_API_V1_TOKEN") if os.environ.get(name)]
    if os.environ.get("KAGGLE_USERNAME") and os.environ.get("KAGGLE_KEY"):
        found.append("KAGGLE_USERNAME and KAGGLE_KEY")
    return found + [str(file) for file in places if file.exists()]


def sign_in(*, log: Callable[[str], None], attempts: int = ATTEMPTS) -> "KaggleApi":
    """A Kaggle client that is signed in, as far as that is known before the first request.

    Args:
        log: Called with a line of text before each wait.
        attempts: How often to try if Kaggle does not answer.

    Raises:
        CredentialsError: If there are no credentials, or Kaggle refuses them.
        FetchError: If Kaggle cannot be reached.
    """
    found = credentials()
    if not found:
        raise CredentialsError(f"there are no Kaggle credentials. {SIGN_IN}")
    import requests

    client = _client()
    failures = 0
    while True:
        try:
            with _silence(), _credentials_kept(), _answer_errors("signing in"):
                client.authenticate()
            return client
        except SystemExit as error:  # the client exits where no credentials were accepted
            raise _refused(found) from error
        except requests.RequestException as error:
            if error.response is not None and error.response.status_code in (401, 403):
                raise _refused(found) from error
            failures += 1
            wait(error, "signing in", failures=failures, attempts=attempts, log=log)


def ask(client: "KaggleApi", remote: Remote) -> "requests.Response":
    """Requests a whole file; its body is not read yet.

    Raises:
        requests.HTTPError: If the answer is an error.
        requests.RequestException: If there is no answer.
        FetchError: If the client does not understand the answer.
    """
    with _silence(), _answer_errors(remote.file):
        if remote.is_dataset:
            client.dataset_download_files(remote.slug, path=".", force=True)
        else:
            client.competition_download_file(remote.slug, remote.file, path=".", force=True)
    return client.answer


def diagnosis(error: "requests.RequestException", remote: Remote) -> FetchError | None:
    """The meaning of an error that does not pass by itself; None for one that may."""
    response = error.response
    if response is None or response.history:  # after a redirect, the storage answers,
        return None  # whose addresses expire: a new one may work
    if response.status_code == 401:
        return _refused(credentials())
    if response.status_code == 403:
        return AccessError(
            f"Kaggle does not give {remote.file} to this account (403{_message(error)}): "
            f"{remote.terms}. Then run this again."
        )
    if response.status_code == 404:
        return FetchError(
            f"Kaggle has no {remote.file} in {remote.slug} (404): see what there is at "
            f"{remote.page}{'' if remote.is_dataset else '/data'}."
        )
    if response.status_code < 500 and response.status_code not in (408, 429):
        return FetchError(
            f"Kaggle refuses {remote.file} ({response.status_code}{_message(error)}). "
            f"See {remote.page}."
        )
    return None


def wait(
    error: "requests.RequestException",
    what: str,
    *,
    failures: int,
    attempts: int = ATTEMPTS,
    log: Callable[[str], None],
) -> None:
    """Waits before the next attempt, as long as Kaggle asks for, or gives up.

    Args:
        error: The error of the last attempt.
        what: What was attempted, for messages.
        failures: The number of failures in a row.
        attempts: The number of failures at which to give up.
        log: Called with a line of text before the wait.

    Raises:
        FetchError: If there were too many failures, or Kaggle asks for more than an hour.
    """
    delay = min(2.0 ** (failures - 1), 60)
    if error.response is not None and error.response.status_code == 429:
        delay = _asked_delay(error.response) or delay * 5
    if delay > _LONGEST_WAIT:
        raise FetchError(
            f"{what}: {reason(error)}: Kaggle asks to wait for {delay / 60:.0f} minutes. "
            "Run this again after that; what was received is kept."
        ) from error
    if failures >= attempts:
        raise FetchError(
            f"{what}: {reason(error)}, {failures} times in a row. "
            "Run this again later; what was received is kept."
        ) from error
    log(f"{what}: {reason(error)}; trying again in {delay:.0f} s.")
    time.sleep(delay)


def whole_number(header: str) -> int | None:
    """The number in a header; None if it holds none, or a longer one than any size or time."""
    return int(header) if header.isascii() and header.isdigit() and len(header) < 19 else None


def reason(error: "requests.RequestException") -> str:
    """The error in a few words."""
    if error.response is not None:
        status = error.response.status_code
        if status == 429:
            return "too many requests (429)"
        return (
            f"Kaggle's server has an error ({status})" if status >= 500 else f"refused ({status})"
        )
    cause = getattr(error.args[0], "reason", None) if error.args else None
    if type(cause).__name__ in ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError"):
        return "no connection to Kaggle"
    return "the connection broke"


def _message(error: "requests.RequestException") -> str:
    """Kaggle's own message, if there is one."""
    return "" if " for url: " in str(error) else f', "{error}"'


def _asked_delay(response: "requests.Response") -> float | None:
    """The seconds of a Retry-After, which may also be a date."""
    asked = response.headers.get("Retry-After", "")
    if (seconds := whole_number(asked)) is not None:
        return float(seconds)
    try:
        until = email.utils.parsedate_to_datetime(asked)
        return max(0.0, (until - datetime.datetime.now(datetime.UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):  # no date, or one without a zone
        return None


def _refused(found: list[str]) -> CredentialsError:
    return CredentialsError(
        f"Kaggle refuses the credentials in {', '.join(found)} (401). {SIGN_IN}"
    )


def _client() -> Any:
    """A Kaggle client that keeps its answers instead of writing files, and has timeouts."""
    import requests

    with _import_offline():
        from kaggle.api.kaggle_api_extended import KaggleApi
    from kagglesdk import KaggleClient, kaggle_env

    class Adapter(requests.adapters.HTTPAdapter):
        def send(self, request, stream=False, timeout=None, **settings):
            return super().send(request, stream, timeout or TIMEOUT, **settings)

    class Client(KaggleApi):
        answer: requests.Response

        def build_kaggle_client(self) -> KaggleClient:
            """As the original, but with the endpoint of the environment, and timeouts."""
            client = super().build_kaggle_client()
            http = client.http_client()
            http._env = kaggle_env.get_env()
            http._endpoint = kaggle_env.get_endpoint(http._env)
            with http:  # makes the session, which reopens when it is used
                session: Any = http._session
                for scheme in ("http://", "https://"):
                    session.mount(scheme, Adapter())
            return client

        def download_file(self, response: requests.Response, *args: Any, **kwargs: Any) -> None:
            self.answer = response

    return Client()


@contextlib.contextmanager
def _import_offline() -> Iterator[None]:
    """Stops the package from signing in on import, without a timeout, and from making a folder."""
    from kagglesdk.kaggle_http_client import KaggleHttpClient

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("not yet")

    settings = pathlib.Path(os.environ.get("XDG_CONFIG_HOME") or files.home() / ".config")
    missing = [path for path in (settings / "kaggle", settings) if not path.exists()]
    try:
        with _silence(), _swapped(KaggleHttpClient, "call", refuse):
            yield
    finally:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()


@contextlib.contextmanager
def _answer_errors(what: str) -> Iterator[None]:
    """Turns whatever the client raises on unexpected answers into FetchError."""
    try:
        yield
    except OSError:  # all errors of requests are
        raise
    except Exception as error:
        raise FetchError(
            f"{what}: Kaggle's answer makes no sense ({type(error).__name__}: {error}). "
            "Run this again later."
        ) from error


@contextlib.contextmanager
def _credentials_kept() -> Iterator[None]:
    """Keeps the client from rewriting credentials, and from deleting refused ones."""
    from kagglesdk import KaggleCredentials

    def leave(*args: Any, **kwargs: Any) -> None:
        pass

    with _swapped(KaggleCredentials, "save", leave), _swapped(KaggleCredentials, "delete", leave):
        yield


@contextlib.contextmanager
def _swapped(owner: Any, name: str, other: Any) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, other)
    try:
        yield
    finally:
        setattr(owner, name, original)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Drops what the client prints, which is for users of its own command."""
    stdin, sys.stdin = sys.stdin, io.StringIO()  # without credentials the client calls `exit`,
    try:  # which closes the standard input
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        sys.stdin = stdin
