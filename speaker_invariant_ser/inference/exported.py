"""A folder of models alone, as `siser export` writes it: all that inference needs, and nothing about speakers or the machine.

export.json              the models, the SHA-256 of each model.json, and names of the corpora that they were trained on
models/NUMBER/           model.safetensors and model.json of each model
README.md                the model card
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speaker_invariant_ser.errors import RunError
from speaker_invariant_ser.files import MAX_SETTINGS, sha256, write_json
from speaker_invariant_ser.inference.hub import download, is_hub
from speaker_invariant_ser.json_files import read_json
from speaker_invariant_ser.models.model import DESCRIPTION, WEIGHTS

if TYPE_CHECKING:
    from speaker_invariant_ser.runs import Run

SHIPPED = Path(__file__).parents[1] / "models" / "pretrained"  # exports that come with the package
FORMAT = 1
EXPORT, MODELS, CARD, CORPORA = "export.json", "models", "README.md", "corpora"
FILES = (EXPORT, CARD, f"{MODELS}/*/{DESCRIPTION}", f"{MODELS}/*/{WEIGHTS}")  # of an export; no other file is downloaded
CHECKPOINT = ("config.json", "preprocessor_config.json", "model*.safetensors", "model.safetensors.index.json")  # for transformers


@dataclass(frozen=True)
class Export:
    """An opened export, or the folder of a single model.

    Attributes:
        folder: The folder.
        models: Folders of its models.
        corpora: Names of the corpora that they were trained on; empty where that is not known.
    """

    folder: Path
    models: tuple[Path, ...]
    corpora: tuple[str, ...] = ()

    @property
    def number(self) -> int:
        """Number of models."""
        return len(self.models)

    @classmethod
    def open(cls, folder: Path) -> "Export":
        """Open an export.

        Raises:
            RunError: It is damaged, incomplete or of another format.
        """
        path = folder / EXPORT
        try:
            record = read_json(path, MAX_SETTINGS)
            hashes: dict[str, str] = {str(name): str(digest) for name, digest in record["models"].items()}
            if (
                record["format"] != FORMAT
                or not hashes
                or any(Path(name).parent != Path(MODELS) or ".." in name for name in hashes)
            ):
                raise ValueError(f"expected format {FORMAT} and folders in {MODELS}")
            corpora = tuple(str(name) for name in record.get(CORPORA, ()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{path} is damaged ({error}); export the run again") from None
        for name, expected in hashes.items():
            described = folder / name / DESCRIPTION
            if not described.is_file():
                raise RunError(f"{described} is missing, one of the {len(hashes)} of the export; copy it again")
            if (found := sha256(described)) != expected:
                raise RunError(
                    f"{described} was changed since it was exported: its SHA-256 is {found[:12]}..., expected {expected[:12]}... "
                    f"by {EXPORT}; copy it again"
                )
        return cls(folder, tuple(folder / name for name in hashes), corpora)


def write_index(folder: Path, corpora: Sequence[str] = ()) -> int:
    """Write export.json into a folder with models, which were trained on these corpora; return the number of models."""
    described = sorted(folder.glob(f"{MODELS}/*/{DESCRIPTION}"), key=lambda path: int(path.parent.name))
    hashes = {path.parent.relative_to(folder).as_posix(): sha256(path) for path in described}
    write_json(folder / EXPORT, {"format": FORMAT, "models": hashes, CORPORA: list(corpora)})
    return len(hashes)


def shipped_models() -> dict[str, Path]:
    """Return the models that come with the package, by name."""
    return {path.parent.name: path.parent for path in sorted(SHIPPED.glob(f"*/{EXPORT}"))}


def open_models(source: Path | str, options: Mapping[str, Any] | None = None) -> "Run | Export":
    """Open a run, an export of one, one model of a run, a model that comes with the package, or one of the hub.

    Args:
        source: A folder; the name of a model that `shipped_models` lists, where there is no such folder; or `hf:OWNER/NAME` with
            or without `@REVISION`.
        options: Of a download, as for `snapshot`.

    Raises:
        RunError: It is none of them, is damaged, was changed since training or export, or cannot be downloaded.
        SetupError: A model of the hub is named, and huggingface_hub is not installed.
    """
    if is_hub(source):
        return open_downloaded(str(source), options)
    folder = Path(source)
    if not folder.exists():
        shipped = shipped_models()
        if str(source) not in shipped:
            names = ", ".join(shipped)
            raise RunError(
                f"{source} is not a run folder (does not exist) and no model of the package (expected one of: {names})"
            )
        folder = shipped[str(source)]
    if (folder / DESCRIPTION).is_file():
        return Export(folder, (folder,))
    if (folder / EXPORT).is_file():
        return Export.open(folder)
    from speaker_invariant_ser.runs import Run

    return Run.open(folder)


def open_downloaded(source: str, options: Mapping[str, Any] | None = None) -> Export:
    """Download an export from the hub, and open it."""
    folder = download(source, FILES, options)
    if not (folder / EXPORT).is_file():
        raise RunError(f"{source} has no {EXPORT}: expected a model that `siser export` wrote")
    return Export.open(folder)
