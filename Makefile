# Each target sets up .venv first where it is missing. `make demo` and `make test` are the two to begin with.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint docs reference clean

demo: $(READY)
	$(BIN)/siser demo

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

# The documentation site, in site/. A broken link or an unknown name in the API reference fails the build. With --quiet it would
# not: MkDocs then hides the warnings that --strict counts.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Rewrite the pages that are generated from the code.
reference: $(READY)
	$(BIN)/python tools/recipe_reference.py
	$(BIN)/python tools/command_reference.py
	$(BIN)/python tools/corpus_pages.py
	$(BIN)/python tools/draw_architecture.py
	for name in arms front methods; do $(BIN)/siser study recipes/study-$$name.toml --table > /dev/null || exit 1; done
	$(BIN)/python tools/encoder_page.py

# The mark is written last, so that an interrupted set-up is repeated.
$(READY): pyproject.toml constraints.txt tools/fit_torchaudio.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[test]'
	-$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib  # by all cores, which pip does by one
	$(BIN)/python tools/fit_torchaudio.py
	touch $(READY)

clean:
	rm -rf $(VENV) siser-demo siser-demo-digits site
