"""Download an openly licensed corpus: resume interrupted transfers, verify checksums, and unpack complete archives only."""

import shutil
import zipfile
import zlib
from pathlib import Path
from urllib.parse import urlparse

import pooch
import requests

from speaker_invariant_ser.data.corpora.base import Corpus, Download
from speaker_invariant_ser.errors import CorpusError, DownloadError
from speaker_invariant_ser.files import new_folder, refuse_existing, require_space, write_errors
from speaker_invariant_ser.processes import TaskProgress

BLOCK = 2**14  # bytes received at once; an interrupted block is requested again
TRIES = 3  # attempts per transfer; each continues where the previous one ended
TIMEOUT = 30  # seconds without a byte
SPACE_FACTOR = 2.5  # disk space needed for an archive and its contents, as a multiple of the archive's size


def download_corpus(corpus: Corpus, folder: Path | str, progress: TaskProgress | None = None) -> Path:
    """Download the archives of a corpus next to `folder` and unpack them into it.

    A folder that is not empty is used as it is, so that the same command can be repeated. What was received before a transfer
    failed is kept, and the next call resumes there. Archives are removed after unpacking.

    Args:
        corpus: A corpus with `download`.
        folder: New folder for the corpus.
        progress: Called with the task, the steps done and the steps in total.

    Returns:
        The folder.

    Raises:
        CorpusError: The corpus is not openly licensed.
        DownloadError: A transfer failed, or an archive has the wrong checksum or is damaged.
        WriteError: The folder cannot be written, or the disk has too little space.
    """
    folder = Path(folder).resolve()
    if not corpus.download:
        raise CorpusError(f"{corpus.title} cannot be downloaded by a program ({corpus.licence}); get it from {corpus.url}")
    if folder.is_dir() and any(folder.iterdir()):
        return folder
    refuse_existing(folder, "name the folder that the corpus should be in")
    require_space(folder, int(SPACE_FACTOR * sum(download.bytes for download in corpus.download)))
    archives = [folder.with_name(f".{folder.name}.{Path(urlparse(download.url).path).name}") for download in corpus.download]
    for archive, download in zip(archives, corpus.download, strict=True):
        retrieve(download, archive, progress)
    with new_folder(folder) as partial:
        for done, archive in enumerate(archives):
            if progress:
                progress("unpacking", done, len(archives))
            unpack(archive, partial)
    for archive in archives:
        archive.unlink()
    return folder


def unpack(archive: Path, folder: Path) -> None:
    """Extract a zip file; remove it and raise DownloadError if it is damaged, which a published checksum would have detected."""
    try:
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        archive.unlink()
        raise DownloadError(
            f"{archive.name}: the downloaded file is not a complete zip file ({error}) and was removed; try again"
        ) from None


def retrieve(download: Download, archive: Path, progress: TaskProgress | None) -> None:
    """Download one archive and verify its checksum; raise DownloadError."""
    with write_errors(archive):
        pooch.get_logger().setLevel("WARNING")  # progress is reported here instead
        downloader = ResumingDownloader(archive, download.bytes, progress)
        try:
            pooch.retrieve(download.url, download.hash or None, archive.name, archive.parent, downloader=downloader)
        except requests.RequestException as error:
            raise DownloadError(
                f"{download.url}: {explain(error)}; what was received is kept, repeat the same command to resume"
            ) from None
        except ValueError as error:  # pooch raises it for a wrong checksum
            if "hash" not in str(error):
                raise
            raise DownloadError(
                f"{download.url}: the downloaded file does not have the checksum {download.hash} and was removed. "
                "Try again; if the error repeats, the file at this address has changed"
            ) from None


class ResumingDownloader:
    """A downloader for pooch that resumes a partly received file where the server allows it."""

    def __init__(self, archive: Path, size: int, progress: TaskProgress | None) -> None:
        self.part, self.size, self.progress = archive.with_name(archive.name + ".part"), size, progress

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Download `url` to `output_file`; when all attempts fail, keep what was received and raise the error of requests."""
        for remaining in reversed(range(TRIES)):
            try:
                self.transfer(url)
                break
            except requests.HTTPError:
                raise  # the server refused; asking again would not help
            except requests.RequestException:
                if not remaining:
                    raise
        shutil.move(self.part, output_file)  # pooch verifies it and removes it if the checksum is wrong

    def transfer(self, url: str) -> None:
        """Request what is missing of the partly received file and append it."""
        received = self.part.stat().st_size if self.part.exists() else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={received}-"} if received else {})
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                return  # nothing is missing; the checksum decides whether the file is right
            answer.raise_for_status()
            if answer.status_code != requests.codes.partial_content:
                received = 0  # the server sends the file from the beginning
            length = int(answer.headers.get("Content-Length", 0))  # absent for files that are generated while they are sent
            total = received + length if length else 0
            with open(self.part, "ab" if received else "wb") as file:
                for block in answer.iter_content(BLOCK):
                    received += file.write(block)
                    if self.progress:
                        self.progress("downloading (kB)", received // 1000, max(received, total or self.size) // 1000)
            if received < total:
                raise requests.ConnectionError(f"connection lost after {received} of {total} bytes")


def explain(error: requests.RequestException) -> str:
    """Return why a transfer failed, in one line."""
    if isinstance(error, requests.HTTPError):
        return f"the server answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT} s"
    return f"the transfer failed ({type(error).__name__}); check the network connection"
