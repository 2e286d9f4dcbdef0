"""Upload models to the Hugging Face Hub: what `siser export` writes, with a card that says what a model may not be without."""

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, cast

from speaker_invariant_ser.errors import RunError, first_line
from speaker_invariant_ser.features.pretrained.hub import LOG_IN, REPOSITORY, hub_errors, open_library, progress_on_terminals
from speaker_invariant_ser.files import new_folder, refuse_existing
from speaker_invariant_ser.inference.exported import CARD, CHECKPOINT, EXPORT, FILES, MODELS, Export, write_index
from speaker_invariant_ser.inference.hub import is_hub
from speaker_invariant_ser.inference.onnx.model import OnnxModel

if TYPE_CHECKING:
    from speaker_invariant_ser.inference.loading import Models
    from speaker_invariant_ser.models.model import SerModel

EXTRA = "hub"
UNKNOWN_DATA = "Not known: "  # with these words a card says that training data or their licence are not known
UNKNOWN_LICENCE = "not known to the program"
LICENCE = re.compile(r"^(license|license_name): *(\S.*)$", re.MULTILINE)
DATA = re.compile(r"^## Training data\s+(\S.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
REFUSED = {  # by the status of the answer
    401: f"not logged in, or the token is not valid; log in with {LOG_IN}",
    403: "you may not write there; check the name, or log in with a token that may write",
    409: "exists already; choose another name, or add a commit to it with --overwrite",
}


def require_repository(name: str) -> str:
    """Return the name of a repository; raise RunError if it is none."""
    if not REPOSITORY.fullmatch(name):
        raise RunError(f"{name}: expected OWNER/NAME of the Hugging Face Hub")
    return name


def require_complete(card: str, name: str) -> None:
    """Raise RunError that says what is missing unless a card has the licence of the weights and the training data.

    Args:
        card: Text of the card.
        name: What error messages call the model.
    """
    metadata = card.split("---", 2)[1] if card.startswith("---") and card.count("---") > 1 else ""
    licences = {key: value.strip().strip("\"'") for key, value in LICENCE.findall(metadata)}
    data = DATA.search(card)
    missing = []
    if not licences.get("license") or (licences["license"] == "other" and not licences.get("license_name")):
        missing.append("the licence of the weights (--licence, such as cc0-1.0)")
    if not data or data[1].startswith(UNKNOWN_DATA) or UNKNOWN_LICENCE in data[1]:
        missing.append("the training data (--training-data: what was recorded, by whom, and under which licence)")
    if missing:
        raise RunError(f"{name}: nothing was uploaded, because its card lacks {' and '.join(missing)}")


def require_no_link(path: Path) -> None:
    """Raise RunError for a link where a file is passed on: in what somebody else made, it may lead to any file."""
    if path.is_symlink() or not path.is_file():
        raise RunError(f"{path} is a link or missing: expected the file itself, which is passed on")


def write_models(models: "Models", folder: Path, card: Path | None, name: str) -> None:
    """Write models that are in memory as `siser export` does.

    Args:
        models: The models.
        folder: A new folder.
        card: Their card, if they have one.
        name: What error messages call them; of the hub, what they were loaded from.

    Raises:
        RunError: A model is an ONNX file, or the card is a link to anywhere.
        WriteError: The folder is not empty or cannot be written.
    """
    from speaker_invariant_ser.models.model import save_model

    if any(isinstance(model, OnnxModel) for model in models):
        raise RunError(f"{name} is an ONNX file, which has no weights to save; load the run that it was exported from")
    if card and not is_hub(name):  # whose cache is made of links
        require_no_link(card)
    with new_folder(refuse_existing(folder, "choose another folder")) as partial:
        for number, model in enumerate(models, start=1):
            (partial / MODELS / str(number)).mkdir(parents=True)
            save_model(cast("SerModel", model), partial / MODELS / str(number))
        if card:
            shutil.copyfile(card, partial / CARD)
        write_index(partial, Export.open(card.parent).corpora if card and (card.parent / EXPORT).is_file() else ())


def upload(
    folder: Path,
    repository: str,
    *,
    private: bool | None = True,
    revision: str | None = None,
    message: str | None = None,
    exist_ok: bool = False,
    token: str | bool | None = None,
    create_pr: bool | None = None,
) -> str:
    """Upload an export as one commit; files of an earlier one that it does not replace are removed in the same commit.

    Args:
        folder: The export, or a checkpoint for transformers, of which everything is uploaded.
        repository: OWNER/NAME; it is created if it does not exist.
        private: Whether a new repository is private; of one that exists it changes nothing.
        revision: Branch, which is created if it does not exist; by default the main one.
        message: Of the commit.
        exist_ok: Whether the repository may exist already.
        token: Token of the hub; by default that of the log-in.
        create_pr: Whether the commit becomes a pull request.

    Returns:
        Address of the commit.

    Raises:
        RunError: Not logged in, no right to write, the repository exists already, or there is no connection.
        SetupError: huggingface_hub is not installed.
    """
    require_repository(repository)
    huggingface_hub, errors = open_library(repository, EXTRA)
    if token in (None, True) and not huggingface_hub.get_token():
        raise RunError(f"{repository}: {REFUSED[401]}")
    api = huggingface_hub.HfApi(token=token, library_name="speaker_invariant_ser")
    with hub_errors(repository, repository, revision, "cannot be uploaded", "check the connection"), progress_on_terminals():
        try:
            api.create_repo(repository, private=private, exist_ok=exist_ok)
            if revision:
                api.create_branch(repository, branch=revision, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository,
                folder_path=folder,
                commit_message=message,
                revision=revision,
                create_pr=create_pr,
                delete_patterns=[*FILES, *CHECKPOINT],
            )
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
            raise
        except errors.HfHubHTTPError as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status not in REFUSED:
                raise
            raise RunError(f"{repository}: {REFUSED[status]} ({first_line(error)})") from None
    return str(commit.commit_url)
