"""Kaggle's own client: where its credentials lie, signing in, asking, and what its errors mean.

What the `kaggle` package (2.2.4) does badly for a program that uses it is mended here: it signs in
while it is imported, waits for ever, prints, and calls `exit`. Bytes are received in `transfer`.
TensorFlow is not imported, `kaggle` only when a client is made.
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
ATTEMPTS = 6  # in a row without a single new byte
_LONGEST_WAIT = 3600.0  # seconds that Kaggle may ask for

SIGN_IN = (
    "Create an API token at https://www.kaggle.com/settings and save it as "
    "~/.kaggle/access_token, or run `kaggle auth login`."
)


class FetchError(OSError):
    """A file that Kaggle did not give, and why."""


class CredentialsError(FetchError):
    """No credentials, or none that Kaggle takes."""


class AccessError(FetchError):
    """Credentials that are right, for a page whose terms the account has not accepted."""


@dataclasses.dataclass(frozen=True)
class Remote:
    """A file on Kaggle.

    Attributes:
        slug: The competition, or `owner/name` of a data set.
        file: The name of the file; a data set is one zip.
        about: Its size in bytes, roughly.
    """

    slug: str
    file: str
    about: int

    @property
    def is_dataset(self) -> bool:
        """Whether it belongs to a data set, not to a competition."""
        return "/" in self.slug

    @property
    def page(self) -> str:
        """Where people look at it."""
        return f"https://www.kaggle.com/{'datasets' if self.is_dataset else 'c'}/{self.slug}"

    @property
    def terms(self) -> str:
        """What to do in a browser before Kaggle gives it."""
        if self.is_dataset:
            return f"open {self.page}, signed in with the same account, and look what it asks for"
        return f"accept the rules at {self.page}/rules, signed in with the same account"


def credentials() -> list[str]:
    """Where Kaggle credentials lie on this machine, right or wrong; nothing is imported or sent."""
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


def sign_in(*, say: Callable[[str], None], attempts: int = ATTEMPTS) -> "KaggleApi":
    """A client of Kaggle's that is signed in, as far as it can know before it asks for a file.

    Args:
        say: Is told whatever makes it take longer, in a line.
        attempts: How often to try where Kaggle does not answer.

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
            with _silence(), _untouched(), _understood("signing in"):
                client.authenticate()
            return client
        except SystemExit as error:  # how the client says that none of the credentials were taken
            raise _refused(found) from error
        except requests.RequestException as error:
            if error.response is not None and error.response.status_code in (401, 403):
                raise _refused(found) from error
            failures += 1
            wait(error, "signing in", failures=failures, attempts=attempts, say=say)


def ask(client: "KaggleApi", remote: Remote) -> "requests.Response":
    """Asks for a whole file; its body is not read yet.

    Raises:
        requests.HTTPError: If the answer is an error.
        requests.RequestException: If there is no answer.
        FetchError: If it is none that the client understands.
    """
    with _silence(), _understood(remote.file):
        if remote.is_dataset:
            client.dataset_download_files(remote.slug, path=".", force=True)
        else:
            client.competition_download_file(remote.slug, remote.file, path=".", force=True)
    return client.answer


def diagnosis(error: "requests.RequestException", remote: Remote) -> FetchError | None:
    """What an error means that no waiting mends; None for one that may pass."""
    response = error.response
    if response is None or response.history:  # after a redirect it is the storage that speaks,
        return None  # whose addresses expire: a fresh one may do
    if response.status_code == 401:
        return _refused(credentials())
    if response.status_code == 403:
        return AccessError(
            f"Kaggle does not give {remote.file} to this account (403{_said(error)}): "
            f"{remote.terms}. Then run this again."
        )
    if response.status_code == 404:
        return FetchError(
            f"Kaggle has no {remote.file} in {remote.slug} (404): see what there is at "
            f"{remote.page}{'' if remote.is_dataset else '/data'}."
        )
    if response.status_code < 500 and response.status_code not in (408, 429):
        return FetchError(
            f"Kaggle refuses {remote.file} ({response.status_code}{_said(error)}). "
            f"See {remote.page}."
        )
    return None


def wait(
    error: "requests.RequestException",
    what: str,
    *,
    failures: int,
    attempts: int = ATTEMPTS,
    say: Callable[[str], None],
) -> None:
    """Waits before the next attempt, as long as Kaggle asks for; gives up where that is futile.

    Args:
        error: What went wrong.
        what: What was tried.
        failures: How often in a row.
        attempts: How often it may.
        say: Is told how long it takes.

    Raises:
        FetchError: If it went wrong too often, or Kaggle asks for more than an hour.
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
    say(f"{what}: {reason(error)}; trying again in {delay:.0f} s.")
    time.sleep(delay)


def whole_number(header: str) -> int | None:
    """The number that a header is; None if it is none, or longer than any size or time."""
    return int(header) if header.isascii() and header.isdigit() and len(header) < 19 else None


def reason(error: "requests.RequestException") -> str:
    """What went wrong, in a few words."""
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


def _said(error: "requests.RequestException") -> str:
    """What Kaggle itself said, if it said anything."""
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
    """Kaggle's own client, made to hand over its answers and to speak up in time."""
    import requests

    with _import_in_peace():
        from kaggle.api.kaggle_api_extended import KaggleApi
    from kagglesdk import KaggleClient, kaggle_env

    class Adapter(requests.adapters.HTTPAdapter):
        def send(self, request, stream=False, timeout=None, **settings):
            return super().send(request, stream, timeout or TIMEOUT, **settings)

    class Client(KaggleApi):
        answer: requests.Response

        def build_kaggle_client(self) -> KaggleClient:
            """As the original, which sends all but "--local" to the real Kaggle, and waits on."""
            client = super().build_kaggle_client()
            http = client.http_client()
            http._env = kaggle_env.get_env()
            http._endpoint = kaggle_env.get_endpoint(http._env)
            with http:  # makes the session, which opens again when it is used
                session: Any = http._session
                for scheme in ("http://", "https://"):
                    session.mount(scheme, Adapter())
            return client

        def download_file(self, response: requests.Response, *args: Any, **kwargs: Any) -> None:
            self.answer = response

    return Client()


@contextlib.contextmanager
def _import_in_peace() -> Iterator[None]:
    """The package signs in while it is imported, without a timeout, and makes a folder."""
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
def _understood(what: str) -> Iterator[None]:
    """What the client raises of an answer that it did not expect is anything."""
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
def _untouched() -> Iterator[None]:
    """The client would write what it signs in with anew, and delete what is refused."""
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
    """What the client prints is for users of its own command."""
    stdin, sys.stdin = sys.stdin, io.StringIO()  # without credentials the client calls `exit`,
    try:  # which closes the standard input
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        sys.stdin = stdin
