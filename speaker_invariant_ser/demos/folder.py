"""The folder of a demo: a demo replaces the results of the one before, and nothing else."""

from collections.abc import Collection
from pathlib import Path

from speaker_invariant_ser.files import remove_known, require_only, write_errors

MARK = ".siser-demo"  # a folder that holds this file was made by a demo


def clear_demo(out: Path, names: Collection[str]) -> None:
    """Make an empty folder for a demo.

    Args:
        out: The folder. A former demo in it is removed.
        names: Names of the results of this demo.

    Raises:
        WriteError: The folder holds anything but a former demo, or cannot be written.
    """
    made_by_demo = (out / MARK).is_file()
    require_only(out, (MARK, *names) if made_by_demo else (), "choose another --out; only a former demo is replaced")
    with write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / MARK).touch()
    remove_known(out, names)
