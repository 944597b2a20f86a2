#!/bin/sh
# Install the external programs that the tests drive, where they are missing and this is Debian and we are root.
# Else say what to install: the tests that need a missing program are skipped, or fail with CI=true.
set -eu
cd "$(dirname "$0")/.."

# The pages of a viewer, and what examines our own, come from npm's registry, where npm is.
npm_packages() {
    python -m tests.npm
}

missing=$(python -m tests.tools)
[ -n "$missing" ] || {
    npm_packages
    exit 0
}

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "Some tests are skipped. For all of them: apt-get install --no-install-recommends $missing"
    npm_packages
    exit 0
fi

# The packages of servers would start them, and at every boot: ours are started by the tests, on ports of their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
fi

quietly() {
    output=$("$@" 2>&1) || {
        echo "$output"
        exit 1
    }
}

echo "apt-get install $missing"
export DEBIAN_FRONTEND=noninteractive
quietly apt-get update
# shellcheck disable=SC2086 # a list of packages
quietly apt-get install --yes --no-install-recommends $missing

for server in orthanc postgresql rsyslog; do
    case " $missing " in
    *" $server "*) systemctl disable --quiet $server 2>/dev/null || true ;;
    esac
done

npm_packages
