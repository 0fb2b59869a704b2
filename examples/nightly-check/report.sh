#!/bin/sh
# Writes out/nightly.md. The first attempt forgets a section; TANDEM_REPAIR says so to the next one.
set -eu
mkdir -p out
{
  printf '# Nightly check\n\n## Disk\n\n%s\n' "$DISK"
  case "${TANDEM_REPAIR:-}" in
    *Clock*) printf '\n## Clock\n\n%s\n' "$CLOCK" ;;
  esac
} > out/nightly.md
echo "wrote out/nightly.md, attempt $TANDEM_ATTEMPT"
