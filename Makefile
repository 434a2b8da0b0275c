# The two commands of the README, and what the checks call.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test lint types docs release-check study stress bench bench-quick gpu hub clean


demo: $(STAMP)
	$(BIN)/optnas run studies/digits.yaml
	$(BIN)/optnas retrain studies/digits.yaml

# Two processes, each with files of its own: servers and searches are shared within a file.
# FLOOR is in per cent of lines and branches: 93.4 were measured, less where there are no servers.
# What nodes of a cluster, jobs and Triton's interpreter run is not seen.
FLOOR := 92
test: $(STAMP)-test
	$(BIN)/python -m pytest -n 2 --dist loadfile --coverage-floor $(FLOOR)

lint: $(STAMP)-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# A copy that is not editable: type checkers cannot follow an editable one. A folder of templates
# counts as a source file, so that there may be more of them than modules.
types: $(STAMP)-lint
	rm -rf build .venv/types && mkdir -p .venv/types/empty
	$(BIN)/pip install -q --no-deps --target .venv/types/copy .
	cd .venv/types/empty && MYPYPATH=../copy ../../../$(BIN)/mypy \
		--config-file ../../../pyproject.toml --python-executable ../../../$(BIN)/python \
		-p optnas | tee ../report
	files=$$(find .venv/types/copy/optnas -name '*.py' | wc -l); \
		checked=$$(sed -n 's/.*no issues found in \([0-9]*\) source files.*/\1/p' .venv/types/report); \
		test "$${checked:-0}" -ge "$$files"

# The manual, a site in .venv/site. What `make demo` and other runs left in studies/ is shown by its report.
docs: $(STAMP)-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

# The wheel and the sdist, and the wheel in an environment of its own, with all packages anew.
release-check: $(STAMP)
	$(BIN)/pip install -q 'build>=1'
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python tests/release.py dist/*.whl

# The full numbers behind docs/measurements/econas.md, an hour or two:
# make study DATA=folder of the tables.
study: $(STAMP)
	@test -n "$(DATA)" || { echo "make study needs DATA=folder of the tables"; exit 2; }
	$(BIN)/python benchmarks/econas_tables.py --data $(DATA)

# The full numbers behind docs/measurements/workers.md, hours; stopped, the same command goes on.
# A part of it:
# .venv/bin/python tests/stress.py PART ...
stress: $(STAMP)-test
	$(BIN)/pip install -q -e '.[export-executorch]'
	$(BIN)/python -m pytest -q tests/test_exports.py tests/test_face_answers.py
	CLUSTERS=1 $(BIN)/python -m pytest -q tests/test_ray.py
	MUTATIONS=500 $(BIN)/python -m pytest -q tests/test_mutated_study_files.py
	$(BIN)/python tests/terminals.py
	KERNELS=300 $(BIN)/python -m pytest -q tests/test_kernels.py
	TRITON_INTERPRET=0 $(BIN)/python tests/compiling.py --all
	$(BIN)/python tests/stress.py --output .venv/stress.json

# The full figures behind docs/measurements/speed.md, hours: make bench DATA=folder of the data sets
# [DEVICE=cuda] [TRACE=the authors' search]; stopped, the same command goes on.
DEVICE ?= cpu
BENCH := .venv/bench
bench: $(STAMP)
	$(BIN)/python benchmarks/startup.py --output $(BENCH)/startup.json
	$(BIN)/python benchmarks/orchestration.py --output $(BENCH)/orchestration.json
	$(BIN)/python benchmarks/epoch.py --device $(DEVICE) $(if $(DATA),--data $(DATA)) \
		--output $(BENCH)/epoch-$(DEVICE).json
	$(if $(TRACE),$(BIN)/python benchmarks/search.py --device $(DEVICE) --trace $(TRACE) \
		$(if $(DATA),--data $(DATA)) --output $(BENCH)/search-$(DEVICE).json)

# What docs/measurements/gpu.md has, on a GPU, in five minutes or so many SECONDS; the published search in it
# goes on where the last call left it: make gpu [SECONDS=300] [DATA=folder of the data sets].
SECONDS ?= 300
gpu: $(STAMP)-test
	$(BIN)/python benchmarks/gpu.py --seconds $(SECONDS) $(if $(DATA),--data $(DATA)) --output $(BENCH)/gpu.json

# A little of each beside what was recorded last, three minutes; fails where a ratio fell by 20 %.
bench-quick: $(STAMP)
	$(BIN)/python benchmarks/quick.py

# The strategies as packages of OptunaHub, in the layout of its registry.
hub: $(STAMP)
	$(BIN)/python hub/build.py .venv/hub

clean:
	rm -rf .venv build dist *.egg-info studies/*.db* studies/*.artifacts studies/*.network studies/*.html

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q --upgrade pip
	$(BIN)/pip install -e .
	touch $@

# axe-core judges pages in Chromium, where npm and a registry are; else those tests are skipped.
$(STAMP)-test: $(STAMP)
	$(BIN)/pip install -q -e '.[test]'
	! command -v npm > /dev/null || npm install --no-save --silent axe-core || true
	touch $@

$(STAMP)-docs: $(STAMP)
	$(BIN)/pip install -q -e '.[docs]'
	touch $@

$(STAMP)-lint: $(STAMP)
	$(BIN)/pip install -q -e '.[lint]'
	touch $@
