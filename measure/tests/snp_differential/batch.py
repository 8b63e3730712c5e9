"""Launch digests by sev-snp-measure, many in one process: a line of JSON in, a digest in hex or `error: ...` out."""

import json
import sys

from sevsnpmeasure import guest
from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vmm_types import VMMType

MODES = {"snp": SevMode.SEV_SNP, "seves": SevMode.SEV_ES, "sev": SevMode.SEV}
for line in sys.stdin:
    case = json.loads(line)
    try:
        digest = guest.calc_launch_digest(
            MODES[case["mode"]],
            case["vcpus"],
            case["signature"],
            case["firmware"],
            case["kernel"],
            case["initrd"],
            case["append"],
            case["sev_features"],
            vmm_type=VMMType[case["vmm"]],
        ).hex()
    except Exception as error:
        digest = f"error: {error!r}"
    print(digest, flush=True)
