#!/bin/sh
# Write requirements/*.txt anew: `lock.sh UV [OPTION...]`, where options such as --upgrade go to the resolution.
# Each file holds what its extra adds to the files below it: exact versions, with the hashes of all their files, so that
# one lock serves every platform and every Python of pyproject.toml. Versions that still fit are kept.
set -eu
uv=$1
shift
cd "$(dirname "$0")/.."
oldest=$(sed -n 's/^requires-python = ">=\(.*\)"$/\1/p' pyproject.toml)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

compile() { # versions that stand in the output file are kept
    "$uv" pip compile --quiet --universal --python-version "$oldest" --generate-hashes --annotation-style line \
        --no-strip-extras --custom-compile-command "make lock" pyproject.toml "$@" >/dev/null
}

# Leave out what stands in a file before it: the same requirement, or the same without a condition.
added='FNR == 1 { last = FILENAME == ARGV[ARGC - 1] }
/^[^ #]/ { sub(/ \\$/, ""); exact = $0; sub(/ ;.*/, ""); known = (exact in seen) || ($0 in seen); seen[exact]; $0 = exact " \\" }
last && !known'

lock() { # NAME "FILES BELOW" OPTION...
    name=$1
    below=$2
    shift 2
    cp "$work/all" "$work/whole"
    compile --output-file "$work/whole" "$@"
    (cd "$work" && awk "$added" $below whole >"$name.txt")
}

cat requirements/*.txt >"$work/all"
# The newest torch need not be one that every index has: it is chosen here, by hand.
printf '%s\n' torch==2.14.1 torchvision==0.29.1 setuptools |
    compile - --all-extras --output-file "$work/all" "$@"
echo setuptools | lock node "" - # it builds the node, without a network
lock postgres "node.txt" --extra postgres
lock oidc "node.txt" --extra oidc
lock parquet "node.txt" --extra parquet
lock gpu "node.txt" --extra gpu
lock training "node.txt gpu.txt" --extra training
lock dev "node.txt postgres.txt oidc.txt parquet.txt gpu.txt training.txt" --extra dev
rm -f requirements/*.txt
mv "$work"/*.txt requirements
