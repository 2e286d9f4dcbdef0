"""Downloads from a local server that breaks off, sends wrong files and refuses: a corpus arrives complete or not at all."""

import hashlib
import io
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlparse

import numpy as np
import pytest
import soundfile

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.data.corpora import registry
from speaker_invariant_ser.data.corpora.base import Download
from speaker_invariant_ser.data.corpora.download import CheckedSession, download_corpus
from speaker_invariant_ser.data.corpora.registry import get_corpus, known_corpora
from speaker_invariant_ser.errors import CorpusError, DownloadError, WriteError
from speaker_invariant_ser.files import locked

NAMES = ["03a01Fa", "08a02Wb", "09b03Ta", "11a05Na"]


def archive() -> bytes:
    """Return a small EMO-DB as a zip file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for seed, name in enumerate(NAMES):
            clip = io.BytesIO()
            soundfile.write(clip, np.random.default_rng(seed).uniform(-0.3, 0.3, 80_000), 16_000, format="WAV")
            file.writestr(f"emodb/wav/{name}.wav", clip.getvalue())
    return buffer.getvalue()


class Server(HTTPServer):
    """Serve `body`; the first `breaks` transfers end half-way, `ranges` says whether the server sends parts of the file."""

    def __init__(self, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.breaks, self.ranges, self.status, self.requests = body, 0, True, 200, []
        self.sends_length, self.redirect = True, ""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server, requested = self.server, self.headers.get("Range", "")
        server.requests.append(requested)
        if server.status != 200:
            self.send_error(server.status)
            return
        if server.redirect:
            target, server.redirect = server.redirect, ""  # before the answer: the client may set the next one at once
            self.send_response(302)
            self.send_header("Location", target)
            self.end_headers()
            return
        first = int(requested.removeprefix("bytes=").rstrip("-")) if requested and server.ranges else 0
        if first >= len(server.body):
            self.send_error(416)
            return
        part = server.body[first:]
        self.send_response(206 if first else 200)
        if server.sends_length:
            self.send_header("Content-Length", str(len(part)) if server.sends_length is True else server.sends_length)
        self.end_headers()
        if server.breaks:
            server.breaks -= 1
            part = part[: len(part) // 2]
            self.close_connection = True
        self.wfile.write(part)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def server():
    server = Server(archive())
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def emodb(server):
    return replace(get_corpus("emodb"), download=(download_of(server),))


def download_of(server, **changes):
    """Return what a corpus module would state about the server's archive."""
    download = Download(
        f"http://127.0.0.1:{server.server_port}/emodb.zip", "sha256:" + hashlib.sha256(server.body).hexdigest(), len(server.body)
    )
    return replace(download, **changes)


def fetch(server, tmp_path, **changes):
    """Download the server's archive, with other facts stated about it."""
    download_corpus(replace(get_corpus("emodb"), download=(download_of(server, **changes),)), tmp_path / "emodb")


def test_a_downloaded_corpus_is_unpacked_and_prepared(server, emodb, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(registry, "known_corpora", lambda: {"emodb": emodb})
    command = ["prepare", "emodb", str(tmp_path / "emodb"), str(tmp_path / "data"), "--download"]
    assert siser(command) == 0
    assert "4 utterances, 0 rejected" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "emodb"]
    assert siser([*command[:3], str(tmp_path / "again"), "--download"]) == 0 and len(server.requests) == 1


def test_progress_is_reported(emodb, tmp_path):
    calls = []
    download_corpus(emodb, tmp_path / "emodb", lambda *call: calls.append(call))
    assert calls[0][0] == "downloading (kB)" and calls[-1][0] == "unpacking"
    assert all(done <= total for _, done, total in calls)


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_transfer_is_resumed(server, emodb, tmp_path, ranges):
    server.breaks, server.ranges = 2, ranges
    download_corpus(emodb, tmp_path / "emodb")
    assert len(list((tmp_path / "emodb").rglob("*.wav"))) == 4
    assert len(server.requests) == 3 and server.requests[0] == ""
    second, third = (int(requested[6:-1]) / len(server.body) for requested in server.requests[1:])
    assert 0.45 < second <= 0.5 and ((0.7 < third <= 0.75) if ranges else (0.45 < third <= 0.5))


def test_a_failed_transfer_keeps_what_was_received_for_the_next_call(server, emodb, tmp_path):
    server.breaks = 3
    with pytest.raises(DownloadError, match="repeat the same command to resume"):
        download_corpus(emodb, tmp_path / "emodb")
    (part,) = tmp_path.rglob("*.part")
    assert part == tmp_path / ".emodb.download" / "emodb.zip.part" and (size := part.stat().st_size) > 0.8 * len(server.body)
    download_corpus(emodb, tmp_path / "emodb")
    assert [path.name for path in tmp_path.iterdir()] == ["emodb"] and server.requests[-1] == f"bytes={size}-"


def test_a_file_with_the_wrong_checksum_is_removed(server, emodb, tmp_path):
    server.body = server.body[:-1] + b"x"
    with pytest.raises(DownloadError, match=f"does not have the checksum {emodb.download[0].hash} and was removed"):
        download_corpus(emodb, tmp_path / "emodb")
    assert not list(tmp_path.rglob("*.zip*"))


def test_a_partial_file_of_another_download_fails_the_checksum(server, emodb, tmp_path):
    (tmp_path / ".emodb.download").mkdir()
    (tmp_path / ".emodb.download" / "emodb.zip.part").write_bytes(b"x" * 99)
    with pytest.raises(DownloadError, match="checksum"):
        download_corpus(emodb, tmp_path / "emodb")
    download_corpus(emodb, tmp_path / "emodb")


def test_without_a_published_checksum_any_file_is_accepted(server, emodb, tmp_path):
    fetch(server, tmp_path, hash="", bytes=len(server.body) + 1000, exact=False)
    assert len(list((tmp_path / "emodb").rglob("*.wav"))) == 4


@pytest.mark.parametrize(
    "stated, sends_length, message",
    [
        ({"bytes": 1000}, False, "is larger than 1000 bytes and was removed"),
        ({"bytes": 1000}, True, "is larger than 1000 bytes and was removed"),
        ({"bytes": 1000, "exact": False, "hash": ""}, False, "is larger than 1200 bytes and was removed"),
        ({"bytes": 10**7}, True, r"has \d+ bytes, expected 10000000 and was removed"),
    ],
)
def test_a_transfer_ends_at_the_size_that_is_stated(server, tmp_path, stated, sends_length, message):
    server.sends_length = sends_length
    with pytest.raises(DownloadError, match=message):
        fetch(server, tmp_path, **stated)
    assert len(server.requests) == 1 and not list(tmp_path.rglob("*.zip*"))


@pytest.mark.parametrize("answer", [{"redirect": "http://["}, {"sends_length": "many"}])
def test_an_answer_that_makes_no_sense_is_an_error(server, tmp_path, answer):
    vars(server).update(answer)
    with pytest.raises(DownloadError, match=r"emodb.zip: the server's answer cannot be used \("):
        fetch(server, tmp_path)


def test_redirects_within_the_server_are_followed_and_no_others(server, emodb, tmp_path):
    for target in ("http://localhost:1/emodb.zip", "https://example.org/emodb.zip", "//example.org/x", "ftp://127.0.0.1/x"):
        server.redirect = target
        with pytest.raises(DownloadError, match="redirected to .*, which is not followed; expected https and 127.0.0.1"):
            download_corpus(emodb, tmp_path / "emodb")
    server.redirect = "/elsewhere/emodb.zip"
    download_corpus(emodb, tmp_path / "emodb")


@pytest.mark.parametrize(
    "first, target, allowed",
    [
        ("https://github.com/a.zip", "https://codeload.github.com/a.zip", True),
        ("https://github.com/a.zip", "http://codeload.github.com/a.zip", False),
        ("https://github.com/a.zip", "https://github.com.example.org/a.zip", False),
        ("https://huggingface.co/a.zip", "https://cas-bridge.xethub.hf.co/a.zip", True),
        ("https://huggingface.co/a.zip", "https://evilhf.co/a.zip", False),
        ("https://zenodo.org/a.zip", "https://zenodo.org/api/a.zip", True),
        ("https://zenodo.org/a.zip", "https://github.com/a.zip", False),
    ],
)
def test_hosts_that_a_known_server_may_redirect_to(first, target, allowed):
    assert CheckedSession(first).allows(urlparse(target)) == allowed


def zipped(method=zipfile.ZIP_DEFLATED, **members):
    """Return a zip file of these members, compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize("limit", ["bytes", "files"])
def test_an_archive_that_unpacks_to_far_too_much_is_removed(server, tmp_path, monkeypatch, limit):
    monkeypatch.setattr("speaker_invariant_ser.data.corpora.download.MIN_LIMIT", 10**6)
    monkeypatch.setattr("speaker_invariant_ser.data.corpora.download.MAX_FILES", 10)
    server.body = zipped(a=bytes(2 * 10**6)) if limit == "bytes" else zipped(**{f"n{n}": "x" for n in range(11)})
    with pytest.raises(DownloadError, match="(1 files of 2 MB|11 files of 0 MB) in this archive, expected at most 10 of 1 MB"):
        fetch(server, tmp_path)
    assert not list(tmp_path.rglob("*.zip")) and not (tmp_path / "emodb").exists()


def test_an_archive_unpacks_into_its_folder_alone(server, tmp_path):
    server.body = zipped(**{"../../outside.wav": "x", "/tmp/absolute.wav": "x", "a/../b.wav": "x"})
    fetch(server, tmp_path)
    unpacked = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.wav"))
    assert unpacked == ["emodb/a/b.wav", "emodb/outside.wav", "emodb/tmp/absolute.wav"]


def test_planted_files_and_links_beside_a_download_are_not_used(server, tmp_path):
    (tmp_path / "victim").write_text("old")
    planted = tmp_path / "planted"
    planted.mkdir()
    (planted / "emodb.zip.part").symlink_to(tmp_path / "victim")
    (planted / "emodb.zip").write_bytes(zipped(a="planted"))
    (tmp_path / ".emodb.download").symlink_to(planted)
    fetch(server, tmp_path, hash="", exact=False)
    assert (tmp_path / "victim").read_text() == "old" and len(list((tmp_path / "emodb").rglob("*.wav"))) == 4


@pytest.mark.parametrize(
    "status, words", [(404, "the server answers 404 Not Found"), (416, "416"), (503, "503 Service Unavailable")]
)
def test_a_refusal_is_quoted_and_not_repeated(server, emodb, tmp_path, status, words):
    server.status = status
    with pytest.raises(DownloadError, match=words):
        download_corpus(emodb, tmp_path / "emodb")
    assert len(server.requests) == 1 and not list(tmp_path.rglob("*.zip*"))


def test_an_unreachable_server_raises_an_error(emodb, tmp_path):
    unreachable = Download("http://127.0.0.1:9/emodb.zip", "", 1000)
    with pytest.raises(DownloadError, match="check the network connection"):
        download_corpus(replace(emodb, download=(unreachable,)), tmp_path / "emodb")


def test_a_corpus_behind_a_form_names_the_address_of_the_form(tmp_path, capsys):
    assert siser(["prepare", "iemocap", str(tmp_path / "i"), str(tmp_path / "data"), "--download"]) == 2
    shown = capsys.readouterr().err
    assert "IEMOCAP cannot be downloaded by a program" in shown and "https://sail.usc.edu" in shown
    with pytest.raises(CorpusError, match="builtin|built-in"):
        download_corpus(get_corpus("builtin"), tmp_path)


def test_an_existing_file_and_too_little_space_raise_an_error(emodb, tmp_path):
    (tmp_path / "emodb").touch()
    with pytest.raises(WriteError, match="exists already"):
        download_corpus(emodb, tmp_path / "emodb")
    huge = replace(emodb, download=(replace(emodb.download[0], bytes=10**18),))
    with pytest.raises(WriteError, match="MB needed"):
        download_corpus(huge, tmp_path / "other")


def test_a_damaged_archive_without_a_checksum_is_removed(server, tmp_path):
    whole = zipped(a=bytes(1000))
    encrypted = whole.replace(b"\x14\0\0\0\x08", b"\x14\0\1\0\x08")
    unknown = whole.replace(b"\x14\0\0\0\x08", b"\x14\0\0\0\x62")
    holed = archive()[:60_000] + bytes(2000) + archive()[62_000:]
    nameless = zipped(**{"\n": "x"}).replace(b"\n", b"\0")
    broken = zipped(zipfile.ZIP_BZIP2, a=bytes(1000)).replace(b"BZh", b"BZx")
    for body in (server.body[:-30], holed, encrypted, unknown, nameless, broken, b"x"):
        server.body = body
        with pytest.raises(DownloadError, match="not a complete zip file"):
            fetch(server, tmp_path, hash="", exact=False)
        assert not list(tmp_path.rglob("*.zip*"))


def test_a_server_without_content_length_and_an_approximate_size(server, emodb, tmp_path):
    server.sends_length = False
    roughly = replace(emodb.download[0], bytes=len(server.body) + 1000, exact=False)
    download_corpus(replace(emodb, download=(roughly,)), tmp_path / "emodb")
    assert len(list((tmp_path / "emodb").rglob("*.wav"))) == 4 and len(server.requests) == 1


def test_openly_licensed_corpora_can_be_downloaded():
    known = known_corpora()
    assert {"emodb", "ravdess", "tess", "crema_d", "nemo", "subesco"} <= {name for name in known if known[name].download}
    downloads = [download for corpus in known.values() for download in corpus.download]
    assert all(urlparse(download.url).scheme == "https" and download.bytes > 10**6 for download in downloads)
    assert known["ravdess"].download[0].hash == "md5:bc696df654c87fed845eb13823edef8a"


def test_two_downloads_into_one_folder_do_not_mix(emodb, tmp_path):
    with locked(tmp_path / "emodb", "download-lock"), pytest.raises(WriteError, match="another process is writing it"):
        download_corpus(emodb, tmp_path / "emodb")
    assert not list(tmp_path.rglob("*.part"))
