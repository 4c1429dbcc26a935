#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes a throwaway PKI for the quickstart and the tests: clients, servers and a
# forging CA, each under a root of its own. Not for production: keys lie in the clear.
set -eu

usage() {
	cat <<-END
	Usage: mkpki.sh [--rsa] DIR
	Make a throwaway PKI in DIR, which must be new or empty.

	  --rsa   RSA 2048 keys instead of P-256

	  client-ca.pem        root that clients are verified against
	  client-chain.pem     client.pem (Alice Example), then its intermediate CA
	  server-ca.pem        root of web.pem (localhost, app.example, 127.0.0.1)
	                       and backend.pem (backend.example)
	  forge-ca.pem         forging CA, an intermediate below forge-root.pem
	  forge-chain.pem      forge-ca.pem, then forge-root.pem
	  NAME.key             the key of NAME.pem
	END
}

keyalg="-newkey ec -pkeyopt ec_paramgen_curve:P-256"
dir=
for arg in "$@"; do
	case $arg in
	--rsa) keyalg="-newkey rsa:2048" ;;
	-h | --help) usage; exit 0 ;;
	-*) echo "mkpki.sh: $arg: unknown option" >&2; usage >&2; exit 2 ;;
	*)
		[ -z "$dir" ] || { echo "mkpki.sh: one DIR only" >&2; exit 2; }
		dir=$arg
		;;
	esac
done
[ -n "$dir" ] || { usage >&2; exit 2; }

umask 077
[ -d "$dir" ] || { mkdir -p "$dir" && chmod 755 "$dir"; }
cd "$dir"
[ -z "$(ls -A)" ] || { echo "mkpki.sh: $dir is not empty" >&2; exit 1; }
trap 'rm -f mkpki.cnf' EXIT

# Own configuration: the system's openssl.cnf must not matter.
cat >mkpki.cnf <<'END'
[req]
distinguished_name = dn
string_mask = utf8only
[dn]
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[intermediate]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
[client]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
subjectAltName = email:alice@example.com, otherName:1.3.6.1.4.1.311.20.2.3;UTF8:alice@example.com
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
END

# issue NAME SECTION SUBJECT [CA [EXTENSION...]]: without a CA it is self-signed
issue() {
	name=$1 section=$2 subject=$3 ca=${4-}
	shift 3
	[ $# -eq 0 ] || shift
	for ext in "$@"; do
		set -- "$@" -addext "$ext"
		shift
	done
	# shellcheck disable=SC2086 # $keyalg is several words
	openssl req -x509 -config mkpki.cnf -extensions "$section" $keyalg -sha256 -noenc \
		-days 825 -subj "$subject" -utf8 ${ca:+-CA "$ca.pem" -CAkey "$ca.key"} "$@" \
		-keyout "$name.key" -out "$name.pem" 2>mkpki.err ||
		{ cat mkpki.err >&2; rm -f mkpki.err; exit 1; }
	rm -f mkpki.err
}

issue client-ca root "/O=Example/CN=Example Client Root"
issue client-intermediate intermediate "/O=Example/CN=Example Client CA" client-ca
issue client client "/O=Example/OU=People/CN=Alice Example" client-intermediate
cat client.pem client-intermediate.pem >client-chain.pem

issue server-ca root "/O=Example/CN=Example Server Root"
issue web server "/O=Example/CN=app.example" server-ca \
	"subjectAltName = DNS:localhost, DNS:app.example, IP:127.0.0.1"
issue backend server "/O=Example/CN=backend.example" server-ca \
	"subjectAltName = DNS:backend.example"

issue forge-root root "/O=Example/CN=Example Forging Root"
issue forge-ca intermediate "/O=Example/CN=Example Forging CA" forge-root
cat forge-ca.pem forge-root.pem >forge-chain.pem

chmod 644 ./*.pem
