# Every target is enough by itself on a machine with Python >= 3.10, make and
# git: `make demo` trains and compares two detectors, `make test` runs the
# tests. Both create .venv first; a finished install is not repeated, and one
# that was interrupted starts over.
PYTHON ?= python3
VENV ?= .venv
STACK ?= onedl
EXTRAS ?= $(STACK),dev$(if $(filter onedl,$(STACK)),$(comma)seg$(comma)cls)
DATA ?=
ARGS ?=
comma := ,
PY := $(VENV)/bin/python
# With -q, --strict would ignore warnings.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict
STAMP := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))


.PHONY: install demo test test-slow lint docs evidence bench gpu-check clean

install: $(STAMP)

$(STAMP): setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "mmext needs Python >= 3.10; this is $$($(PYTHON) --version)." \
	    "Name another: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@if [ -e $(VENV)/.installing ]; then \
	  echo 'The last install was interrupted: starting over.'; \
	  rm -rf $(VENV); fi
	@[ -x $(PY) ] && $(PY) -m pip --version >/dev/null 2>&1 || { \
	  rm -rf $(VENV); $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo 'Could not create $(VENV): on Debian, apt-get install' \
	    'python3-venv.'; exit 1; }; }
	@touch $(VENV)/.installing
	$(PY) -m pip install --disable-pip-version-check --no-compile -e '.[$(EXTRAS)]'
	@# OpenCV's default wheel needs libGL, which servers lack.
	@$(PY) -c 'import cv2' 2>/dev/null || $(PY) -m pip install \
	  --disable-pip-version-check --force-reinstall --no-deps \
	  opencv-python-headless
	@rm -f $(VENV)/.installing && touch $@

demo: install
	$(PY) tools/demo.py $(if $(DATA),--data '$(DATA)') $(ARGS)

test: install
	$(PY) -m pytest -n auto --dist worksteal -m 'not slow' $(ARGS)

test-slow: install
	$(PY) -m pytest -m slow $(ARGS)

lint: install
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/lint-imports --no-logo
	$(MKDOCS)

# The documentation as a site: open site/index.html.
docs: install
	$(MKDOCS)

# docs/evidence.md from the plans and records in evidence/.
evidence: install
	$(PY) benchmarks/evidence.py

bench: install
	@# These two take an hour or more: start them by themselves.
	for script in $(filter-out %/bootstrap_coverage.py %/faults.py \
	  %/gpu_check.py, \
	  $(wildcard benchmarks/*.py)); do $(PY) $$script || exit 1; done

# On a machine with a GPU: at most eight minutes, writes gpu_check.md.
gpu-check: install
	$(PY) benchmarks/gpu_check.py $(ARGS)

clean:
	rm -rf $(VENV) build dist site work_dirs *.egg-info
