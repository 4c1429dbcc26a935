# SPDX-License-Identifier: Apache-2.0
# ktlsgate: `make help` lists the targets. Builds into build/ (B=...), quietly (V=1 shows commands).

B       ?= build
ifeq ($(origin CC),default)
CC       = gcc
endif
CLANG   ?= clang
CFLAGS  ?= -O2 -g
VERSION := 0.1.0

WARN     = -Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Wvla -Wformat=2 -Werror
HARDEN   = -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE
CPPFLAGS += -D_GNU_SOURCE -DKTLSGATE_VERSION='"$(VERSION)"' -Idaemon -Ibpf -I$(B)/bpf
ALL_CFLAGS = -std=gnu11 $(WARN) $(CFLAGS) $(HARDEN) $(CPPFLAGS) -MMD -MP -pthread
ALL_LDFLAGS = -pie -Wl,-z,relro,-z,now -pthread $(LDFLAGS)
LIBS     = -luring -lbpf -lssl -lcrypto -lseccomp -lcap

DAEMON_SRC := $(filter-out daemon/supervisor/main.c,$(wildcard daemon/*/*.c))
DAEMON_OBJ := $(DAEMON_SRC:%.c=$(B)/%.o)
LIB        := $(B)/libktlsgate.a
PROGRAMS   := $(B)/ktlsgated $(B)/ktlsgatectl $(B)/ktlsgate-forge $(B)/ktlsgate-probe \
		$(B)/ktlsgate-offload $(B)/ktlsgate-ns-import
BPF_SRC    := $(wildcard bpf/*.bpf.c)
SKELETONS  := $(BPF_SRC:bpf/%.bpf.c=$(B)/bpf/%.skel.h)
UNIT       := $(patsubst tests/unit/%.c,$(B)/unit/%,$(wildcard tests/unit/test_*.c))

all: $(PROGRAMS)

# V=1 shows the commands.
Q = $(if $(V),,@)
say = $(if $(V),,@printf '  %-4s %s\n' $(1) $(2))

$(B)/ktlsgated: $(B)/daemon/supervisor/main.o $(LIB)
	$(call say,LINK,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) -lm
$(B)/ktlsgatectl: $(B)/tools/ktlsgatectl.o $(B)/tools/ctl_forge.o $(B)/daemon/base/escape.o
	$(call say,LINK,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^
$(B)/ktlsgate-forge: $(B)/tools/ktlsgate-forge.o $(LIB)
	$(call say,LINK,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ -lssl -lcrypto
$(B)/ktlsgate-probe: $(B)/kmod-helpers/probe.o $(LIB)
	$(call say,LINK,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ -luring -lbpf -lcrypto

$(B)/ktlsgate-offload: $(B)/kmod-helpers/nic-offload.o
	$(call say,LINK,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ -lnl-genl-3 -lnl-3
$(B)/kmod-helpers/nic-offload.o: CPPFLAGS += -I/usr/include/libnl3

# Python, one file of a package. It writes no key that this ktlsgated does not have.
NS_IMPORT := $(wildcard tools/ns_import/*.py)
$(B)/ktlsgate-ns-import: $(NS_IMPORT) $(B)/ktlsgated Makefile
	$(call say,ZIP,$@)
	$(Q)rm -rf $(B)/ns_import && mkdir -p $(B)/ns_import/ns_import
	$(Q)cp $(NS_IMPORT) $(B)/ns_import/ns_import && cp tools/ns_import/__main__.py $(B)/ns_import
	$(Q)keys=$$($(B)/ktlsgated --keys | sed 1d | cut -f 1 | tr '\n' ' ') && \
		sed -i -e 's/^VERSION = .*/VERSION = "$(VERSION)"/' \
		-e "s/^KNOWN = .*/KNOWN = frozenset(\"$$keys\".split())/" \
		$(B)/ns_import/ns_import/settings.py
	$(Q)python3 -m zipapp -c -p /usr/bin/python3 -o $@ $(B)/ns_import

$(LIB): $(DAEMON_OBJ)
	$(call say,AR,$@)
	$(Q)rm -f $@
	$(Q)$(AR) rcs $@ $^

$(B)/%.o: %.c | $(SKELETONS)
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -c -o $@ $<

# BPF: only UAPI headers are used, so the objects do not depend on the build machine's kernel.
BPF_CFLAGS = -O2 -g -Wall -Werror -target bpf -Ibpf -I/usr/include/$(shell uname -m)-linux-gnu
$(B)/bpf/%.bpf.o: bpf/%.bpf.c $(wildcard bpf/*.h)
	$(call say,BPF,$@)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(BPF_CFLAGS) -c -o $@ $<
$(B)/bpf/%.skel.h: $(B)/bpf/%.bpf.o
	$(call say,SKEL,$@)
	$(Q)bpftool gen skeleton $< name $*_bpf > $@.tmp && mv $@.tmp $@

# Programs of the tests: traffic through a whole gate, and through the relay alone; and what makes
# system calls of a gate fail.
PEER  := $(B)/tests/ktlsgate-peer
RELAY := $(B)/tests/ktlsgate-relay-test
PRELOAD := $(B)/tests/fault.so
# What passes by the fault injector, tests/fault, on its way.
FAULT_OBJ   := $(patsubst %,$(B)/tests/fault/%.o,fault fault_calls fault_ring)
FAULT_CALLS := splice send recv sendmsg recvmsg poll setsockopt getsockopt socket ioctl pipe2 fcntl \
	malloc calloc realloc reallocarray ring_new ring_free ring_wait ring_complete ring_cancel \
	ring_accept_multishot ring_poll_multishot ring_poll ring_connect ring_recv ring_send
WRAP        := $(FAULT_CALLS:%=-Wl,--wrap=%)
FAULTY      := $(B)/tests/ktlsgated-faults
CASES := $(B)/tests/ktlsgate-verify-cases
# A daemon whose processes can be captured by a test.
CAPTURED := $(B)/tests/ktlsgated-captured
TESTPROGS := $(PEER) $(RELAY) $(CASES) $(FAULTY) $(CAPTURED) $(PRELOAD)
$(B)/tests/%.o: CPPFLAGS += -Itests/fault
$(PEER): $(patsubst %.c,$(B)/%.o,$(wildcard tests/peer/*.c))
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ -lssl -lcrypto -lm
$(RELAY): $(patsubst %.c,$(B)/%.o,$(wildcard tests/relay/*.c)) $(FAULT_OBJ) $(LIB)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_LDFLAGS) $(WRAP) -o $@ $^ $(LIBS) -lm
$(CASES): $(B)/tests/verify/verify_cases.o $(LIB)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ -lssl -lcrypto
$(FAULTY): $(B)/daemon/supervisor/main.o $(FAULT_OBJ) $(B)/tests/fault/fault_env.o $(LIB)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_LDFLAGS) $(WRAP) -o $@ $^ $(LIBS) -lm
$(CAPTURED): $(B)/daemon/supervisor/main.o $(B)/tests/captured/captured.o $(LIB)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_LDFLAGS) -Wl,--wrap=poll,--wrap=__poll_chk,--wrap=answer_run,--wrap=resolver_run -o $@ $^ \
		$(LIBS) -lm
$(PRELOAD): tests/fault/preload.c
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(filter-out -fPIE,$(ALL_CFLAGS)) -fPIC -shared $(LDFLAGS) -o $@ $<

# Programs of tools/bench: the floor, the signer with nothing around it, and hostile chains.
BENCHPROGS := $(B)/tools/bench/floor $(B)/tools/bench/signer $(B)/tools/bench/hostile
$(BENCHPROGS): %: %.o $(LIB)
	$(call say,LINK,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) -lm

testprogs: $(TESTPROGS) $(BENCHPROGS)
unit: $(UNIT)
$(B)/unit/%: tests/unit/%.c $(LIB)
	$(call say,UNIT,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -Itests/unit $(ALL_LDFLAGS) -o $@ $< $(LIB) $(LIBS)


# ---- what a fresh Debian 12 lacks ----

DEPS_BUILD := gcc libc6-dev clang bpftool pkg-config liburing-dev libbpf-dev libssl-dev \
	libseccomp-dev libcap-dev linux-libc-dev libnl-genl-3-dev
DEPS_QUICKSTART := curl openssl nginx-light
DEPS_CHECK := python3 python3-pytest python3-cryptography gnutls-bin procps iproute2 kmod \
	busybox-static cpio zstd xz-utils openssl curl nginx-light haproxy strace systemd libnss3-tools \
	softhsm2 libengine-pkcs11-openssl lintian libclang-rt-dev
DEPS_LINT := clang-format clang-tidy shellcheck libclang-rt-dev mandoc
DEPS_FUZZ := libclang-rt-dev
DEPS_DEB := debhelper dpkg-dev fakeroot
# Of `make bench` only: what people run in place of ktlsgate.
DEPS_BENCH := nginx-light libnginx-mod-stream haproxy

# $(call need,PACKAGES): asks dpkg first, so that nothing is downloaded when nothing is missing.
define need
	@missing=$$(for p in $(1); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | \
		grep -q 'install ok' || echo $$p; done); \
	[ -z "$$missing" ] || { echo "installing:" $$missing; apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		-o Dpkg::Use-Pty=0 $$missing >/dev/null; }
endef

deps:
	$(call need,$(DEPS_BUILD) $(DEPS_QUICKSTART) $(DEPS_CHECK) $(DEPS_LINT) $(DEPS_DEB))

# A second make: the compiler may only be there now.
quickstart:
	$(call need,$(DEPS_BUILD) $(DEPS_QUICKSTART))
	@$(MAKE) --no-print-directory all
	@tools/quickstart $(B)

KERNELS ?= 6.1 7.3
check:
	$(call need,$(DEPS_BUILD) $(DEPS_CHECK) $(DEPS_DEB))
	@$(MAKE) --no-print-directory all unit testprogs
	@KTLSGATE_BUILD=$(abspath $(B)) tests/check.py $(addprefix --kernel ,$(KERNELS)) $(CHECK)

check-kernels:
	@$(MAKE) --no-print-directory check KERNELS="6.1 6.12 6.18 7.3" CHECK=--full

# Three in five of them through the relay alone, one in five there with faults, one in five whole.
SOAK_FLOWS ?= 100000
soak:
	@$(MAKE) --no-print-directory all testprogs
	@KTLSGATE_BUILD=$(abspath $(B)) KTLSGATE_SOAK=$(SOAK_FLOWS) /usr/bin/python3 -m pytest -q -s \
		-p no:cacheprovider -p no:xdist tests/test_soak.py

# BENCH=name,...: those alone; see tools/bench/bench --help. ARGS: further options of it.
BENCH ?=
bench:
	$(call need,$(DEPS_BUILD) $(DEPS_CHECK) $(DEPS_BENCH))
	@$(MAKE) --no-print-directory all testprogs
	@KTLSGATE_BUILD=$(abspath $(B)) tools/bench/bench $(ARGS) $(subst $(comma), ,$(BENCH))
comma := ,

# What needs a kernel with TLS or netem, each in a guest that counts instructions.
bench-guest:
	$(call need,$(DEPS_BUILD) $(DEPS_CHECK) $(DEPS_BENCH))
	@$(MAKE) --no-print-directory all testprogs $(FLOOR)
	@mkdir -p $(B)/bench
	@for k in $(KERNELS); do \
		KTLSGATE_BUILD=$(abspath $(B)) tests/guest/run --icount --kernel $$k --memory 3072 \
			--timeout 3000 --out $(B)/bench -- tools/bench/bench --icount --repeats 2 \
			--bytes 67108864 --pings 50 --first-bytes 10 --delay 20 --clients 1 \
			--gates nginx,haproxy,user,ktls,ktls-copy,floor --json /mnt/out/$$k.json $(ARGS) \
			$(or $(subst $(comma), ,$(BENCH)),bytes-1 ping first-byte) || exit 1; done

# ---- installing ----

# As a Debian package has it. `make install` needs what `make` has built and nothing from the net.
PREFIX     ?= /usr
sysconfdir ?= /etc
mandir     ?= $(PREFIX)/share/man
docdir     ?= $(PREFIX)/share/doc/ktlsgate
unitdir    ?= /lib/systemd/system
# PUT MODE FILE... DIRECTORY: below DESTDIR
put = install -D -p -m $(1) -t $(DESTDIR)$(3) $(2)

install: all
	$(call put,755,$(B)/ktlsgated,$(PREFIX)/sbin)
	$(call put,755,$(filter-out %/ktlsgated,$(PROGRAMS)),$(PREFIX)/bin)
	$(call put,755,kmod-helpers/load-tls.sh,$(PREFIX)/libexec/ktlsgate)
	$(call put,644,$(wildcard man/*.8),$(mandir)/man8)
	$(call put,644,$(wildcard man/*.5),$(mandir)/man5)
	$(call put,644,$(wildcard man/*.1),$(mandir)/man1)
	$(call put,644,README.md NEWS.md SECURITY.md HACKING.md $(wildcard docs/*.md),$(docdir))
	$(call put,644,config/ktlsgate.conf config/grafana/ktlsgate.json,$(docdir)/examples)
	$(call put,755,tools/mkpki.sh,$(docdir)/examples)
	$(call put,644,config/systemd/ktlsgate.service,$(unitdir))
	sed -i 's|/usr/\(s\?bin\)/|$(PREFIX)/\1/|' $(DESTDIR)$(unitdir)/ktlsgate.service
	$(call put,644,kmod-helpers/modules-load.d/ktlsgate.conf,$(PREFIX)/lib/modules-load.d)
	$(call put,644,kmod-helpers/sysctl.d/50-ktlsgate.conf,$(PREFIX)/lib/sysctl.d)
	$(call put,644,config/sysusers.d/ktlsgate.conf,$(PREFIX)/lib/sysusers.d)
	$(call put,644,config/tmpfiles.d/ktlsgate.conf,$(PREFIX)/lib/tmpfiles.d)
	$(call put,644,config/bash-completion/ktlsgatectl,$(PREFIX)/share/bash-completion/completions)
	@# What somebody has edited is not ours to replace.
	[ -e $(DESTDIR)$(sysconfdir)/ktlsgate/ktlsgate.conf ] || \
		$(call put,644,config/ktlsgate.conf,$(sysconfdir)/ktlsgate)

# The package is made of what is in $(B), so nothing is compiled twice; it ends up in $(B)/deb.
deb:
	$(call need,$(DEPS_BUILD) $(DEPS_DEB))
	@$(MAKE) --no-print-directory all
	rm -rf $(B)/deb && mkdir -p $(B)/deb/src
	git ls-files -co --exclude-standard -z | xargs -0 cp --parents -p -t $(B)/deb/src
	cd $(B)/deb/src && B=$(abspath $(B)) dpkg-buildpackage -b -nc -us -uc >../build.log 2>&1 || \
		{ tail -40 ../build.log; exit 1; }
	rm -rf $(B)/deb/src
	@ls $(B)/deb/*.deb

# ---- for developers ----

SANITIZE = -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
asan:
	@$(MAKE) --no-print-directory B=build-asan HARDEN=-fPIE CFLAGS="-O1 -g $(SANITIZE)" \
		LDFLAGS="$(SANITIZE)" all unit testprogs
	@KTLSGATE_BUILD=$(abspath build-asan) KTLSGATE_STRESS=300 KTLSGATE_STALLED=500 KTLSGATE_SOAK=1500 \
		KTLSGATE_FUZZ_SECONDS=0 tests/check.py --no-guest

# What threads share: the forge cache, counters, commands, the hand-over of the relay's test.
TSAN_TESTS := tests/test_stress.py tests/test_relay.py tests/test_control.py \
	tests/test_bpf.py tests/test_cli.py
# -Wno-tsan: it does not know fences; resolver.c has two, between processes, which it cannot see anyway.
tsan:
	@$(MAKE) --no-print-directory B=build-tsan HARDEN=-fPIE CFLAGS="-O1 -g -fsanitize=thread -Wno-tsan" \
		LDFLAGS=-fsanitize=thread all unit testprogs
	@KTLSGATE_BUILD=$(abspath build-tsan) KTLSGATE_STRESS=300 KTLSGATE_RELAY_FLOWS=2000 KTLSGATE_SCALE=3 \
		/usr/bin/python3 -m pytest -q -p no:cacheprovider -p no:xdist $(TSAN_TESTS)

lint:
	$(call need,$(DEPS_BUILD) $(DEPS_LINT))
	@tools/lint

# The daemon once more, by clang, so that the fuzzer sees which branches an input takes; each target
# of tests/fuzz is linked with that. See tests/fuzz/README.md.
FUZZ        = -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
FUZZ_CFLAGS = -std=gnu11 -O1 -g -fno-omit-frame-pointer $(WARN) $(CPPFLAGS) -Itools -Itests/fuzz \
	-MMD -MP -pthread
FUZZ_LIB    := $(B)/fuzz/libktlsgate.a
FUZZ_COMMON := $(B)/fuzz/tests/fuzz/fuzz.o $(B)/fuzz/tests/fuzz/cert.o
FUZZERS     := $(patsubst tests/fuzz/%.c,$(B)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))

$(B)/fuzz/%.o: %.c | $(SKELETONS)
	$(call say,FUZZ,$@)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(FUZZ_CFLAGS) $(FUZZ) -c -o $@ $<
$(FUZZ_LIB): $(DAEMON_SRC:%.c=$(B)/fuzz/%.o)
	$(call say,AR,$@)
	$(Q)rm -f $@
	$(Q)$(AR) rcs $@ $^
$(FUZZERS): $(B)/fuzz/%: $(B)/fuzz/tests/fuzz/%.o $(FUZZ_COMMON) $(FUZZ_LIB)
	$(call say,LINK,$@)
	$(Q)$(CLANG) $(FUZZ) -fsanitize=fuzzer -pthread -o $@ $^ $(LIBS) -lm
$(B)/fuzz/selftest: $(B)/fuzz/tests/fuzz/selftest.o $(B)/fuzz/tests/fuzz/fuzz.o
	$(call say,LINK,$@)
	$(Q)$(CLANG) $(FUZZ) -fsanitize=fuzzer -o $@ $^ -lcrypto
fuzzers: $(FUZZERS) $(B)/fuzz/selftest

# Several at a time; FUZZ_TARGETS="chain crl": those alone.
FUZZ_SECONDS ?= 600
FUZZ_TARGETS ?=
fuzz:
	$(call need,$(DEPS_BUILD) $(DEPS_FUZZ))
	@$(MAKE) --no-print-directory fuzzers
	@tests/fuzz/run --build $(B)/fuzz --seconds $(FUZZ_SECONDS) $(FUZZ_TARGETS)

format:
	git ls-files -z -- "*.[ch]" | xargs -0 clang-format -i

example: $(B)/ktlsgated
	$(B)/ktlsgated --example > config/ktlsgate.conf

man: $(B)/ktlsgated
	tools/mkman $(B)/ktlsgated

help:
	@echo "make               build into $(B)/"
	@echo "make quickstart    build, run a gate with a throwaway PKI, show what happens, clean up"
	@echo "make check         all tests, natively and in guests with the kernels $(KERNELS)"
	@echo "make check-kernels the same with all four kernels and, there, many more flows; hours"
	@echo "make soak          SOAK_FLOWS=$(SOAK_FLOWS) flows with aborts and faults; nothing may be left"
	@echo "make bench         against nginx and HAProxy, side by side; BENCH=name for one figure"
	@echo "make bench-guest   kernel TLS and delayed packets, in guests: KERNELS=\"7.3 6.18\""
	@echo "make asan          the native tests under AddressSanitizer and UBSan"
	@echo "make tsan          what threads share, under ThreadSanitizer"
	@echo "make lint          formatting, include fences, warnings of gcc and clang, clang-tidy"
	@echo "make fuzz          each fuzz target for FUZZ_SECONDS=$(FUZZ_SECONDS); FUZZ_TARGETS=\"chain crl\""
	@echo "make install       programs, manual, units, configuration; DESTDIR, PREFIX=$(PREFIX)"
	@echo "make deb           a Debian package, in $(B)/deb"
	@echo "make deps          install the Debian packages that are missing"
	@echo "make example       write config/ktlsgate.conf from the table of keys"
	@echo "make man           the generated parts of man/ from the tables of keys and counters"
	@echo "make format, clean"

clean:
	rm -rf build build-*

.PHONY: all unit testprogs deps quickstart check check-kernels soak bench bench-guest asan tsan lint fuzz fuzzers \
	format example help clean install deb man
.SECONDARY:
-include $(shell find $(B) -path $(B)/deb -prune -o -type f -name '*.d' -print 2>/dev/null)
