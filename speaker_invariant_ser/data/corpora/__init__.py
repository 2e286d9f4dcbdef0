"""Speech emotion corpora that `siser prepare` knows by name, one module each.

To add a corpus, add one module to this folder. Nothing else has to be registered. The module needs

- a docstring that explains the naming scheme with one real path, field by field;
- a module constant `CORPUS = Corpus(...)` (`base.py`) with the facts that the corpus's own documentation states. Leave a count
  out where no documentation gives it;
- a function that turns files into fields. Where the path holds everything, write `parse(path)`, which returns the fields of
  one audio file or None, and set `find=by_file_name(parse)`. Where labels are in tables, write `find(folder)`.

Then list 30 or more real paths with the fields they stand for in `tests/data/corpora/NAME.tsv`: one test checks every corpus
against its table; docs/contributing.md describes its columns. Run `make reference` to update the
documentation. `emodb.py` is a short example for labels in file names, `nemo.py` for an additional table, `iemocap.py` for labels
in separate files.
"""
