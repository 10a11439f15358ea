# The two commands to know: `make run` and `make test`. See README.md.

SHELL = /bin/bash
.SHELLFLAGS = -euo pipefail -c
.DELETE_ON_ERROR:

VERSION := $(shell sed -n '1s/.*(\(.*\)).*/\1/p' packaging/debian/changelog)
# Another architecture is cross-built, e.g. `make deb ARCH=arm64`.
ARCH := $(shell dpkg --print-architecture)
DEB := build/wgkex_$(VERSION)_$(ARCH).deb
RELAY_DEB := build/wgkex-relay_$(VERSION)_$(ARCH).deb
# Those of a release, without and with the relays that are built along with them.
DEBS := $(patsubst %,build/wgkex_$(VERSION)_%.deb,amd64 arm64)
ALL_DEBS := $(DEBS) $(patsubst %,build/wgkex-relay_$(VERSION)_%.deb,amd64 arm64)

# What goes into the package.
SOURCES := $(shell find cmd internal units packaging docs -type f -not -name '*_test.go' -not -path '*/testdata/*') \
	README.md SECURITY.md LICENSE go.mod go.sum

GOFUMPT = mvdan.cc/gofumpt@v0.12.0
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
LINTIAN = lintian --fail-on error,warning,info --tag-display-limit 0
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.9.0

DEPENDENCIES = apt-utils chromium debhelper dpkg-dev e2fsprogs fakeroot fonts-dejavu-core gcc gnupg libc6-dev lintian mmdebstrap mosquitto mosquitto-clients prometheus qemu-system-x86 qemu-user-static scdoc shellcheck uidmap

.PHONY: all deb deps reproducible architectures repository upgrades run test beside test-long lint unit fuzz browser pictures bench vuln clean FORCE

all: deb

deb: $(DEB)

build/wgkex_$(VERSION)_%.deb: $(SOURCES) | deps
	@packaging/build build $* $(SOURCES)
	@echo "built $@"

# A second build of the same files, elsewhere and later, gives the same bytes.
reproducible: $(DEB)
	rm -rf build/reproducible
	@umask 077; TZ=Pacific/Kiritimati LC_ALL=C packaging/build build/reproducible/in-another-directory $(ARCH) $(SOURCES)
	cd build/reproducible/in-another-directory; for file in *.deb *.dsc *.tar.xz; do cmp $$file ../../$$file; done
	rm -rf build/reproducible

# A signed repository for apt, or new packages in one that is there, see
# docs/operating.md. KEY is that of your GnuPG which signs.
REPOSITORY = build/repository
repository: $(DEBS)
	@[ -n "$(KEY)" ] || { echo "which key signs? make repository KEY=packages@example.org"; exit 2; }
	packaging/repository '$(REPOSITORY)' '$(KEY)' $(ALL_DEBS)

# The unit tests of the other architecture. That the packages of both are in order and
# their programs do the same is seen by lint.
architectures: deps
	GOARCH=arm64 CGO_ENABLED=0 go test $(if $(filter-out arm64,$(ARCH)),-exec qemu-aarch64-static) ./internal/...

# Installs the Debian packages that are missing.
deps:
	@missing=$$(for package in $(DEPENDENCIES); do \
		dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null | grep -qx installed || echo $$package; \
	done); \
	if [ -n "$$missing" ]; then \
		echo "installing Debian packages:" $$missing; \
		sudo=; if [ $$(id -u) -ne 0 ]; then sudo=sudo; fi; \
		$$sudo apt-get update -qq; \
		DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi

# Boots a gateway and shows an exchange with a router.
run: $(DEB)
	test/vm/run -f test/vm/suite/gateway -f test/vm/suite/router test/vm/demo

# First what fails soonest. Then three things at a time, since a VM waits a third of its
# time: the suites of both releases, and one after the other what there is beside them. With
# one processor each VMs are a sixth faster on two emulated ones; test-long has two.
test: lint unit
	$(MAKE) -j3 VM_CPUS=1 AFTER=beside vm-bookworm vm-trixie reboot-bookworm
	@echo "all tests passed"

# What is tested beside the suites, before the reboots. One after the other, so that none of
# it takes the place of a suite.
beside: $(DEB)
	$(MAKE) fuzz
	$(MAKE) browser
	test/repository $(DEB) $(RELAY_DEB)

# What takes too long for each change: attacks at full size, Ansible, what the tests of
# each change run on one release alone, the reboots of the other, a second build, the
# unit tests of arm64, a short run of the bench, apt from a repository, and upgrades from
# earlier versions. Run it before a release.
test-long:
	$(MAKE) reproducible
	$(MAKE) architectures
	bench/run --smoke
	$(MAKE) -j2 vm-bookworm vm-trixie RUN='^TestLong|$(subst $$,$$$$,$(NOT_bookworm)|$(NOT_trixie))'
	$(MAKE) reboot-trixie
	$(MAKE) -j2 VM_CPUS=1 apt-bookworm apt-trixie
	$(MAKE) -j2 VM_CPUS=1 upgrades

lint: deps
	@unformatted=$$(go run $(GOFUMPT) -l .); \
	if [ -n "$$unformatted" ]; then echo "not formatted by gofumpt:" $$unformatted; exit 1; fi
	go vet ./...
	go vet -tags vm,browser ./...
	go run $(STATICCHECK) -tags vm,browser ./...
	git ls-files -co --exclude-standard | xargs awk 'FNR == 1 && /^#!.*[\/ ](ba)?sh$$/ { print FILENAME } { nextfile }' | xargs shellcheck
	promtool check rules packaging/prometheus/wgkex.rules.yml
	promtool test rules packaging/prometheus/wgkex.rules.test.yml
	promtool check metrics < internal/metrics/testdata/metrics.prom
	$(MAKE) $(DEBS)
	$(LINTIAN) $(patsubst %.deb,%.changes,$(DEBS))
	test/architectures $(ALL_DEBS)

unit:
	go test -race ./...

# A short run of each fuzz target; FUZZTIME=10m for a long one. A number of runs,
# since a time that is up in the middle of one can count as a failure.
FUZZTIME = 5000x
fuzz:
	@grep -rl '^func Fuzz' --include='*_test.go' internal | while read -r file; do \
		sed -n 's/^func \(Fuzz[A-Za-z]*\).*/\1/p' "$$file" | while read -r target; do \
			echo "fuzzing $$target for $(FUZZTIME)"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "./$$(dirname "$$file")"; \
		done; \
	done

# The page in a real browser. The tests have as long as a slow machine takes; what they
# wait for comes in any case.
browser: deps
	go test -tags browser -run '^TestBrowser|^TestPictures' -timeout 60m ./internal/metrics

# Makes the pictures in the documents anew.
pictures: deps
	go test -tags browser -run '^TestPictures' -timeout 60m ./internal/metrics -args -pictures $(CURDIR)/docs

VM_CPUS = 2

# Tests that take half a minute or more and are about wgkex, not about what differs
# between the releases: each runs on one of the two, and what is in both lists in test-long
# alone. Debian 12 has the reboots, too.
NOT_bookworm = TestHostileFlood|TestCheckFinds|TestClockIsSet|TestHTTPFlood|TestRestoreFiles|TestTurnedAway|TestFirewallSurvives|TestManyAtOnce|TestContainerReports|TestCheckForMonitoring|TestRefusals|TestLeftOver|TestManual|TestUpgradeLeaves|TestHTTPTunnel|TestHTTPInterface|TestMetricsPrometheus|TestHTTPClients|TestRestore$$|TestRestoreRules|TestConfigurationChanges|TestRefusedLeaveNothing|TestForeignCounters|TestKeysRepeated|TestCleanupTimer|TestFirewall$$|TestListenAddress|TestOthersChangePeers
NOT_trixie = TestRelay$$|TestCleanupState|TestLockHeld|TestHTTPBehindNginx|TestGuideLeads|TestReadmeLeads|TestRestoreMany|TestKeysRepeated|TestReadingWhile|TestEveryStep|TestLimitsUnderAttack|TestSaveFails|TestHTTPLocalSocket|TestPage$$|TestAdd$$|TestMetricsOfManyPeers|TestApply$$|TestContainerWithoutJournal|TestCleanupAgainstExchange|TestGuideMetrics|TestSmoke|TestSystemCalls|TestRemovalStops|TestCollision|TestApplyWithoutDBus|TestHTTPRestart|TestGluonProfile|TestCleanup$$|TestMetrics$$|TestModuleAbsent|TestLogIsBounded|TestMetricsPrometheus|TestContainerReports|TestHTTPFlood|TestTunnel$$|TestPackage|TestInterfacesComeAndGo

# The suites of one release in one VM, e.g. `make vm-bookworm RUN=Refusals`.
# TestLong... run only when asked for.
vm-%: $(DEB) build/vm/suite.test build/vm/kernel.test build/vm/probe
	mkdir -p build/vm/$*/suite-files
	cp build/vm/probe build/vm/$*/suite-files
	cp test/vm/suite/{gateway,router,http-router,worker} packaging/debian/tests/smoke build/vm/$*/suite-files
	cp -r packaging/ansible/roles bench/classic build/vm/$*/suite-files
	rm -rf build/vm/$*/suite-files/upgrades
	[ -z '$(UPGRADES)' ] || cp -r $(UPGRADES) build/vm/$*/suite-files/upgrades
	printf '%s\n' $(if $(RUN),-test.run '$(RUN)',-test.skip '^(TestLong|TestEarlierVersions|$(NOT_$*))') > build/vm/$*/suite-files/arguments
	WGKEX_VM_DEB=$(DEB) WGKEX_VM_TIMEOUT=4800 WGKEX_VM_CPUS=$(VM_CPUS) test/vm/run -r $* -f build/vm/$*/suite-files -f build/vm/suite.test -f build/vm/kernel.test -f $(DEB) -f $(RELAY_DEB) test/vm/suite/run 2>&1 | sed -u 's/^/$*: /'

# A VM of one release that boots several times: what becomes of routers when the
# gateway does. AFTER names what has to be over before.
reboot-%: $(DEB) $(AFTER)
	mkdir -p build/vm/reboot-$*/suite-files
	cp test/vm/suite/{gateway,router} build/vm/reboot-$*/suite-files
	WGKEX_VM_DEB=$(DEB) WGKEX_VM_CPUS=$(VM_CPUS) test/vm/run -b -r $* -f build/vm/reboot-$*/suite-files test/vm/suite/reboot 2>&1 | sed -u 's/^/$* reboot: /'

# apt in a VM of one release installs from a repository, and upgrades from it.
apt-%: $(DEB)
	test/vm/repositories build/vm/apt-$* $(DEB) $(RELAY_DEB)
	WGKEX_VM_DEB=$(DEB) WGKEX_VM_CPUS=$(VM_CPUS) test/vm/run -r $* -f build/vm/apt-$*/repositories test/vm/suite/apt 2>&1 | sed -u 's/^/$* apt: /'

# From the packages of earlier versions to this one, with routers that come meanwhile.
upgrades: upgrades-bookworm upgrades-trixie

upgrades-%: build/upgrades $(DEB)
	$(MAKE) vm-$* RUN='^TestEarlierVersions$$$$' UPGRADES=build/upgrades

build/upgrades: test/upgrades
	test/upgrades $@
	touch $@

build/vm/suite.test: FORCE
	CGO_ENABLED=0 go test -c -tags vm -trimpath -o $@ ./test/vm/suite

build/vm/kernel.test: FORCE
	CGO_ENABLED=0 go test -c -tags vm -trimpath -o $@ ./internal/kernel

build/vm/probe: FORCE
	CGO_ENABLED=0 go build -trimpath -o $@ ./test/vm/probe

FORCE:

# Measurements, see docs/performance.md.
bench: $(DEB)
	bench/run

# Known vulnerabilities in what the programs call. It asks the Go vulnerability
# database, or the copy at VULNDB=URL; nothing else here needs the internet but
# for modules and packages, so `make test` does without.
vuln:
	go run $(GOVULNCHECK) $(if $(VULNDB),-db $(VULNDB)) ./...

clean:
	rm -rf build
