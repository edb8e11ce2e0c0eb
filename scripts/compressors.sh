#!/usr/bin/env bash
# Bits per byte of gzip and xz on the held-out text of the package: scripts/compressors.sh
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${MOE_JAX_VENV:-$root/.venv}/bin/python"

"$python" - "$root/moe_jax/data/embedded/validation.jsonl.gz" <<'PYTHON'
import gzip
import json
import lzma
import sys

with gzip.open(sys.argv[1], "rt", encoding="utf-8") as lines:
    text = "\n".join(json.loads(line)["text"] for line in lines).encode("utf-8")
sizes = {
    "gzip -9": len(gzip.compress(text, 9)),
    "xz -9e": len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)),
}
print(f"{len(text):,} bytes of held-out text")
for name, size in sizes.items():
    print(f"{name:8} {size:9,} bytes  {8 * size / len(text):.3f} bits per byte")
PYTHON
