# One command for each thing a newcomer does. Needs make and Python 3.11 or newer; everything else goes into .venv.
#   make PYTHON=python3.12 test     another interpreter
#   make PORT=5001 ui               another port
#   make TESTS=tests/unit test      some of the tests, in words of pytest
#   make JOBS=4 test                more of them at a time

PYTHON ?= python3
VENV ?= .venv
PORT ?=
TESTS ?=
JOBS ?= 2
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PYTEST_JOBS := $(PY) -m pytest --numprocesses $(JOBS) --no-loadscope-reorder

# $(call timed,name,command): run a command and say how long it took.
define timed
@echo "--- $(1)"; start=$$(date +%s); $(2) && echo "--- $(1): $$(( $$(date +%s) - start )) s"
endef

.PHONY: help install demo test test-slow test-long test-gpu test-cluster check ui clean distclean
.DEFAULT_GOAL := help

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

install: $(STAMP) ## Create .venv with everything in it; the other targets do this themselves
	@echo "$(VENV) is ready; next: make demo, make test, or the list of make help"

# The stamp comes last, so that an interrupted installation is taken up again.
$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
	  echo "error: $(PYTHON) is not on the PATH; install Python 3.11 or newer, or name one: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $$($(PYTHON) --version 2>&1) is too old; Python 3.11 or newer is needed: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) has no venv module; on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
	@rm -f $(STAMP)
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); the first time takes some minutes, PyTorch is large."
	$(call timed,install,$(PY) -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev]')
	$(call timed,compile,$(PY) -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true)
	@touch $(STAMP)

demo: $(STAMP) ## Make a small data set, train on it, test the model, print the table
	$(call timed,prepare,$(PY) pipelines/prepare.py demo --output build/demo)
	$(call timed,train and test,$(PY) pipelines/train_demo.py --config experiments/demo/morphmlp_demo.yaml --json build/demo.json)
	$(call timed,table,$(PY) pipelines/tables.py --dataset demo)

test: $(STAMP) ## Run the tests
	$(call timed,tests,$(PYTEST_JOBS) $(TESTS))

test-slow: $(STAMP) ## Run the tests that start whole clusters and sweeps, and those of the other decoders
	$(call timed,slow tests,$(PYTEST_JOBS) -m slow $(TESTS))

test-long: $(STAMP) ## Run the tests that take minutes each: elastic clusters, populations, compiled blocks
	$(call timed,long tests,$(PY) -m pytest -m long $(TESTS))

test-gpu: $(STAMP) ## Run the tests that need a GPU, on one
	$(call timed,GPU tests,$(PY) -m pytest -m gpu $(TESTS))

test-cluster: $(STAMP) ## Bring up a cluster of several hosts on this machine, run on it, break it, remove it; needs root
	$(call timed,cluster tests,$(PY) -m pytest -m cluster --capture=no tests/cluster)

check: $(STAMP) ## Lint, formatting, types, import floors, spelling
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/codespell

# MLflow's pages on this machine only. Where MLFLOW_TRACKING_URI names a server, its pages are already there.
ui: $(STAMP) ## Show the recorded runs in a browser
	@case "$${MLFLOW_TRACKING_URI:-}" in \
	  http://*|https://*) echo "The runs are recorded at $$MLFLOW_TRACKING_URI: open it in a browser."; exit 0 ;; \
	  "") store="sqlite:///$(CURDIR)/mlruns/mlflow.db" ;; \
	  *) store="$$MLFLOW_TRACKING_URI" ;; \
	esac; \
	case "$$store" in sqlite:///*) [ -f "$${store#sqlite:///}" ] || { \
	  echo "There are no runs yet in $${store#sqlite:///}: make demo records the first one."; exit 0; } ;; esac; \
	port="$(PORT)"; \
	[ -n "$$port" ] || port=$$($(PY) -c 'import socket; busy = socket.socket().connect_ex(("127.0.0.1", 5000)) == 0; \
	  s = socket.socket(); s.bind(("127.0.0.1", 0 if busy else 5000)); print(s.getsockname()[1])'); \
	echo "The runs are at http://127.0.0.1:$$port/#/experiments?workflowType=machine_learning ; Ctrl-C ends the pages."; \
	MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false exec $(VENV)/bin/mlflow server --backend-store-uri "$$store" --host 127.0.0.1 --port "$$port" --workers 1

clean: ## Remove caches and build/ with the demo videos; runs/, mlruns/ and data/ stay
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## The same and .venv
	rm -rf $(VENV)
