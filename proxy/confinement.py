"""What `--system` claims, checked: our own uid, rules that are root's, state that is ours.

Folders, files and their owners are looked at, with stat(2) alone.  The same list is what
`up --system` refuses to start with and what `doctor` finds.
"""

import grp
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from msgspec import Struct

from proxy.config import Settings
from proxy.errors import BindError, ConfigError
from rules.errors import Place, Problem, RuleSyntaxError
from rules.ruleset import IdentityLine, Ruleset

ROOT = 0
USER = "sallyport"
"""Whom the unit and the image make."""
AS_ROOT = "the appliance runs as root: whoever breaks it owns the host"
AS_ROOT_CURE = f"make the user {USER} and start the unit of docs/deployment.md"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_ENTER = stat.S_IRWXG | stat.S_IRWXO


class Breach(Struct, frozen=True):
    """One condition of `--system` that does not hold; `kind` is which exit code it ends in."""

    kind: Literal["config", "bind"]
    path: str
    message: str
    cure: str

    def render(self) -> str:
        """Return the lines that a person reads."""
        return f"{self.path}: {self.message}\n    cure: {self.cure}"


def check_system(settings: Settings, uid: int) -> list[Breach]:
    """Return every condition of `--system` that does not hold for an appliance run as `uid`."""
    return [
        *(breach for path in _rooted(settings) for breach in _of_root(path)),
        *_state(Path(settings.state), uid),
        *_audit(settings, uid),
        *_control(settings, uid),
    ]


def refuse_breaches(settings: Settings, uid: int) -> None:
    """Check that `--system` may be claimed.

    Raises:
        ConfigError: the uid, or who may write the rules, is not what it claims (exit 3).
        BindError: a folder of ours is not ours alone (exit 4).
    """
    breaches = check_system(settings, uid)
    if not breaches:
        return
    text = "\n".join(["--system cannot be claimed:", *(each.render() for each in breaches)])
    if any(each.kind == "config" for each in breaches):
        raise ConfigError(text)
    raise BindError(text)


def check_agents(ruleset: Ruleset, uid: int) -> None:
    """Check that no app is known by the appliance's own `uid`, or root's: it could change all.

    Raises:
        RuleSyntaxError: with a problem for each line that names it.
    """
    problems = [
        _own_agent(line)
        for app in ruleset.apps.values()
        for line in app.identity
        if line.uid in {ROOT, uid}
    ]
    if problems:
        raise RuleSyntaxError(tuple(problems))


def _own_agent(line: IdentityLine) -> Problem:
    file, _, number = line.id.rpartition(":")
    whose = "root, who may change the rules" if line.uid == ROOT else "the appliance's own"
    message = f"uid {line.uid} is {whose}; with --system agents are other users"
    return Problem(Place(file, int(number), 1), message, "let agents run as another user")


def notes_of(uid: int) -> list[str]:
    """Return what an operator is told of an appliance that runs as `uid` under --system."""
    return [f"{AS_ROOT}; {AS_ROOT_CURE}"] if uid == ROOT else []


def chain(path: Path) -> Iterator[Path]:
    """Yield `path` and every folder above it: who may write one may put another in its place."""
    yield path
    yield from path.parents


def foreign_writers(path: Path, trusted: Iterable[int]) -> str | None:
    """Return who but `trusted` may change `path`; None for nobody, or where nothing stands there.

    In a sticky folder only an entry's owner may replace it (unlink(2)): it lets nobody in.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    if found.st_uid not in trusted:
        return f"uid {found.st_uid} owns it"
    if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX:
        return None
    if found.st_mode & stat.S_IWOTH:
        return "every user may write it"
    if found.st_mode & stat.S_IWGRP and found.st_gid != ROOT:
        return f"group {found.st_gid} may write it"
    return None


def is_shared(folder: Path) -> bool:
    """Return whether everybody may put something into `folder`, as into /tmp."""
    try:
        mode = folder.stat().st_mode
    except OSError:
        return False
    return bool(mode & stat.S_IWOTH and mode & stat.S_ISVTX)


def _rooted(settings: Settings) -> Iterator[Path]:
    """Yield what only root may change: rules, the configuration, and whom to believe."""
    yield from map(Path, settings.rules)
    identity = settings.identity
    bundles = (path for each in identity.federation.values() for path in (each.file, each.ca))
    provider = None if identity.oidc is None else identity.oidc.ca
    roots = settings.attestation.ek_roots
    files = (settings.upstream_ca, settings.egress_ca, provider, *bundles, *roots)
    yield from (Path(each) for each in files if each)
    if settings.config_file:
        yield Path(settings.config_file).absolute()


def _of_root(path: Path) -> Iterator[Breach]:
    for each in dict.fromkeys((*chain(path), *chain(path.resolve()))):  # a link, and its target
        found = _writable(each)
        if found is not None:
            message, cure = found
            yield Breach("config", str(each), message, cure)


def _writable(path: Path) -> tuple[str, str] | None:
    try:
        found = path.stat()
    except OSError:  # what is not there is told by who reads it
        return None
    if found.st_uid != ROOT:
        return f"is owned by uid {found.st_uid}, not by root", f"chown root: {path}"
    is_sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    if found.st_mode & _OTHERS_WRITE and not is_sticky:
        return "others than root may write it", f"chmod go-w {path}"
    return None


def _state(folder: Path, uid: int) -> Iterator[Breach]:
    try:
        found = folder.lstat()
    except OSError:  # made at the start, 0700
        return
    if not stat.S_ISDIR(found.st_mode):
        yield Breach("bind", str(folder), "is no folder", "move it away")
    elif found.st_uid != uid:
        message = f"is owned by uid {found.st_uid}, not by ours ({uid})"
        yield Breach("bind", str(folder), message, f"chown {uid} {folder}")
    elif found.st_mode & _OTHERS_ENTER:
        message = f"others may enter it (mode {stat.S_IMODE(found.st_mode):04o})"
        yield Breach("bind", str(folder), message, f"chmod 0700 {folder}")
    yield from _above(folder, uid)


def _above(path: Path, uid: int) -> Iterator[Breach]:
    for parent in path.parents:
        who = foreign_writers(parent, {ROOT, uid})
        if who is not None:
            message = f"{who}, and may put another in the place of {path}"
            yield Breach("bind", str(parent), message, f"chown root: {parent}; chmod go-w {parent}")


def _audit(settings: Settings, uid: int) -> Iterator[Breach]:
    file = Path(settings.audit.file)
    if not file.is_relative_to(settings.state):
        yield from (
            Breach("bind", str(each), f"{who}: audit lines stand in it", f"chown {uid}: {each}")
            for each in file.parents
            if (who := foreign_writers(each, {ROOT, uid})) is not None
        )


def _control(settings: Settings, uid: int) -> Iterator[Breach]:
    listen = settings.listen
    if not listen.control:
        return
    folder = Path(listen.control).parent
    if is_shared(folder):
        message = "everybody may make a socket of that name before us"
        yield Breach("config", listen.control, message, "listen.control: $RUNTIME/control.sock")
    for each in chain(folder):
        who = foreign_writers(each, {ROOT, uid})
        if who is not None:
            yield Breach(
                "bind", str(each), f"{who}: the control socket stands in it", f"chmod go-w {each}"
            )
    yield from _group(listen.control_group)


def _group(name: str | None) -> Iterator[Breach]:
    if name is None:
        return
    try:
        grp.getgrnam(name)
    except KeyError:
        message = "there is no such group"
        cure = f"groupadd --system {name}, and add the admins (no agent) to it"
        yield Breach("config", f"listen.control_group: {name}", message, cure)
