"""The network that tracks F0, SwiftF0 (Nieradzik 2025), in PyTorch.

The package `swift-f0` has it as an ONNX file, which takes twice as long on a core: its spectra are products of matrices, and its
convolutions have 12 channels, for which onnxruntime has no fast kernel. Here are the same numbers, with the weights of that file
(`tools/convert_swift_f0.py`): on speech, F0 of voiced frames differs by less than 0.001 Hz.

Shapes: S samples, T frames, W frames with padding, R rows of the map (bands, then pitch candidates).
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from speaker_invariant_ser.data.f0.frames import HOP

WEIGHTS = Path(__file__).with_name("swift-f0.safetensors")
SPECTRA = (1024, 2048, 512)  # samples of the windows
BANDS, FLOOR = 128, 1e-8
CHANNELS = 12
BLOCKS = ((7, 3, 1), (7, 1, 17), (5, 1, 27), (3, 1, 40), (3, 1, 48), (7, 3, 2))  # size in rows and frames, dilation in rows
CANDIDATES = 95  # pitches, one band each
ROWS = (128, 128, 128, 128, 108, 96)  # of each block's result, that the candidates depend on
WIDTH = 8  # frames that widths are a multiple of, because oneDNN compiles kernels for each width that it sees


class Block(nn.Module):
    """Two convolutions, added to what goes in.

    Args:
        rows: Size of the kernels, in rows.
        frames: In frames.
        dilation: In rows.
    """

    def __init__(self, rows: int, frames: int, dilation: int) -> None:
        super().__init__()
        self.reach = dilation * (rows // 2)
        self.inner, self.outer = (
            nn.Conv2d(CHANNELS, CHANNELS, (rows, frames), padding=(self.reach, frames // 2), dilation=(dilation, 1))
            for _ in range(2)
        )

    def forward(self, x: Tensor, frames: int, rows: int) -> Tensor:
        """Compute the first `rows` rows for x [1, C, R, W] with `frames` frames that are no padding."""
        inner = rectify(self.inner(x[:, :, : rows + 2 * self.reach]), frames)
        return rectify(self.outer(inner[:, :, : rows + self.reach])[:, :, :rows].add_(x[:, :, :rows]), frames)


class Voicing(nn.Module):
    """Logit of the confidence that a frame is voiced, from pitch candidates and the mean of the spectra.

    At last it computes in double precision, because the bits of a convolution in one dimension depend on the number of threads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.candidates = nn.Conv2d(4, 4, (5, 1), padding=(2, 0))
        self.inner, self.outer = nn.Conv1d(5, 16, 3, padding=1).double(), nn.Conv1d(16, 1, 1).double()

    def forward(self, candidates: Tensor, spectra: Tensor) -> Tensor:
        """Compute it [T] for candidates [1, 4, R, T] and log spectra [1, 3, R, T]."""
        highest = self.candidates(candidates)
        while (rows := highest.shape[2]) > 1:  # amax takes three times as long along this dimension
            highest = torch.maximum(highest[:, :, : (rows + 1) // 2], highest[:, :, rows // 2 :])
        summary = torch.cat((highest[:, :, 0], spectra.mean(dim=(1, 2))[None]), dim=1)
        return self.outer(self.inner(summary.double()).relu_())[0, 0]


class SwiftF0(nn.Module):
    """The network, with its weights, on the CPU."""

    pitch: Tensor

    def __init__(self) -> None:
        super().__init__()
        tensors = load_file(WEIGHTS)
        self.windows = [tensors.pop(f"window.{size}") for size in SPECTRA]
        shape = len(SPECTRA) * BANDS, sum(1 + size // 2 for size in SPECTRA)
        filters = torch.sparse_coo_tensor(
            tensors.pop("filters.index"), tensors.pop("filters.value"), shape, check_invariants=True
        )
        self.filters = filters.coalesce()
        self.first = nn.Conv2d(len(SPECTRA), CHANNELS, 3, padding=1)
        self.blocks = nn.ModuleList(Block(*sizes) for sizes in BLOCKS)
        self.candidates = nn.Conv2d(CHANNELS, 4, 3, padding=1)
        self.logits, self.voicing = nn.Conv2d(4, 1, 1), Voicing()
        self.register_buffer("pitch", torch.empty(CANDIDATES, dtype=torch.float64))  # logarithms of Hz
        self.load_state_dict(tensors)
        self.eval().requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Compute pitch in Hz and the confidence that it is voiced, float64 [T] each, of samples [S] at 16 kHz, T = S // 256."""
        spectra = self.log_spectra(samples)
        frames = spectra.shape[3]
        padded = F.pad(spectra, (0, -frames % WIDTH)).contiguous(memory_format=torch.channels_last)
        x = rectify(self.first(padded), frames)
        for block, rows in zip(self.blocks, ROWS, strict=True):
            x = block(x, frames, rows)
        candidates = self.candidates(x)[:, :, :CANDIDATES, :frames].relu_().contiguous()
        logits = self.logits.bias + (candidates[0] * self.logits.weight[0]).sum(dim=0)  # oneDNN's bits depend on threads
        return self.pitch_of(logits), self.voicing(candidates, spectra).sigmoid()

    def log_spectra(self, samples: Tensor) -> Tensor:
        """Return log magnitudes in bands [1, 3, R, T] of spectra by three windows; frame t is centred on sample 256 t."""
        frames, magnitudes = len(samples) // HOP, []
        for window in self.windows:
            half = len(window) // 2
            spectrum = torch.fft.rfft(F.pad(samples, (half, half)).unfold(0, len(window), HOP)[:frames] * window)
            magnitudes.append(spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag).sqrt_())
        bands = torch.sparse.mm(self.filters, torch.cat(magnitudes, dim=1).T.contiguous())
        return bands.add_(FLOOR).log_().view(1, len(SPECTRA), BANDS, frames)

    def pitch_of(self, logits: Tensor) -> Tensor:
        """Return pitch in Hz [T]: the mean of the best candidate and its two neighbours, of the logits of candidates [R, T]."""
        near = logits.argmax(dim=0) + torch.arange(-1, 2)[:, None]
        weights = F.pad(logits, (0, 0, 1, 1), value=-math.inf).gather(0, near + 1).double().softmax(dim=0)
        return (weights * self.pitch[near.clamp(0, CANDIDATES - 1)]).sum(dim=0).exp()


def rectify(x: Tensor, frames: int) -> Tensor:
    """Set negative values of x [1, C, R, W] to 0, in place, and those of the padding, which convolutions take for silence."""
    x.relu_()
    x[..., frames:] = 0
    return x
