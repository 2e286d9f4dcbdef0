"""The command line `siser`: the only package that prints, exits or catches SerError."""


def main() -> None:
    """Run `siser` with the arguments of this process, and exit with its exit code."""
    from speaker_invariant_ser.cli.app import main as run_and_exit

    run_and_exit()
