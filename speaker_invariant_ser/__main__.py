"""`python -m speaker_invariant_ser` is `siser`."""

from speaker_invariant_ser.cli.app import main

main()
