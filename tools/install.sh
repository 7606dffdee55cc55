#!/usr/bin/env bash
# Installs the project into .venv; `make demo` and `make test` call this. Needs Python 3.11+ and a C++ compiler.
#   PYTHON=python3.12   another interpreter
#   FFCV=0              leave the FFCV engine out (only this engine needs a compiler)
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
ffcv=${FFCV:-1}

fail() { echo "install: $*" >&2; exit 2; }

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
  fail "$python is not Python 3.11 or newer; install one and select it: make PYTHON=python3.12 ..."

# Debian and Ubuntu have these in separate packages. Without pkg-config the libraries cannot be found, so all are listed.
wanted=()
"$python" -c 'import ensurepip, venv' 2>/dev/null || wanted+=(python3-venv)
command -v pkg-config >/dev/null || wanted+=(pkg-config)
# FFCV decodes with libturbojpeg. Engine roc also does, but only for files without RoC records.
pkg-config --exists libturbojpeg 2>/dev/null || wanted+=(libturbojpeg0-dev)
if [ "$ffcv" != 0 ]; then
  header=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
  [ -f "$header" ] || wanted+=(python3-dev)
  command -v g++ >/dev/null || wanted+=(g++)
  pkg-config --exists opencv4 2>/dev/null || wanted+=(libopencv-dev)
fi
if [ ${#wanted[@]} -gt 0 ]; then
  line="apt-get install -y --no-install-recommends ${wanted[*]}"
  if ! command -v apt-get >/dev/null; then
    echo "install: this is not Debian or Ubuntu; install what these Debian packages provide: ${wanted[*]}" >&2
  elif [ "$(id -u)" = 0 ]; then
    echo "install: $line"
    (apt-get update -qq && DEBIAN_FRONTEND=noninteractive $line -qq >/dev/null) ||
      echo "install: apt-get failed; continuing without ${wanted[*]}" >&2
  elif [ "$ffcv" = 0 ]; then
    echo "install: continuing without ${wanted[*]}; for all engines run:  sudo $line" >&2
  else
    echo "install: run this, then run make again:  sudo $line" >&2
    fail "or continue without them (no engine ffcv; engine roc reads no FFCV files):  make FFCV=0 ..."
  fi
fi

[ -x .venv/bin/python ] || "$python" -m venv .venv || fail "could not create .venv; install python3-venv"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.txt
uv=(.venv/bin/uv pip install --quiet --python .venv/bin/python)
"${uv[@]}" --require-hashes -r requirements.txt
"${uv[@]}" --no-deps --editable .
if [ "$ffcv" != 0 ] && ! "${uv[@]}" --require-hashes -r requirements-ffcv.txt; then
  echo "install: FFCV did not build; the engine 'ffcv' and its tests are left out. Everything else works." >&2
fi
touch .venv/.installed
