"""What the machine is: processor, cores and the instructions that decide how fast, and how precisely, a network is trained."""

import platform
from pathlib import Path

from speaker_invariant_ser.processes import cores

FLAGS = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX-512 bfloat16", "amx_bf16": "AMX bfloat16"}  # of /proc/cpuinfo


def describe_machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str | int | list[str]]:
    """Return the processor, the number of usable cores and the instruction sets of FLAGS that the processor has.

    Args:
        cpuinfo: Linux's description of the processors; without it, the name that Python's `platform` gives is used.
    """
    try:
        lines = [line.partition(":") for line in cpuinfo.read_text(encoding="utf-8").splitlines()]
    except OSError:
        lines = []
    first: dict[str, str] = {}
    for key, _, value in lines:
        first.setdefault(key.strip(), value.strip())
    flags = first.get("flags", "").split()
    name = first.get("model name") or platform.processor() or platform.machine()
    return {
        "processor": " ".join(name.split()),
        "cores": cores(),
        "instructions": [text for flag, text in FLAGS.items() if flag in flags],
    }
