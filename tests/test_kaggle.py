"""Fetching, by the real `kaggle` client, from a server on the loopback interface."""

import contextlib
import datetime
import email.utils
import errno
import hashlib
import json
import os
import pty
import random
import re
import shutil
import subprocess
import sys
import termios
import time
import types
import zipfile

import kaggle_server
import pytest
from kaggle_server import (
    MODIFIED,
    broken,
    careless,
    changing,
    claiming,
    endless,
    page,
    short,
    status,
    well,
)

from segdata import cli, sources
from segdata.kaggle import api, doctor, downloads, transfer

COMPETITION = "data-science-bowl-2018"
NAMES = ("stage1_train.zip", "stage1_test.zip", "stage1_solution.csv.zip")
FETCH = [sys.executable, "-c", "import sys; from segdata import cli; sys.exit(cli.main())", "fetch"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What Kaggle has: three small zips of a competition, and a data set."""
    folder = tmp_path_factory.mktemp("kaggle")
    slugs: dict[str, str] = dict.fromkeys(NAMES, COMPETITION)
    slugs["cityscapes-image-pairs.zip"] = "dansbecker/cityscapes-image-pairs"
    slugs |= dict.fromkeys(
        ("train_masks.zip", "train_hq.zip", "train.zip"), "carvana-image-masking-challenge"
    )
    return {
        f"{slug}/{name}": kaggle_server.archive(folder / name, seed=seed)
        for seed, (name, slug) in enumerate(slugs.items())
    }


@pytest.fixture
def signed_out(no_credentials, monkeypatch):
    """A client that speaks to the loopback interface, and waits no longer than it must."""
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "TEST")
    monkeypatch.setenv("NO_PROXY", "*")
    with api._import_offline():
        from kaggle.api.kaggle_api_extended import KaggleApi
    monkeypatch.setattr(KaggleApi, "config", str(no_credentials / ".kaggle" / "kaggle.json"))
    return no_credentials


@pytest.fixture
def signed_in(signed_out, monkeypatch):
    monkeypatch.setenv("KAGGLE_USERNAME", kaggle_server.USER)
    monkeypatch.setenv("KAGGLE_KEY", kaggle_server.KEY)


@pytest.fixture
def waits(monkeypatch):
    """How long it would have waited."""
    waited = []
    monkeypatch.setattr(api, "time", types.SimpleNamespace(sleep=waited.append))
    return waited


@pytest.fixture
def server(files):
    with kaggle_server.running(kaggle_server.Kaggle(dict(files))) as running:
        yield running


def content(folder):
    """Every file of a folder that is there to stay."""
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if path.name != downloads.LOCK
    }


def digest(body):
    return {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body)}


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("dsb2018", "default", NAMES),
        ("carvana", "default", ("train_masks.zip", "train_hq.zip")),
        ("carvana", "lowres", ("train_masks.zip", "train.zip")),
        ("cityscapes_pairs", "default", ("cityscapes-image-pairs.zip",)),
    ],
)
def test_what_a_config_needs_is_fetched_and_nothing_else(
    server, signed_in, files, tmp_path, name, config, expected
):
    fetched = downloads.fetch(name, tmp_path / "new", config=config)
    bodies = {key.rpartition("/")[2]: body for key, body in files.items()}
    assert sorted(path.name for path in fetched) == sorted(expected)
    found = content(tmp_path / "new")
    manifest = json.loads(found.pop(downloads.MANIFEST))
    assert found == {key: bodies[key] for key in expected}
    assert manifest == {key: digest(bodies[key]) for key in expected}


def test_without_a_folder_it_goes_where_tfds_looks(
    server, signed_in, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert cli.main(["fetch", "dsb2018"]) == 0
    assert "`segdata build dsb2018` makes" in capsys.readouterr().out
    assert {*content(tmp_path / "downloads" / "manual")} == {*NAMES, downloads.MANIFEST}
    assert cli.main(["doctor", "dsb2018"]) == 0


def test_a_second_fetch_asks_for_nothing(server, signed_in, tmp_path, capsys):
    downloads.fetch("dsb2018", tmp_path)
    before = content(tmp_path)
    server.asked.clear()
    assert downloads.fetch("dsb2018", tmp_path) == []
    assert server.asked == []
    assert content(tmp_path) == before


@pytest.mark.parametrize("is_written_down", [True, False])
@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "removed"])
def test_only_what_is_missing_or_bad_is_fetched_again(
    server, signed_in, tmp_path, damage, is_written_down
):
    downloads.fetch("dsb2018", tmp_path)
    before = content(tmp_path)
    path = tmp_path / NAMES[1]
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes({"cut": body[:-100], "flipped": body}.get(damage, b""))
    if damage == "removed":
        path.unlink()
    if not is_written_down:
        (tmp_path / downloads.MANIFEST).unlink()
    server.asked.clear()
    assert downloads.fetch("dsb2018", tmp_path) == [path]
    assert {name for name, _ in server.asked} == {NAMES[1]}
    assert content(tmp_path) == before


def test_a_bad_file_in_the_data_sets_own_folder_is_mended_there(server, signed_in, tmp_path, files):
    own = tmp_path / "dsb2018"
    own.mkdir()
    (own / NAMES[0]).write_bytes(files[FIRST][:-1])
    (own / NAMES[1]).write_bytes(files[f"{COMPETITION}/{NAMES[1]}"])
    fetched = downloads.fetch("dsb2018", tmp_path)
    assert fetched == [own / NAMES[0], tmp_path / NAMES[2]]
    assert (own / NAMES[0]).read_bytes() == files[FIRST]
    assert {*content(own)} == {*NAMES[:2], downloads.MANIFEST}
    assert downloads.fetch("dsb2018", tmp_path) == []


@pytest.mark.parametrize("where", [".", "dsb2018"])
def test_what_was_unpacked_by_hand_is_not_fetched(server, signed_in, tmp_path, where, files):
    place = tmp_path / where
    place.mkdir(exist_ok=True)
    shutil.copytree(tmp_path_zip(files, NAMES[0], tmp_path), place / "stage1_train")
    (place / "stage1_solution.csv").write_text("ImageId,EncodedPixels\n")
    with zipfile.ZipFile(place / f"{COMPETITION}.zip", "w") as whole:
        whole.writestr(NAMES[1], files[f"{COMPETITION}/{NAMES[1]}"])
    assert downloads.fetch("dsb2018", tmp_path) == []
    assert server.asked == []


def tmp_path_zip(files, name, folder):
    """The files of a zip, unpacked."""
    (folder / "unpacked.zip").write_bytes(files[f"{COMPETITION}/{name}"])
    with zipfile.ZipFile(folder / "unpacked.zip") as archive:
        archive.extractall(folder / "unpacked")
    (folder / "unpacked.zip").unlink()
    return folder / "unpacked"


@pytest.mark.parametrize(
    "how", ["token file", "token variable", "kaggle.json", "variables", "browser"]
)
def test_every_kind_of_credentials_signs_in(server, signed_out, monkeypatch, tmp_path, how):
    folder = signed_out / ".kaggle"
    folder.mkdir()
    if how == "token file":
        (folder / "access_token").write_text(kaggle_server.TOKEN)
    elif how == "token variable":
        monkeypatch.setenv("KAGGLE_API_TOKEN", kaggle_server.TOKEN)
    elif how == "kaggle.json":
        keys = {"username": kaggle_server.USER, "key": kaggle_server.KEY}
        (folder / "kaggle.json").write_text(json.dumps(keys))
        (folder / "kaggle.json").chmod(0o600)
    elif how == "variables":
        monkeypatch.setenv("KAGGLE_USERNAME", kaggle_server.USER)
        monkeypatch.setenv("KAGGLE_KEY", kaggle_server.KEY)
    else:
        (folder / "credentials.json").write_text(json.dumps({"refresh_token": kaggle_server.TOKEN}))
    assert len(downloads.fetch("dsb2018", tmp_path / "to")) == 3


FIRST = f"{COMPETITION}/{NAMES[0]}"
# What goes wrong, what the server does, and what the user reads.
FATAL = [
    ("rules not accepted (403)", {"api": [status(403)]}, f"/c/{COMPETITION}/rules"),
    ("unknown name (404)", {"api": [status(404)]}, f"no {NAMES[0]} in {COMPETITION} (404)"),
    (
        "server errors without end (503)",
        {"api": [status(503)] * 9},
        "error (503), 6 times in a row",
    ),
    ("storage errors without end (500)", {"storage": [status(500)] * 9}, "error (500), 6 times"),
    (
        "web page instead of a zip",
        {"storage": [page("text/html", b"Sign in")]},
        "sent a web page instead",
    ),
    ("web page that calls itself a zip", {"storage": [page("application/zip")]}, "a web page"),
    (
        "429 for longer than an hour",
        {"api": [status(429, Retry_After="9999")]},
        "asks to wait for 167 minutes",
    ),
    ("reset again and again", {"storage": [broken(0)] * 9}, "the connection broke, 6 times"),
    ("a length of 30 digits", {"storage": [claiming("9" * 30)] * 9}, "broke, 6 times in a row"),
    ("redirect to nowhere", {"api": [status(302, Location="http://[")]}, "makes no sense (Val"),
    ("JSON of nothing", {"api": [page("application/json", b"null")]}, "makes no sense (Type"),
    ("deep JSON", {"api": [page("application/json", b"[" * 99_999)]}, "makes no sense (Rec"),
    (
        "short body without a length, twice",
        {"storage": [short(300_000, claim_length=False)] * 2},
        "twice in a row: it begins like a zip and has no readable end",
    ),
]
# What goes wrong, what the server does, and how long the client waits.
PASSING = [
    ("429 with a Retry-After", {"api": [status(429, Retry_After="7")]}, [7.0]),
    ("429 without", {"api": [status(429)] * 2}, [5.0, 10.0]),
    ("429 with a Retry-After that is no number", {"api": [status(429, Retry_After="²")]}, [5.0]),
    ("429 with one before now", {"api": [status(429, Retry_After="-9")]}, [5.0]),
    (
        "429 with a date that is none",
        {"api": [status(429, Retry_After=f"Mon, 01 Jan 2018 00:00:00 +{'9' * 30}")]},
        [5.0],
    ),
    ("server error, twice (503)", {"api": [status(503), status(500)]}, [1.0, 2.0]),
    ("storage refuses the address (403)", {"storage": [status(403)]}, [1.0]),
    ("connection reset in the middle", {"storage": [broken(250_000)]}, [1.0]),
    ("reset in the middle, thrice", {"storage": [broken(250_000), well, broken(99_999)]}, [1, 1]),
    ("error when it goes on (503)", {"storage": [broken(250_000), well, status(503)]}, [1, 2]),
    ("refused when it goes on (403)", {"storage": [short(99_999), well, status(403)]}, [1, 2]),
    ("short body", {"storage": [short(250_000)]}, [1.0]),
    ("short body without a length", {"storage": [short(250_000, claim_length=False)]}, []),
]
SEEN: dict[str, str] = {}  # fault to what the user saw, for the table


def complaint(capsys) -> str:
    """The one line that a command ends with."""
    line = capsys.readouterr().err.strip().splitlines()
    assert len(line) == 1, line
    assert line[0].startswith("segdata fetch: error: ")
    return line[0].removeprefix("segdata fetch: error: ")


def assert_nothing_half_done(folder, files):
    """Whatever has its final name is whole."""
    for name in NAMES:
        if (folder / name).exists():
            assert (folder / name).read_bytes() == files[f"{COMPETITION}/{name}"]


@pytest.mark.parametrize(("fault", "script", "message"), FATAL, ids=[row[0] for row in FATAL])
def test_a_fault_that_stays_is_one_line_and_leaves_nothing_half_done(
    server, signed_in, waits, tmp_path, files, capsys, fault, script, message
):
    for where, faults in script.items():
        getattr(server, where).extend(faults)
    assert cli.main(["fetch", "dsb2018", "--to", str(tmp_path)]) == 2
    SEEN[fault] = complaint(capsys).replace(str(tmp_path), "DIR")
    assert message in SEEN[fault]
    assert_nothing_half_done(tmp_path, files)
    assert not (tmp_path / NAMES[0]).exists()
    server.api.clear()
    server.storage.clear()
    assert cli.main(["fetch", "dsb2018", "--to", str(tmp_path)]) == 0  # once it is mended
    assert_nothing_half_done(tmp_path, files)
    assert {*content(tmp_path)} == {*NAMES, downloads.MANIFEST}


@pytest.mark.parametrize(("fault", "script", "expected"), PASSING, ids=[row[0] for row in PASSING])
def test_a_fault_that_passes_is_waited_for(
    server, signed_in, waits, tmp_path, files, capsys, fault, script, expected
):
    for where, faults in script.items():
        getattr(server, where).extend(faults)
    assert cli.main(["fetch", "dsb2018", "--to", str(tmp_path)]) == 0
    assert waits == expected
    said = capsys.readouterr().out.splitlines()
    SEEN[fault] = next(line for line in said if "trying again" in line or "starting over" in line)
    assert_nothing_half_done(tmp_path, files)
    assert {*content(tmp_path)} == {*NAMES, downloads.MANIFEST}


@pytest.mark.parametrize(
    ("fault", "variables", "message"),
    [
        ("no credentials", {}, "there are no Kaggle credentials. Create an API token"),
        (
            "wrong credentials (401)",
            {"KAGGLE_USERNAME": "somebody", "KAGGLE_KEY": "wrong"},
            "refuses the credentials in KAGGLE_USERNAME and KAGGLE_KEY (401)",
        ),
        (
            "token that Kaggle does not know",
            {"KAGGLE_API_TOKEN": "KGAT_old"},
            "refuses the credentials in KAGGLE_API_TOKEN (401)",
        ),
    ],
)
def test_credentials_that_are_missing_or_wrong_are_one_line(
    server, signed_out, monkeypatch, tmp_path, capsys, fault, variables, message
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["fetch", "dsb2018", "--to", str(tmp_path)]) == 2
    SEEN[fault] = complaint(capsys)
    assert message in SEEN[fault]
    assert content(tmp_path) == {}
    assert server.asked == []


@pytest.mark.parametrize("body", [b"", b"null", b"[" * 99_999, b"9" * 9_999])
def test_signing_in_that_is_answered_oddly_is_one_line(
    server, signed_out, monkeypatch, tmp_path, capsys, body
):
    def answer(handler):
        handler.rfile.read(int(handler.headers["Content-Length"]))
        handler.give(200, body, "text/plain")

    monkeypatch.setattr(kaggle_server.Handler, "do_POST", answer)
    monkeypatch.setenv("KAGGLE_API_TOKEN", kaggle_server.TOKEN)
    assert cli.main(["fetch", "dsb2018", "--to", str(tmp_path)]) == 2
    assert "signing in: Kaggle's answer makes no sense" in complaint(capsys)
    assert "BAD Kaggle: signing in: Kaggle's answer makes no sense" in examine(capsys, tmp_path)[1]


def test_credentials_that_are_refused_are_left_alone(server, signed_out, tmp_path, capsys):
    path = signed_out / ".kaggle" / "credentials.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"refresh_token": "revoked", "username": "somebody"}))
    before = path.read_bytes()
    assert cli.main(["fetch", "dsb2018", "--to", str(tmp_path / "to")]) == 2
    assert f"refuses the credentials in {path} (401)" in complaint(capsys)
    assert path.read_bytes() == before


@pytest.mark.parametrize("length", ["abc", "²", "-5", "5_0", ""])
def test_a_length_that_is_no_number_is_none(server, signed_in, tmp_path, files, length):
    server.storage.append(claiming(length))
    downloads.fetch("dsb2018", tmp_path)
    assert_nothing_half_done(tmp_path, files)
    assert {*content(tmp_path)} == {*NAMES, downloads.MANIFEST}


@pytest.mark.parametrize("packed", [False, True])
def test_a_body_without_end_is_given_up_and_takes_no_room(
    server, signed_in, tmp_path, files, capsys, packed
):
    server.storage += [well, well, endless(packed=packed)]  # the third file is the smallest
    assert cli.main(["fetch", "dsb2018", "--to", str(tmp_path)]) == 2
    line = complaint(capsys)
    SEEN[f"a body without end{', packed' * packed}"] = line
    assert f"{NAMES[2]}: Kaggle sends more than 1,600,000 bytes, which it cannot be" in line
    assert {*content(tmp_path)} == {*NAMES[:2], downloads.MANIFEST}
    downloads.fetch("dsb2018", tmp_path)
    assert_nothing_half_done(tmp_path, files)


ODD_NOTES = [
    *(b"", b"[]", b"null", b"3", b'"x"', b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b"{}"),
    *(b"9" * 10_000, b" " * (2 << 20) + b"{}"),
]


@pytest.mark.parametrize("note", [*ODD_NOTES, b'{"%s": []}', b'{"%s": {"size": "x"}}', None])
def test_an_odd_list_of_what_was_fetched_is_written_anew(server, signed_in, tmp_path, note):
    downloads.fetch("dsb2018", tmp_path)
    before = content(tmp_path)
    (tmp_path / downloads.MANIFEST).unlink()
    if note is None:
        os.mkfifo(tmp_path / downloads.MANIFEST)
    else:
        (tmp_path / downloads.MANIFEST).write_bytes(note.replace(b"%s", NAMES[0].encode()))
    server.asked.clear()
    assert all(finding.is_well for finding in doctor.examine("dsb2018", tmp_path))
    assert downloads.fetch("dsb2018", tmp_path) == []
    assert server.asked == []
    assert content(tmp_path) == before


@pytest.mark.parametrize("note", [*ODD_NOTES, b'{"validator": [], "size": "x"}'])
def test_a_beginning_with_an_odd_note_is_begun_again(server, signed_in, tmp_path, files, note):
    (tmp_path / f"{NAMES[0]}.part").write_bytes(b"PK\3\4")
    (tmp_path / f"{NAMES[0]}.part.kaggle-partial").write_bytes(note)
    downloads.fetch("dsb2018", tmp_path)
    assert_nothing_half_done(tmp_path, files)
    assert {*content(tmp_path)} == {*NAMES, downloads.MANIFEST}


def test_a_file_system_without_locks_stops_no_fetch(server, signed_in, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert len(downloads.fetch("dsb2018", tmp_path)) == 3
    assert all(finding.is_well for finding in doctor.examine("dsb2018", tmp_path))


def test_what_a_server_says_cannot_move_the_cursor(server, signed_in, tmp_path, capsys):
    def refuse(handler):
        handler.fail(403, "\x1b[2J no\u202e\nsegdata fetch: all is well")
        return True

    server.api.append(refuse)
    assert cli.main(["fetch", "dsb2018", "--to", str(tmp_path)]) == 2
    assert r"\x1b[2J no\u202e segdata fetch" in complaint(capsys)


def test_nobody_answering_is_one_line(signed_in, waits, tmp_path, capsys, monkeypatch):
    from kagglesdk import kaggle_env

    monkeypatch.setitem(
        kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.TEST, "http://127.0.0.1:9"
    )
    assert cli.main(["fetch", "dsb2018", "--to", str(tmp_path)]) == 2
    SEEN["no network"] = complaint(capsys)
    assert "no connection to Kaggle, 6 times in a row" in SEEN["no network"]
    assert waits == [1, 2, 4, 8, 16]
    monkeypatch.setenv("KAGGLE_API_TOKEN", kaggle_server.TOKEN)
    code, text = examine(capsys, tmp_path)
    assert code == 1
    assert "BAD Kaggle: signing in: no connection to Kaggle" in text
    assert len(waits) == 5


def test_a_retry_after_may_be_a_date(server, signed_in, waits, tmp_path):
    date = email.utils.format_datetime(
        datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=90), usegmt=True
    )
    server.api.append(status(429, Retry_After=date))
    downloads.fetch("dsb2018", tmp_path)
    assert 60 < waits[0] <= 90


@pytest.mark.parametrize(("code", "message"), [(403, "open https://"), (404, "see what there is")])
def test_a_data_set_is_refused_with_its_own_page(
    server, signed_in, tmp_path, capsys, code, message
):
    server.api.append(status(code))
    assert cli.main(["fetch", "cityscapes_pairs", "--to", str(tmp_path)]) == 2
    line = complaint(capsys)
    assert message in line
    assert "https://www.kaggle.com/datasets/dansbecker/cityscapes-image-pairs" in line


def test_a_server_that_falls_silent_is_not_waited_for_for_ever(
    server, signed_in, waits, tmp_path, files, monkeypatch
):
    def silent(handler):
        handler.serve(files[FIRST], send=100_000)
        handler.wfile.flush()
        time.sleep(5)
        return True

    monkeypatch.setattr(api, "TIMEOUT", (1, 0.3))
    server.storage.append(silent)
    start = time.monotonic()
    downloads.fetch("dsb2018", tmp_path)
    assert time.monotonic() - start < 4
    assert waits == [1.0]
    assert (tmp_path / NAMES[0]).read_bytes() == files[FIRST]


def test_a_broken_connection_costs_what_was_not_received_alone(
    server, signed_in, waits, tmp_path, files
):
    server.storage.append(short(300_000))
    downloads.fetch("dsb2018", tmp_path)
    ranges = [range_ for name, range_ in server.asked if name == NAMES[0] and range_]
    (start,) = (int(range_.removeprefix("bytes=").removesuffix("-")) for range_ in ranges)
    assert 300_000 - 65_536 <= start <= 300_000  # at most one chunk is lost


def begun(server, tmp_path, monkeypatch, after=300_000):
    """Fetches the first file as far as `after` bytes, and is interrupted."""

    def interrupt(*_):
        raise KeyboardInterrupt

    server.storage.append(short(after))
    with monkeypatch.context() as patch:
        patch.setattr(api, "time", types.SimpleNamespace(sleep=interrupt))
        assert cli.main(["fetch", "dsb2018", "--to", str(tmp_path)]) == 130
    assert not (tmp_path / NAMES[0]).exists()
    assert (tmp_path / f"{NAMES[0]}.part").stat().st_size > after - 65_536
    server.asked.clear()


def test_an_interrupted_fetch_goes_on_where_it_was(server, signed_in, tmp_path, files, monkeypatch):
    begun(server, tmp_path, monkeypatch)
    downloads.fetch("dsb2018", tmp_path)
    assert any(range_ for _, range_ in server.asked)
    assert_nothing_half_done(tmp_path, files)


@pytest.mark.parametrize(
    "how",
    [
        "size",
        "content",
        "date",
        "no validators",
        "between the answers",
        "between the answers, unchecked",
        "between the answers, unchecked, to a shorter one",
    ],
)
def test_a_file_that_changed_between_two_parts_is_fetched_anew(
    server, signed_in, waits, tmp_path, files, monkeypatch, capsys, how
):
    if how in ("date", "no validators"):
        server.validators = ("Last-Modified",) if how == "date" else ()
    begun(server, tmp_path, monkeypatch)
    server.modified = MODIFIED if how != "date" else MODIFIED.replace("2018", "2019")
    size = {"size": 700_000, "between the answers, unchecked, to a shorter one": 200_000}
    changed = kaggle_server.archive(tmp_path / NAMES[0], seed=99, size=size.get(how, 600_000))
    (tmp_path / NAMES[0]).unlink()
    if how.startswith("between"):  # the client was told of the old one, and gets the new one
        then = careless if "unchecked" in how else well
        server.storage += [well, changing({FIRST: changed}, then=then)]
    else:
        server.files[FIRST] = changed
    downloads.fetch("dsb2018", tmp_path)
    said = [line for line in capsys.readouterr().out.splitlines() if "starting over" in line]
    SEEN[f"changed on the server ({how})"] = said[0]
    assert waits == []
    assert (tmp_path / NAMES[0]).read_bytes() == changed
    assert json.loads((tmp_path / downloads.MANIFEST).read_text())[NAMES[0]] == digest(changed)


def test_a_file_that_changes_while_ranges_are_not_checked_is_fetched_anew(
    server, signed_in, waits, tmp_path, files
):
    """The server appends the rest of another file of the same size, and calls it the same."""
    other = kaggle_server.archive(tmp_path / NAMES[0], seed=99)
    (tmp_path / NAMES[0]).unlink()

    def wrong_rest(handler):
        start = int(handler.headers["Range"][6:-1])
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{len(other) - 1}/{len(other)}")
        handler.send_header("Content-Length", str(len(other) - start))
        handler.end_headers()
        handler.wfile.write(other[start:])
        return True

    server.storage += [broken(300_000), well, wrong_rest]
    downloads.fetch("dsb2018", tmp_path)
    assert (tmp_path / NAMES[0]).read_bytes() == files[FIRST]


def test_a_server_that_cannot_resume_starts_over(server, signed_in, waits, tmp_path, files):
    server.ranges = False
    server.storage.append(broken(300_000))
    downloads.fetch("dsb2018", tmp_path)
    assert_nothing_half_done(tmp_path, files)


def test_what_the_kaggle_command_began_is_gone_on_with(server, signed_in, tmp_path, files):
    body = files[FIRST]
    (tmp_path / NAMES[0]).write_bytes(body[:400_000])
    note = {"validator": f'"{hashlib.md5(body).hexdigest()}"', "size": len(body)}
    (tmp_path / f"{NAMES[0]}.kaggle-partial").write_text(json.dumps(note))
    downloads.fetch("dsb2018", tmp_path)
    assert (NAMES[0], "bytes=400000-") in server.asked
    assert_nothing_half_done(tmp_path, files)
    assert {*content(tmp_path)} == {*NAMES, downloads.MANIFEST}


@pytest.mark.parametrize("ours", ["nothing", "bytes", "bytes and note"])
def test_of_two_beginnings_one_is_gone_on_with(server, signed_in, tmp_path, files, ours):
    body = files[FIRST]
    note = json.dumps({"validator": f'"{hashlib.md5(body).hexdigest()}"', "size": len(body)})
    (tmp_path / NAMES[0]).write_bytes(body[:400_000])
    (tmp_path / f"{NAMES[0]}.kaggle-partial").write_text(note)
    if ours != "nothing":
        (tmp_path / f"{NAMES[0]}.part").write_bytes(body[:200_000])
    if ours == "bytes and note":
        (tmp_path / f"{NAMES[0]}.part.kaggle-partial").write_text(note)
    downloads.fetch("dsb2018", tmp_path)
    start = 200_000 if ours == "bytes and note" else 400_000
    assert (NAMES[0], f"bytes={start}-") in server.asked
    assert_nothing_half_done(tmp_path, files)
    assert {*content(tmp_path)} == {*NAMES, downloads.MANIFEST}


@pytest.mark.parametrize("state", ["not renamed", "note left", "not written down", "half written"])
def test_a_kill_after_the_last_byte_costs_no_second_fetch(
    server, signed_in, tmp_path, files, state
):
    downloads.fetch("dsb2018", tmp_path)
    before = content(tmp_path)
    body = files[FIRST]
    part = transfer.Part(tmp_path / f"{NAMES[0]}.part")
    part.begin(transfer.Identity(f'"{hashlib.md5(body).hexdigest()}"', len(body)))
    if state == "not renamed":
        (tmp_path / NAMES[0]).replace(part.path)
    if state == "not written down":
        (tmp_path / downloads.MANIFEST).unlink()
    if state == "half written":
        (tmp_path / "unfinished-0123456789abcdef.json").write_text("{")
    server.asked.clear()
    downloads.fetch("dsb2018", tmp_path)
    assert not any(range_ for _, range_ in server.asked)
    assert len(server.asked) == (state == "not renamed")  # to learn that it is the same file
    assert content(tmp_path) == before


def test_a_disk_that_is_too_small_is_said_before_a_byte_is_written(
    server, signed_in, tmp_path, capsys, monkeypatch
):
    usage = types.SimpleNamespace(free=100_000)
    monkeypatch.setattr(transfer, "shutil", types.SimpleNamespace(disk_usage=lambda _: usage))
    assert cli.main(["fetch", "dsb2018", "--to", str(tmp_path)]) == 2
    SEEN["no space, known before"] = complaint(capsys).replace(str(tmp_path), "DIR")
    assert "and 100,000 are free. Make room" in SEEN["no space, known before"]
    assert content(tmp_path) == {}


def test_a_disk_that_fills_up_keeps_what_it_has(
    server, signed_in, tmp_path, capsys, monkeypatch, files
):
    class Full:
        def __init__(self, **_):
            pass

        __enter__ = __exit__ = lambda self, *_: None

        def update(self, _):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(transfer.tqdm, "tqdm", Full)
        assert cli.main(["fetch", "dsb2018", "--to", str(tmp_path)]) == 2
    SEEN["no space, while writing"] = complaint(capsys).replace(str(tmp_path), "DIR")
    assert "the disk is full after 65,536 bytes" in SEEN["no space, while writing"]
    assert not (tmp_path / NAMES[0]).exists()
    server.asked.clear()
    downloads.fetch("dsb2018", tmp_path)
    assert (NAMES[0], "bytes=65536-") in server.asked
    assert_nothing_half_done(tmp_path, files)


def test_of_two_fetches_at_once_the_second_says_so(server, signed_in, tmp_path, capsys, files):
    server.rate = 1_000_000
    first = subprocess.Popen([*FETCH, "dsb2018", "--to", str(tmp_path)], stdout=subprocess.PIPE)
    while not any(tmp_path.glob("*.part")):
        time.sleep(0.01)
    assert cli.main(["fetch", "dsb2018", "--to", str(tmp_path)]) == 2
    SEEN["two fetches at once"] = complaint(capsys).replace(str(tmp_path), "DIR")
    assert "another `segdata fetch` is running here" in SEEN["two fetches at once"]
    assert "another fetch is running here" in doctor.examine("dsb2018", tmp_path)[0].state
    server.rate = None
    first.communicate()
    assert first.returncode == 0
    assert_nothing_half_done(tmp_path, files)


@pytest.mark.heavy
def test_killed_at_ten_random_moments_it_ends_with_the_bytes_of_an_undisturbed_run(
    server, signed_in, tmp_path, files
):
    downloads.fetch("dsb2018", tmp_path / "undisturbed")
    server.rate = 500_000
    generator = random.Random(8)
    folder = tmp_path / "killed"
    command = [*FETCH, "dsb2018", "--to", str(folder)]

    def received() -> int:
        with contextlib.suppress(FileNotFoundError):  # renamed while one looks
            return sum(path.stat().st_size for path in folder.glob("*.zip*"))
        return 0

    kills = 0
    for _ in range(10):
        aim = received() + generator.randrange(-100_000, 200_000)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while process.poll() is None and received() < aim:
            time.sleep(0.005)
        time.sleep(generator.uniform(0, 0.15))
        kills += process.poll() is None
        process.kill()
        process.communicate()
        for name in NAMES:
            path = folder / name
            assert not path.exists() or path.read_bytes() == files[f"{COMPETITION}/{name}"]
    assert kills == 10
    assert received() > 300_000  # it got on between the kills
    server.rate = None
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert content(folder) == content(tmp_path / "undisturbed")


def test_the_progress_bar_shows_rate_and_time_left(server, signed_in, tmp_path):
    server.rate = 500_000
    mine, its = pty.openpty()
    termios.tcsetwinsize(its, (25, 100))
    command = [*FETCH, "dsb2018", "--to", str(tmp_path)]
    with subprocess.Popen(command, stdout=its, stderr=its) as process:
        os.close(its)
        shown = b""
        with contextlib.suppress(OSError):  # the end of a terminal
            while not re.search(rb"stage1_train.zip: +[1-9]\d*%\|.*<\d\d:\d\d, .*B/s", shown):
                shown += os.read(mine, 4096)
        process.kill()
    os.close(mine)
    assert re.search(rb"stage1_train.zip: +[1-9]\d*%\|.*<\d\d:\d\d, .*B/s", shown), shown


def test_a_build_fetches_what_it_lacks(server, signed_in, tmp_path, drawn_dsb2018, capsys):
    for name in NAMES[:2]:
        server.files[f"{COMPETITION}/{name}"] = (drawn_dsb2018 / name).read_bytes()
    paths = ["--data_dir", str(tmp_path), "--config", "default"]
    assert cli.main(["build", "dsb2018", *paths]) == 0
    manual = tmp_path / "downloads" / "manual"
    assert {*content(manual)} == {*NAMES, downloads.MANIFEST}
    assert (tmp_path / "dsb2018" / "default" / "1.0.0" / "dataset_info.json").exists()


def test_a_build_without_archive_and_credentials_says_three_things(tmp_path):
    with pytest.raises(FileNotFoundError) as failure:
        downloads.supply(sources.named("dsb2018"), tmp_path, config="instances")
    which, access, command = str(failure.value).splitlines()
    assert f"{tmp_path}: dsb2018 is built from stage1_train.zip" in which
    assert "https://www.kaggle.com/settings" in access
    assert "Accept the rules at https://www.kaggle.com/c/data-science-bowl-2018/rules" in access
    assert command.endswith(f"segdata fetch dsb2018 --to {tmp_path}")


def everything(*folders):
    return {
        path: path.read_bytes() if path.is_file() else None
        for folder in folders
        for path in folder.rglob("*")
    }


def examine(capsys, folder, *flags):
    code = cli.main(["doctor", "dsb2018", "--to", str(folder), *flags])
    return code, capsys.readouterr().out


def test_doctor_is_content_with_a_whole_set_and_asks_nobody(server, signed_in, tmp_path, capsys):
    downloads.fetch("dsb2018", tmp_path)
    server.asked.clear()
    capsys.readouterr()
    code, text = examine(capsys, tmp_path)
    assert code == 0
    assert "BAD" not in text
    assert server.asked == []


def test_doctor_says_what_a_build_works_without(server, signed_in, tmp_path, capsys):
    _, text = examine(capsys, tmp_path)
    says = {line.split()[1]: "A build works without it" in line for line in text.splitlines()}
    assert not says["stage1_train.zip:"]
    assert says["stage1_test.zip:"]
    assert says["stage1_solution.csv.zip:"]


def prepare_missing(folder, server):
    pass


def prepare_damaged(folder, server):
    folder.mkdir()
    (folder / NAMES[0]).write_bytes(server.files[FIRST][:-1000])


def prepare_begun(folder, server):
    folder.mkdir()
    (folder / f"{NAMES[0]}.part").write_bytes(server.files[FIRST][:1000])
    (folder / f"{NAMES[0]}.part.kaggle-partial").write_text('{"validator": "x", "size": 9999}')


def prepare_rules(folder, server):
    server.accepted = False


def prepare_unknown(folder, server):
    server.files.clear()


@pytest.mark.parametrize(
    ("prepare", "messages"),
    [
        (prepare_missing, ["there is no such file", "segdata fetch dsb2018 --to", "ok  rules"]),
        (prepare_damaged, ["it begins like a zip and has no readable end"]),
        (prepare_begun, ["begun: 1,000 bytes are there\n    segdata fetch dsb2018"]),
        (prepare_rules, ["BAD rules", "Accept the rules at https://www.kaggle.com/c/"]),
        (
            prepare_unknown,
            ["BAD Kaggle", "(404)", f"Check https://www.kaggle.com/c/{COMPETITION}"],
        ),
    ],
)
def test_doctor_names_what_is_wrong_and_what_mends_it_and_changes_nothing(
    server, signed_in, tmp_path, no_credentials, capsys, prepare, messages
):
    folder = tmp_path / "manual"
    prepare(folder, server)
    before = everything(tmp_path, no_credentials)
    code, text = examine(capsys, folder)
    assert code == 1
    for message in messages:
        assert message in text
    assert "to be fetched, and about as much again" in text
    assert "MB/s" in text
    assert everything(tmp_path, no_credentials) == before


def test_doctor_says_how_to_sign_in(server, signed_out, tmp_path, capsys, monkeypatch):
    code, text = examine(capsys, tmp_path)
    assert code == 1
    assert "BAD credentials: there are no Kaggle credentials\n    Create an API token" in text
    assert "BAD rules: not known" in text
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_old")
    code, text = examine(capsys, tmp_path)
    assert code == 1
    assert "BAD credentials: Kaggle refuses the credentials in KAGGLE_API_TOKEN (401)" in text


def test_doctor_finds_a_disk_too_small(server, signed_in, tmp_path, capsys, monkeypatch):
    usage = types.SimpleNamespace(free=100_000)
    monkeypatch.setattr(doctor, "shutil", types.SimpleNamespace(disk_usage=lambda _: usage))
    code, text = examine(capsys, tmp_path)
    assert code == 1
    assert "BAD disk" in text


@pytest.mark.parametrize("token", ["KGAT_old", ""])
def test_importing_the_client_speaks_to_nobody_and_leaves_the_standard_input_open(
    no_credentials, monkeypatch, token
):
    monkeypatch.setenv("KAGGLE_API_TOKEN", token)
    code = (
        "import sys, requests; from segdata.kaggle import api\n"
        "sent = []; requests.Session.send = lambda *_, **__: sent.append(1)\n"
        "with api._import_offline():\n import kaggle\n"
        "print(sent, sys.stdin.closed)"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, stdin=subprocess.PIPE
    )
    assert result.stdout == "[] False\n"
    assert list(no_credentials.iterdir()) == []


def test_the_table_of_faults(capsys):
    """Prints what the user sees for each fault that the tests before this one caused."""
    if len(SEEN) < 20:
        pytest.skip("only whole runs of this module make the table")
    with capsys.disabled():
        print("\n\n| fault | what the user sees |\n|---|---|")
        for fault, seen in SEEN.items():
            print(f"| {fault} | {seen} |")
    assert len(set(SEEN.values())) > len(SEEN) // 2
