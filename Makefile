# A machine with Python >= 3.11 and make needs nothing else: every target makes the environment it needs, in .venv.
#
# A finished environment leaves a stamp inside itself, as its last act; one without the right stamp is made anew. The stamp's
# name is a checksum of what the environment depends on: the requirements, the folder it lies in, and the Python asked for.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
KEY := $(shell { cat setup.cfg pyproject.toml; echo '$(subst ','\'',$(CURDIR))' '$(PYTHON)'; } | cksum | cut -d ' ' -f 1)
CORE := $(VENV)/.ready-core-$(KEY)
TEST := $(VENV)/.ready-test-$(KEY)
TORCH := $(shell sed -n 's/^ *torch==//p' setup.cfg)
PEERS_VENV := .venv-peers
PEERS := $(PEERS_VENV)/.ready-peers-$(KEY)
SOURCES := $(wildcard nlhfsim tests benchmarks docs notebooks/*.py)
WORKERS ?= 2
DEMO_OUT := $(or $(OUT),demo-output)
BENCHMARKS_OUT := $(or $(OUT),benchmark-output)
DOCS_OUT := $(or $(OUT),docs/_build)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.DEFAULT_GOAL := help
.PHONY: help demo test lint pytest coverage docs benchmarks package clean always

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(CORE) ## run the demonstration; its figures go to demo-output (OUT=…)
	$(BIN)/nlhfsim demo --out $(DEMO_OUT)

test: lint pytest ## lint, then run every test and every documented example

lint: $(TEST) ## check style, formatting and types
	$(BIN)/python -m flake8 $(SOURCES)
	$(BIN)/python -m black --check --quiet --diff -l 130 $(SOURCES)
	$(BIN)/python -m mypy

pytest: $(TEST) ## run the tests and the documented examples (WORKERS=…)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

coverage: $(TEST) ## run the tests with the compiler off, and show the lines that none reaches
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --cov --cov-report term-missing

docs: $(TEST) ## build the documentation; start at docs/_build/index.html (OUT=…)
	$(BIN)/python -m sphinx -W --keep-going -q -b html -d $(DOCS_OUT)/.doctrees docs $(DOCS_OUT)
	@echo "the documentation is in $(DOCS_OUT)/index.html"

benchmarks: $(PEERS) ## time the package beside others (PARTS=…, QUICK=1); results go to benchmark-output (OUT=…)
	$(PEERS_VENV)/bin/python -m benchmarks $(PARTS) $(if $(QUICK),--quick) --out $(BENCHMARKS_OUT)

package: $(TEST) ## build the sdist and the wheel, install the wheel elsewhere and try it
	@work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && trap 'exit 1' HUP INT TERM && \
	$(BIN)/python -m build --outdir "$$work/dist" . > "$$work/log" 2>&1 || { cat "$$work/log"; exit 1; } && \
	$(BIN)/python -c "$$CHECK_ARCHIVES" "$$work/dist" && \
	$(BIN)/python -m venv --without-pip "$$work/env" && \
	$(BIN)/python -m pip --quiet --python "$$work/env/bin/python" install --no-deps "$$work"/dist/*.whl && \
	dependencies=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	echo "$$dependencies" > "$$("$$work/env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/dependencies.pth" && \
	version=$$($(BIN)/python -c 'import nlhfsim; print(nlhfsim.__version__)') && \
	cd "$$work" && env/bin/python -c "$$CHECK_INSTALLED" "$$version" && env/bin/nlhfsim --help > help && grep -q demo help && \
	echo "nlhfsim $$version: the sdist and the wheel are complete, and the installed wheel works"

clean: ## remove .venv and everything else that was made here
	rm -rf $(VENV) $(PEERS_VENV) $(DEMO_OUT) $(BENCHMARKS_OUT) $(DOCS_OUT) docs/reference/_generated docs/reference/api build dist *.egg-info .pytest_cache .mypy_cache .hypothesis .coverage .coverage.* htmlcov
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

$(CORE):
	@python=$$(for candidate in $(if $(PYTHON),'$(PYTHON)',python3.13 python3.12 python3.11 python3); do \
	    if "$$candidate" -c "$$CHECK_PYTHON" > /dev/null 2>&1; then echo "$$candidate"; break; fi; done); \
	if [ -z "$$python" ]; then \
	    echo "nlhfsim needs Python 3.11 or newer with its venv module, and $(or $(PYTHON),none of python3.13, python3.12, python3.11, python3)" \
	        "is$(if $(PYTHON), not,) that; install one or name it: make PYTHON=/path/to/python3" >&2; exit 1; fi; \
	set -ex; rm -rf $(VENV); "$$python" -m venv $(VENV); $(BIN)/python -m pip install --quiet --editable .
	@touch $@

# The first stamp is gone while the packages change, so that an interrupted run leaves none. PyTorch comes first, in its build for
# CPUs, from wherever there is one: the usual build brings gigabytes that no test needs.
$(TEST): $(CORE)
	@rm -f $(VENV)/.ready-*
	$(BIN)/python -m pip install --quiet --no-deps 'torch==$(TORCH)+cpu' 2> /dev/null || \
	    $(BIN)/python -m pip install --quiet --no-deps --index-url https://download.pytorch.org/whl/cpu 'torch==$(TORCH)' || true
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $(CORE) $@

# The rivals get an environment of their own, so that the checks above never see them.
$(PEERS): | $(CORE)
	set -ex; rm -rf $(PEERS_VENV); $(BIN)/python -m venv $(PEERS_VENV); \
	$(PEERS_VENV)/bin/python -m pip install --quiet --editable '.[peers]'
	@touch $@

# The Python below an old environment may be gone.
ifeq ($(wildcard $(BIN)/python),)
$(CORE): always
endif

define CHECK_PYTHON
import sys, venv, ensurepip
sys.exit(sys.version_info < (3, 11))
endef
export CHECK_PYTHON

define CHECK_ARCHIVES
import pathlib, sys, tarfile, zipfile
[sdist], [wheel] = (list(pathlib.Path(sys.argv[1]).glob(pattern)) for pattern in ("*.tar.gz", "*.whl"))
in_wheel = set(zipfile.ZipFile(wheel).namelist())
in_sdist = {name.partition("/")[2] for name in tarfile.open(sdist).getnames()}
junk = (".pyc", ".nbc", ".nbi", ".DS_Store")
source = {p.as_posix() for p in pathlib.Path("nlhfsim").rglob("*") if p.is_file() and "__pycache__" not in p.parts and not p.name.endswith(junk)}
tests = {p.as_posix() for p in pathlib.Path("tests").rglob("*.py")}
lost = sorted(source - in_wheel) + sorted((source | tests | {"LICENSE", "README.md", "CITATION.cff", "Makefile"}) - in_sdist)
strange = sorted(name for name in in_wheel if not name.startswith(("nlhfsim/", "nlhfsim-")))
if lost or strange:
    sys.exit(f"left out of the wheel or the sdist: {lost}; in the wheel without belonging there: {strange}")
endef
export CHECK_ARCHIVES

define CHECK_INSTALLED
import importlib.metadata, pathlib, sys
import nlhfsim
home = pathlib.Path(nlhfsim.__file__).resolve().parent
assert home.is_relative_to(pathlib.Path(sys.prefix).resolve()), f"{home} is not the installed wheel"
assert (home / "py.typed").is_file(), "the wheel has no py.typed"
assert nlhfsim.__version__ == importlib.metadata.version("nlhfsim") == sys.argv[1], "the versions differ"
endef
export CHECK_INSTALLED
