"""All known corpora by name: every module of this folder that describes a corpus is found, none has to be registered."""

import importlib
import pkgutil
from collections.abc import Iterable

from speaker_invariant_ser.data import corpora
from speaker_invariant_ser.data.corpora.base import Corpus
from speaker_invariant_ser.errors import CorpusError, unknown

NOT_CORPORA = ("base", "download", "registry", "synthesis")  # modules of the folder that describe no corpus


def known_corpora() -> dict[str, Corpus]:
    """Return every known corpus by name, in alphabetical order.

    >>> known_corpora()["emodb"].title
    'EMO-DB'
    """
    names = [module.name for module in pkgutil.iter_modules(corpora.__path__) if module.name not in NOT_CORPORA]
    modules = [importlib.import_module(f"{corpora.__name__}.{name}") for name in names]
    return {module.CORPUS.name: module.CORPUS for module in modules}


def get_corpus(name: str, alternatives: Iterable[str] = ()) -> Corpus:
    """Return the corpus of that name.

    Args:
        name: Name of the corpus, such as `emodb`.
        alternatives: Further names that would have been allowed where the user gave this one; listed in the error message.

    Raises:
        CorpusError: No corpus has this name.
    """
    known = known_corpora()
    if name not in known:
        raise CorpusError(unknown("corpus", name, [*known, *alternatives]))
    return known[name]
