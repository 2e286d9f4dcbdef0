"""Write the tables and pictures of a study into a Markdown page, between two marks; the text around them stays."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from speaker_invariant_ser.errors import StudyError
from speaker_invariant_ser.files import MAX_SETTINGS, read_bytes, writing
from speaker_invariant_ser.report.table import cell
from speaker_invariant_ser.studies.picture import SUBJECT, draw, is_picture
from speaker_invariant_ser.studies.rows import Row
from speaker_invariant_ser.studies.study import Study
from speaker_invariant_ser.studies.tables import ABOUT, markdown, notes, table_of

Rows = Mapping[str, Sequence[Row]]  # by corpus, as `rows.gather` returns them


def marks(study: Study) -> tuple[str, str]:
    """Return the lines between which the page of a study is generated."""
    return tuple(f"<!-- siser study {study.path.name}: {word} -->" for word in ("begin", "end"))  # type: ignore[return-value]


def page_of(study: Study, results: Path) -> Path:
    """Return the page of a study: the one it names, or one beside the results."""
    return study.page or results / f"{study.path.stem}.md"


def pictures(page: Path, rows: Rows) -> dict[Path, str]:
    """Return the pictures beside the page, by path."""
    drawn = {page.with_name(picture_name(page, corpus)): draw(corpus, of_corpus) for corpus, of_corpus in rows.items()}
    return {path: picture for path, picture in drawn.items() if picture}


def picture_name(page: Path, corpus: str) -> str:
    """Return the name of the picture of a corpus."""
    return f"{page.stem}-{corpus}.svg"


def block(study: Study, page: Path, rows: Rows) -> str:
    """Return the generated part of the page."""
    parts = []
    for corpus, of_corpus in rows.items():
        picture = f"![{corpus}: {SUBJECT}]({picture_name(page, corpus)})"
        parts += [
            f"## {corpus}",
            markdown(table_of(of_corpus)),
            "\n".join(f"{cell(line)}<br>" for line in notes(study, corpus, of_corpus)),
            *([picture] if any(row.speaker for row in of_corpus) else []),
        ]
    return "\n\n".join([*parts, ABOUT] if parts else ["No results yet."])


def updated(study: Study, page: Path, rows: Rows) -> str:
    """Return the text of the page with the generated part replaced, or a new page if there is none.

    Raises:
        StudyError: The page has no marks, so that its text would be lost.
    """
    return with_block(page, marks(study), block(study, page, rows), study.path.stem)


def with_block(page: Path, marks: tuple[str, str], generated: str, title: str) -> str:
    """Return the text of a page with the part between two marks replaced, or a new page with a title if there is none.

    Raises:
        StudyError: The page has no marks, so that its text would be lost.
    """
    begin, end = marks
    generated = f"{begin}\n\n{generated}\n\n{end}"
    if not page.exists():
        return f"# {title}\n\n{generated}\n"
    text = read_page(page)
    before, opening, rest = text.partition(begin)
    _, closing, after = rest.partition(end)
    if not (opening and closing):
        raise StudyError(f"{page} exists and has no lines {begin} and {end}: add both lines where the tables belong")
    return f"{before}{generated}{after}"


def write_page(study: Study, results: Path, rows: Rows) -> Path:
    """Write the page of a study and its pictures; return the page. Without any results, a page that exists stays as it is.

    Raises:
        StudyError: The page has no marks.
        WriteError: It cannot be written.
    """
    page = page_of(study, results)
    if rows or not page.exists():
        write_files(page, updated(study, page, rows), pictures(page, rows))
    return page


def write_files(page: Path, text: str, drawn: Mapping[Path, str]) -> None:
    """Write a page and the pictures beside it.

    Raises:
        StudyError: A picture would replace a file that is no such picture.
        WriteError: A file cannot be written.
    """
    former = read_page(page)
    for path in drawn:
        if path.exists() and f"({path.name})" not in former and not is_picture(path):
            raise StudyError(f"{path} exists, and {page} does not show it: the picture would replace it; move it, or the page")
    for path, content in {page: text, **drawn}.items():
        with writing(path) as file:
            file.write(content)


def read_page(page: Path) -> str:
    """Return the text of a page, "" if there is none; raise StudyError for anything but a text in UTF-8."""
    try:
        return read_bytes(page, MAX_SETTINGS).decode() if page.exists() else ""
    except (OSError, ValueError) as error:
        raise StudyError(f"{page} is no page in Markdown ({error}); choose another") from None


def require_marks(page: Path, marks: tuple[str, str]) -> None:
    """Raise StudyError for a page that exists without the marks, before anything is measured for it."""
    with_block(page, marks, "", "")
