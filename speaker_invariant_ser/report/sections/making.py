"""How the run was made: the map of its embeddings, its training, its folds, hashes, settings and versions."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from speaker_invariant_ser.errors import shorten
from speaker_invariant_ser.report import plots as pictures
from speaker_invariant_ser.report.plots import Picture, Points
from speaker_invariant_ser.report.sections.blocks import Chapter, Pictures, Table, Text, count, percent

SETTINGS = "Settings"
PARTS = {  # of metrics.csv -> as a share of time is told
    "data": "to get the clips",
    "features": "for augmentation",
    "network": "forward and backward through the network",
    "update": "to update the weights",
    "dev": "to score the dev speakers",
    "checkpoint": "for checkpoints",
}


def map_chapter(place: Points) -> Chapter:
    told = (
        f"t-SNE of {count(len(place.emotion), 'clip')} by one encoder, the same points twice. Neighbours are neighbours in the "
        "embedding; sizes of clusters and distances between them mean nothing."
    )
    drawn = [
        Picture(
            f"map-{kind}", f"Embeddings coloured by {kind}.", partial(pictures.paint_map, place=place.place, kinds=kinds), 4.4
        )
        for kind, kinds in (("emotion", place.emotion), ("speaker", place.speaker))
    ]
    return Chapter("Embedding map", [Text(told), Pictures(drawn)])


def training_chapter(curves: Mapping[str, Sequence[Mapping]], head: Mapping | None) -> Chapter:
    blocks = [Text("One thin line for each model. The adversary is trained against the encoder and thrown away.")]
    losses = {"emotion_loss": "emotion loss", "adversary_loss": "adversary's loss"}
    read = all("adversary_accuracy" in row for rows in curves.values() for row in rows)  # or the adversary has no reader
    gradients = {"emotion_gradient": "of the emotion loss", "adversary_gradient": "of the adversary's, reversed"}
    shares = {"dev_uar": "emotion UAR, dev speakers"}
    if read:
        shares["adversary_accuracy"] = "adversary's accuracy: not evidence"
    if all("attacker_accuracy" in row for rows in curves.values() for row in rows):
        shares["attacker_accuracy"] = "a fresh attacker's accuracy (LDA)"
    if curves:
        uninformed = "adversary_loss_uninformed" if read else ""
        level = partial(pictures.paint_curves, curves=curves, keys=losses, unit="loss, nats", level=uninformed)
        shown = partial(pictures.paint_curves, curves=curves, keys=shares)
        known = ", with ln K, the adversary's loss if it knows nothing" if read else "; the adversary's is a term of its own"
        drawn = [Picture("losses", f"Losses in training{known}.", level, 3.7)]
        drawn.append(Picture("accuracies", f"Over the epochs: {'; '.join(shares.values())}.", shown, 3.7))
        if all(set(gradients) <= set(row) for rows in curves.values() for row in rows):  # older runs have none
            pulls = partial(pictures.paint_gradients, curves=curves, keys=gradients)
            words = (
                "Gradient norms: how hard the emotion pulls at the embedding, and the adversary at what it reads, after lambda."
            )
            drawn.append(Picture("gradients", words, pulls, 3.0))
        blocks.append(Pictures(drawn))
        blocks += [Text(told) for told in [time_told(curves)] if told]
    if head:
        blocks.append(
            Text(
                f"Not evidence: in training, at the epochs that were kept, the adversary's own head names the {head['target']} "
                f"of {percent(head['accuracy'])} of the clips rightly. It is what the encoder was trained to fool; it can be at "
                "chance while a fresh attacker reads almost everyone."
            )
        )
    return Chapter("Training", blocks)


def time_told(curves: Mapping[str, Sequence[Mapping]]) -> str:
    """Where training's time went, all models together; nothing for older runs, which did not measure it."""
    rows = [row for one in curves.values() for row in one]
    spent = {words: sum(row.get(f"seconds_{part}", 0) for row in rows) for part, words in PARTS.items()}
    total = sum(spent.values())
    if not total:
        return ""
    shares = ", ".join(f"{percent(seconds / total)} {words}" for words, seconds in spent.items())
    return f"Training took {total / 60:.1f} minutes, summed over the models: {shares}."


def settings_chapters(settings: Mapping, kept: Mapping) -> list[Chapter]:
    """Who was in which part, hashes, versions, and every other setting."""
    folds = settings.get("folds", [])
    told = "Everything that is needed to do it again; report.json has it in full."
    rest = {key: value for key, value in settings.items() if key not in ("folds", "versions", "threat")}
    blocks = [Text(told)]
    if folds:
        blocks += [folds_table(folds, kept), hashes_table(folds)]
    blocks.append(Table(["setting", "value"], list(flat(rest)), "Every setting", numbers=False))
    if settings.get("versions"):
        blocks.append(Table(["library", "version"], [[*one] for one in settings["versions"].items()], "Versions", numbers=False))
    return [Chapter(SETTINGS, blocks)]


def folds_table(folds: Sequence[Mapping], kept: Mapping) -> Table:
    """A row for each fold, with the epochs and dev UARs of its models, seed by seed."""
    told = {"train": "trained on", "unlabelled": "trained on without labels", "dev": "selected on", "test": "tested on"}
    parts = [part for part in told if part != "unlabelled" or any(fold.get(part) for fold in folds)]
    rows = [
        [
            fold["name"],
            *(shorten(fold[part], 12) for part in parts),
            f"{fold.get('held_out', 0):,}",
            shorten((str(one["epoch"]) for one in models), 12),
            shorten((percent(one["dev_uar"]) for one in models), 12),
        ]
        for fold in folds
        if (models := [one for one in kept.values() if one["fold"] == fold["name"]])
    ]
    head = ["fold", *(told[part] for part in parts), "clips held out", "epoch kept", "dev UAR"]
    return Table(head, rows, "Folds: who was trained, selected and tested on", numbers=False)


def hashes_table(folds: Sequence[Mapping]) -> Table:
    rows = [[fold["name"], fold.get("sha256", "-")] for fold in folds]
    return Table(["fold", "SHA-256 of its clips' ids, part by part"], rows, "Hashes of the folds", numbers=False)


def flat(settings: Mapping, prefix: str = "") -> Iterator[list[str]]:
    """Nested settings as rows [dotted key, value]."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield [f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)]
