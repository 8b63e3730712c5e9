# Shared by scripts/demo and scripts/test: building the programs, and getting the locked inputs. Sourced, not run.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# The demo runs what a user would install; the tests run the profile that they are compiled with anyway.
PROFILE=${PROFILE:-release}
BULLION=$ROOT/target/$PROFILE/bullion
export BULLION_GUEST=$ROOT/target/guest/bullion-guest
export BULLION_TEESIM=$ROOT/target/$PROFILE/libteesim.so
CACHE=${BULLION_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/bullion}

say() { printf '%s\n' "$*" >&2; }

# cargo without the network where the crates are already there. Where one is not, all are fetched first: what component `guest` is made from is
# more than any one build needs. The lock file decides the versions.
cargo_locked() {
  local verb=$1; shift
  cargo fetch --locked --offline >/dev/null 2>&1 || cargo fetch --locked --quiet || return
  cargo "$verb" --locked --offline "$@"
}

# cargo test of all crates, or of the targets that are named: with one set of features, whichever crates' tests run. With others, the crates below
# would be compiled again.
cargo_test() { cargo_locked test --workspace --features bullion-spec/schema "$@"; }

build_programs() {
  local words=(--quiet -p bullion -p bullion-teesim)
  # What the lab puts beside its server, with the features of `cargo_test`.
  [ "$PROFILE" = debug ] && words+=(-p bullion-fakegpu -p bullion-spec --features bullion-spec/schema)
  [ "$PROFILE" = release ] && words+=(--release)
  cargo_locked build "${words[@]}"
  "$ROOT/scripts/build-guest" >/dev/null
}

# use_recipe VARIABLE NAME: downloads what image-recipes/NAME.lock names and sets VARIABLE to the recipe to use. Where the
# mirror no longer has an input, locks again to what it has, into out/unpublished, and says so. Any other failure (no
# network, a changed file) stays one.
use_recipe() {
  local variable=$1 name=$2 recipe=$ROOT/image-recipes/$2.toml code=0 errors
  errors=$(mktemp)
  "$BULLION" fetch "$recipe" 2> >(tee "$errors" >&2) || code=$?
  if [ $code = 4 ] && grep -q 'the mirror no longer has' "$errors"; then
    rm -f "$errors"
    say "############################################################################################"
    say "# The mirror no longer has what image-recipes/$name.lock names. Locking again to what it has."
    say "# What is made from this lock is UNPUBLISHED: its digests are nobody's reference values."
    say "############################################################################################"
    mkdir -p "$ROOT/out/unpublished"
    cp "$ROOT"/image-recipes/*.toml "$ROOT/out/unpublished/"
    recipe=$ROOT/out/unpublished/$name.toml
    local accept=() suite
    local chain=("$recipe") base
    while base=$(sed -n 's/^extends = "\(.*\)"$/\1/p' "${chain[-1]}") && [ -n "$base" ]; do
      chain+=("$ROOT/out/unpublished/$base")
    done
    for suite in $(sed -n 's/^\[suites\.\(.*\)\]$/\1/p' "${chain[@]}" | sort -u); do accept+=(--accept-expired "$suite"); done
    "$BULLION" lock "$recipe" --update --unpublished "${accept[@]}" || return
    UNPUBLISHED=yes
  elif [ $code != 0 ]; then
    rm -f "$errors"
    return $code
  fi
  rm -f "$errors"
  printf -v "$variable" '%s' "$recipe"
}

# Whether this user may create VMs: what a simulated launch needs.
has_kvm() { [ -r /dev/kvm ] && [ -w /dev/kvm ]; }
