#!/bin/sh
# Starts Asterisk in its container.
set -eu
/asterisk/render.sh /etc/asterisk
exec asterisk -f -vvv
