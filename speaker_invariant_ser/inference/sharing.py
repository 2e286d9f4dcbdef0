"""Save and upload a classifier by the conventions of huggingface_hub, whose mixin would have to be imported with the class."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from speaker_invariant_ser.errors import RunError

if TYPE_CHECKING:
    from speaker_invariant_ser.inference.loading import Models


class HubMethods:
    """Methods that have the names and arguments of huggingface_hub's `ModelHubMixin`.

    Attributes:
        name: What the models were loaded from.
        models: The models.
        card: Path of the model card, if there is one.
    """

    name: str
    models: "Models"
    card: Path | None

    def save_pretrained(
        self, save_directory: str | Path, *, repo_id: str | None = None, push_to_hub: bool = False, **push_to_hub_kwargs: Any
    ) -> str | None:
        """Write the models, as they are in memory, into a new folder as `siser export` does, with the card if there is one.

        Args:
            save_directory: The folder.
            repo_id: With `push_to_hub`: the repository; by default the name of the folder.
            push_to_hub: Upload it, see `push_to_hub`.
            push_to_hub_kwargs: Arguments of `push_to_hub`.

        Returns:
            With `push_to_hub` the address of the commit.

        Raises:
            RunError: The model is an ONNX file.
            WriteError: The folder is not empty or cannot be written.
        """
        from speaker_invariant_ser.inference.upload import write_models

        write_models(self.models, Path(save_directory), self.card, self.name)
        return self.push_to_hub(repo_id or Path(save_directory).name, **push_to_hub_kwargs) if push_to_hub else None

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        private: bool | None = True,
        token: str | bool | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
    ) -> str:
        """Upload the models, as they are in memory, and their card; `siser push` does it for a run.

        Args:
            repo_id: OWNER/NAME. It is created if it does not exist.
            commit_message: Of the commit.
            private: Whether a new repository is private, the default here; None leaves it to the account.
            token: As for `from_pretrained`.
            branch: Branch, created if it does not exist.
            create_pr: Whether the commit becomes a pull request.

        Returns:
            Address of the commit.

        Raises:
            RunError: The model has no card, or one without licence or training data; or it cannot be uploaded.
            SetupError: huggingface_hub is not installed (extra `hub`).
        """
        from speaker_invariant_ser.inference.upload import require_complete, upload, write_models

        if self.card is None:
            raise RunError(f"{self.name} has no card, without which nothing is uploaded: use `siser push` with its run")
        require_complete(self.card.read_text(encoding="utf-8"), self.name)
        with TemporaryDirectory() as temporary:
            folder = Path(temporary) / "export"
            write_models(self.models, folder, self.card, self.name)
            return upload(
                folder,
                repo_id,
                private=private,
                revision=branch,
                message=commit_message,
                exist_ok=True,
                token=token,
                create_pr=create_pr,
            )
