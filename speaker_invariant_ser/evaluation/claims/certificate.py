"""What a certificate in the report of a run states, against the run and the utterances that were counted."""

from collections.abc import Iterator
from statistics import fmean

import numpy as np

from speaker_invariant_ser.audit.certificates.certificate import DELTA, compose
from speaker_invariant_ser.audit.certificates.limits import limits, smallest_limit
from speaker_invariant_ser.audit.certificates.words import CODE
from speaker_invariant_ser.evaluation.certificate_parts import CertificatePart, CertifiedModel, CertifiedPopulation
from speaker_invariant_ser.evaluation.claims.numbers import differences, same
from speaker_invariant_ser.evaluation.predictions import Predictions
from speaker_invariant_ser.recipe_methods import CodesSettings, DecisionSettings
from speaker_invariant_ser.runs import ModelSpec, Run

SEARCHED = 1e-4  # by which two searches for the same limit may differ


def contradictions(run: Run, certificate: CertificatePart, predictions: Predictions) -> Iterator[str]:
    """Yield in words what of a certificate cannot be.

    How often the best attacker is right (`plug_in`) is taken as it is: the codes of single utterances are not written. It gives
    the lowest bound there can be, that of utterances which are independent of each other.

    Args:
        run: The run.
        certificate: Part `speaker.certificate` of its report.
        predictions: Its predictions.csv.
    """
    release = run.recipe.release
    if not isinstance(release, CodesSettings | DecisionSettings):
        yield "it has a certificate, and the run releases no codes"
        return
    cells = release.cells if isinstance(release, CodesSettings) else len(predictions.labels)
    yield from differences({"delta": (certificate.delta, DELTA), "cells": (certificate.cells, cells)})
    if certificate.column != CODE:
        yield f"the column is {certificate.column}"
    for population in certificate.populations:
        yield from (f"{population.clips}: {text}" for text in of_population(run, population, predictions))


def of_population(run: Run, population: CertifiedPopulation, predictions: Predictions) -> Iterator[str]:
    """Yield what cannot be of the certificates on one kind of utterances."""
    models, specs = population.models, run.model_specs
    if not models:
        return
    if [model.name for model in models] != [spec.name for spec in specs] or run.recipe.features.transductive:
        yield "it is not of the models of the run"
        return
    bounds = [model.bound for model in models]
    stated = {"worst": (population.worst, max(bounds)), "mean": (population.mean, fmean(bounds))}
    yield from differences({name: (-1 if value is None else value, own) for name, (value, own) in stated.items()})
    for model, spec in zip(models, specs, strict=True):
        expected = counted_clips(model, spec, population.clips, predictions)
        if model.clips_per_speaker != expected or model.utterances != sum(expected.values()) or model.speakers != len(expected):
            yield f"{model.name} has other utterances than the run"
        else:
            yield from (f"{model.name}: {text}" for text in of_model(model, DELTA / len(models)))


def counted_clips(model: CertifiedModel, spec: ModelSpec, clips: str, predictions: Predictions) -> dict[str, int]:
    """Return the counted utterances of each speaker: of held-out ones the run knows only the number of all speakers together."""
    if clips == "unseen":
        own = predictions.speaker[(predictions.fold == spec.split.name) & (predictions.seed == spec.seed)]
        return dict(zip(*(values.tolist() for values in np.unique(own, return_counts=True)), strict=True))
    held_out = {name: count for name, count in model.clips_per_speaker.items() if name in spec.split.train}
    return held_out if sum(held_out.values()) == len(spec.split.held_out) and clips == "held-out" else {}


def of_model(model: CertifiedModel, delta: float) -> Iterator[str]:
    """Yield what cannot be of a certificate whose utterances are those of the run."""
    counts = list(model.clips_per_speaker.values())
    speaker = np.repeat(np.arange(len(counts)), counts)
    _, lowest = smallest_limit(limits(model.plug_in, speaker, np.arange(len(speaker)), delta))
    if model.plug_in < 1 / len(counts) - SEARCHED or model.bound < lowest - SEARCHED:
        yield f"a bound of {model.bound:.4g} with plug_in = {model.plug_in:.4g}, expected {lowest:.4g} or more"
    several = [(each.bound, compose(model.bound, len(counts), each.clips)) for each in model.curve]
    if not all(same(*pair) for pair in several):
        yield "the bounds of several utterances do not follow from that of one"
