#!/usr/bin/env bash
# A private PostgreSQL server for tests, in a directory of its own, on a free port of loopback.
#
#   scripts/lib/postgres.sh start DIR    prints the URL of a superuser
#   scripts/lib/postgres.sh stop DIR     stops the server and removes DIR
#
# PostgreSQL refuses to run as root; then it runs as the user `postgres`.
set -euo pipefail

# The newest version's programs: Debian keeps them out of PATH.
bin() {
    local found
    found=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
    [ -n "$found" ] || found=$(dirname "$(command -v initdb 2>/dev/null)" 2>/dev/null) || true
    [ -n "$found" ] || {
        echo "PostgreSQL is missing; as root, run: apt-get install -y postgresql" >&2
        exit 1
    }
    echo "$found"
}

as_owner() {
    if [ "$(id -u)" -eq 0 ]; then
        runuser -u postgres -- "$@"
    else
        "$@"
    fi
}

free_port() {
    local port
    for _ in $(seq 50); do
        port=$((20000 + RANDOM % 12000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return 0
        fi
    done
    echo "no free port on loopback" >&2
    exit 1
}

start() {
    local dir=$1 port
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    if [ "$(id -u)" -eq 0 ]; then chown postgres "$dir"; fi
    # Nothing here has to survive a power cut.
    as_owner "$bin/initdb" -D "$dir/data" -U tandem -A trust -E UTF8 --no-sync >"$dir/initdb.log" 2>&1 || {
        cat "$dir/initdb.log" >&2
        exit 1
    }
    for _ in 1 2 3; do
        port=$(free_port)
        if as_owner "$bin/pg_ctl" -D "$dir/data" -l "$dir/server.log" -w -t 30 \
            -o "-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories='$dir' -c fsync=off -c max_connections=200" \
            start >/dev/null 2>&1; then
            echo "postgres://tandem@127.0.0.1:$port/postgres"
            return 0
        fi
    done
    cat "$dir/server.log" >&2
    exit 1
}

stop() {
    local dir=$1
    if [ -f "$dir/data/PG_VERSION" ]; then
        as_owner "$bin/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null 2>&1 || true
        rm -rf "$dir"
    fi
}

[ $# -eq 2 ] || {
    echo "usage: $0 start|stop DIR" >&2
    exit 2
}
bin=$(bin)
case $1 in
    start) start "$2" ;;
    stop) stop "$2" ;;
    *)
        echo "usage: $0 start|stop DIR" >&2
        exit 2
        ;;
esac
