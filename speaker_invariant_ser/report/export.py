"""Write the models of a run into a folder that can be passed on: without names of speakers and utterances, and without paths."""

import shutil
from pathlib import Path

from speaker_invariant_ser.errors import counted
from speaker_invariant_ser.evaluation.summary import JSON, REPORT, read_report
from speaker_invariant_ser.files import new_folder, refuse_existing, sha256, write_json
from speaker_invariant_ser.inference.exported import CARD, EXPORT, FORMAT, MODELS
from speaker_invariant_ser.models.binding import HASHES, hashes_of
from speaker_invariant_ser.models.model import DESCRIPTION, WEIGHTS, read_description
from speaker_invariant_ser.report.card import render_card, require_same_model
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
            described = {key: value for key, value in read_description(spec.folder / DESCRIPTION).items() if key != HASHES}
            write_json(target / DESCRIPTION, {**described, HASHES: hashes_of(target, described, {})})
            hashes[f"{MODELS}/{number}"] = sha256(target / DESCRIPTION)
        (partial / CARD).write_text(text, encoding="utf-8")
        write_json(partial / EXPORT, {"format": FORMAT, "models": hashes})
    return len(specs)


def card_of(run: Run, licence: str, name: str, evaluated: Run | None) -> str:
    """Return the model card; without results for a run that is not evaluated."""
    if evaluated:
        require_same_model(run, evaluated)
        return render_card(run, read_report(evaluated.folder), licence, name)
    if (run.folder / REPORT / JSON).is_file():
        return render_card(run, read_report(run.folder), licence, name)
    labels = ", ".join(read_description(run.model_specs[0].folder / DESCRIPTION)["labels"])
    return (
        f"---\nlicense: {licence}\nlibrary_name: speaker_invariant_ser\npipeline_tag: audio-classification\n---\n\n# {name}\n\n"
        f"{counted(len(run.model_specs), 'model')} of speech emotion: {labels}. Not evaluated: nothing is known of how well "
        f"it does on unseen speakers, nor of how much of a speaker its embedding holds.\n\n"
        "    siser infer FOLDER recordings/ --out predictions.csv\n"
    )
