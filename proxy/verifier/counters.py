"""Whether what a TPM counts goes on: who has reset it, or runs an older state of it, is found out.

TPM 2.0, part 1, section 36, and part 2, section 10.11: `resetCount` rises with every TPM Reset,
`restartCount` with every Restart or Resume, `Clock` with time.
"""

from proxy.attested.attester import Attester
from proxy.channel import Verified


def gone_back(known: Attester, quoted: Verified, slack_s: float) -> str:
    """Return what has gone back since the last quote, "" where nothing has.

    Two quotes may pass each other on their way for as long as a nonce counts, `slack_s` seconds:
    so much may the clock of one lie behind.  A higher `resetCount` is a reboot, after which the
    others begin anew; what was booted the PCRs tell.
    """
    if quoted.reset_count != known.reset_count:
        if quoted.reset_count < known.reset_count:
            return f"resetCount went back from {known.reset_count} to {quoted.reset_count}"
        return ""
    if quoted.restart_count < known.restart_count:
        return f"restartCount went back from {known.restart_count} to {quoted.restart_count}"
    if not quoted.is_safe and quoted.restart_count > known.restart_count:
        return ""  # Clock may then be less than what was reported before (part 2, section 10.11.4)
    if quoted.clock_ms + slack_s * 1000 < known.clock_ms:
        return f"Clock went back from {known.clock_ms} to {quoted.clock_ms} ms"
    return ""


def is_reset(known: Attester, quoted: Verified) -> bool:
    """Return whether one of the counts rose, or was never told: that is written at once."""
    counts = quoted.reset_count, quoted.restart_count
    return counts > (known.reset_count, known.restart_count)
