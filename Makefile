# What a newcomer needs: `make train`, then `make test`. Everything else is listed by `make help`.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# One thread for each test process: two processes with two threads each would fight over two cores.
TESTS  := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

.PHONY: help setup train test test-slow test-kills test-faults test-load test-processors test-wheel test-oldest test-arm64 test-cuda test-export test-browser test-integrations notebooks sanitize fuzz bench bench-gpu results docs docs-links setup-tools lock audit licences sbom lint format clean

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

test-kills: setup ## kill trainings at twenty moments with each of two signals, and torchrun's processes, and resume them; libfaketime sets clocks; minutes
	MATCAPS_TEST_KILLS=1 $(TESTS) tests/training/test_kills.py tests/training/test_ranks.py

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

test-browser: docs ## drive the demo, the report and the site's network in a headless Chromium; installs Gradio, playwright and, for want of one, Chromium
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

docs: $(VENV)/.docs ## build the site of docs/ in build/site, any warning being an error; two minutes, later one
	OMP_NUM_THREADS=1 $(BIN)/python tools/browser_page.py
	$(SPHINX) -b html docs build/site
	@echo "the site: build/site/index.html"

docs-links: $(VENV)/.docs ## ask whether the pages that the site's links name are there; needs a network
	$(SPHINX) -b linkcheck docs build/links

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -c 'import furo, latex2mathml, myst_parser, sphinx_copybutton' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

TOOLS_ENV := build/tools
UV_COMPILE = $(TOOLS_ENV)/bin/uv pip compile --config-file requirements/uv.toml --universal --python-version 3.11.5 \
	--generate-hashes --no-header --no-annotate --quiet

$(TOOLS_ENV)/.installed: requirements/tools.txt
	$(PYTHON) -m venv $(TOOLS_ENV)
	PIP_CONSTRAINT= $(TOOLS_ENV)/bin/python -m pip install --quiet --require-hashes --no-deps --requirement $<
	touch $@

setup-tools: $(TOOLS_ENV)/.installed ## make build/tools, with what requirements/tools.txt pins by hashes

lock: $(TOOLS_ENV)/.installed ## write requirements/*.txt, the hashes of what CI installs, as PyPI states them, at constraints.txt's versions
	$(UV_COMPILE) pyproject.toml --constraint constraints.txt --output-file requirements/runtime.txt
	$(UV_COMPILE) pyproject.toml --extra dev --extra docs --constraint constraints.txt --no-emit-package torch --output-file requirements/ci.txt
	$(UV_COMPILE) requirements/tools.in --output-file requirements/tools.txt

audit: $(TOOLS_ENV)/.installed ## ask PyPI for known weaknesses of what constraints.txt and requirements/ pin; needs a network
	$(TOOLS_ENV)/bin/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt
	$(TOOLS_ENV)/bin/pip-audit --strict --disable-pip --require-hashes --requirement requirements/ci.txt
	$(TOOLS_ENV)/bin/pip-audit --strict --disable-pip --require-hashes --requirement requirements/tools.txt

licences: $(TOOLS_ENV)/.installed ## write docs/licences.md, from an environment of its own with all extras but torch's
	$(TOOLS_ENV)/bin/uv pip compile --config-file requirements/uv.toml --quiet --generate-hashes pyproject.toml --all-extras \
		--constraint constraints.txt --no-emit-package matcaps --no-emit-package torch --output-file build/all.txt
	$(TOOLS_ENV)/bin/uv venv --quiet --clear build/all
	$(TOOLS_ENV)/bin/uv pip install --quiet --python build/all/bin/python --require-hashes --no-deps --requirement build/all.txt
	$(TOOLS_ENV)/bin/uv pip install --quiet --python build/all/bin/python --no-deps --constraint constraints.txt torch
	$(TOOLS_ENV)/bin/pip-licenses --python=build/all/bin/python --format=json --with-urls --from=mixed > build/licences.json
	$(BIN)/python tools/write_licences.py build/licences.json

sbom: $(TOOLS_ENV)/.installed ## write build/sbom.json (CycloneDX): what matcaps is and what it installs; tools/add_sbom.py puts it into a wheel
	$(TOOLS_ENV)/bin/cyclonedx-py requirements --pyproject pyproject.toml --mc-type library --output-reproducible \
		--of JSON --output-file build/sbom.json requirements/runtime.txt

lint: setup ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: setup ## mend the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove .venv and what tools left; runs/ stays
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis dist build
