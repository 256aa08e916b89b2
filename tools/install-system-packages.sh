#!/bin/sh
# Install what the demo and the tests run and Debian has: Pushpin, Varnish with xkey, Chromium, PostgreSQL,
# Redis, Valgrind.
# Where it may not, it says what is missing; the tests of it then fail in CI, and are skipped elsewhere.
set -eu

missing=""
command -v pushpin >/dev/null || missing="$missing pushpin"
[ -x /usr/sbin/varnishd ] || command -v varnishd >/dev/null || missing="$missing varnish"
ls /usr/lib/*/varnish/vmods/libvmod_xkey.so >/dev/null 2>&1 || missing="$missing varnish-modules"
command -v chromium >/dev/null || missing="$missing chromium"
command -v chromedriver >/dev/null || missing="$missing chromium-driver"
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null ||
    missing="$missing postgresql"
command -v redis-server >/dev/null || command -v valkey-server >/dev/null ||
    missing="$missing redis-server"
command -v valgrind >/dev/null || missing="$missing valgrind"

[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
    echo "missing:$missing (on Debian: sudo apt-get install$missing)" >&2
    exit 0
fi

echo "installing:$missing"
case $missing in *postgresql*)
    # Else Debian creates a cluster, and starts it with the machine.
    settings=/etc/postgresql-common/createcluster.conf
    mkdir -p "$(dirname $settings)"
    [ -e $settings ] || echo "create_main_cluster = false" >$settings
esac
apt-get -qq update
# RUNLEVEL=1 keeps Debian from starting them as services: the demo and the tests start their own.
# shellcheck disable=SC2086
RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
    apt-get -qq install --yes --no-install-recommends $missing >/dev/null
