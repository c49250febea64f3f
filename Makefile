.PHONY: install test lint format type bench clean

install:
	pip install -e ".[all,dev]"

test:
	pytest -n auto

lint:
	ruff check .
	ruff format --check .

format:
	ruff check --fix .
	ruff format .

type:
	mypy

bench:
	python benchmarks/speed.py

clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
