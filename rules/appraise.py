"""Evidence held against the reference values of an app (RFC 9334, section 8.3).

What is wrong is a text for whoever attests: what was found, what to do.  Nothing is where all fits.
"""

from collections.abc import Mapping

from rules.ruleset import Launched, ReferenceValues

_SHOWN = 16  # hex digits of a digest in a text; audit has it whole


def appraise_quote(values: ReferenceValues, pcrs: Mapping[int, str], tpm: str) -> str:
    """Return why a quote does not fit; "" where it does.

    `pcrs` are the values that were quoted, `tpm` is the SHA-256 of the endorsement key's
    SubjectPublicKeyInfo, all in lower-case hex.  More PCRs than the rules name may be quoted.
    """
    if not values.pcrs:
        return "no PCR values are known to compare with; ask the admin for `reference_values.pcrs`"
    if values.tpms is not None and tpm not in values.tpms:
        return f"the TPM {tpm} is not among `reference_values.tpms`; ask the admin to add it"
    for number in sorted(values.pcrs):
        found = pcrs.get(number)
        if found is None:
            return f"PCR {number} is not quoted; quote PCR {_listed(values)} of the SHA-256 bank"
        if found not in values.pcrs[number]:
            return (
                f"PCR {number} is {found}, which is not among its `reference_values`; "
                "boot what the admin knows, or ask for the value to be added"
            )
    return ""


def appraise_key(values: ReferenceValues, key_sha256: str) -> str:
    """Return why a software key does not fit; "" where it does.

    `key_sha256` is that of its SubjectPublicKeyInfo, in lower-case hex.
    """
    if values.keys is None or key_sha256 in values.keys:
        return ""
    return f"the key {key_sha256} is not among `reference_values.keys`; ask the admin to add it"


def appraise_launch(
    values: ReferenceValues, file: str, script: str | None, interpreter: str | None
) -> str:
    """Return why what was launched does not fit; "" where it does.

    All are SHA-256 in lower-case hex; None or "" where there is no such file.
    """
    found = Launched(file, script or None, interpreter or None)
    if found in values.launched:
        return ""
    if not values.launched:
        return (
            "nothing is known that may be launched; ask the admin for `reference_values.launched`"
        )
    parts = {"file": found.file, "script": found.script, "interpreter": found.interpreter}
    words = ", ".join(f"{name} {each[:_SHOWN]}" for name, each in parts.items() if each)
    return f"{words} is not among `reference_values.launched`; ask the admin to add all digests"


def _listed(values: ReferenceValues) -> str:
    return ", ".join(map(str, sorted(values.pcrs)))
