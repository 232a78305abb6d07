# make demo and make test work on a machine with Python 3.11 or later and make; the environment
# goes into .venv. Both work again without a network.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
COMPILED := hatch_build.py $(wildcard src/vicinal/mixing/kernels/native/*.c)

.PHONY: demo test check bench clean

demo: .venv/study
	$(BIN)/vicinal study digits --out runs/digits
	@echo "Open runs/digits/report.html in a browser."

# Two processes; their threads wait asleep, since those that spin take the cores from each other.
test: .venv/dev
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Up to three minutes on two cores. Leave the machine idle meanwhile.
bench: .venv/dev
	$(BIN)/python benchmarks/mixing.py --out benchmarks/results

clean:
	rm -rf .venv runs

$(BIN)/python:
	$(PYTHON) -m venv .venv

# A file of that name in .venv says that the packages are there, for these two lists of them, and that
# the C loop is compiled as it is now.
.venv/study .venv/dev: .venv/%: pyproject.toml constraints.txt $(COMPILED) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[$*]"
	@touch $@
