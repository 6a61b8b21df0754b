# What the scripts share: where things are kept, and the tools that the tests need.
#
# Everything that is installed lies under LARDER_CACHE_DIR, outside the checkout, in a folder that
# its version names: what is there is not installed again, and nothing is ever half installed.
set -euo pipefail
export LC_ALL=C.UTF-8

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${LARDER_CACHE_DIR:-$HOME/.cache/larder}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}

# `go install NAME@latest` may give an older release than there is, so versions are exact.
grpcurl_version=1.9.4
versitygw_version=1.8.0
deny_version=0.20.2
cassandra_version=5.0.8
dynamodb_local_version=3.1.0
kubernetes_version=1.37.2

case $cache/ in
  "$root"/*) echo "LARDER_CACHE_DIR must lie outside the checkout, is \`$cache\`" >&2; exit 64 ;;
esac
mkdir -p "$cache"

die() { echo "$0: $*" >&2; exit 1; }

# step WHAT COMMAND...: runs a step and says how long it took; a failure ends the script.
step() {
  local what=$1 begun=$SECONDS code; shift
  echo "==> $what"
  # Not `"$@" || die`: that would switch `set -e` off within the step.
  set +e; (set -e; "$@"); code=$?; set -e
  [ $code = 0 ] || die "failed: $what (after $((SECONDS - begun)) s)"
  echo "<== $what: $((SECONDS - begun)) s"
}

# need COMMAND PACKAGE HOW...: a command, installed by apt where that is allowed.
need() {
  local command=$1 package=$2; shift 2
  command -v "$command" >/dev/null && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    # Without a runlevel in which services start: tests start their own.
    export RUNLEVEL=1
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "$package" >/dev/null
  fi
  command -v "$command" >/dev/null || die "\`$command\` is missing: ${*:-apt-get install $package}"
}

# once FOLDER COMMAND...: runs COMMAND with $into set to a new folder, which becomes FOLDER when
# it succeeds.
once() {
  local folder=$1 into code; shift
  [ -e "$folder" ] && return
  into=$(mktemp -d "$folder.XXXXXX")
  set +e; (set -e; "$@"); code=$?; set -e # as in `step`
  [ $code = 0 ] || { rm -rf "$into"; return $code; }
  mv "$into" "$folder"
}

install_grpcurl() {
  need go golang-go "install Go 1.26 (the distribution's may be too old)"
  GOBIN=$into go install "github.com/fullstorydev/grpcurl/cmd/grpcurl@v$grpcurl_version"
}

install_versitygw() {
  need go golang-go "install Go 1.26 (the distribution's may be too old)"
  GOBIN=$into go install -ldflags='-s -w' "github.com/versity/versitygw/cmd/versitygw@v$versitygw_version"
}

# What is built is named by what it is built of.
install_go_client() {
  need go golang-go "install Go 1.26 (the distribution's may be too old)"
  CGO_ENABLED=0 go build -C "$root/tests/pod/go-client" -mod=readonly -trimpath -ldflags='-s -w' -o "$into/go-client" .
}

# in_a_pod COMMAND...: runs it in a network, with mounts and processes, of its own.
in_a_pod() {
  [ "$(id -u)" = 0 ] || die "run it as root, in a container say: pods are played with other UIDs and mounts"
  unshare --net --mount --pid --fork --kill-child --mount-proc \
    sh -c 'ip link set lo up && exec "$@"' sh "$@"
}

install_deny() { # a linter needs no optimised build, and this one takes half the time
  CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_TARGET_DIR=$cache/target-deny \
    cargo install --quiet --locked --root "$into" "cargo-deny@$deny_version"
  rm -rf "$cache/target-deny"
}

# Jars of Maven Central with all that they need to run, into $into/lib.
maven_jars() { # GROUP:ARTIFACT:VERSION
  local pom=$into/pom.xml group artifact version
  IFS=: read -r group artifact version <<<"$1"
  cat >"$pom" <<XML
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>larder</groupId><artifactId>service</artifactId><version>1</version>
  <dependencies><dependency>
    <groupId>$group</groupId><artifactId>$artifact</artifactId><version>$version</version>
  </dependency></dependencies>
</project>
XML
  mvn -q -B -f "$pom" dependency:copy-dependencies -DincludeScope=runtime \
    -DoutputDirectory="$into/lib" >&2
}

# Maven Central has Cassandra as a library, without its configuration and its start script.
install_cassandra() {
  need java openjdk-17-jre-headless "install Java 17"
  need mvn maven
  maven_jars "org.apache.cassandra:cassandra-all:$cassandra_version"
}

# Amazon's own emulator. Not every release resolves: some ask for artefacts that were never there.
install_dynamodb_local() {
  need mvn maven
  maven_jars "software.amazon.dynamodb:DynamoDBLocal:$dynamodb_local_version"
}

# Kubernetes' API server, its database and its clients. What they are built of is pinned beside the tests.
install_kubernetes() { # some 8 minutes on 2 cores, once
  need go golang-go "install Go 1.26 (the distribution's may be too old)"
  local v=k8s.io/component-base/version minor=${kubernetes_version#*.}
  CGO_ENABLED=0 go build -C "$root/tests/kubernetes/build" -p "$(nproc)" -trimpath -o "$into/" \
    -ldflags "-s -w -X $v.gitVersion=v$kubernetes_version -X $v.gitMajor=1 -X $v.gitMinor=${minor%.*}" \
    go.etcd.io/etcd/server/v3 helm.sh/helm/v4/cmd/helm k8s.io/kubernetes/cmd/{kube-apiserver,kubectl}
  mv "$into/server" "$into/etcd"
}

# A venv cannot be moved: it is made in its place, and a stamp says that it is whole.
install_feast() {
  [ -e "$venv/whole" ] && return
  local python
  python=$(command -v python3.11 || command -v python3) || die "Python 3.11 is missing"
  rm -rf "$venv" "$cache"/venv-*
  "$python" -m venv "$venv" >/dev/null || die "no venv can be made: apt-get install python3-venv"
  "$venv/bin/python" -m pip install --quiet --no-deps --no-compile \
    --disable-pip-version-check -r "$root/scripts/requirements.txt"
  touch "$venv/whole"
}

venv=$cache/venv-$(sha256sum <"$root/scripts/requirements.txt" | cut -c1-12)
grpcurl=$cache/grpcurl-$grpcurl_version
versitygw=$cache/versitygw-$versitygw_version
deny=$cache/cargo-deny-$deny_version
cassandra=$cache/cassandra-$cassandra_version
dynamodb_local=$cache/dynamodb-local-$dynamodb_local_version
kubernetes=$cache/kubernetes-$kubernetes_version
go_client=$cache/go-client-$(cat "$root"/tests/pod/go-client/* | sha256sum | cut -c1-12)
