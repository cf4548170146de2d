#!/bin/sh
# The command line of GitLab Runner's helper (19.3): what it does not know ends it, what it needs it insists on, and what only
# Drover's helper reads it has never heard of. The work itself is done by the program /opt/mover.
set -eu

refuse() {
    echo "FATAL: $1" >&2
    exit 1
}

for name in $(env | sed -n 's/^\(DROVER_[A-Z_]*\)=.*/\1/p'); do unset "$name"; done

command=${1-}
transfer='retry retry-time transfer-meter-frequency'
gitlab='id token url tls-ca-file tls-cert-file tls-key-file'
switches=
case $command in
--version | -v)
    printf 'Version:      19.3.0\nGit revision: 98f3339d\n'
    exit 0
    ;;
artifacts-uploader)
    values="$gitlab path exclude transfer-meter-frequency runner-id repo-url repo-digest job-name executor-name runner-name
        metadata-parameter started-at ended-at schema-version name expire-in artifact-format artifact-type compression-level
        timeout response-header-timeout"
    switches='untracked verbose generate-artifacts-metadata ci-debug-trace'
    ;;
artifacts-downloader) values="$gitlab $transfer archiver-staging-dir" switches='direct-download' ;;
cache-archiver)
    values="$transfer path exclude file alternate-file url check-url gocloud-url timeout header metadata compression-level
        compression-format max-uploaded-archive-size env-file transfer-buffer-size chunk-size concurrency"
    switches='untracked verbose'
    ;;
cache-extractor)
    values="$transfer file url gocloud-url alternate-url alternate-gocloud-url head-url alternate-head-url timeout env-file
        transfer-buffer-size chunk-size concurrency"
    ;;
health-check) values='port' ;;
cache-init) exec /opt/mover "$@" ;;
*) refuse "Command $command not found" ;;
esac

given=' '
expected=
for word in "$@"; do
    if [ -n "$expected" ]; then
        case $expected in
        started-at | ended-at) date -u -d "$(echo "$word" | sed 's/T/ /; s/Z$//')" >/dev/null || refuse "parsing time \"$word\"" ;;
        esac
        expected=
        continue
    fi
    [ "$word" != "$command" ] || continue
    name=${word#--}
    [ "$name" != "$word" ] || refuse "an argument without a flag: $word"
    given="$given$name "
    for known in $switches; do [ "$known" != "$name" ] || continue 2; done
    for known in $values; do
        if [ "$known" = "$name" ]; then
            expected=$name
            continue 2
        fi
    done
    refuse "flag provided but not defined: -$name"
done
[ -z "$expected" ] || refuse "flag needs an argument: -$expected"

# A flag, or the variable that stands for it.
need() {
    case $given in *" $1 "*) ;; *) [ -n "${2-}" ] || refuse "Missing $1" ;; esac
}
case $command in
artifacts-*)
    need url "${CI_SERVER_URL-}"
    need token "${CI_JOB_TOKEN-}"
    need id "${CI_JOB_ID-}"
    ;;
cache-*) need file ;;
esac
case $given in
*' generate-artifacts-metadata '*)
    need started-at
    need ended-at
    ;;
esac
echo "as GitLab Runner's helper does it: $command"
exec /opt/mover "$@"
