# Everything a developer does here is a target with a line of help; `make` alone lists them.

.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X main.version=$(VERSION)
FUZZTIME ?= 10m
N        ?= 5000

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

.PHONY: build
build: ## Build bin/eventhose, one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/eventhose ./cmd/eventhose

# GOGC: the tests make much garbage and hold little; collecting it less often saves some of the time. So do test binaries without what
# only a debugger reads, not vetting twice, finding what another clone compiled (-trimpath), three packages at once, since some wait, and
# beginning with those that take longest, some that wait much beside some that compute much.
# No result is remembered: what runs the built binary would not be run again for every change of it. What the tests build is built
# alike, with bin/test.mod (test/pebble says why).
TESTFLAGS = GOFLAGS="$${GOFLAGS-} -trimpath '-modfile=$(CURDIR)/bin/test.mod'" CGO_ENABLED=1
LONGEST  := ./test/interop ./internal/embedded ./internal/deliver ./internal/crashtest ./test/browser ./internal/postgres ./internal/httpapi
.PHONY: test
test: test-needs proto-check web-check ## Vet, then every test with the race detector; what a change must pass
	@test/pebble
	$(TESTFLAGS) $(GO) vet -race ./...
	$(TESTFLAGS) $(GO) test -race -vet=off -ldflags=-w -run '^TestFloors|^TestWaysOut' .
	$(TESTFLAGS) GOGC=400 GORACE=atexit_sleep_ms=0 $(GO) test -race -vet=off -ldflags=-w -p 3 -count 1 -timeout 30m $(LONGEST) ./...
	cd test/differential && $(GO) vet ./... && $(GO) test ./...
	cd test/deploy && $(GO) vet ./... && $(GO) test ./...

.PHONY: web
web: web-packages ## Bundle the pages of web/ into internal/dashboard/dist
	web/node_modules/.bin/tsc -p web
	$(GO) run -C tools ./web build

.PHONY: web-check
web-check: web-packages # The pages are well typed, the bundle is theirs and not too large
	web/node_modules/.bin/tsc -p web
	$(GO) run -C tools ./web check

.PHONY: screenshots
screenshots: test-needs web-packages ## Pictures of every page, light, dark and 390 pixels wide, into docs/images
	EVENTHOSE_SCREENSHOTS=$(CURDIR)/docs/images $(GO) test -count 1 -timeout 10m -run '^TestEveryPage$$/^embedded$$' ./test/browser

.PHONY: web-packages
web-packages:
	@[ web/node_modules/.package-lock.json -nt web/package-lock.json ] || { npm ci --prefix web --ignore-scripts --no-audit --no-fund --loglevel=error >&2 && touch web/node_modules/.package-lock.json; }

.PHONY: test-needs
test-needs: # What the tests use that Go does not bring: a C compiler for the race detector, PostgreSQL, Node and Python for the interop oracles, Chromium for the pages
	@test/needs

.PHONY: proto
proto: ## Generate the code of proto/eventhose/v1
	@test/proto generate

.PHONY: proto-check
proto-check: # Lint the .proto files, look for what would break clients of the last release, and that the generated code is theirs
	@test/proto check

.PHONY: lint
lint: bin/golangci-lint ## golangci-lint with .golangci.yml
	bin/golangci-lint run ./...

bin/golangci-lint: tools/go.mod
	$(GO) build -C tools -o ../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

.PHONY: bench
bench: build ## Measure this machine: every scenario, for 30 s each (docs/performance.md)
	bin/eventhose bench $(ARGS)

.PHONY: fuzz
fuzz: ## Fuzz every parser for FUZZTIME (10m) each
	@test/fuzz $(FUZZTIME)

.PHONY: crash
crash: ## For an hour: kill -9 the real binary N (5000) times under load and check every promise
	CGO_ENABLED=1 EVENTHOSE_KILLS=$(N) $(GO) test -race -count 1 -timeout 24h -v -run '^TestKill$$' ./internal/crashtest

.PHONY: soak
soak: ## For hours: 10,000,000 events behind a dead destination, 100,000 webhooks at a worker of 200/s, ten minutes of killed and frozen nodes and of live events in a browser, 1,000,000 appends in order, lists over 1,000,000 events
	EVENTHOSE_LISTS=1000000 $(GO) test -count 1 -timeout 24h -v -run '^TestLists$$' ./internal/httpapi
	EVENTHOSE_LIVE_SECONDS=600 $(GO) test -count 1 -timeout 1h -v -run '^TestLive$$' ./test/browser
	EVENTHOSE_BACKLOG=10000000 $(GO) test -count 1 -timeout 24h -v -run '^TestBacklogIsTheLog$$' ./internal/deliver
	EVENTHOSE_FLOOD=100000 $(GO) test -count 1 -timeout 1h -v -run '^TestFlood$$' ./test/interop
	CGO_ENABLED=1 EVENTHOSE_NODES_SECONDS=600 $(GO) test -race -count 1 -timeout 24h -v -run '^TestNodes$$' ./internal/crashtest
	CGO_ENABLED=1 EVENTHOSE_ORDER_APPENDS=1000000 $(GO) test -race -count 1 -timeout 24h -v -run '^TestOrderUnderDelay$$' ./internal/postgres
	CGO_ENABLED=1 EVENTHOSE_GROWTH_APPENDS=1000000 $(GO) test -race -count 1 -timeout 24h -v -run '^TestGrowth$$' ./internal/postgres
