# What a newcomer needs: `make train`, then `make test`. Everything else is listed by `make help`.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# One thread for each test process: two processes with two threads each would fight over two cores.
TESTS  := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

.PHONY: help setup train test test-slow test-kills test-faults test-load test-processors test-wheel test-oldest test-arm64 test-cuda test-export test-browser test-integrations notebooks sanitize fuzz bench bench-gpu results docs docs-links lint format clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

setup: $(VENV)/.installed ## make .venv and install matcaps into it, as constraints.txt pins it

$(VENV)/.installed: pyproject.toml constraints.txt $(wildcard native/CMakeLists.txt native/src/* native/src/kernels/*) $(wildcard src/matcaps/*/__init__.py)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

train: setup ## train the quickstart network on the images that come with matcaps, one to three minutes
	$(BIN)/matcaps train quickstart

test: setup ## check style and run the tests; those on real data need MATCAPS_TEST_DATA
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(TESTS)

test-slow: setup ## the tests of the compiled core at every size and of torch.compile, of which make test has some; minutes
	MATCAPS_TEST_SLOW=1 $(TESTS) tests/routing/test_native_values.py tests/test_inductor.py

test-kills: setup ## kill trainings at twenty moments with each of two signals, and resume them; libfaketime sets clocks; minutes
	MATCAPS_TEST_KILLS=1 $(TESTS) tests/training/test_kills.py

test-faults: setup ## have every call about files of every command fail, on its own and from then on; Linux; an hour or two
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.support.faults $(FAULTS)

test-load: setup ## days of training in LOAD_MINUTES (60), and as long fifty visitors of the demo: memory, files, answers
	$(BIN)/python -c 'import gradio' 2>/dev/null || $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo]'
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.support.load --minutes $(or $(LOAD_MINUTES),60)

test-processors: setup ## run the tests as several processors would, older instruction sets and two threads; an hour
	$(BIN)/python tools/test_processors.py

test-wheel: setup ## build the wheel and test it away from the sources, with and without a compiler
	$(BIN)/python tools/test_wheel.py

test-oldest: setup ## test with the oldest versions that pyproject.toml allows, in an environment of their own
	$(BIN)/python tools/test_oldest.py

test-arm64: ## run the core's NEON code under QEMU; needs Debian's g++-aarch64-linux-gnu and qemu-user; some minutes
	native/tests/arm64.sh build/arm64

CUDA_TESTS := $(addprefix tests/routing/test_cuda_,values.py torch.py boundary.py launch.py compile.py faults.py sanitizers.py)

test-cuda: setup ## test the CUDA kernels at every size, on a GPU or emulated; `make test` has some sizes; many minutes
	MATCAPS_TEST_CUDA=1 $(TESTS) $(CUDA_TESTS) tests/benchmarks/test_gpu_visit.py
	MATCAPS_TEST_CUDA=1 $(TESTS) -k cuda tests/routing/test_laws.py

test-export: setup ## export every preset and hold it to the network in onnxruntime; many minutes
	MATCAPS_TEST_EXPORT=1 $(TESTS) tests/models/test_export.py

test-browser: setup ## drive the demo and the report in a headless Chromium; installs Gradio, playwright and, for want of one, Chromium
	$(BIN)/python -c 'import gradio, playwright' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo]' playwright
	command -v chromium || command -v chromium-browser || command -v google-chrome || \
		$(BIN)/python -m playwright install chromium
	MATCAPS_TEST_BROWSER=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/demo tests/browser

test-integrations: setup ## test matcaps inside other libraries (docs/fitting-in.md), which are installed for it
	$(BIN)/python -c 'import captum, skorch, transformers' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[integrations]'
	MATCAPS_TEST_INTEGRATIONS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/integrations \
		tests/documents/test_examples.py -k 'integrations or fitting-in'

notebooks: setup ## run the notebooks in docs/notebooks, some minutes; with MATCAPS_NOTEBOOKS=small as the tests run them
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.support.notebooks

sanitize: setup ## run the compiled core and the CUDA kernels under sanitizers, and valgrind where it is; some minutes
	native/tests/sanitize.sh build/sanitize
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.support.cuda.sanitize build/sanitize

fuzz: setup ## give every reader of files mutated files, FUZZ_SECONDS each (5); installs Atheris
	$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet --constraint constraints.txt atheris
	$(BIN)/python -m pytest -q tests/fuzz
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.support.fuzz --seconds $(or $(FUZZ_SECONDS),5)

bench: setup ## time the operator against the reference and torch.compile of it; many minutes
	$(BIN)/python -m benchmarks.cpu.bench

bench-gpu: setup ## on a machine with an NVIDIA GPU: test the GPU path, then time it; benchmarks/gpu.sh needs no setup
	$(BIN)/python -m benchmarks.gpu.bench

results: setup ## write docs/results and the README's table from the records in docs/records
	$(BIN)/python tools/write_results.py

SPHINX := $(BIN)/python -m sphinx --nitpicky --fail-on-warning --keep-going --quiet

docs: $(VENV)/.docs ## build the site of docs/ in build/site, any warning being an error; a minute
	$(SPHINX) -b html docs build/site
	@echo "the site: build/site/index.html"

docs-links: $(VENV)/.docs ## ask whether the pages that the site's links name are there; needs a network
	$(SPHINX) -b linkcheck docs build/links

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -c 'import furo, latex2mathml, myst_parser, sphinx_copybutton' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

lint: setup ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: setup ## mend the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove .venv and what tools left; runs/ stays
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis dist build
