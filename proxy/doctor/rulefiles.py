"""Checks of the rules: whether they load, and who may change them."""

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from proxy.confinement import AS_ROOT, AS_ROOT_CURE, ROOT, chain, check_system
from proxy.doctor.patient import Finding, Patient, Severity
from proxy.doctor.spiffe_lines import with_spiffe_warnings
from proxy.reload.files import RuleFiles, check_listeners, public_suffixes, read_rules
from proxy.reload.lists import load_lists
from rules.errors import Problem, RuleSyntaxError
from rules.errors import Severity as RuleSeverity
from rules.ruleset import Ruleset


def rule_files(patient: Patient) -> Iterator[Finding]:
    """Find every error and warning of the rule files, as `check` does."""
    try:
        files = rules_of(patient, system=patient.settings.system)
    except RuleSyntaxError as error:
        yield from map(_finding, error.problems)
        return
    if files is not None:
        yield from map(_finding, files.loaded.warnings)
        yield from _list_files(patient, files.loaded.ruleset)


def _list_files(patient: Patient, ruleset: Ruleset) -> Iterator[Finding]:
    try:  # when they were loaded is nobody's question here
        listed = load_lists(ruleset.lists, 0.0, system=patient.settings.system)
    except RuleSyntaxError as error:
        yield from map(_finding, error.problems)
    else:
        yield from map(_finding, listed.read.warnings)


def rule_writers(patient: Patient) -> Iterator[Finding]:
    """Find rules and configuration that a user may write whom the rules know as an agent.

    Without `--system` that is how things are: enforcement is advisory.
    """
    severity: Severity = "error" if patient.settings.system else "info"
    uids = _agents(patient)
    if patient.settings.system and patient.uid in uids:
        message = f"an app is known by uid {patient.uid}, which is the appliance's own"
        yield Finding("error", message, "let agents run as another user than sallyport")
    for uid in sorted(uids):
        path = next((each for each in _guarded(patient) if may_write(each, uid)), None)
        if path is not None:
            message = f"uid {uid}, which the rules know as an agent, may write {path}"
            cure = "run with --system, or agents in the sandbox or as another user"
            yield Finding(severity, message, cure)


def confinement(patient: Patient) -> Iterator[Finding]:
    """Find what does not hold of what `--system` claims."""
    if patient.settings.system:
        if patient.uid == ROOT:
            yield Finding("warning", AS_ROOT, AS_ROOT_CURE)
        for breach in check_system(patient.settings, patient.uid):
            yield Finding("error", f"{breach.path}: {breach.message}", breach.cure)


def may_write(path: Path, uid: int) -> bool:
    """Return whether a process of `uid`, with its usual groups, may write `path`."""
    try:
        found = path.stat()
    except OSError:
        return False
    if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX and found.st_uid != uid:
        return False  # it may add to the folder, and replace nothing in it
    if uid in {0, found.st_uid}:
        return True  # an owner may give itself the right
    if found.st_gid in _groups(uid):
        return bool(found.st_mode & stat.S_IWGRP)
    return bool(found.st_mode & stat.S_IWOTH)


def may_read(path: Path, uid: int) -> bool:
    """Return whether a process of `uid`, with its usual groups, may read `path`, once it is there.

    Raises:
        OSError: we may not look.
    """
    found = path.stat()
    if uid == 0:
        return True
    if uid == found.st_uid:
        return bool(found.st_mode & stat.S_IRUSR)
    return bool(found.st_mode & (stat.S_IRGRP if found.st_gid in _groups(uid) else stat.S_IROTH))


def rules_of(patient: Patient, *, system: bool) -> RuleFiles | None:
    """Return the rules; None where there are none yet, and the first start writes some.

    Raises:
        RuleSyntaxError: they do not load.
    """
    settings = patient.settings
    if settings.first_run and not any(Path(each).exists() for each in settings.rules):
        return None
    files = read_rules(settings.rules, 1, public_suffixes(), first_run=False, system=system)
    check_listeners(files.loaded.ruleset, settings.listen.agents)
    return with_spiffe_warnings(files, settings.identity)


def _groups(uid: int) -> list[int]:
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return []
    return os.getgrouplist(user.pw_name, user.pw_gid)


def _guarded(patient: Patient) -> Iterator[Path]:
    settings = patient.settings
    for folder in map(Path, settings.rules):
        yield from sorted(folder.glob("*.yaml"))
        yield from chain(folder)
    yield from _lists(patient)
    if settings.config_file:
        yield from chain(Path(settings.config_file).absolute())


def _lists(patient: Patient) -> Iterator[Path]:
    try:
        files = rules_of(patient, system=False)
    except RuleSyntaxError:
        return  # `rule_files` tells of it
    for source in () if files is None else files.loaded.ruleset.lists:
        yield Path(source.file)
        yield from chain(Path(source.file).parent)


def _agents(patient: Patient) -> set[int]:
    try:
        files = rules_of(patient, system=False)  # whoever owns them, they say who the agents are
    except RuleSyntaxError:
        files = None
    if files is None:
        return set()
    apps = files.loaded.ruleset.apps.values()
    return {line.uid for app in apps for line in app.identity if line.uid is not None}


def _finding(problem: Problem) -> Finding:
    # A warning is for who writes rules: `check` ends in 1 for it, an installation is not ill of it.
    severity: Severity = "error" if problem.severity is RuleSeverity.ERROR else "info"
    return Finding(severity, f"{problem.place}: {problem.message}", problem.cure)
