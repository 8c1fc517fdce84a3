#!/bin/sh
# install.sh VENV LOCK: make VENV and put exactly the pins of LOCK and this checkout into it; nothing is resolved.
#
# PYTHON names the interpreter; else the first of the usual names that is 3.10 or newer. A failure is told in two
# lines: what happened, and what to do. The whole output is in VENV/install.log.
set -eu
venv=$1 lock=$2
log=$venv/install.log
new_enough='import sys; sys.exit(sys.version_info < (3, 10))'

fail() {
	printf '%s\n%s\n' "$1" "$2" >&2
	exit 1
}

if ! [ -x "$venv/bin/python" ]; then
	names=${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python3.10}
	for name in $names; do
		if "$name" -c "$new_enough" 2>/dev/null; then found=$name && break; fi
	done
	[ -n "${found:-}" ] || fail "Python 3.10 or newer is needed; tried: $names." \
		"Install one (Debian, Ubuntu: apt install python3 python3-venv) or name it: PYTHON=/path/to/python3.12 make …"
	echo "Making $venv with $("$found" --version) …"
	mkdir -p "$venv"
	"$found" -m venv "$venv" >"$log" 2>&1 || { rm -rf "$venv" && fail "$found cannot make an environment." \
		"Install its venv module (Debian, Ubuntu: apt install python3-venv), then run the same command again."; }
elif ! "$venv/bin/python" -c "$new_enough" 2>/dev/null; then
	fail "$venv was made with a Python older than 3.10, or one that is gone." "Run: make clean, then the same command again."
fi

pip() {
	"$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@" >>"$log" 2>&1 && return
	why=$(grep '^ *ERROR' "$log" | tail -n 1 | cut -c 1-300)
	case $why in
	*"No space left"*) remedy="Free some disk space (about 1 GB is needed)" ;;
	*"o matching distribution"* | *HASHES* | *hashes*) remedy="Use CPython 3.10 to 3.14 on Linux, macOS or Windows, see README.md" ;;
	*) remedy="Check that a package index is reachable (pip download --no-deps idna)" ;;
	esac
	fail "Not installed: ${why:-pip failed.}" "$remedy, then run the same command again. Details: $log"
}

: >"$log"
echo "Installing the packages of $lock (a minute or two the first time) …"
pip install --no-deps --require-hashes --only-binary=:all: -r "$lock"
pip install --no-deps --no-build-isolation --no-index -e .
touch "$venv/.installed"
echo "Installed."
