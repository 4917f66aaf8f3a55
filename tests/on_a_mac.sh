#!/bin/sh
# Proves the shim on a Mac, by the real setproctitle, and says how many of its claims it proved.
#
#   tests/on_a_mac.sh [CLAIM...]     without any: startup crash probe titles hidden
#
# claim      what it needs beside a Mac, git and a network
# startup    Python 3.9 or later
# crash      the same, and up to two minutes for macOS to write its reports
# probe      the same as startup
# titles     Python 3.10 or later
# hidden     a Python that skips hidden startup files, as those of 2024 and later do
# homebrew   Homebrew, and a Python of it
# gunicorn   the same as startup
# spared     redis-server (brew install redis)
# celery     redis-server
# airflow    Python 3.11 or 3.12
#
# It was never run on a Mac, so times are guesses: some minutes for the first five, half an hour for all.
# Run it as yourself, not by sudo. PYTHON is the interpreter (default: the first of python3, python3.13 ...
# python3.9 that is 3.9 or later), REPORT the directory for report.md, which is for an issue, and for what it
# rests on (default: results/on_a_mac); both as seen from the clone.
#
# Exit status: 0 every claim asked for was proved, 1 not every one, 2 it could not begin.
set -u
claims="startup crash probe titles hidden homebrew gunicorn spared celery airflow"
for claim; do
    case " $claims " in *" $claim "*) continue ;; esac
    echo "no such claim: $claim; there are: $claims" >&2
    exit 2
done
[ $# -gt 0 ] || set -- startup crash probe titles hidden
if [ "$(id -u)" -eq 0 ] || [ -n "${SUDO_UID:-}" ]; then
    echo "**proved 0 of $#**: run it as yourself, not as root and not by sudo. A process of root is not what users run, and"
    echo "macOS keeps its crash reports where this does not look."
    exit 1
fi
cd "$(dirname "$0")/.." || exit 2
new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; }
if [ -n "${PYTHON:-}" ]; then
    python=$PYTHON
    new_enough "$python" || { echo "PYTHON=$python is no Python of 3.9 or later" >&2 && exit 2; }
else
    for python in python3 python3.13 python3.12 python3.11 python3.10 python3.9 none; do
        new_enough "$python" && break
    done
    [ "$python" != none ] || { echo "there is no Python of 3.9 or later on PATH: set PYTHON" >&2 && exit 2; }
fi
report=${REPORT:-results/on_a_mac}
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
found=$work/found venv=$work/venv
mkdir -p "$report" "$found/crash-reports" && touch "$work/started" || exit 2
unset AIRFLOW_SETPROCTITLE_SHIM PYTHONPATH
{ "$python" -m venv "$venv" && "$venv/bin/python" -m pip install -q '.[test]' uv; } || exit 2
# They keep forked processes from dying, or from asking for proxies: nothing would be proved.
without=
for variable in OBJC_DISABLE_INITIALIZE_FORK_SAFETY NO_PROXY no_proxy; do
    printenv "$variable" >/dev/null && without="$without $variable"
    unset "$variable"
done

# Each claim, in a subshell, prints one line of what it says, then what was seen, and succeeds if that is proof.

startup() {
    echo "The startup file gives the shim's setproctitle; AIRFLOW_SETPROCTITLE_SHIM=off gives the native one."
    served "$venv" || return 1
    export AIRFLOW_SETPROCTITLE_SHIM=off
    imports "$venv" setproctitle/__init__.py
}

probe() {
    echo "The native setproctitle kills forked children here, and with the shim none dies."
    forked
    json "$found/probe.json" '
for run in "without", "with":
    print(run, "the shim:", it[run]["killed"], "of", it[run]["children"], "killed", it[run]["ends"])
print("simulated:", it["simulated"])
exit(it["simulated"] or not it["without"]["killed"] or it["with"]["killed"] or not it["ok"])'
}

titles() {
    echo "In titles mode ps shows the titles that forked children set."
    "$venv/bin/python" -c 'import processtitle' || { echo "processtitle needs Python 3.10." && return 1; }
    export AIRFLOW_SETPROCTITLE_SHIM=titles
    shim probe -n 2 --json >"$found/titles.json"
    json "$found/titles.json" '
print(*it["ps"], sep="\n")
exit(it["ps"] != ["probe: worker 1", "probe: worker 2"])'
}

hidden() {
    echo "Where macOS hides the startup file, Airflow's entry point gives the shim and says what mends it."
    late='import airflow_setproctitle_shim.airflow, setproctitle; print(setproctitle.__file__)'
    served "$venv" && chflags -R hidden "$venv" && echo "Hidden:" || return 1
    said="Nothing was skipped: this Python reads hidden startup files."
    imports "$venv" setproctitle/__init__.py && said=$("$venv/bin/python" -c "$late" 2>&1)
    echo "$said"
    chflags -R nohidden "$venv" && echo "Shown again:" && served "$venv" || return 1
    case $said in *"chflags -R nohidden"*/airflow_setproctitle_shim/replacement.py) ;; *) return 1 ;; esac
}

crash() {
    echo "macOS writes crash reports of forked children. The doctor reads setproctitle in them, and knows those of probe."
    # Three children before those of probe, as macOS does not write reports without end.
    AIRFLOW_SETPROCTITLE_SHIM=off "$venv/bin/python" -c '
import os, setproctitle, signal
for _ in range(3):
    if not os.fork():
        signal.alarm(30)
        setproctitle.setproctitle("a child")
        os._exit(0)
    print("a child ended by signal", os.WTERMSIG(os.wait()[1]))' >"$work/children"
    cat "$work/children"
    grep -q "signal [1-9]" "$work/children" || { echo "No child died." && return 1; }
    forked
    looked_at=$(cksum </dev/null)
    for _ in 1 2 3 4 5 6; do
        sleep 20
        keep_reports
        reports=$(cat "$found"/crash-reports/* 2>/dev/null | cksum)
        [ "$reports" != "$looked_at" ] || continue
        looked_at=$reports
        shim doctor --json "$found/crash-reports" >"$found/doctor.json"
        json "$found/doctor.json" '
causes, kinds = [death["cause"] for death in it["deaths"]], it["looked_at"]
print("the doctor looked at", kinds, "and named", causes)
exit("setproctitle" not in causes or not any("probe" in kind for kind in kinds))' && return
    done
    echo "In two minutes there were no two crash reports that the doctor knows in this way." && return 1
}

homebrew() {
    echo "Each of Homebrew's Pythons, which have a sitecustomize of their own, gets the shim."
    command -v brew || { echo "Homebrew is not here." && return 1; }
    pythons=0
    for brewed in "$(brew --prefix)"/opt/python@3.*/bin/python3.[0-9]*; do
        case $brewed in *-config | *'*'*) continue ;; esac
        new_enough "$brewed" || { echo "$brewed is older than 3.9." && continue; }
        echo "$brewed" && rm -rf "$work/brewed"
        "$brewed" -m venv "$work/brewed" || return 1
        "$work/brewed/bin/python" -m pip install -q . setproctitle || return 1
        served "$work/brewed" || return 1
        pythons=$((pythons + 1))
    done
    echo "Pythons of Homebrew: $pythons"
    [ "$pythons" -gt 0 ]
}

gunicorn() { works "gunicorn 23" "gunicorn-23.0.0--k-sync"; }
celery() { works "Celery 5.6 with billiard 4.2" "Celery-5.6.3-with-billiard-4.2.4"; }
airflow() { works "Airflow 3.0" "Airflow-3.0.2-standalone,-LocalExecutor"; }
works() {  # works NAME ROW
    echo "The workers of $1 die without the shim; with it none dies, and the work is done."
    passed "test_dies_in_setproctitles_macos_code_and_reaches_none_with_the_shim[$2]"
}
spared() {
    echo "Programs that need nothing lose nobody without the shim: gunicorn 27, Celery 5.7, multiprocessing by default."
    for row in gunicorn-27.0.1 Celery-5.7.0-with-billiard-4.3.2 multiprocessing-of-Python-by-default; do
        passed "test_what_needs_nothing_on_a_mac_works_without_the_shim[the macOS code-$row]" || return 1
    done
}
passed() {  # passed TEST, of tests/test_consumers.py: whether it ran and passed; a skipped test ends well, too
    "$venv/bin/python" -m pytest -q -rs -n0 -m slow "tests/test_consumers.py::$1" >"$work/pytest" 2>&1 &&
        grep -q '^1 passed' "$work/pytest"
    proof=$?
    tail -n 20 "$work/pytest"
    return "$proof"
}

shim() { "$venv/bin/python" -m airflow_setproctitle_shim "$@"; }
forked() { [ -e "$found/probe.json" ] || shim probe -n 100 --json >"$found/probe.json"; }
json() { "$venv/bin/python" -c "import json, sys; it = json.load(open(sys.argv[1])); $2" "$1"; }
served() { imports "$1" airflow_setproctitle_shim/replacement.py; }
imports() {  # imports ENVIRONMENT FILE: whether `import setproctitle` runs that file in a fresh interpreter
    origin=$("$1/bin/python" -c 'import importlib.util as u; print(u.find_spec("setproctitle").origin)')
    echo "${AIRFLOW_SETPROCTITLE_SHIM:-on}: $origin"
    case $origin in */site-packages/"$2") ;; *) return 1 ;; esac
}
keep_reports() {  # macOS's crash reports since the start that name setproctitle
    find "$HOME/Library/Logs/DiagnosticReports" -name '*.ips' -newer "$work/started" \
        -exec grep -q _setproctitle {} \; -exec cp {} "$found/crash-reports" \; 2>/dev/null
}
on_a_mac() { [ "$(uname -s)" = Darwin ]; }
proved=0 missing=
{
    if on_a_mac; then
        echo "## macOS $(sw_vers -productVersion) ($(sw_vers -buildVersion)), $(uname -m)"
    else
        echo "## NOT A MAC but $(uname -sm): what follows is simulated and proves nothing about macOS."
    fi
    "$venv/bin/python" -c 'import sys; print("Python", sys.version, "at", sys.base_prefix)'
    "$venv/bin/python" -m pip freeze | grep -iE '^(setproctitle|processtitle|wrapt|importlib.metadata)='
    echo "airflow-setproctitle-shim $(git describe --always --dirty)"
    [ -z "$without" ] || echo "unset for this:$without"
    for claim; do
        echo "$claim ..." >&2
        if ("$claim") >"$found/$claim.txt" 2>&1 && on_a_mac; then
            verdict=proved proved=$((proved + 1))
        else
            verdict="NOT PROVED" missing="$missing $claim"
        fi
        # shellcheck disable=SC2016  # the backquotes are Markdown
        printf '\n### %s: %s\n%s\n```\n%s\n```\n' "$claim" "$verdict" \
            "$(head -n 1 "$found/$claim.txt")" "$(sed 1d "$found/$claim.txt" | tail -n 20)"
    done
    keep_reports
    printf '\n**proved %s of %s**%s\n' "$proved" "$#" "${missing:+, not proved:$missing}"
} >"$found/report.md"
cp -R "$found/." "$report"
cat "$report/report.md"
[ "$proved" -eq $# ]
