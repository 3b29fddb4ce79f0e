#!/usr/bin/env bash
# Keys of a federation: `deploy/make_keys.sh FOLDER SERVER_NAME CLIENT...`
#
# FOLDER/server gets the authority's certificate and the server's own, FOLDER/CLIENT each client's
# key, and FOLDER/registered the public halves that the server registers. The authority's key stays
# in FOLDER. Clients of other organisations make their own: the last loop, at each.
set -euo pipefail
folder=$1 server=$2
shift 2
umask 077
mkdir -p "$folder/server" "$folder/registered"
cd "$folder"

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes -days 365 \
  -subj "/CN=federation" -keyout ca.key -out server/ca.crt
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes -subj "/CN=$server" \
  -addext "subjectAltName=DNS:$server,DNS:localhost,IP:127.0.0.1" \
  -keyout server/server.key -out server.csr
openssl x509 -req -in server.csr -CA server/ca.crt -CAkey ca.key -days 365 -copy_extensions copy \
  -out server/server.crt
rm server.csr

for client in "$@"; do
  mkdir -p "$client"
  ssh-keygen -q -t ecdsa -b 384 -N "" -C "$client" -f "$client/client.key"
  mv "$client/client.key.pub" "registered/$client.pub"
  cp server/ca.crt "$client/ca.crt"
done
