# make demo      the Flask example behind the embedded edge (APP=starlette, django or chat for the others; EDGE=real:
#                Pushpin and Varnish)
# make test      linters, types and every test, live ones included
# make lab       the race laboratory: longer runs on the real edge, and kills, and other people's tests; prints its
#                tables
# make bench     what everything costs, beside its peers; prints tables (ONLY=name for one)
# make propagation  how changes reach several regions, simulated; prints a table
# make docs      the site of these documents, into build/docs
# make clean     remove what these made
#
# Each sets up what it needs: a virtual environment, and the Debian packages where it may install them.

PYTHON ?= python3
APP ?= flask
EDGE ?= embedded
BIN := .venv/bin

.PHONY: demo test lab bench propagation docs lint clean system

demo: .venv/.ready $(if $(filter real,$(EDGE)),system)
	@$(BIN)/python examples/demo.py $(APP) --edge $(EDGE)

# Many wait for servers of theirs. Whole edges and servers with workers have the machine to themselves.
test: lint system
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --ignore tests/live --ignore tests/workers
	$(BIN)/python -m pytest tests/live tests/workers

# ONLY=name picks one, as pytest's -k does.
lab: .venv/.ready system
	$(BIN)/python -m pytest -m lab -s $(if $(ONLY),-k "$(ONLY)") tests/live tests/sources tests/applications tests/foreign tests/stores \
		tests/workers tests/test_benchmarks.py

bench: .venv/.ready system
	$(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY))
	$(BIN)/python -m benchmarks.page

propagation: .venv/.ready
	$(BIN)/python -m benchmarks.propagation

docs: .venv/.ready
	$(BIN)/python -m tools.settings_page
	$(BIN)/python -m tools.edges_page
	$(BIN)/python -m sphinx -W --keep-going -q -c docs -d build/doctrees . build/docs
	@echo "build/docs/index.html"

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

system:
	@sh tools/install-system-packages.sh

.venv/.ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable . --group dev
	@# Beside the newest one: the tests of the sources run with both.
	$(BIN)/python -m pip install --quiet --upgrade --no-deps --target .venv/sqlalchemy-2.0 "sqlalchemy==2.0.*"
	touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
