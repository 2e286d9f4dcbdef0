"""The folder of a demo: emptied by the next demo, and never anything else."""

import shutil
from pathlib import Path

from speaker_invariant_ser.errors import WriteError, shorten
from speaker_invariant_ser.files import write_errors

MARK = ".siser-demo"  # a folder that holds this file was made by a demo, and may be emptied by the next


def clear_demo(out: Path) -> None:
    """Make an empty folder for a demo.

    Args:
        out: The folder. A former demo in it is removed.

    Raises:
        WriteError: The folder holds anything but a former demo, or cannot be written.
    """
    with write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        names = sorted(path.name for path in out.iterdir())
        if names and MARK not in names:
            raise WriteError(f"{out} holds files that are not of a demo ({shorten(names)}); choose another --out")
        (out / MARK).touch()
        for path in out.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != MARK:
                path.unlink()
