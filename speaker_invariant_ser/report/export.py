"""Write the models of a run into a folder that can be passed on: without names of speakers and utterances, and without paths."""

import shutil
from pathlib import Path

from speaker_invariant_ser.errors import RunError
from speaker_invariant_ser.evaluation.summary import read_report, read_results
from speaker_invariant_ser.features.pretrained.places import description_without_path
from speaker_invariant_ser.files import new_folder, refuse_existing, sha256, write_json
from speaker_invariant_ser.inference.exported import CARD, CORPORA, EXPORT, FORMAT, MODELS, Export
from speaker_invariant_ser.models.binding import HASHES, hashes_of
from speaker_invariant_ser.models.model import DESCRIPTION, WEIGHTS, read_description
from speaker_invariant_ser.report.card import corpora_of, render_card, require_same_model
from speaker_invariant_ser.runs import Run


def export_run(run: Run, folder: Path | str, licence: str = "other", evaluated: Run | None = None) -> int:
    """Write the models of a run and a card about them.

    Models are numbered, because folds may have the names of their test speakers. The hashes of what they were trained with are
    left out, because a list of speakers could be guessed until its hash matches.

    Args:
        run: A run whose models are all trained; the card has the results if it is evaluated.
        folder: A new folder.
        licence: Licence of the weights, an identifier such as `cc0-1.0`.
        evaluated: An evaluated run with the same recipe, for the results of a model that was trained on all speakers.

    Returns:
        Number of models.

    Raises:
        RunError: A model is not trained or damaged, or `evaluated` measures another recipe or is not evaluated.
        WriteError: The folder is not empty or cannot be written.
    """
    folder = refuse_existing(folder, "choose another --out")
    name, hashes = folder.resolve().name, {}
    specs = run.all_models()
    text = card_of(run, licence, name, evaluated)
    with new_folder(folder) as partial:
        for number, spec in enumerate(specs, start=1):
            target = partial / MODELS / str(number)
            target.mkdir(parents=True)
            shutil.copyfile(spec.folder / WEIGHTS, target / WEIGHTS)
            described = description_without_path(read_description(spec.folder / DESCRIPTION))
            described.pop(HASHES, None)
            write_json(target / DESCRIPTION, {**described, HASHES: hashes_of(target, described, {})})
            hashes[f"{MODELS}/{number}"] = sha256(target / DESCRIPTION)
        (partial / CARD).write_text(text, encoding="utf-8")
        write_json(partial / EXPORT, {"format": FORMAT, "models": hashes, CORPORA: corpora_of(run)})
    return len(specs)


def card_of(run: Run, licence: str, name: str, evaluated: Run | None = None) -> str:
    """Return the model card of a run.

    Args:
        run: A run with trained models; a run that is not evaluated has a card that says so.
        licence: Licence of the weights, an identifier such as `cc0-1.0`.
        name: Name of the model.
        evaluated: As for `export_run`.

    Raises:
        RunError: No model is trained, or `evaluated` measures another recipe or is not evaluated.
    """
    if evaluated:
        require_same_model(run, evaluated)
        return render_card(run, read_results(evaluated.folder) or read_report(evaluated.folder), licence, name)
    return render_card(run, read_results(run.folder), licence, name)


def read_card(export: Export) -> str:
    """Return the model card that comes with an export.

    Raises:
        RunError: It has none.
    """
    path = export.folder / CARD
    if not path.is_file():
        raise RunError(f"{export.folder} has no {CARD}: expected a run, or a folder that `siser export` wrote")
    return path.read_text(encoding="utf-8", errors="replace")
