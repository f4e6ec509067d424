# SPDX-License-Identifier: Apache-2.0 OR MIT
# The front door. What a target does is in the script of the same name under ci/, all of which can be run by hand too.

.PHONY: help run run-single run-dual run-file test soak bench lint format build prerequisites kernel monitor image clean distclean
.PHONY: attack fuzz sanitize loom prerequisites-attack prerequisites-tests stock-image
.NOTPARALLEL:
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/capstream
# What cVMs run on, and the LLVM that builds for it; ci/environment says what the values mean.
TARGET ?= x86_64
TARGETS := x86_64 cheri-riscv64
export TARGET
ifneq ($(CHERI_SDK),)
export CHERI_SDK
endif
# make says what there is; make TARGET=... builds it.
.DEFAULT_GOAL := $(if $(filter command line,$(origin TARGET)),build,help)

help:
	@echo "CapStream: Linux kernels and their programs as compartments of one process"
	@echo
	@echo "  make run          build everything and run the three examples"
	@echo "  make run-single   one cVM: a program that sends itself a message"
	@echo "  make run-dual     two cVMs: a sender and a receiver"
	@echo "  make run-file     one cVM that reads and writes a buffer of the monitor"
	@echo "  make test         build for all targets, check the style, run all tests"
	@echo "  make soak         an hour of messages while cVMs are killed and restarted; SECONDS=60 for a minute"
	@echo "  make attack       fuzz it for a moment, run tests under sanitizers, try interleavings"
	@echo "  make bench        build everything and measure it against what it replaces"
	@echo
	@echo "  make prerequisites, kernel, monitor, image, lint    single steps of the above"
	@echo "  make fuzz, sanitize, loom    single steps of make attack, each longer; for"
	@echo "                    make fuzz SECONDS=3600 FUZZ=virtqueue"
	@echo "  make format       formats the Rust sources as lint wants them"
	@echo "  make clean        remove what was built"
	@echo "  make distclean    remove the cache folder too: $(CACHE)"
	@echo
	@echo "  make run TARGET=cheri-riscv64    the same cVMs on a simulated CHERI-RISC-V processor;"
	@echo "                    other targets take TARGET too. CHERI_SDK=FOLDER builds with that LLVM"
	@echo
	@echo "  make run V=1      shows the monitor's log and those of the kernels"
	@echo "  make test FILTER=stream, make bench BENCH='--runs 3 calls'    a part of them"
	@echo
	@echo "The first build takes some minutes. Only the installation of missing Debian packages"
	@echo "needs root; it says what it installs."

prerequisites:
	@ci/prerequisites
kernel: prerequisites
	@ci/build-kernel
monitor: prerequisites
	@ci/build-monitor
image: prerequisites
	@ci/build-image
build: kernel monitor image

run: build
	@ci/run-example single dual file
run-single run-dual run-file: run-%: build
	@ci/run-example $*
lint: prerequisites
	@ci/lint
format: prerequisites
	@ci/format
# Programs of Debian for the tests; they run on this target only.
stock-image: prerequisites
	@TARGET=x86_64 ci/build-stock-image
test: $(TARGETS:%=build-%) stock-image lint prerequisites-tests
	@ci/test $(FILTER)
# One target after the other, whatever TARGET says.
.PHONY: $(TARGETS:%=build-%)
$(TARGETS:%=build-%): build-%:
	@$(MAKE) --no-print-directory TARGET=$* build
# SECONDS of messages, kills and restarts; SEED repeats a run.
soak: build
	@ci/soak $(or $(SECONDS),3600) $(SEED)
# Besides what is needed to build: a compiler for programs of the tests.
prerequisites-tests:
	@TARGET=x86_64 ci/prerequisites tests
# Runtimes of sanitizers, cargo-fuzz.
prerequisites-attack:
	@ci/prerequisites attack
attack: prerequisites-attack
	@ci/attack
fuzz: prerequisites-attack
	@ci/fuzz $(or $(SECONDS),600) $(FUZZ)
sanitize: prerequisites-attack
	@ci/sanitize
loom: prerequisites
	@ci/loom
bench: $(TARGETS:%=build-%) stock-image
	@ci/run-bench $(BENCH)

clean:
	@rm -rf target "$(CACHE)/kernel" "$(CACHE)/kernel-riscv64" "$(CACHE)/target"
	@echo "removed target, $(CACHE)/kernel, $(CACHE)/kernel-riscv64 and $(CACHE)/target"
distclean: clean
	@rm -rf "$(CACHE)"
	@echo "removed $(CACHE)"
