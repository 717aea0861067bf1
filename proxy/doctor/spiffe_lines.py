"""Warnings of SPIFFE IDs in the rules that nobody can have, as the configuration stands."""

from collections.abc import Iterator

from msgspec.structs import replace

from proxy.config_identity import IdentitySettings
from proxy.control.admins import admin_id
from proxy.reload.files import RuleFiles
from rules.errors import Place, Problem, Severity
from rules.ruleset import IdentityLine, Ruleset


def with_spiffe_warnings(files: RuleFiles, identity: IdentitySettings) -> RuleFiles:
    """Return `files` with one more warning for each `spiffe` line that names nobody."""
    more = tuple(_warnings(files.loaded.ruleset, identity))
    loaded = replace(files.loaded, warnings=(*files.loaded.warnings, *more))
    return replace(files, loaded=loaded)


def _warnings(ruleset: Ruleset, identity: IdentitySettings) -> Iterator[Problem]:
    for app in ruleset.apps.values():
        for line in app.identity:
            if line.spiffe is None:
                continue
            found = _unusable(line.spiffe, identity)
            if found is not None:
                yield _warning(line, *found)


def _unusable(spiffe_id: str, identity: IdentitySettings) -> tuple[str, str] | None:
    """Return what keeps everybody from having `spiffe_id`, and the cure."""
    ours = identity.trust_domain
    if spiffe_id in identity.admins or spiffe_id.startswith(admin_id(ours, "")):
        return f"{spiffe_id} is kept for admins: no app has it", "name another path"
    name = spiffe_id.removeprefix("spiffe://").partition("/")[0]
    # Whom SPIRE federates with is known to SPIRE alone.
    if name == ours or name in identity.federation or identity.workload_api is not None:
        return None
    message = f"nobody is believed who comes from {name}: our trust domain is {ours}"
    return message, "correct it, or add that trust domain to identity.federation"


def _warning(line: IdentityLine, message: str, cure: str) -> Problem:
    file, _, number = line.id.rpartition(":")
    return Problem(Place(file, int(number), 1), message, cure, severity=Severity.WARNING)
