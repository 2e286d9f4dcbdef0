"""`siser corpora`, `siser recipes` and `siser models`: list what the package knows and holds."""

import itertools
from collections.abc import Mapping
from typing import Any

from speaker_invariant_ser.cli.console import say, show_json
from speaker_invariant_ser.cli.options import Json

OWN_DATA = """your own data
    csv, tsv, parquet    a table with the columns path, speaker, emotion and, if known, text, sex, language, session, style,
                         intensity, repetition, partition, id, and start and end in seconds for segments of recordings
    folder               a folder of audio files, with --pattern "{speaker}/{emotion}/*_{text}.wav"
    audformat            the folder of an audformat database
    datasets             a folder that Hugging Face datasets wrote with save_to_disk"""


def corpora(as_json: Json = False) -> None:
    """List the known corpora: licence, source and layout."""
    from speaker_invariant_ser.data.corpora.base import corpus_facts
    from speaker_invariant_ser.data.corpora.registry import known_corpora

    show_facts({name: corpus_facts(corpus) for name, corpus in known_corpora().items()}, as_json)
    for line in () if as_json else OWN_DATA.splitlines():
        say(line)


def recipes(as_json: Json = False) -> None:
    """List the recipes that come with the package; `siser train NAME` trains one."""
    from speaker_invariant_ser.config import shipped_recipes

    facts = {name: summary(path.read_text(encoding="utf-8")) for name, path in shipped_recipes().items()}
    if as_json:
        show_json(facts)
        return
    width = max(map(len, facts))
    for name, fact in facts.items():
        say(f"{name:{width}}  {fact}")


def models(as_json: Json = False) -> None:
    """List the models that come with the package; `siser infer --model NAME` uses one, and its card says what it is good for."""
    from speaker_invariant_ser.inference.exported import shipped_models
    from speaker_invariant_ser.models.model import read_description

    facts = {}
    for name, folder in shipped_models().items():
        labels = read_description(next(folder.rglob("model.json")))["labels"]
        facts[name] = {"emotions": ", ".join(labels), "card": str(folder / "README.md")}
    show_facts(facts, as_json)


def show_facts(facts: Mapping[str, Mapping[str, Any]], as_json: bool) -> None:
    """Print what is known of each name, as JSON or as lines, several for a list."""
    if as_json:
        show_json(facts)
        return
    for name, fact in facts.items():
        say(name)
        for key, value in fact.items():
            for line in value if isinstance(value, list) else [value]:
                say(f"    {key + ':':10} {line}")


def summary(recipe: str) -> str:
    r"""Return the first sentence of a recipe's comment.

    >>> summary("# Gradient reversal with\n# four classifiers. It does not help.\n\n[split]\n")
    'Gradient reversal with four classifiers.'
    """
    comment = itertools.takewhile(lambda line: line.startswith("#"), recipe.splitlines())
    first, stop, _ = " ".join(line.strip("# ") for line in comment).partition(". ")
    return first + stop.strip()
