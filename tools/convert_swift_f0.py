"""Convert the weights of the F0 tracker from the ONNX file of the package swift-f0 to safetensors.

    python tools/convert_swift_f0.py

`speaker_invariant_ser/data/f0/network.py` computes with the result. Needs the extra [onnx]. The names of the tensors in the ONNX
file are those of one version of swift-f0: for another one, look at its graph first, and compare F0 of a corpus afterwards.
"""

import shutil
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import onnx
import swift_f0
from onnx import numpy_helper
from safetensors.numpy import save_file

from speaker_invariant_ser.data.f0.network import BANDS, SPECTRA, WEIGHTS
from speaker_invariant_ser.data.f0.tracker import TRACKER_LICENCE, TRACKER_VERSION

FILTERS = {1024: ("v123", "v124"), 2048: ("v241", "v242"), 512: ("v342", "v343")}  # positions and values of filters
WINDOWS = {1024: "v41", 2048: "v161", 512: "v262"}
CONVOLUTIONS = (  # in the order of the graph
    "first",
    *(f"blocks.{number}.{part}" for number in range(6) for part in ("inner", "outer")),
    "candidates",
    "voicing.candidates",
    "logits",
    "voicing.inner",
    "voicing.outer",
)


def main() -> None:
    """Write the weights and their licence."""
    package = distribution("swift-f0")
    if f"swift-f0 {package.version}" != TRACKER_VERSION:
        raise SystemExit(f"error: {TRACKER_VERSION} is described, swift-f0 {package.version} is installed")
    graph = onnx.load(Path(swift_f0.__file__).with_name("model.onnx")).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    tensors = {f"window.{size}": values[WINDOWS[size]] for size in SPECTRA}
    tensors |= dict(zip(("filters.index", "filters.value"), filters(values), strict=True))
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    for name, node in zip(CONVOLUTIONS, convolutions, strict=True):
        tensors |= {f"{name}.weight": values[node.input[1]], f"{name}.bias": values[node.input[2]]}
    tensors["pitch"] = values["v455"]
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, WEIGHTS, {"source": TRACKER_VERSION})
    shutil.copyfile(package.locate_file(f"swift_f0-{package.version}.dist-info/licenses/LICENSE"), TRACKER_LICENCE)


def filters(values: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return positions [2, N] and values [N] of a matrix from the bins of all spectra, one after another, to their bands."""
    indices, first_bin = [], 0
    for number, size in enumerate(SPECTRA):
        bins, bands = np.divmod(values[FILTERS[size][0]], BANDS)
        indices.append(np.stack((bands + number * BANDS, bins + first_bin)))
        first_bin += 1 + size // 2
    return np.concatenate(indices, axis=1).astype(np.int64), np.concatenate([values[FILTERS[size][1]] for size in SPECTRA])


if __name__ == "__main__":
    main()
