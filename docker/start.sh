#!/bin/sh
# `emboundary` with these arguments.  A service that was given no API keys makes one at its first start, shows it once
# and keeps its sha256 sum: no image holds what opens a service, and no service is open to everybody by mistake.
set -eu

STATE=/state
KEYS=$STATE/keys.txt
MODELS=/models
BUNDLED=/opt/emboundary/lib/python3*/site-packages/emboundary/model/zoo
FORESEEN=/tmp/made-at-the-first-start
BOTH=/tmp/models  # always there: jobs that go on after a restart know their model by its place

# What no key of its own is to stand beside: keys, or the decision to do without.
is_told() {
    [ -n "${EMBOUNDARY_API_KEYS_FILE-}${EMBOUNDARY_API_KEYS-}${EMBOUNDARY_CONFIG-}${EMBOUNDARY_NO_AUTH-}" ] && return
    for word; do
        case $word in --no-auth | --config | --config=* | --help | --print-settings) return ;; esac
    done
    return 1
}

refuse() {
    echo "emboundary: $1" >&2
    exit 1
}

# Line for the file of keys on stdout, the key itself into the variable `key`.
new_key() {
    said=$(emboundary keys new "$1" --scopes "$2" 2>&1 >>"$KEYS.new") || refuse "$said"
    key=${said##* }
}

# The key of Prometheus, which cannot be told one: in a file that only its container mounts as well.
new_scrape_key() {
    new_key prometheus admin
    (umask 022 && rm -f "$SCRAPE_KEY_FILE" && printf %s "$key" >"$SCRAPE_KEY_FILE") ||
        refuse "$SCRAPE_KEY_FILE cannot be written by user $(id -u); it must lie in a volume that this user may write"
}

make_keys() {
    umask 077
    (: >"$KEYS.new") 2>/dev/null ||
        refuse "$STATE cannot be written by user $(id -u), so that no key can be kept; mount a volume there that this user may write, or name your own file of keys in EMBOUNDARY_API_KEYS_FILE"
    [ -z "${SCRAPE_KEY_FILE-}" ] || new_scrape_key
    new_key first predict+jobs+admin
    # Shown before it is valid: a stop in between costs another key, not the way in.
    cat >&2 <<END

  No API keys were given, so here is one.  It is shown this once:

      $key

  Send it as \`Authorization: Bearer KEY\`.  Its sum is in $KEYS; without that file the next start makes another.

END
    mv "$KEYS.new" "$KEYS"
}

# The user's models beside the bundled ones, and in their place where they share a name.
add_models() {
    set -- "$MODELS"/*/*/model.onnx
    [ -e "$1" ] || return 0
    mkdir -p "$BOTH"
    for folder in $BUNDLED/*/ "$MODELS"/*/; do
        ln -sfn "${folder%/}" "$BOTH/$(basename "$folder")"
    done
    export EMBOUNDARY_REPOSITORY="$BOTH"
}

use_keys() {
    if [ ! -e "$KEYS" ]; then
        (make_keys)
    elif [ ! -r "$KEYS" ]; then
        refuse "$KEYS cannot be read by user $(id -u); run as the user that it was made by, or remove it for a new key"
    fi
    export EMBOUNDARY_API_KEYS_FILE="$KEYS"
}

# A diagnosis sees what the service will: its keys, which may not be made yet, and where jobs read and write.
foresee() {
    if [ ! -e "$KEYS" ]; then
        emboundary keys new first >"$FORESEEN" 2>/dev/null
        export EMBOUNDARY_API_KEYS_FILE="$FORESEEN"
    else
        export EMBOUNDARY_API_KEYS_FILE="$KEYS"
    fi
    [ "${EMBOUNDARY_DATA_ROOTS-}" != /data ] || export EMBOUNDARY_DATA_ROOTS=/data/input,/data/output
}

case ${1-} in
serve) is_told "$@" || use_keys ;;
doctor) is_told "$@" || foresee ;;
esac
case ${1-} in
serve | doctor) [ -n "${EMBOUNDARY_REPOSITORY-}${EMBOUNDARY_CONFIG-}" ] || add_models ;;
esac
exec emboundary "$@"
