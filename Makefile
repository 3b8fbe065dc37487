# `make gate` and `make test` work on a fresh machine with Python 3.11+ and make: they make the environment themselves.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: gate test lint setup fixtures study clean

gate: $(READY)
	$(BIN)/pytest --pyargs robustness_tests -n 2 -q --robustgate-report robustgate-report

test: $(READY) lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(READY)

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "robustgate needs Python 3.11 or newer, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev --editable ".[all]"
	# Apart, since torchattacks pins an older requests than it needs, and MLflow wants a newer one.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-warn-conflicts --editable ".[mlflow]"
	touch $(READY)

fixtures: $(READY)
	$(BIN)/python plugins/tools/build_fixtures.py

# Hours: it goes on where it stopped. MINUTES=60 for what an hour gives, DEVICE=cuda where there is one.
study: $(READY)
	$(BIN)/python plugins/studies/study.py --minutes $(or $(MINUTES),175) --device $(or $(DEVICE),cpu)

clean:
	rm -rf $(VENV) .robustgate robustgate-report
