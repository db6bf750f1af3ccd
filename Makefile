# Every target creates the virtual environment that it needs, with Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo serve test ceph-test browser-test command-test data-test cover check docs lowest bench soak clean

# TROVE_DEMO=s3 runs a local S3 server for the cold backend, TROVE_DEMO=cloud also a GCS emulator for the
# archive.
demo: .venv/demo$(TROVE_DEMO:%=-%)  ## files on a hot, a cold and an encrypted archive backend
	$(BIN)/python examples/hot_cold_archive.py
	@echo "Next: 'make serve' runs an HTTP service, with a page that uploads and plays media."

serve: .venv/serve  ## examples/fastapi_service.py, on http://127.0.0.1:8000/
	$(BIN)/uvicorn examples.fastapi_service:app

test: .venv/test  ## all tests
	$(BIN)/python -m pytest --numprocesses=auto

CEPH := ceph-common ceph-mon ceph-osd radosgw

ceph-test: .venv/test  ## the conformance suites against a Ceph gateway (Debian packages)
	@dpkg --status $(CEPH) >/dev/null 2>&1 || \
		{ apt-get update -qq && apt-get install -qq -y --no-install-recommends $(CEPH); }
	$(BIN)/python -m pytest -m ceph --numprocesses=3 --dist=loadscope tests/drivers/s3 tests/testing

command-test: .venv/test  ## with the programs zstd, clamd and rclone (Debian packages, clamd's is clamav-daemon)
	$(BIN)/python -m pytest -m commands tests/middlewares tests/examples tests/jobs

browser-test: .venv/browser  ## the media page in a headless Chromium (Debian packages)
	$(BIN)/python -m pytest -m browser tests/browser

data-test: .venv/data  ## fsspec with pandas, polars, pyarrow, dask, duckdb, zarr, xarray and others
	$(BIN)/python -m pytest -m data tests/data tests/docs

cover: .venv/test  ## all tests, with branch coverage; takes twice as long
	$(BIN)/python -m pytest --numprocesses=auto --cov

check: .venv/check  ## format, lint, types, imports
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/docs  ## the documentation site, in site/; tests/docs runs its code blocks
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The lowest versions that pyproject.toml allows, in a separate environment. Dependencies that only the
# tests need have their latest versions.
LOWEST := .venv-lowest/bin/python
SMOKE := tests/test_docs.py tests/test_store.py tests/integrations/test_extras.py \
	tests/integrations/test_download.py tests/integrations/test_upload.py tests/integrations/test_otel.py \
	tests/integrations/test_fsspec.py tests/integrations/test_obspec.py \
	tests/drivers/gcs/test_credentials.py tests/drivers/gcs/test_conformance.py \
	tests/drivers/s3/test_credentials.py tests/drivers/s3/test_conformance.py \
	tests/middlewares/test_compression.py tests/middlewares/test_seekable_zstd.py \
	tests/middlewares/test_encryption.py tests/jobs/test_dask.py

lowest:  ## some of the tests, with the lowest allowed versions of all dependencies
	$(PYTHON) -m venv --clear .venv-lowest
	$(LOWEST) -m pip --disable-pip-version-check --quiet install 'uv>=0.5'
	$(LOWEST) -m uv pip install --quiet --python $(LOWEST) --resolution lowest-direct --editable '.[all]'
	$(LOWEST) -m uv pip install --quiet --python $(LOWEST) --editable '.[test]'
	$(LOWEST) -m pytest --numprocesses=auto -k 'not Seaweed and not Store and not Routed' $(SMOKE)

# ONLY="s3_vs_peers gcs_vs_peers" runs only these, and keeps the results of the others.
bench: .venv/bench .venv-s3-encryption  ## all benchmarks, compared with peers; writes benchmarks/RESULTS.md
	$(BIN)/python benchmarks/run_all.py $(ONLY)

# A peer of the benchmarks that allows only versions of `cryptography` below ours.
.venv-s3-encryption:
	$(PYTHON) -m venv $@
	$@/bin/python -m pip --disable-pip-version-check --quiet install 'amazon-s3-encryption-client-python>=4' || \
		{ rm -rf $@; exit 1; }

soak: .venv/test  ## long runs of tests that `make test` runs briefly
	$(BIN)/python -m pytest -m soak --timeout=3600 -o faulthandler_timeout=4000

clean:
	rm -rf .venv .venv-lowest .venv-s3-encryption .demo site

# One stamp file per set of extras. It is renewed when pyproject.toml changes.
.venv/%: pyproject.toml | .venv/bin/python
	$(PIP) install --editable '.[$(if $(filter check,$*),dev$(,)bench$(,)docs,$*)]'
	@touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.12 …"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) install --upgrade pip

, := ,
