"""Small checkpoints with random weights, one for each architecture, as transformers saves them."""

import json
from functools import partial
from pathlib import Path

import torch

RATE = 16_000
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}


def wave(name: str, **options) -> tuple:
    """Return model and feature extractor of an architecture that takes the waveform."""
    import transformers

    config = getattr(transformers, f"{name}Config")(**{**SMALL, **options})
    return getattr(transformers, f"{name}Model")(config), transformers.Wav2Vec2FeatureExtractor(do_normalize=True)


def whisper() -> tuple:
    """Return a Whisper model whose windows are of 1 s."""
    import transformers

    config = transformers.WhisperConfig(
        d_model=16,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        num_mel_bins=8,
        max_source_positions=50,
        max_target_positions=8,
        vocab_size=32,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=3,
    )
    return transformers.WhisperModel(config), transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=1)


ARCHITECTURES = {
    "wavlm": partial(wave, "WavLM"),
    "wav2vec2": partial(wave, "Wav2Vec2", feat_extract_norm="group"),
    "hubert": partial(wave, "Hubert", feat_extract_norm="layer", do_stable_layer_norm=True),
    "data2vec-audio": partial(wave, "Data2VecAudio", num_conv_pos_embeddings=5, conv_pos_kernel_size=5),
    "unispeech-sat": partial(wave, "UniSpeechSat"),
    "wav2vec2-conformer": partial(wave, "Wav2Vec2Conformer", position_embeddings_type="relative"),
    "whisper": whisper,
}


def save_checkpoint(name: str, folder: Path, seed: int = 0) -> Path:
    """Save a checkpoint of an architecture into a folder, and return the folder."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, extractor = ARCHITECTURES[name]()
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


CONFIG = {
    "model_type": "wavlm",
    "num_hidden_layers": 2,
    "hidden_size": 16,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
}


def describe_checkpoint(folder: Path, weights: str = "model.safetensors", rate: int = RATE, **config) -> Path:
    """Write the files of a checkpoint without weights into a new folder: all that is needed where its layers are cached."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": rate}))
    (folder / weights).write_bytes(b"none")
    return folder
