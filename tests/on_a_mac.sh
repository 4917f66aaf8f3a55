#!/bin/sh
# Proves the shim on a real Mac, with the real setproctitle, and prints one report to paste into an issue.
#
#   tests/on_a_mac.sh [PART...]     parts: probe startup titles hidden crash homebrew consumers (default: all)
#
# Run it from a clone. PYTHON is the interpreter to prove (default: python3); REPORT the directory for what
# is found, report.md and probe.json among it (default: results/on_a_mac). Exit status 1: a part failed.
set -u
cd "$(dirname "$0")/.." || exit 2
python=${PYTHON:-python3}
report=${REPORT:-results/on_a_mac}
[ $# -gt 0 ] || set -- probe startup titles hidden crash homebrew consumers
mkdir -p "$report" && report=$(cd "$report" && pwd) || exit 2
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
venv=$work/.venv
touch "$work/started"

on_a_mac() { [ "$(uname -s)" = Darwin ]; }
skip() { echo "$*"; exit 77; }  # in a part, which runs in a subshell
shim() { "$venv/bin/airflow-setproctitle-shim" "$@"; }
served() {  # by which file `import setproctitle` is answered in a fresh interpreter of an environment
    "$1/bin/python" -c 'import importlib.util as u; print(u.find_spec("setproctitle").origin)'
}
is_served() { served "$1" | tee /dev/stderr | grep -q 'airflow_setproctitle_shim.replacement\.py$'; }

crashes() {  # the crash reports written since the start that name setproctitle
    find "$HOME/Library/Logs/DiagnosticReports" -name '*.ips' -newer "$work/started" \
        -exec grep -l '_setproctitle' {} + 2>/dev/null
}

probe() {
    shim probe --children 100 --json >"$report/probe.json"
    shim probe --children 100
}

startup() {
    # off: for pytest's own process, where the tests switch it on and off themselves.
    AIRFLOW_SETPROCTITLE_SHIM=off "$venv/bin/python" -m pytest -q -p no:cacheprovider \
        tests/test_startup.py tests/test_finder.py tests/test_replacement.py
}

titles() {
    "$venv/bin/python" -c 'import processtitle' || skip "the extra titles needs Python 3.10 or later"
    shim probe --titles
}

hidden() {
    on_a_mac || skip "only macOS hides files by a flag"
    is_served "$venv" || return 1
    chflags -R hidden "$venv" || return 1
    if is_served "$venv"; then
        echo "this Python does not skip hidden startup files (python/cpython #113659)"
    else
        "$venv/bin/python" -c 'import airflow_setproctitle_shim.airflow, setproctitle; print(setproctitle.__file__)' \
            >"$work/late" 2>&1
        cat "$work/late"
        grep -q 'hidden' "$work/late" && grep -q 'chflags -R nohidden' "$work/late" &&
            grep -q 'replacement\.py$' "$work/late" || return 1
        echo "Airflow's entry point switches it on all the same, and says what hides it."
    fi
    chflags -R nohidden "$venv"
    is_served "$venv"
}

crash() {  # the doctor must read the reports that macOS itself writes of children that die
    on_a_mac || skip "only macOS writes crash reports"
    shim probe --children 200 --threads >"$work/probe" 2>&1
    cat "$work/probe"
    if grep -q 'proves nothing' "$work/probe"; then skip "no child died here, so there is nothing to read"; fi
    tries=60
    until crashes >"$work/crashes"; [ -s "$work/crashes" ]; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "children died, and macOS wrote no report within two minutes"; return 1; }
        sleep 2
    done
    mkdir -p "$report/crash-reports"
    while read -r file; do cp "$file" "$report/crash-reports/"; done <"$work/crashes"
    shim doctor --only crash-reports --crash-reports "$report/crash-reports" --json >"$report/doctor.json"
    shim doctor --only crash-reports --crash-reports "$report/crash-reports" >"$work/doctor"
    cat "$work/doctor"
    grep -q 'setproctitle' "$work/doctor"
}

homebrew() {
    if ! on_a_mac || ! command -v brew >/dev/null; then skip "Homebrew is not here"; fi
    found=
    for brewed in "$(brew --prefix)"/opt/python@3.*/bin/python3.[0-9]*; do
        case $brewed in *-config | *'*'*) continue ;; esac
        found=$brewed
        "$brewed" -m venv "$work/brewed" && "$work/brewed/bin/python" -m pip install -q . setproctitle || return 1
        "$work/brewed/bin/python" -c 'import sys; print(sys.version, sys.modules.get("sitecustomize"))'
        is_served "$work/brewed" || return 1
        rm -rf "$work/brewed"
    done
    [ "$found" ] || skip "Homebrew has no Python here"
}

consumers() {
    rm -f results/consumers.json
    COLUMNS=300 "$venv/bin/python" -m pytest -q -p no:cacheprovider -m slow tests/test_consumers.py \
        -k "gunicorn or fork or multiprocessing or (standalone and 3.0.2)" >"$work/consumers" 2>&1
    tail -n 30 "$work/consumers"
    cat results/consumers.json || return 1
    if grep -E '"after": [1-9]|"done": false' results/consumers.json; then return 1; fi
    # What happens without the shim is told and not judged: not every macOS crashes every time.
    before="this no longer proves anything|in spite of the deaths|users' log line"
    ! grep -E '^(FAILED|ERROR) ' "$work/consumers" | grep -vE "$before"
}


run() {
    ("$1") >"$report/$1.txt" 2>&1
    case $? in 0) verdict=passed ;; 77) verdict=skipped ;; *) verdict=FAILED failed=1 ;; esac
    # shellcheck disable=SC2016  # the backquotes are Markdown
    printf '\n### %s: %s\n```\n%s\n```\n' "$1" "$verdict" "$(tail -n 40 "$report/$1.txt")"
}

failed=0
prepare() {
    "$python" -m venv "$venv" && "$venv/bin/python" -m pip install -q ".[test]" || return 1
    # The extra `titles`, where it can be had.
    "$venv/bin/python" -m pip install -q 'processtitle; python_version >= "3.10"' || true
}
prepare >"$report/prepare.txt" 2>&1 || { cat "$report/prepare.txt"; exit 2; }
{
    if on_a_mac; then
        echo "## macOS $(sw_vers -productVersion) ($(sw_vers -buildVersion)), $(uname -m)"
    else
        echo "## NOT A MAC: $(uname -sm). All that follows is simulated and proves nothing about macOS."
    fi
    "$venv/bin/python" -c 'import sys; print("Python", sys.version, "at", sys.base_prefix)'
    "$venv/bin/python" -m pip freeze | grep -iE '^(setproctitle|processtitle|wrapt|importlib.metadata)='
    echo "airflow-setproctitle-shim $(git describe --always --dirty 2>/dev/null)"
    for part; do run "$part"; done
    printf '\n### crash reports of setproctitle written meanwhile: %s\n' "$(crashes | wc -l | tr -d ' ')"
    crashes
    [ "$failed" = 0 ] || echo "SOMETHING FAILED"
} >"$report/report.md"
cat "$report/report.md"
! grep -q '^SOMETHING FAILED$' "$report/report.md"
