#!/bin/sh
# Proves the shim on a Mac, by the real setproctitle, and says how many of its claims it proved.
#
#   tests/on_a_mac.sh [CLAIM...]     without any: all of them
#
# PYTHON is the interpreter (default: python3), REPORT the directory for report.md, which is for an issue, and for
# what it rests on (default: results/on_a_mac); both as seen from the clone. Exit status: 0 every claim asked for
# was proved, 1 not every one, 2 it could not begin.
set -u
claims="startup probe titles hidden crash homebrew gunicorn celery airflow"
for claim; do
    case " $claims " in *" $claim "*) continue ;; esac
    echo "no such claim: $claim; there are: $claims" >&2
    exit 2
done
# shellcheck disable=SC2086  # a list
[ $# -gt 0 ] || set -- $claims
cd "$(dirname "$0")/.." || exit 2
report=${REPORT:-results/on_a_mac}
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
found=$work/found venv=$work/venv
mkdir -p "$report" "$found/crash-reports" && touch "$work/started" || exit 2
unset AIRFLOW_SETPROCTITLE_SHIM PYTHONPATH

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
    echo "macOS writes a crash report of a forked child, and the doctor reads setproctitle in it."
    forked
    json "$found/probe.json" 'exit(not it["without"]["killed"])' || { echo "No child died." && return 1; }
    for _ in 1 2 3 4 5 6; do
        sleep 20
        keep_reports
        [ -n "$(ls "$found/crash-reports")" ] || continue
        shim doctor --json "$found/crash-reports" >"$found/doctor.json"
        json "$found/doctor.json" '
print("the doctor looked at", it["looked_at"], "and named", [death["cause"] for death in it["deaths"]])
exit("setproctitle" not in [death["cause"] for death in it["deaths"]])' && return
    done
    echo "In two minutes no crash report came in which the doctor reads setproctitle." && return 1
}

homebrew() {
    echo "Each of Homebrew's Pythons, which have a sitecustomize of their own, gets the shim."
    command -v brew || { echo "Homebrew is not here." && return 1; }
    pythons=0
    for brewed in "$(brew --prefix)"/opt/python@3.*/bin/python3.[0-9]*; do
        case $brewed in *-config | *'*'*) continue ;; esac
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
celery() { works "Celery" "Celery-5.6.3-with-billiard-4.2.4"; }
airflow() { works "Airflow 3.0" "Airflow-3.0.2-standalone,-LocalExecutor"; }

works() {  # works NAME TEST
    echo "The workers of $1 die without the shim; with it none dies, and the work is done."
    name=test_dies_in_setproctitles_macos_code_and_reaches_none_with_the_shim
    # A skipped test ends well, too.
    "$venv/bin/python" -m pytest -q -rs -n0 -m slow "tests/test_consumers.py::${name}[$2]" >"$work/pytest" 2>&1 &&
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
{ "${PYTHON:-python3}" -m venv "$venv" && "$venv/bin/python" -m pip install -q '.[test]' uv; } || exit 2
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
