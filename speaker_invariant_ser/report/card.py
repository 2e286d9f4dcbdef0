"""Write a model card: what a model was trained on, how it does on unseen speakers, and how much of a speaker its embedding holds.

Of a run that was not evaluated, or that could not be audited, the card says so.

The form is that of the Hugging Face Hub: a README.md that begins with metadata in YAML (Mitchell et al., Model Cards for Model
Reporting, FAT* 2019). No speaker is named.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speaker_invariant_ser.data.corpora.base import Corpus
from speaker_invariant_ser.data.corpora.registry import known_corpora
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.errors import PreparedCorpusError, RunError, counted, shorten, shown
from speaker_invariant_ser.evaluation.summary import AnyRunReport
from speaker_invariant_ser.features.pretrained.checkpoint_paths import name_of, with_path
from speaker_invariant_ser.features.pretrained.source_card import SourceCard, read_source_card
from speaker_invariant_ser.inference.upload import UNKNOWN_DATA, UNKNOWN_LICENCE
from speaker_invariant_ser.models.model import DESCRIPTION, WEIGHTS, read_description
from speaker_invariant_ser.recipe_encoders import PretrainedSettings
from speaker_invariant_ser.report.formatting import decimal, decimal_interval, interval, percent
from speaker_invariant_ser.report.write import templates
from speaker_invariant_ser.runs import CORPORA, ModelSpec, Run, flattened

OWN_USAGE, TRANSFORMERS = "speaker_invariant_ser", "transformers"  # the libraries that load a model

# Keys of a recipe that may differ between a model to be used and the run that its recipe was evaluated with: those that say who
# is trained on, how the epoch is selected, and what is measured.
USE_ONLY = (
    "split.",
    "audit.",
    "train.refit",
    "train.inner_folds",
    "train.patience",
    "train.probe_every",
    "train.seed",
    "train.seeds",
)


@dataclass(frozen=True)
class Source:
    """A corpus that a model was trained on, as a card names it."""

    title: str
    licence: str
    citation: str
    url: str
    language: str
    key: str


def require_same_model(run: Run, evaluated: Run) -> None:
    """Raise RunError if numbers of one run are not about the models of the other."""
    ours, theirs = flattened(run.recipe), flattened(evaluated.recipe)
    keys = [key for key in {**ours, **theirs} if not key.startswith(USE_ONLY)]
    differing = [
        f"{key} is {shown(ours.get(key))} and {shown(theirs.get(key))}" for key in keys if ours.get(key) != theirs.get(key)
    ]
    if differing:
        raise RunError(
            f"{evaluated.folder} does not measure the recipe of {run.folder}: {shorten(differing)}; name an evaluated run whose "
            "recipe is the same, apart from its split"
        )
    if run.hashes != evaluated.hashes:
        raise RunError(f"{evaluated.folder} was trained on other data than {run.folder} (the hashes differ)")


@dataclass(frozen=True)
class PretrainedSource:
    """A pre-trained encoder, as a card names it.

    Attributes:
        name: Repository of the hub, or name of a folder.
        revision: Commit of the repository; empty for a folder.
        sha256: SHA-256 of its files.
        trained: What of it was trained further, as `encoder.train` says it.
        stated: What its publisher says.
    """

    name: str
    revision: str
    sha256: str
    trained: str
    stated: SourceCard


def render_card(
    run: Run,
    report: AnyRunReport | None,
    licence: str,
    name: str,
    training_data: str = "",
    usage: str = OWN_USAGE,
    single: ModelSpec | None = None,
) -> str:
    """Return the text of the card.

    Args:
        run: A run with trained models.
        report: The results of its evaluation, or of that of the same recipe with folds; None if there are none.
        licence: Licence of the weights.
        name: Name of the model.
        training_data: What was recorded, by whom and under which licence, where the corpora are not known to the program.
        usage: How the model is used: the library that loads it.
        single: The only model that the card is about; by default all of the run.
    """
    specs = [single] if single else run.trained_models()
    described = [read_description(spec.folder / DESCRIPTION) for spec in specs]
    sources = sources_of(report.settings.corpora if report else corpora_of(run))
    pretrained = pretrained_source(specs[0].folder, described[0])
    template = templates().get_template("card.md.j2")
    return template.render(
        name=name,
        metadata=metadata(report, sources, licence, name, pretrained, usage),
        usage=usage,
        others=len(run.trained_models()) - len(specs),
        pretrained=pretrained,
        training_data=training_data,
        unknown_data=UNKNOWN_DATA,
        licence=licence,
        report=report,
        sources=sources,
        final=not any(spec.split.test for spec in specs),
        description=described[0],
        calibrated=all(each.get("temperature") is not None for each in described),
        models=counted(len(specs), "model"),
        size=f"{sum((spec.folder / WEIGHTS).stat().st_size for spec in specs) / 1e6:.1f} MB",
        speakers=training_speakers(specs),
        contamination=contamination(specs),
        recall=recall_rows(report) if report else [],
        percent=percent,
        interval=interval,
        decimal=decimal,
        decimal_interval=decimal_interval,
        count=counted,
    )


def pretrained_source(folder: Path, described: Mapping[str, Any]) -> PretrainedSource | None:
    """Return the pre-trained encoder of a model, from its folder and the contents of its model.json; None if it has none."""
    encoder = described["encoder"]
    if encoder.get("name") != PretrainedSettings.model_fields["name"].default:
        return None
    settings = PretrainedSettings.model_validate(encoder)
    located = with_path(settings, folder)
    assert isinstance(located, PretrainedSettings)
    return PretrainedSource(
        name_of(settings), settings.revision, settings.sha256, settings.train, stated=read_source_card(located)
    )


def corpora_of(run: Run) -> list[str]:
    """Return the names of the corpora that a run was trained on; empty where neither it nor its corpus says so."""
    if recorded := run.record.get(CORPORA):
        return [str(name) for name in recorded]
    try:
        prepared = PreparedCorpus.open(run.data) if run.data else None
        if prepared:
            run.require_data(prepared)
    except (PreparedCorpusError, RunError):
        return []
    return list(prepared.settings["corpora"]) if prepared else []


def sources_of(corpora: Sequence[str]) -> list[Source]:
    """Describe the corpora of that name; a corpus that is not known is data of the user's own."""
    known: Mapping[str, Corpus] = known_corpora()
    return [
        Source(known[name].title, known[name].licence, known[name].citation, known[name].url, known[name].language, name)
        if name in known
        else Source(name, UNKNOWN_LICENCE, "", "", "", name)
        for name in corpora
    ]


def metadata(
    report: AnyRunReport | None,
    sources: Sequence[Source],
    licence: str,
    name: str,
    pretrained: PretrainedSource | None,
    library: str,
) -> list[str]:
    """Return the lines of the YAML metadata; strings are written as JSON, which YAML includes."""
    languages = sorted({code for source in sources for code in source.language.split(",") if code})
    fields = {
        "license": licence,
        "language": languages,
        "library_name": library,
        "pipeline_tag": "audio-classification",
        "base_model": pretrained.name if pretrained and pretrained.revision else "",
        "tags": ["speech-emotion-recognition", "speaker-invariant"],
        "model-index": [result_of(report, sources, name)] if report else [],
    }
    return [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items() if value]


def result_of(report: AnyRunReport, sources: Sequence[Source], name: str) -> dict[str, object]:
    """Return the results of a model as the hub lists them."""
    uar = {"name": "UAR on unseen speakers", "type": "recall", "value": round(report.emotion.uar.value, 4)}
    return {
        "name": name,
        "results": [
            {
                "task": {"type": "audio-classification", "name": "speech emotion recognition"},
                "dataset": {
                    "name": ", ".join(source.title for source in sources),
                    "type": "-".join(source.key for source in sources),
                },
                "metrics": [uar],
            }
        ],
    }


def contamination(specs: Sequence[ModelSpec]) -> str:
    """Say which speakers of the corpora the models know, so that no result on them is taken for one on unseen speakers."""
    known = {name for spec in specs for name in (*spec.split.train, *spec.split.dev, *spec.split.unlabelled)}
    unseen = {name for spec in specs for name in spec.split.test} - known
    if not any(spec.split.test for spec in specs):
        return f"It knows all {counted(len(known), 'speaker')} of these recordings."
    if len({spec.split.name for spec in specs}) > 1 and not unseen:
        return (
            f"Each model was trained with some speakers left out, but together they know all {counted(len(known), 'speaker')} of "
            "these recordings: for their average, which `siser infer` gives, no speaker of them is unseen."
        )
    known_words = f"It knows {counted(len(known), 'speaker')} of these recordings"
    return f"{known_words}; {len(unseen)} more were neither trained on nor used to select an epoch."


def training_speakers(specs: Sequence[ModelSpec]) -> str:
    """Return how many speakers each model was trained on."""
    numbers = sorted({len(spec.split.train) for spec in specs})
    return " or ".join(map(str, numbers)) + " speakers"


def recall_rows(report: AnyRunReport) -> list[tuple[str, str]]:
    """Return the recall of each emotion."""
    return [(emotion, percent(value)) for emotion, value in report.emotion.per_class.items()]
