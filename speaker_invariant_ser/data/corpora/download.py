"""Download an openly licensed corpus: resume interrupted transfers, verify checksums, and unpack complete archives only.

The server is not trusted: its redirects, the bytes it sends and what the archive unpacks to are limited.
"""

import lzma
import shutil
import struct
import zipfile
import zlib
from pathlib import Path
from typing import NoReturn
from urllib.parse import ParseResult, urljoin, urlparse

import pooch
import requests

from speaker_invariant_ser.data.corpora.base import Corpus, Download
from speaker_invariant_ser.errors import CorpusError, DownloadError
from speaker_invariant_ser.files import (
    REASONS,
    locked,
    new_folder,
    private_folder,
    refuse_existing,
    remove,
    require_space,
    write_errors,
)
from speaker_invariant_ser.processes import TaskProgress

BLOCK = 2**14  # bytes received at once; an interrupted block is requested again
TRIES = 3  # attempts per transfer; each continues where the previous one ended
TIMEOUT = 30  # seconds without a byte
SPACE_FACTOR = 2.5  # disk space needed for an archive and its contents, as a multiple of the archive's size
MARGIN = 1.2  # a transfer may be larger than an approximate size by this factor
MAX_UNPACKED = 10  # unpacked size, as a multiple of the archive's; audio seldom shrinks to a third
MIN_LIMIT = 10**8  # bytes that any archive may unpack to
MAX_FILES = 100_000  # files in an archive
MAX_REDIRECTS = 5
REDIRECTS = {"github.com": (".github.com",), "huggingface.co": (".huggingface.co", ".hf.co")}  # host -> further hosts, by ending
INVALID_ZIP = (  # errors that zipfile raises for invalid or damaged files
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    RuntimeError,  # encrypted, or an unknown compression
    ValueError,
    LookupError,  # a member without a name
    OverflowError,
    MemoryError,  # which a few bytes of LZMA can ask for
    OSError,  # of bzip2, or of positions before the file; where the disk is at fault, it passes
)


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
        DownloadError: A transfer failed or leads to another host, or an archive has the wrong size or checksum, or is damaged.
        WriteError: The folder cannot be written, the disk has too little space, or another process downloads into it.
    """
    folder = Path(folder).resolve()
    if not corpus.download:
        raise CorpusError(f"{corpus.title} cannot be downloaded by a program ({corpus.licence}); get it from {corpus.url}")
    if folder.is_dir() and any(folder.iterdir()):
        return folder
    refuse_existing(folder, "name the folder that the corpus should be in")
    require_space(folder, int(SPACE_FACTOR * sum(download.bytes for download in corpus.download)))
    with write_errors(folder), locked(folder, "download-lock"):
        transfers = private_folder(folder.with_name(f".{folder.name}.download"))
        archives = [transfers / Path(urlparse(download.url).path).name for download in corpus.download]
        for archive, download in zip(archives, corpus.download, strict=True):
            retrieve(download, archive, progress)
        with new_folder(folder) as partial:
            for done, archive in enumerate(archives):
                if progress:
                    progress("unpacking", done, len(archives))
                unpack(archive, partial)
        remove(transfers)
    return folder


def unpack(archive: Path, folder: Path) -> None:
    """Extract a zip file; remove it and raise DownloadError if it is damaged or unpacks to far more than it should.

    `zipfile` drops absolute paths and `..`, makes no links, and reads no more of a file than its header states.
    """
    limit = max(MAX_UNPACKED * archive.stat().st_size, MIN_LIMIT)
    try:
        with zipfile.ZipFile(archive) as file:
            members = file.infolist()
            unpacked = sum(member.file_size for member in members)
            if unpacked <= limit and len(members) <= MAX_FILES:
                require_space(folder, unpacked)
                file.extractall(folder)
                return
    except INVALID_ZIP as error:
        if isinstance(error, OSError) and error.errno in REASONS:
            raise
        archive.unlink()
        raise DownloadError(
            f"{archive.name}: the downloaded file is not a complete zip file ({error}) and was removed; try again"
        ) from None
    archive.unlink()
    raise DownloadError(
        f"{archive.name}: {len(members)} files of {unpacked / 1e6:.0f} MB in this archive, expected at most {MAX_FILES} of "
        f"{limit / 1e6:.0f} MB; it was removed, because this is no archive of recordings"
    )


def retrieve(download: Download, archive: Path, progress: TaskProgress | None) -> None:
    """Download one archive and verify its size and checksum; raise DownloadError."""
    with write_errors(archive):
        pooch.get_logger().setLevel("WARNING")  # progress is reported here instead
        downloader = ResumingDownloader(archive, download, progress)
        try:
            pooch.retrieve(download.url, download.hash or None, archive.name, archive.parent, downloader=downloader)
        except requests.RequestException as error:
            raise DownloadError(
                f"{download.url}: {explain(error)}; what was received is kept, repeat the same command to resume"
            ) from None
        except ValueError as error:  # pooch raises it for a wrong checksum
            if "hash" not in str(error):  # an address or a length that is none
                raise DownloadError(f"{download.url}: the server's answer cannot be used ({error})") from None
            raise DownloadError(
                f"{download.url}: the downloaded file does not have the checksum {download.hash} and was removed. "
                "Try again; if the error repeats, the file at this address has changed"
            ) from None


class CheckedSession(requests.Session):
    """A session that follows redirects only by HTTPS and to hosts that belong to the first one, or within the first one."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.first, self.max_redirects = urlparse(url), MAX_REDIRECTS
        self.further = REDIRECTS.get(self.first.hostname or "", ())

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return the address that an answer redirects to, None without; raise DownloadError for one that is not allowed."""
        target = super().get_redirect_target(resp)
        if target and not self.allows(address := urlparse(urljoin(resp.url, target))):
            hosts = [self.first.hostname or "", *(f"*{ending}" for ending in self.further)]
            raise DownloadError(
                f"{self.first.geturl()}: redirected to {address.scheme}://{address.netloc}, which is not followed; "
                f"expected https and {' or '.join(hosts)}"
            )
        return target

    def allows(self, address: ParseResult) -> bool:
        """Return whether an address may be redirected to."""
        if (address.scheme, address.netloc) == (self.first.scheme, self.first.netloc):
            return True
        host = address.hostname or ""
        return address.scheme == "https" and (host == self.first.hostname or host.endswith(self.further))


class ResumingDownloader:
    """A downloader for pooch that resumes a partly received file where the server allows it."""

    def __init__(self, archive: Path, download: Download, progress: TaskProgress | None) -> None:
        self.part, self.download, self.progress = archive.with_name(archive.name + ".part"), download, progress
        self.limit = download.bytes if download.exact else int(MARGIN * download.bytes)

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
        if self.download.exact and self.part.stat().st_size < self.download.bytes:
            self.refuse(f"has {self.part.stat().st_size} bytes, expected {self.download.bytes}")
        shutil.move(self.part, output_file)  # pooch verifies it and removes it if the checksum is wrong

    def transfer(self, url: str) -> None:
        """Request what is missing of the partly received file and append it."""
        received = self.part.stat().st_size if self.part.exists() else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={received}-"} if received else {})
        with CheckedSession(url) as session, session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if received and answer.status_code == requests.codes.requested_range_not_satisfiable:
                return  # nothing is missing; the checksum decides whether the file is right
            answer.raise_for_status()
            if answer.status_code != requests.codes.partial_content:
                received = 0  # the server sends the file from the beginning
            length = int(answer.headers.get("Content-Length", 0))  # absent for files that are generated while they are sent
            total = received + length if length else 0
            with open(self.part, "ab" if received else "wb") as file:
                for block in answer.iter_content(BLOCK):
                    received += file.write(block)
                    if received > self.limit:
                        self.refuse(f"is larger than {self.limit} bytes")
                    if self.progress:
                        self.progress("downloading (kB)", received // 1000, max(received, total or self.download.bytes) // 1000)
            if received < total:
                raise requests.ConnectionError(f"connection lost after {received} of {total} bytes")

    def refuse(self, reason: str) -> NoReturn:
        """Remove what was received and raise DownloadError."""
        self.part.unlink()
        raise DownloadError(
            f"{self.download.url}: the downloaded file {reason} and was removed. "
            "Try again; if the error repeats, the file at this address has changed"
        )


def explain(error: requests.RequestException) -> str:
    """Return why a transfer failed, in one line."""
    if isinstance(error, requests.HTTPError):
        return f"the server answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT} s"
    return f"the transfer failed ({type(error).__name__}); check the network connection"
