"""Make torchaudio importable beside a torch that its wheel was not built for. Part of set-up: see the Makefile.

torchaudio's wheel carries libraries compiled for one CUDA version. Beside a CPU build of torch they do not load, and
the import fails. The package takes absent libraries as "not available", and the transforms used here need none of them,
so they are removed: from this virtual environment alone, and only if the import fails.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path


def import_error() -> str:
    """Return the error of importing torchaudio in a fresh interpreter; empty if the import succeeds."""
    completed = subprocess.run([sys.executable, "-c", "import torchaudio.transforms"], capture_output=True, text=True)
    return "" if completed.returncode == 0 else (completed.stderr.strip().splitlines() or ["no reason given"])[-1]


def main() -> int:
    """Remove torchaudio's compiled libraries from this virtual environment if torchaudio cannot be imported.

    Returns:
        The exit code: 0 if torchaudio can be imported, 1 if not.
    """
    if not import_error():
        return 0
    if sys.prefix == sys.base_prefix:
        print("torchaudio does not import, and this is no virtual environment: nothing is changed", file=sys.stderr)
        return 1
    # find_spec does not import the package, which would fail.
    package = Path(importlib.util.find_spec("torchaudio").origin).parent
    if not package.is_relative_to(sys.prefix):
        print(f"torchaudio does not import, and lies outside this environment ({package}): nothing is changed", file=sys.stderr)
        return 1
    for library in sorted((package / "lib").glob("*.so")):
        print(f"removing {library.relative_to(sys.prefix)}: built for another torch")
        library.unlink()
    reason = import_error()
    if reason:
        print(f"torchaudio still does not import: {reason}", file=sys.stderr)
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main())
