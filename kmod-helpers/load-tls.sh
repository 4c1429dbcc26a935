#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Loads the kernel's TLS and the ciphers ktlsgate uses, says what it did, and fails if kTLS is still
# not there. Knows nothing of the daemon; ktlsgate-probe tells what works afterwards.
set -u

# load MODULE WHY: 0 if it is there, loaded now or before or built in.
load() {
	if [ -d "/sys/module/$1" ]; then
		echo "$1: already there ($2)"
	elif error=$(modprobe "$1" 2>&1); then
		echo "$1: loaded ($2)"
	else
		echo "$1: cannot be loaded ($2): ${error:-modprobe failed}"
		return 1
	fi
}

status=0
load tls "the TLS upper layer protocol of TCP sockets" || status=1
# Without them TLS_TX and TLS_RX fail with ENOENT for an unprivileged process.
load gcm "AES-128-GCM and AES-256-GCM" || status=1
load chacha20poly1305 "ChaCha20-Poly1305" || status=1
# Only speed hangs on these, and only where the CPU has the instructions.
if grep -qw aes /proc/cpuinfo; then
	load aesni_intel "AES by the CPU's own instructions" || :
fi

if [ ! -r /proc/net/tls_stat ]; then
	echo "load-tls: no /proc/net/tls_stat: this kernel has no kTLS (CONFIG_TLS)" >&2
	status=1
fi
exit $status
