#!/bin/sh
# Installs Debian packages that tests read; without root it says what to run.
set -e
packages="wordnet-base chromium fonts-dejavu-core"
if [ "$(id -u)" = 0 ]; then run=""; elif command -v sudo >/dev/null; then run="sudo"; else
  echo "tests need the Debian packages $packages: run 'apt-get install $packages' as root" >&2
  exit 1
fi
$run apt-get update -qq
$run env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages
