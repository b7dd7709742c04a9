# ssi: `make lab` starts a three-node cluster on this machine, `make test` proves it.
# `make help` lists the rest.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

export CGO_ENABLED := 0
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
GOBUILD := go build -trimpath -ldflags '$(LDFLAGS)'
PREFIX  ?= /usr
DESTDIR ?=
FUZZTIME ?= 20s

# What the tests use beside Go, all from Debian.
APT := bash dash coreutils hostname procps psmisc iproute2 python3 util-linux groff-base git make gcc g++ libc6-dev bsdutils \
	strace gdb lsof htop sudo passwd stress-ng
# Machines, what boots them, and what they are compared with.
APT += qemu-system-x86 qemu-utils ipxe-qemu seabios ovmf ipxe pxelinux syslinux-common systemd-boot-efi mmdebstrap e2fsprogs \
	busybox-static dnsmasq-base curl zstd
# The packages with tests of machines, the longest first, and the tests that are it. Two packages at a time, for a machine
# takes a processor while it boots.
VM_PACKAGES := ./test ./init/install ./netboot/... ./lab ./init ./internal/vmtest ./cluster/ntp ./internal/netconf
VM_TESTS    := Machine|Namespace|Network|Boot|VM|Owner|QEMU

.PHONY: help build lab test test-race test-vm test-generic bench bench-vm lint fuzz install man generate deps cross clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-10s %s\n", $$1, $$2}' Makefile

build: ## the static binary ./ssi
	$(GOBUILD) -o ssi .

cross: ## arm64 compiles
	GOARCH=arm64 go build -trimpath -o /dev/null .

lab: build ## three nodes on this machine and a shell on node 1
	./ssi lab run -n 3

deps: ## install by apt what the tests need, or say what is missing
	@.ci/deps $(APT)

# Not from the cache (-count=1): it does not know the binary that some tests build.
test: deps build cross ## all tests
	go vet ./...
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$unformatted" || { echo "not gofmt-ed: $$unformatted"; exit 1; }
	SSI_TEST_VM_LATER=1 go test -count=1 -timeout 20m ./...
	$(MAKE) test-race test-vm

# The race detector is the one thing that needs cgo.
test-race: deps ## all packages once more under the race detector
	SSI_TEST_VM_LATER=1 CGO_ENABLED=1 go test -race -short -count=1 -timeout 20m ./...

test-vm: deps ## machines under QEMU: power-on, PXE, power cuts
	go test -count=1 -timeout 30m -p 2 -run '$(VM_TESTS)' $(VM_PACKAGES)

test-generic: deps ## a machine with an e1000 boots Debian's generic kernel; fetches 100 MB once
	SSI_TEST_GENERIC=1 go test -count=1 -timeout 30m -v -run TestMachinesGeneric ./test

bench: build ## measure everything beside its peer, print a table
	@.ci/deps openssh-server etcd-server etcd-client iproute2 procps pdsh strace git python3 gcc libc6-dev tar
	go run ./internal/tools/bench -ssi ./ssi

bench-vm: build ## measure booting: DHCP, TFTP and HTTP beside dnsmasq, Kea and tftpd-hpa; power-on to UP
	@.ci/deps $(APT) kea-admin kea-dhcp4-server tftpd-hpa tftp-hpa
	SSI_BENCH_DHCP=1 go test -count=1 -v -run TestPerfdhcp ./netboot/dhcp
	SSI_BENCH=1 go test -count=1 -v -run TestSpeed ./netboot/tftp
	go test -run '^$$' -bench . ./netboot/httpboot
	SSI_BENCH=1 go test -count=1 -v -timeout 40m -run 'TestBootTimes|TestTimeOfMachines' ./test

# Pinned here and not in go.mod: its 200 dependencies are no business of ours.
lint: ## golangci-lint with the rules of .golangci.yml
	go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 run ./...

fuzz: ## every fuzz target for FUZZTIME
	.ci/fuzz $(FUZZTIME)

man: ## man pages and completions into .build/
	go run ./internal/tools/man .build/man

install: build man ## the binary, its links and man pages
	install -D -m 0755 ssi $(DESTDIR)/sbin/ssi
	$(DESTDIR)/sbin/ssi --install $(DESTDIR)$(PREFIX)/bin --target /sbin/ssi
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 && install -m 0644 .build/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1/

generate: ## the .pb.go files from the .proto files
	@.ci/deps protobuf-compiler
	.ci/generate

clean: ## what was built
	rm -rf ssi .build
