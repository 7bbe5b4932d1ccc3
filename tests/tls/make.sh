#!/bin/sh
# Makes the certificates of this folder anew: an authority, a leaf for sip.example.test and 127.0.0.1, one for another
# name, one that names its domain by a SIP URI, and an authority that signed none of them.
set -eu
cd "$(dirname "$0")"
key() { openssl ecparam -genkey -name prime256v1 -noout | openssl pkcs8 -topk8 -nocrypt -out "$1.key.pem"; }
key ca
openssl req -x509 -new -key ca.key.pem -sha256 -days 36500 -subj "/CN=Tandem test authority" \
  -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign" -out ca.pem
leaf() { # name, alternative names
  key "$1"
  openssl req -new -key "$1.key.pem" -subj "/CN=sip.example.test" -out leaf.csr
  printf 'subjectAltName=%s\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\n' "$2" > leaf.ext
  openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key.pem -CAcreateserial -days 36500 -sha256 -extfile leaf.ext -out "$1.pem"
}
leaf named "DNS:sip.example.test,IP:127.0.0.1"
leaf other "DNS:other.example.test"
leaf domain "URI:sip:sip.example.test,URI:sip:ann@person.example.test"
key stranger
openssl req -x509 -new -key stranger.key.pem -sha256 -days 36500 -subj "/CN=Somebody else" \
  -addext "basicConstraints=critical,CA:TRUE" -out stranger.pem
rm -f ca.key.pem stranger.key.pem leaf.csr leaf.ext ca.srl
