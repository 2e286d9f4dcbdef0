"""Write the models of a run into a folder that can be passed on: without names of speakers and utterances, and without paths."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from speaker_invariant_ser.errors import RunError
from speaker_invariant_ser.evaluation.claims.report import report_of
from speaker_invariant_ser.evaluation.summary import JSON, REPORT
from speaker_invariant_ser.features.pretrained.checkpoint_paths import description_without_path
from speaker_invariant_ser.files import MAX_SETTINGS, new_folder, read_bytes, refuse_existing, write_json
from speaker_invariant_ser.inference.exported import CARD, EXPORT, MODELS, Export, write_index
from speaker_invariant_ser.inference.hub import is_hub
from speaker_invariant_ser.inference.transformers_export import export_transformers
from speaker_invariant_ser.inference.upload import require_complete, require_no_link
from speaker_invariant_ser.models.binding import HASHES, hashes_of, require_unchanged
from speaker_invariant_ser.models.model import DESCRIPTION, WEIGHTS, read_description
from speaker_invariant_ser.report.card import OWN_USAGE, TRANSFORMERS, corpora_of, render_card, require_same_model
from speaker_invariant_ser.runs import ModelSpec, Run


def export_run(run: Run, folder: Path | str, licence: str, evaluated: Run | None = None, training_data: str = "") -> int:
    """Write the models of a run and a card about them.

    Args:
        run: A run whose models are all trained; the card has the results if it is evaluated.
        folder: A new folder.
        licence: Licence of the weights, an identifier such as `cc0-1.0`.
        evaluated: An evaluated run with the same recipe, for the results of a model that was trained on all speakers.
        training_data: As for `render_card`.

    Returns:
        Number of models.

    Raises:
        RunError: A model is not trained or damaged, or `evaluated` measures another recipe or is not evaluated.
        WriteError: The folder is not empty or cannot be written.
    """
    folder = refuse_existing(folder, "choose another --out")
    run.all_models()
    return write_export(run, folder, card_of(run, licence, folder.resolve().name, evaluated, training_data))


def write_export(run: Run, folder: Path, card: str) -> int:
    """Write the models of a run and a card into a new folder, and return the number of models.

    Models are numbered, because folds may have the names of their test speakers. The hashes of what they were trained with are
    left out, because a list of speakers could be guessed until its hash matches.
    """
    return copy_models([spec.folder for spec in run.all_models()], folder, card, corpora_of(run))


def copy_models(models: Sequence[Path], folder: Path, card: str, corpora: Sequence[str]) -> int:
    """Write models, a card and the names of the corpora that they were trained on into a new folder; return their number.

    Raises:
        RunError: A model is damaged, or its weights are a link and it has no hash of them: any file could be passed on so.
    """
    with new_folder(folder) as partial:
        for number, model in enumerate(models, start=1):
            described = read_description(model / DESCRIPTION)
            if not require_unchanged(model, described):
                require_no_link(model / WEIGHTS)
            target = partial / MODELS / str(number)
            target.mkdir(parents=True)
            shutil.copyfile(model / WEIGHTS, target / WEIGHTS)
            described = description_without_path(described)
            described.pop(HASHES, None)
            write_json(target / DESCRIPTION, {**described, HASHES: hashes_of(target, described, {})})
        (partial / CARD).write_text(card, encoding="utf-8")
        return write_index(partial, corpora)


def write_for_hub(source: Run | Export, folder: Path, name: str, card: str) -> int:
    """Write exactly what is uploaded of a run or an export into a new folder.

    Args:
        source: The run or export.
        folder: The folder.
        name: What error messages call the model.
        card: The model card.

    Returns:
        Number of models.

    Raises:
        RunError: The card lacks the licence or the training data, a model is not trained or damaged, a file of it is a link to
            anywhere, or the source is a single model.
        WriteError: The folder is not empty or cannot be written.
    """
    require_complete(card, name)
    folder = refuse_existing(folder, "choose another --dry-run")
    if isinstance(source, Run):
        return write_export(source, folder, card)
    if not (source.folder / EXPORT).is_file():
        raise RunError(f"{source.folder} is a single model: expected a run, or a folder that `siser export` wrote")
    if not is_hub(name):  # its cache is made of links
        require_no_link(source.folder / CARD)
    return copy_models(source.models, folder, card, source.corpora)


def write_for_transformers(
    run: Run,
    spec: ModelSpec,
    folder: Path | str,
    licence: str,
    evaluated: Run | None = None,
    training_data: str = "",
    repository: str = "",
) -> float:
    """Write one model of a run as a checkpoint of transformers, and a card about it; see `export_transformers`.

    Args:
        run: The run.
        spec: Its model.
        folder: A new folder.
        licence: As for `export_run`.
        evaluated: As for `export_run`.
        training_data: As for `render_card`.
        repository: OWNER/NAME of the hub if it is uploaded, which needs a complete card; the card has this name.

    Returns:
        The largest difference between probabilities of the checkpoint and of the model.

    Raises:
        RunError: No class of transformers computes the same, or the card of an upload lacks the licence or the training data.
        WriteError: The folder is not empty or cannot be written.
    """
    name = repository.rpartition("/")[2] or Path(folder).resolve().name
    card = card_of(run, licence, name, evaluated, training_data, TRANSFORMERS, spec)
    if repository:
        require_complete(card, str(run.folder))
        refuse_existing(folder, "choose another --dry-run")
    return export_transformers(spec.folder, folder, card)


def card_of(
    run: Run,
    licence: str,
    name: str,
    evaluated: Run | None = None,
    training_data: str = "",
    usage: str = OWN_USAGE,
    single: ModelSpec | None = None,
) -> str:
    """Return the model card of a run.

    Args:
        run: A run with trained models; a run that is not evaluated has a card that says so.
        licence: Licence of the weights, an identifier such as `cc0-1.0`.
        name: Name of the model.
        evaluated: As for `export_run`.
        training_data: As for `render_card`.
        usage: As for `render_card`.
        single: As for `render_card`.

    Raises:
        RunError: No model is trained, or `evaluated` measures another recipe or is not evaluated.
    """
    if evaluated:
        require_same_model(run, evaluated)
    has_results = evaluated or (run.folder / REPORT / JSON).is_file()
    results = report_of(evaluated or run) if has_results else None
    return render_card(run, results, licence, name, training_data, usage, single)


def read_card(export: Export) -> str:
    """Return the model card that comes with an export.

    Raises:
        RunError: It has none.
    """
    path = export.folder / CARD
    if not path.is_file():
        raise RunError(f"{export.folder} has no {CARD}: expected a run, or a folder that `siser export` wrote")
    try:
        return read_bytes(path, MAX_SETTINGS).decode(errors="replace")
    except ValueError as error:
        raise RunError(f"{path} cannot be read as a model card ({error})") from None
