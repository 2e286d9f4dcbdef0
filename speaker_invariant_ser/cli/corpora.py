"""`siser corpora`: list the known corpora."""

import json

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

    facts = {name: corpus_facts(corpus) for name, corpus in known_corpora().items()}
    if as_json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    for name, fact in facts.items():
        print(name)
        for key, value in fact.items():
            for line in value if isinstance(value, list) else [value]:
                print(f"    {key + ':':10} {line}")
    print(OWN_DATA)
