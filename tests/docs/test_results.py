"""The pages of studies and of encoders are those that the result files give."""

import pytest
from documents import ROOT

from speaker_invariant_ser.studies.encoders.page import files
from speaker_invariant_ser.studies.encoders.results import read_all
from speaker_invariant_ser.studies.page import pictures, updated
from speaker_invariant_ser.studies.results import read_result, table_sha256
from speaker_invariant_ser.studies.rows import gather
from speaker_invariant_ser.studies.study import read_study

RESULTS = ROOT / "recipes" / "results"
STUDIES = [study for path in sorted((ROOT / "recipes").glob("study-*.toml")) if (study := read_study(path)).page]


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.path.stem)
def test_the_page_of_a_study_is_up_to_date(study):
    rows, page = gather(study, RESULTS), study.page.resolve()
    assert page.parent == ROOT / "docs"
    assert page.read_text(encoding="utf-8") == updated(study, page, rows), "run `make reference`"
    for path, picture in pictures(page, rows).items():
        assert path.read_text(encoding="utf-8") == picture, f"{path.name}: run `make reference`"


def test_every_result_is_of_a_study_and_names_what_makes_it_again():
    studies = [read_study(path) for path in sorted((ROOT / "recipes").glob("study-*.toml"))]
    names = {cell.name: cell for study in studies for cell in study.cells()}
    assert len(names) == sum(len(study.cells()) for study in studies), "two studies share a result"
    for path in RESULTS.glob("*.json"):
        assert path.stem in names, f"no study has a result {path.name}"
        result, cell = read_result(path), names[path.stem]
        assert (result.corpus, result.arm, result.seed) == (cell.corpus, cell.arm.name, cell.seed)
        assert result.command.startswith("siser ") and result.machine.processor and result.date and result.versions, path
        assert result.recipe_sha256 == table_sha256(result.recipe), path


ENCODERS = sorted((RESULTS / "encoders").iterdir())


@pytest.mark.parametrize("folder", ENCODERS, ids=lambda folder: folder.name)
def test_the_page_of_encoders_is_up_to_date_and_says_what_makes_it_again(folder):
    page = ROOT / "docs" / "encoders.md"
    for path, text in files(folder, page).items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run `make reference`"
    for result in read_all(folder):
        assert result.command.startswith(f"siser audit-encoders data/{folder.name} ")
        assert result.corpus == folder.name and f"--out recipes/results/encoders/{folder.name}" in result.command
