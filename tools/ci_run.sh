#!/usr/bin/env bash
# Runs the lab as action.yml's inputs say, and bundles the report. It ends with 0: the step that comes last fails the job
# with the run's own code, when everything is reported. Outputs: code, folder, bundle, comment.
set -euo pipefail
if [ -z "${TARGET:-}${SERVICE:-}" ]; then
    echo "::error title=nothing to judge::give the input target, as mypackage.lab:MyTarget, or service, as service.toml"
    echo "code=2" >>"$GITHUB_OUTPUT"
    exit 0
fi
words=(run)
if [ -n "${TARGET:-}" ]; then words+=(--target "$TARGET"); fi
if [ -n "${SERVICE:-}" ]; then words+=(--service "$SERVICE"); fi
words+=(--profile "${PROFILE:-smoke}" --out "${OUT:-outputs}")
# Words of the user's, split at blanks and nothing else: no sign in them is the shell's.
read -r -a more <<<"${ARGUMENTS:-}"
words+=("${more[@]}")
if [ -n "${HISTORY:-}" ]; then words+=(--history "$HISTORY"); fi
if [ -n "${BASELINE:-}" ]; then
    words+=(--baseline "$BASELINE")
fi
export PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}$PWD"
code=0
registry-lab "${words[@]}" || code=$?
echo "code=$code" >>"$GITHUB_OUTPUT"
# Wrong usage: nothing was run, so that the latest run is another one.
[ "$code" != 2 ] || exit 0
folder=$(cd "${OUT:-outputs}/latest" 2>/dev/null && pwd -P) || exit 0
registry-lab bundle latest --out "${OUT:-outputs}" --file "$folder/report.html"
{
    echo "folder=$folder"
    echo "bundle=$folder/report.html"
    echo "comment=$folder/comment.md"
} >>"$GITHUB_OUTPUT"
