# Installs what is missing, from Debian's packages. Sourced by the scripts beside it.

# install WHAT PACKAGE...: installs the packages, because WHAT is not there.
install() {
    local what=$1
    shift
    echo "installing $* (for $what)" >&2
    local sudo=""
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null 2>&1 || {
            echo "$what is missing; as root, run: apt-get install -y $*" >&2
            exit 1
        }
        sudo=sudo
    fi
    if [ -z "${APT_IS_FRESH:-}" ]; then
        $sudo apt-get update -qq >&2
        APT_IS_FRESH=1
    fi
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

# need PROGRAM PACKAGE...: installs the packages unless PROGRAM is there.
need() {
    local program=$1
    shift
    if command -v "$program" >/dev/null 2>&1; then return 0; fi
    install "$program" "$@"
    command -v "$program" >/dev/null 2>&1 || {
        echo "$program is still missing after installing $*" >&2
        exit 1
    }
}

# need_file PATTERN PACKAGE...: installs the packages unless a file matches PATTERN.
need_file() {
    local pattern=$1
    shift
    if compgen -G "$pattern" >/dev/null; then return 0; fi
    install "$pattern" "$@"
    compgen -G "$pattern" >/dev/null || {
        echo "$pattern is still missing after installing $*" >&2
        exit 1
    }
}

# need_build: what `cargo build` needs beside Rust itself.
need_build() {
    command -v cargo >/dev/null 2>&1 || {
        echo "Rust is missing: install it with rustup (https://rustup.rs) or your distribution" >&2
        exit 1
    }
    need cc gcc libc6-dev
    need make make
    need cmake cmake
}
