# Everything a checkout needs. `make` lists the targets; `make PYTHON=python3.12 venv` chooses the interpreter.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
CONSTRAINTS := env/constraints.txt
PIP := $(RUN) -m pip install --disable-pip-version-check -c $(CONSTRAINTS)
DEMO := outputs/demo
WEIGHTS := checkpoints/synthetic-tiny

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-slow check format notebook clean

help:  ## list the targets
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  \1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '%-12s %s\n' "$$name" "$$text"; \
	done

venv: $(READY)  ## make .venv and install the package in it, with the exact versions of env/constraints.txt

# torch first and exactly: resolved together with the rest, pip may take another build of it
$(READY): pyproject.toml $(CONSTRAINTS)
	@interpreter=$(RUN); [ -x "$$interpreter" ] || interpreter='$(PYTHON)'; \
	"$$interpreter" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
		echo "expected Python 3.10 or newer, got $$interpreter: $$("$$interpreter" --version 2>&1 | tail -n 1)" \
			"(choose one: make PYTHON=python3.11 venv)" >&2; \
		exit 1; \
	}
	@[ -x $(RUN) ] || '$(PYTHON)' -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
	$(PIP) "$$(grep '^torch==' $(CONSTRAINTS))"
	$(PIP) -e ".[dev]"
	@touch $@

demo: $(READY)  ## a synthetic clip -> panoptic maps, an animation and scores, with the weights of the repository
	@[ -d $(WEIGHTS) ] || { echo "$(WEIGHTS): not there; the demo needs the weights of the repository" >&2; exit 1; }
	rm -rf $(DEMO)
	$(RUN) -m pix2seq_d.data.synthetic --output $(DEMO)/data --split val --num_sequences 1 --num_frames 36 \
		--height 96 --width 320 --seed 0 --difficulty default
	$(RUN) inference.py --input_folder $(DEMO)/data/images/val --output_folder $(DEMO) --checkpoint $(WEIGHTS) \
		--confidence
	$(RUN) evaluate.py --predictions $(DEMO)/panoptic --ground_truth $(DEMO)/data/panoptic_maps/val \
		--label_spec kitti-step --output $(DEMO)/metrics.json
	$(RUN) -m pix2seq_d report --predictions $(DEMO) --metrics $(DEMO)/metrics.json
	@echo
	@echo "Look at $(DEMO)/report.html (all of it, in a browser), $(DEMO)/overview (animation)," \
		"$(DEMO)/overlay (frames), $(DEMO)/panoptic (maps) and $(DEMO)/metrics.json (scores)."

test: $(READY)  ## the tests: CPU, no network
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --maxprocesses 4 --dist loadfile

test-slow: $(READY)  ## the tests that take minutes
	$(RUN) -m pytest -m slow

check: $(READY)  ## formatting, lint, types, import layering
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(RUN) -m pytest tests/test_house.py -k layering

format: $(READY)  ## rewrite the files as `check` wants them
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

notebook: $(READY)  ## open visualize.ipynb
	@$(RUN) -c 'import jupyterlab' 2>/dev/null || $(PIP) -e ".[notebook]"
	$(RUN) -m jupyterlab visualize.ipynb

clean:  ## remove caches, builds and the demo's output; .venv, data/ and results/ stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage $(DEMO)
	find . \( -path ./$(VENV) -o -path ./data -o -path ./results -o -path ./.git \) -prune -o \
		-type d -name __pycache__ -exec rm -rf {} +
