#!/bin/sh
# Writes etc/*.conf to another folder with names and passwords in place of @PLACEHOLDERS@:
#   ARI_PASSWORD=... MEDIA_PASSWORD=... PHONE_PASSWORD=... ./render.sh /etc/asterisk
# Passwords have no defaults. Addresses and ports do: everything on one machine, Asterisk on 5060, Tandem on 5070.
set -eu
from=$(dirname "$0")/etc
to=${1:?give the folder to write to, such as /etc/asterisk}
: "${ARI_PASSWORD:?}" "${MEDIA_PASSWORD:?}" "${PHONE_PASSWORD:?}"
: "${ASTERISK_HOST:=127.0.0.1}" "${TANDEM_HOST:=127.0.0.1}"
: "${SIP_PORT:=5060}" "${HTTP_PORT:=8088}" "${RTP_FIRST:=10000}" "${RTP_LAST:=19998}"
: "${TANDEM_SIP_PORT:=5070}" "${AUDIOSOCKET_PORT:=9092}" "${MEDIA_PORT:=8090}"
# The token is for 106 alone; Tandem must run before it can be made.
: "${TANDEM_HTTP_PORT:=8080}" "${TANDEM_TOKEN:=none}"
names="ARI_PASSWORD MEDIA_PASSWORD PHONE_PASSWORD ASTERISK_HOST TANDEM_HOST SIP_PORT HTTP_PORT RTP_FIRST RTP_LAST
       TANDEM_SIP_PORT AUDIOSOCKET_PORT MEDIA_PORT TANDEM_HTTP_PORT TANDEM_TOKEN"
script=
for name in $names; do
    eval "value=\$$name"
    case $value in
        *[!A-Za-z0-9._:+-]*) echo "$name may only have letters, digits, and . _ : + -" >&2; exit 2 ;;
    esac
    script="$script;s|@$name@|$value|g"
done
mkdir -p "$to"
umask 077
for file in "$from"/*.conf; do
    sed "${script#;}" "$file" > "$to/$(basename "$file")"
done
if grep -l '@[A-Z_]*@' "$to"/*.conf; then
    echo "these still have placeholders" >&2
    exit 1
fi
