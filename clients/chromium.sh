#!/bin/sh
# Sees to it that the browser tests have a browser: Debian's Chromium, or the one that CHROMIUM names.
set -eu

browser=${CHROMIUM:-/usr/bin/chromium}
[ -x "$browser" ] && exit 0

if [ -n "${CHROMIUM:-}" ]; then
    echo "CHROMIUM names $browser, which cannot be run" >&2
elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    # The lists of packages may be missing or old; another apt-get may be at work.
    apt-get -o DPkg::Lock::Timeout=300 update -qq || true
    exec apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends chromium
else
    echo "The browser tests want Chromium: 'sudo apt-get install chromium', or set CHROMIUM to another one" >&2
fi
exit 1
