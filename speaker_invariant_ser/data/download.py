"""Fetch an openly licensed corpus: known address, known checksum, continued where the line broke, unpacked when it is whole."""

import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlparse

import pooch
import requests

from speaker_invariant_ser.data.corpora.base import Corpus, Download
from speaker_invariant_ser.errors import CorpusError, DownloadError
from speaker_invariant_ser.files import new_folder, refuse_existing, require_space, translated

BLOCK = 2**14  # bytes read at once; a block that breaks off is asked for again
TRIES = 3  # of a transfer that breaks off; each goes on from where the last one ended
PATIENCE = 30  # seconds without a byte
ROOM = 2.5  # times an archive's size: it and what is in it together

Progress = Callable[[str, int, int], None]  # what, done, total


def fetch(corpus: Corpus, folder: Path | str, progress: Progress | None = None) -> Path:
    """Download the corpus's archives beside `folder` and unpack them into it; returns `folder`.

    A folder that holds anything is taken as it is, so that the same command can be given again. Archives are removed after
    unpacking; what came of one is kept when the transfer fails, and the next call goes on from there.
    Raises CorpusError if the corpus is not to be fetched, DownloadError for a failed transfer or a wrong checksum, WriteError.
    """
    folder = Path(folder).resolve()
    if not corpus.download:
        raise CorpusError(f"{corpus.title} cannot be downloaded by a program ({corpus.licence}); get it from {corpus.url}")
    if folder.is_dir() and any(folder.iterdir()):
        return folder
    refuse_existing(folder, "name the folder that the corpus should be in")
    require_space(folder, int(ROOM * sum(one.bytes for one in corpus.download)))
    archives = [folder.with_name(f".{folder.name}.{Path(urlparse(one.url).path).name}") for one in corpus.download]
    for archive, one in zip(archives, corpus.download, strict=True):
        obtain(one, archive, progress)
    with new_folder(folder) as partial:
        for done, archive in enumerate(archives):
            if progress:
                progress("unpacking", done, len(archives))
            unpack(archive, partial)
    for archive in archives:
        archive.unlink()
    return folder


def unpack(archive: Path, folder: Path) -> None:
    """Everything in a zip file -> `folder`. A damaged one, which only a missing checksum lets come so far, is removed."""
    try:
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        archive.unlink()
        raise DownloadError(f"{archive.name}: what came is no whole zip file ({error}) and was removed; try again") from None


def obtain(download: Download, archive: Path, progress: Progress | None) -> None:
    """The file of that address at `archive`, whole and with the right checksum. Raises DownloadError."""
    with translated(archive):
        pooch.get_logger().setLevel("WARNING")  # progress is told by us
        downloader = Continued(archive, download.bytes, progress)
        try:
            pooch.retrieve(download.url, download.hash or None, archive.name, archive.parent, downloader=downloader)
        except requests.RequestException as error:
            raise DownloadError(
                f"{download.url}: {reason_of(error)}; what came is kept, give the same command again to go on"
            ) from None
        except ValueError as error:  # pooch's word for a wrong checksum
            if "hash" not in str(error):
                raise
            raise DownloadError(
                f"{download.url}: the file that came does not have the checksum {download.hash} and was removed. "
                "Try again; if it is the same, the file has been changed at its address"
            ) from None


class Continued:
    """A downloader for pooch that goes on from a part of the file, as far as the server lets it."""

    def __init__(self, archive: Path, size: int, progress: Progress | None) -> None:
        self.part, self.size, self.progress = archive.with_name(archive.name + ".part"), size, progress

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Called by pooch. Raises requests' errors when all tries have failed, with what came kept in the part."""
        for left in reversed(range(TRIES)):
            try:
                self.transfer(url)
                break
            except requests.HTTPError:
                raise  # the server has answered; asking again would be rude
            except requests.RequestException:
                if not left:
                    raise
        shutil.move(self.part, output_file)  # pooch checks it and removes it if it is wrong

    def transfer(self, url: str) -> None:
        """One try: ask for what is missing of the part, and append it."""
        held = self.part.stat().st_size if self.part.exists() else 0
        asked = {"Range": f"bytes={held}-"} if held else {}
        with requests.get(url, headers={"Accept-Encoding": "identity", **asked}, stream=True, timeout=PATIENCE) as answer:
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                return  # nothing is missing; the checksum will tell
            answer.raise_for_status()
            if answer.status_code != requests.codes.partial_content:
                held = 0  # the server began anew
            length = int(answer.headers.get("Content-Length", 0))  # none for what is made while it is sent
            total = held + length if length else 0
            with open(self.part, "ab" if held else "wb") as file:
                for block in answer.iter_content(BLOCK):
                    held += file.write(block)
                    if self.progress:
                        self.progress("downloading (kB)", held // 1000, max(held, total or self.size) // 1000)
            if held < total:
                raise requests.ConnectionError(f"the line broke after {held} of {total} bytes")


def reason_of(error: requests.RequestException) -> str:
    """What went wrong, without the innards of three libraries."""
    if isinstance(error, requests.HTTPError):
        return f"the server answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return f"no answer within {PATIENCE} s"
    return f"the transfer failed ({type(error).__name__}); is the network there?"
