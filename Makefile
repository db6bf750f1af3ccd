# Every target makes the virtual environment that it needs; nothing but Python >= 3.11 is assumed.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo serve test ceph-test browser-test cover check lowest bench soak clean

# TROVE_DEMO=s3 makes the cold backend a real S3 server, started for the occasion; TROVE_DEMO=cloud
# makes the archive a server of Google Cloud Storage's API as well.
demo: .venv/demo$(TROVE_DEMO:%=-%)  ## the main job: files over a hot, a cold and an archive backend
	$(BIN)/python examples/hot_cold_archive.py
	@echo "Next: 'make serve' runs a file service over HTTP, with a page that uploads and plays."

serve: .venv/serve  ## the service of examples/fastapi_service.py, on http://127.0.0.1:8000/
	$(BIN)/uvicorn examples.fastapi_service:app

test: .venv/test  ## all tests
	$(BIN)/python -m pytest --numprocesses=auto

CEPH := ceph-common ceph-mon ceph-osd radosgw

ceph-test: .venv/test  ## the conformance suites against a real Ceph gateway: Debian's packages
	@dpkg --status $(CEPH) >/dev/null 2>&1 || \
		{ apt-get update -qq && apt-get install -qq -y --no-install-recommends $(CEPH); }
	$(BIN)/python -m pytest -m ceph --numprocesses=2 --dist=loadscope tests/drivers/s3 tests/testing

browser-test: .venv/browser  ## the media page in a headless Chromium: Debian's chromium and chromium-driver
	$(BIN)/python -m pytest -m browser tests/browser

cover: .venv/test  ## all tests, with branch coverage: twice as long
	$(BIN)/python -m pytest --numprocesses=auto --cov

check: .venv/check  ## format, lint, types, imports
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

# The versions that pyproject.toml says are enough, in an environment of their own: all that a program
# would install is at its lowest, and what only tests need is as it comes.
LOWEST := .venv-lowest/bin/python
SMOKE := tests/test_docs.py tests/test_store.py tests/integrations/test_extras.py \
	tests/integrations/test_downloads.py tests/integrations/test_uploads.py tests/integrations/test_otel.py \
	tests/drivers/gcs/test_credentials.py tests/drivers/gcs/test_conformance.py \
	tests/drivers/s3/test_credentials.py tests/drivers/s3/test_conformance.py

lowest:  ## a part of the tests with the lowest versions that are allowed of everything
	$(PYTHON) -m venv --clear .venv-lowest
	$(LOWEST) -m pip --disable-pip-version-check --quiet install 'uv>=0.5'
	$(LOWEST) -m uv pip install --quiet --python $(LOWEST) --resolution lowest-direct --editable '.[all]'
	$(LOWEST) -m uv pip install --quiet --python $(LOWEST) --editable '.[test]'
	$(LOWEST) -m pytest --numprocesses=auto -k 'not Seaweed and not Store and not Routed' $(SMOKE)

bench: .venv/bench  ## every benchmark, beside its peers; tables to benchmarks/RESULTS.md
	$(BIN)/python benchmarks/run_all.py

soak: .venv/test  ## the long runs of what `make test` runs short
	$(BIN)/python -m pytest -m soak --timeout=3600 -o faulthandler_timeout=4000

clean:
	rm -rf .venv .venv-lowest .demo

# A stamp a set of extras: made again when what is installed may have changed.
.venv/%: pyproject.toml | .venv/bin/python
	$(PIP) install --editable '.[$(if $(filter check,$*),dev$(,)bench,$*)]'
	@touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.12 …"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) install --upgrade pip

, := ,
