"""The recipe: everything that decides a run apart from the data, as frozen pydantic models, one per section.

Sections with a choice of methods are in `recipe_methods.py` and `recipe_encoders.py`; reading, overriding and writing recipes is
in `config.py`. No torch here, so that the command line can check a recipe immediately.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from speaker_invariant_ser.recipe_encoders import SOUND_ONLY, AugmentSection, CnnSettings, EmotionSection, EncoderSection, Stream
from speaker_invariant_ser.recipe_methods import (
    AdversarySection,
    BottleneckSection,
    EraseSection,
    GradientReversalSettings,
    Label,
    NoBottleneck,
    NoErasure,
    NoPerturbation,
    NoRelease,
    PerturbSection,
    ReleaseSection,
    Section,
)

F0_HOP_MS = 16.0  # of the F0 tracker


class SplitSection(Section):
    """Which speakers train the model, select the epoch (dev), and test it; always whole speakers."""

    scheme: Literal[
        "loso",
        "group-kfold",
        "leave-one-session-out",
        "leave-one-corpus-out",
        "official",
        "ravdess-five",
        "fixed",
        "domain",
        "all",
    ] = Field(
        "loso",
        description=(
            "How folds are made: loso, leave-one-session-out and leave-one-corpus-out test one speaker, session or corpus per "
            "fold; group-kfold tests one of `folds` groups of speakers; official takes the corpus's own lists; ravdess-five "
            "RAVDESS's five folds by actor; fixed the speakers in `test` and `dev`; domain trains on one domain with labels and "
            "another without; all trains one model to be used and tests nobody."
        ),
    )
    folds: int = Field(5, ge=2, le=1000, description="Number of groups of speakers (group-kfold, domain).")
    text_folds: int = Field(
        0,
        ge=0,
        le=1000,
        description="Test on unseen texts only, with the texts divided into this many groups; 0: training and test share texts.",
    )
    test: tuple[str, ...] = Field((), description="Test speakers (fixed; domain, instead of folds).")
    dev: tuple[str, ...] = Field((), description="Dev speakers (fixed, domain); empty: drawn from the training speakers.")
    dev_speakers: int = Field(
        2,
        ge=0,
        le=100_000,
        description=(
            "Number of training speakers set apart to select the epoch; 0 trains on all speakers that are not tested, also those "
            "that the corpus's own lists or sessions would make dev speakers, and needs train.refit = true."
        ),
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the assignment of speakers to groups (group-kfold, domain).")
    column: str = Field("corpus", description="Manifest column whose values are the domains (domain).")
    source: tuple[str, ...] = Field((), description="Values of `column` whose utterances are trained on with labels (domain).")
    unlabelled: tuple[str, ...] = Field(
        (),
        description=(
            "Values of `column` whose utterances are trained on without labels, half of every batch, and tested "
            "together with the source (domain)."
        ),
    )
    use_unlabelled: bool = Field(
        True,
        description="False: the source-only baseline, trained on the source alone and tested on the same utterances (domain).",
    )


class LabelsSection(Section):
    """Which emotion classes are used."""

    map: str | dict[Label, Label] = Field(
        "auto",
        description=(
            "Mapping of the corpus's labels to classes: full (all labels), five (neutral, happy, sad, angry, fearful), "
            "five-merged (related labels such as excited and calm merged into these), auto (five for several corpora, full for "
            'one), or a table such as {angry = "angry", bored = "calm"}. Utterances with other labels are dropped.'
        ),
    )


class FeaturesSection(Section):
    """The network's input: log-mel spectrogram, prosody, or both."""

    front: Literal["log-mel", "pixels"] = Field(
        "log-mel", description="Input features: log-mel, or pixels for images of `mels` rows (recipes/digits.toml)."
    )
    mels: int = Field(64, ge=8, le=256, description="Number of mel bands.")
    window_ms: float = Field(25.0, ge=5, le=200, description="Analysis window, milliseconds.")
    hop_ms: float = Field(10.0, ge=2, le=100, description="Hop between windows, milliseconds.")
    f_min: float = Field(20.0, ge=0, le=100_000, description="Lowest frequency of the mel bands, Hz.")
    f_max: float = Field(8000.0, gt=0, le=100_000, description="Highest frequency of the mel bands, Hz.")
    normalise: Literal["corpus", "utterance", "speaker"] = Field(
        "utterance",
        description=(
            "What each band's mean is taken over before it is subtracted: the training speakers (corpus), the utterance, or all "
            "utterances of its speaker. The last is transductive: it needs the test speakers' audio beforehand."
        ),
    )
    streams: tuple[Stream, ...] = Field(
        ("log-mel",),
        min_length=1,
        description=(
            "What the encoder gets: log-mel, and prosody (F0, voicing, level and spectral tilt of each frame, relative to the "
            "utterance's own). Prosody needs hop_ms = 16 and a prepared corpus with F0 (siser add-f0)."
        ),
    )
    deltas: int = Field(0, ge=0, le=2, description="Orders of time derivatives of the log-mel, as further input channels.")
    absolute_f0: bool = Field(
        False, description="F0 in octaves from 100 Hz as a further prosody channel; it identifies speakers."
    )
    functionals: bool = Field(
        False,
        description="The 22 utterance-relative functionals of the prosody baseline beside the frames of the prosody stream.",
    )

    @property
    def needs_f0(self) -> bool:
        """Whether F0 has to be tracked."""
        return "prosody" in self.streams

    @model_validator(mode="after")
    def streams_are_possible(self) -> Self:
        """Refuse streams that the other keys do not allow, and keys without effect on the streams."""
        streams = f"features.streams = [{', '.join(map(repr, self.streams))}]".replace("'", '"')
        if len(set(self.streams)) < len(self.streams):
            raise ValueError(f"{streams}: expected each stream once")
        if self.needs_f0 and self.hop_ms != F0_HOP_MS:
            raise ValueError(
                f"features.hop_ms = {self.hop_ms:g} with {streams}: F0 has a frame every 16 ms; expected features.hop_ms = 16"
            )
        if self.needs_f0 and self.front == "pixels":
            raise ValueError(f'{streams} with features.front = "pixels": images have no prosody; expected ["log-mel"]')
        if self.absolute_f0 and not self.needs_f0:
            raise ValueError(f'features.absolute_f0 = true with {streams}: it is a channel of the stream "prosody"')
        if self.functionals and not self.needs_f0:
            raise ValueError(f'features.functionals = true with {streams}: they belong to the stream "prosody"')
        if self.deltas and "log-mel" not in self.streams:
            raise ValueError(f'features.deltas = {self.deltas} with {streams}: they are channels of the stream "log-mel"')
        return self

    @property
    def transductive(self) -> bool:
        """Whether an utterance's features depend on other utterances of its speaker, of test speakers too."""
        return self.normalise == "speaker"


class TrainSection(Section):
    """Optimisation."""

    epochs: int = Field(40, ge=1, le=100_000, description="Maximum number of epochs.")
    refit: bool = Field(
        False,
        description=(
            "Train on all speakers that are not tested: inner folds select the epoch, then one model is trained on all of them "
            "up to that epoch. Needs split.dev_speakers = 0."
        ),
    )
    inner_folds: int = Field(
        3,
        ge=0,
        le=20,
        description=(
            "With refit, number of groups of training speakers, each scored by a model trained on the others; 0 selects nothing "
            "and trains for `epochs`."
        ),
    )
    epoch_clips: int = Field(0, ge=0, le=10**9, description="Utterances per epoch, drawn again for each epoch; 0: all.")
    patience: int = Field(0, ge=0, le=100_000, description="Stop after this many epochs without a new best; 0 disables.")
    batch_size: int = Field(16, ge=2, le=100_000, description="Utterances per batch, over all processes.")
    batches: Literal["shuffled", "balanced"] = Field(
        "shuffled", description="Every utterance once per epoch, or every speaker and emotion equally often."
    )
    learning_rate: float = Field(2e-3, gt=0, le=10, description="Peak learning rate.")
    schedule: Literal["one-cycle", "cosine", "constant"] = Field("one-cycle", description="Learning rate schedule, per step.")
    weight_decay: float = Field(0.02, ge=0, le=10, description="Weight decay of AdamW.")
    gradient_clip: float = Field(
        5.0, ge=0, le=1e6, description="Largest gradient norm, for the model and for each adversary separately; 0 disables."
    )
    ema: float = Field(
        0.98, ge=0, lt=1, description="Decay per step of the moving average of the weights, which is what is saved; 0 disables."
    )
    swa_epochs: int = Field(
        0,
        ge=0,
        le=1000,
        description=(
            "Save the mean of the weights at the ends of the last N epochs (stochastic weight averaging) instead of the moving "
            "average; needs ema = 0. 0 disables."
        ),
    )
    probe_every: int = Field(
        0,
        ge=0,
        le=100_000,
        description=(
            "Train a fresh attacker on the embedding every N epochs, for the training curves; 0 disables. Needs audit.holdout "
            "above 0."
        ),
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description=(
            "Precision of forward and backward pass; auto: bfloat16 where the hardware multiplies such matrices, else float32."
        ),
    )
    cache_gb: float = Field(
        4.0,
        ge=0,
        le=10_000,
        description="Log-mel spectrograms kept on the training device, gigabytes per model; others are read when needed.",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of everything random in training.")
    seeds: int = Field(1, ge=1, le=1000, description="Number of models per fold, trained with seeds seed, seed + 1, ...")

    @property
    def inner_epochs(self) -> int:
        """Number of epochs of all inner folds of a model together."""
        return self.inner_folds * self.epochs if self.refit else 0

    @model_validator(mode="after")
    def keys_go_together(self) -> Self:
        """Refuse two averages of the weights, and keys without effect with or without refit."""
        if self.swa_epochs and self.ema:
            raise ValueError(
                f"train.swa_epochs = {self.swa_epochs} with train.ema = {self.ema:g}: only one average of the weights is saved; "
                "expected train.ema = 0 or train.swa_epochs = 0"
            )
        if not self.refit and self.inner_folds != TrainSection.model_fields["inner_folds"].default:
            raise ValueError(
                f"train.inner_folds = {self.inner_folds} with train.refit = false: there are no inner folds; expected "
                "train.refit = true"
            )
        if self.refit and self.inner_folds == 1:
            raise ValueError("train.inner_folds = 1: a single group leaves no speaker to train on; expected 0, or 2 to 20")
        if self.refit and self.patience:
            raise ValueError(
                f"train.patience = {self.patience} with train.refit = true: the epoch is selected among all that inner folds "
                "train; expected train.patience = 0"
            )
        return self


class AuditSection(Section):
    """How the speaker information in the embedding is measured."""

    holdout: float = Field(
        0.1,
        ge=0,
        le=0.5,
        description=(
            "Share of each training speaker's utterances held out to score attackers on, whole texts where texts are known; 0: "
            "attackers are scored on utterances that the encoder was trained on."
        ),
    )
    folds: int = Field(5, ge=2, le=100, description="Cross-validation folds of the attackers.")
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of held-out utterances, folds, attackers and permutations.")


class Recipe(Section):
    """Everything that decides a run apart from the data; `Recipe()` is the default model."""

    split: SplitSection = SplitSection()
    labels: LabelsSection = LabelsSection()
    features: FeaturesSection = FeaturesSection()
    augment: AugmentSection = AugmentSection()
    encoder: EncoderSection = CnnSettings()
    emotion: EmotionSection = EmotionSection()
    bottleneck: BottleneckSection = NoBottleneck()
    adversary: AdversarySection = GradientReversalSettings()
    extra_adversaries: tuple[AdversarySection, ...] = Field(
        (), max_length=8, description="Further adversaries, each a table with the keys of [adversary]."
    )
    perturb: PerturbSection = NoPerturbation()
    erase: EraseSection = NoErasure()
    release: ReleaseSection = NoRelease()
    train: TrainSection = TrainSection()
    audit: AuditSection = AuditSection()

    @property
    def adversaries(self) -> tuple[AdversarySection, ...]:
        """Return the settings of all adversaries, that of [adversary] first."""
        return self.adversary, *self.extra_adversaries

    @property
    def fits_after_training(self) -> bool:
        """Whether an eraser or a release is fitted after training, so that inner folds and epochs do not have it."""
        return self.erase.name != "none" or self.release.fitted_later

    @model_validator(mode="after")
    def codes_are_of_the_embedding(self) -> Self:
        """Refuse to erase what codes are chosen by: they are those of embeddings before erasure."""
        if self.release.name in ("codes", "decision") and self.erase.name != "none":
            raise ValueError(
                f"erase.name = {self.erase.name} with release.name = {self.release.name}: expected erase.name = none"
            )
        return self

    @model_validator(mode="after")
    def probe_has_held_out_utterances(self) -> Self:
        """Refuse an online probe that would have no utterances to be scored on."""
        if self.train.probe_every and not self.audit.holdout:
            raise ValueError(
                f"train.probe_every = {self.train.probe_every} with audit.holdout = 0: the probe is scored on held-out "
                "utterances; expected audit.holdout above 0"
            )
        return self

    @model_validator(mode="after")
    def the_epoch_can_be_chosen(self) -> Self:
        """Refuse a training without dev speakers that is no refit, and a refit with dev speakers."""
        split = self.split
        if not split.dev_speakers and not self.train.refit:
            raise ValueError(
                "split.dev_speakers = 0 with train.refit = false: no speaker is left to select the epoch; expected train.refit = "
                "true, or split.dev_speakers of at least 1"
            )
        if split.dev_speakers and self.train.refit:
            raise ValueError(
                f"train.refit = true with split.dev_speakers = {split.dev_speakers}: a refit trains on all speakers that are not "
                "tested; expected split.dev_speakers = 0, or train.refit = false"
            )
        if split.dev and self.train.refit:
            raise ValueError(
                "train.refit = true with split.dev: a refit trains on all speakers that are not tested; expected no split.dev, "
                "or train.refit = false"
            )
        return self

    @model_validator(mode="after")
    def virtual_speakers_have_an_adversary(self) -> Self:
        """Refuse virtual speakers without an adversary whose target is the speaker."""
        targets = [settings.target for settings in self.adversaries]
        if self.augment.virtual_speakers and "speaker" not in targets:
            raise ValueError(
                f"augment.virtual_speakers = {self.augment.virtual_speakers} with adversary.target = {targets[0]}: virtual "
                "speakers are classes of a speaker adversary; expected adversary.target = speaker or augment.virtual_speakers = 0"
            )
        return self

    @model_validator(mode="after")
    def encoder_fits_the_streams(self) -> Self:
        """Refuse an encoder for other streams than there are, and a recurrent one for images."""
        if self.features.front == "pixels" and self.encoder.name not in ("image", "cnn"):
            raise ValueError(
                f'encoder.name = {self.encoder.name} with features.front = "pixels": it is made for speech; '
                "expected encoder.name = image or cnn"
            )
        expected = sorted(self.encoder.streams)
        if sorted(self.features.streams) != expected:
            given = f"encoder.name = {self.encoder.name} with features.streams = {list(self.features.streams)}"
            raise ValueError(f"{given}: expected features.streams = {expected}".replace("'", '"'))
        return self

    @model_validator(mode="after")
    def prosody_is_of_one_clip(self) -> Self:
        """Refuse, with prosody, augmentation and perturbation that F0 has no meaning in."""
        if not self.features.needs_f0:
            return self
        if self.augment.concatenate:
            raise ValueError(
                f'augment.concatenate = {self.augment.concatenate} with the stream "prosody", which is relative to an '
                "utterance's own median F0: two speakers in an utterance have none; expected augment.concatenate = 0"
            )
        if self.perturb.name != "none":
            raise ValueError(
                f'perturb.name = {self.perturb.name} with the stream "prosody": perturbations are defined for log-mels only; '
                "expected perturb.name = none"
            )
        return self

    @model_validator(mode="after")
    def images_have_no_sound_augmentation(self) -> Self:
        """Refuse augmentations of sound where the inputs are images."""
        used = {name: getattr(self.augment, name) for name in SOUND_ONLY if getattr(self.augment, name)}
        if self.features.front == "pixels" and used:
            keys = ", ".join(f"augment.{name} = {value}" for name, value in used.items())
            raise ValueError(f'{keys}: applies to audio only; set it to 0 with features.front = "pixels"')
        return self
