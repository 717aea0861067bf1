"""What `--system` claims, on real folders with real owners."""

import os
from pathlib import Path

import msgspec
import pytest

from proxy.config import Listen, Locations, Settings, read_config
from proxy.confinement import (
    Breach,
    check_agents,
    check_system,
    foreign_writers,
    notes_of,
    refuse_breaches,
)
from proxy.errors import BindError, ConfigError
from rules.errors import RuleSyntaxError
from rules.ruleset import App, IdentityLine, Ruleset

OURS, ANOTHER = 64053, 64054


class Installation:
    """An installation as the package makes it: rules of root, state of ours."""

    def __init__(self, root: Path) -> None:
        self.config = root / "etc"
        self.rules = self.config / "rules"
        self.state = root / "var"
        self.runtime = root / "run"
        self.file = self.config / "sallyport.yaml"
        for folder in (self.config, self.rules, self.runtime, self.state):
            folder.mkdir(mode=0o755)
            folder.chmod(0o755)
        self.file.write_text("{}\n")
        self.file.chmod(0o644)
        self.state.chmod(0o700)
        os.chown(self.state, OURS, OURS)
        os.chown(self.runtime, OURS, OURS)

    @property
    def settings(self) -> Settings:
        places = Locations(str(self.config), str(self.state), str(self.runtime), system=True)
        settings, problems = read_config(None, places)
        assert problems == []
        return msgspec.structs.replace(settings, config_file=str(self.file))

    def breaches(self, **changed: object) -> list[Breach]:
        settings = msgspec.structs.replace(self.settings, **changed)
        return check_system(settings, OURS)

    def only(self, **changed: object) -> Breach:
        (breach,) = self.breaches(**changed)
        return breach


@pytest.fixture
def installed(tmp_path: Path) -> Installation:
    if os.geteuid() != 0:
        pytest.skip("needs root to give folders to other users")
    top = tmp_path
    while top != top.parent:  # pytest makes its own folders 0700 and root's
        top.chmod(top.stat().st_mode | 0o055)
        if top.name.startswith("pytest-"):
            break
        top = top.parent
    return Installation(tmp_path)


def test_an_installation_as_the_package_makes_it_has_no_breach(installed: Installation) -> None:
    assert installed.breaches() == []
    refuse_breaches(installed.settings, OURS)


def test_root_is_warned_and_held_to_the_same(installed: Installation) -> None:
    os.chown(installed.state, 0, 0)
    os.chown(installed.runtime, 0, 0)
    assert check_system(installed.settings, 0) == []
    (note,) = notes_of(0)
    assert note.startswith("the appliance runs as root: whoever breaks it owns the host; make the")
    assert notes_of(OURS) == []
    installed.state.chmod(0o755)
    with pytest.raises(BindError, match="others may enter it"):
        refuse_breaches(installed.settings, 0)


def test_no_app_may_be_our_own_uid() -> None:
    """threats.md, "Identity": same-uid agents rewrite rules, mint tokens, read keys."""
    line = IdentityLine("rules.yaml:3", uid=OURS)
    ruleset = Ruleset(1, {"coder": App("coder", (IdentityLine("r:2", lease="coder"), line))})
    with pytest.raises(RuleSyntaxError) as raised:
        check_agents(ruleset, OURS)
    (problem,) = raised.value.problems
    assert str(problem.place) == "rules.yaml:3:1"
    assert problem.message.startswith(f"uid {OURS} is the appliance's own")
    check_agents(ruleset, ANOTHER)


def test_no_app_may_be_root() -> None:
    """threats.md, "Identity": who may change the rules is no agent that they hold."""
    line = IdentityLine("rules.yaml:3", uid=0)
    with pytest.raises(RuleSyntaxError, match="uid 0 is root"):
        check_agents(Ruleset(1, {"coder": App("coder", (line,))}), OURS)


@pytest.mark.parametrize("which", ["upstream_ca", "egress_ca"])
def test_whom_upstreams_must_show_is_root_s_word(installed: Installation, which: str) -> None:
    """Who may write the anchors may be any upstream."""
    anchors = installed.config / "anchors.pem"
    anchors.touch()
    changed = {which: str(anchors)}
    anchors.chmod(0o644)
    assert installed.breaches(**changed) == []
    os.chown(anchors, ANOTHER, -1)
    assert installed.only(**changed).message == f"is owned by uid {ANOTHER}, not by root"


def test_what_a_link_leads_through_counts_as_well(installed: Installation, tmp_path: Path) -> None:
    """threats.md, "Identity": an agent that may rename the folder puts other rules there."""
    home = tmp_path / "home"
    real = home / "rules"
    real.mkdir(parents=True)
    for each in (home, real):
        each.chmod(0o755)
    installed.rules.rmdir()
    installed.rules.symlink_to(real)
    assert installed.breaches() == []
    os.chown(home, ANOTHER, -1)
    assert installed.only().path == str(home)


@pytest.mark.parametrize("which", ["rules", "config", "file"])
def test_rules_and_configuration_belong_to_root(installed: Installation, which: str) -> None:
    path = getattr(installed, which)
    os.chown(path, ANOTHER, -1)
    found = installed.breaches()
    assert {each.path for each in found} == {str(path)}
    assert found[0].kind == "config"
    assert found[0].message == f"is owned by uid {ANOTHER}, not by root"
    assert found[0].cure == f"chown root: {path}"


def test_our_own_uid_may_not_own_the_rules(installed: Installation) -> None:
    """What we own, whoever breaks us may rewrite: rules are root's alone."""
    os.chown(installed.rules, OURS, -1)
    assert installed.only().message == f"is owned by uid {OURS}, not by root"


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_others_may_not_write_the_rules(installed: Installation, mode: int) -> None:
    installed.rules.chmod(mode)
    breach = installed.only()
    assert breach.message == "others than root may write it"
    assert breach.cure == f"chmod go-w {installed.rules}"


def test_a_folder_above_the_rules_counts_as_well(installed: Installation) -> None:
    """Whoever may write a folder may put another folder of rules into it."""
    installed.config.chmod(0o775)
    assert {each.path for each in installed.breaches()} == {str(installed.config)}


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o755, 0o710])
def test_state_that_others_may_enter_is_refused(installed: Installation, mode: int) -> None:
    installed.state.chmod(mode)
    breach = installed.only()
    assert breach == Breach(
        "bind",
        str(installed.state),
        f"others may enter it (mode {mode:04o})",
        f"chmod 0700 {installed.state}",
    )
    with pytest.raises(BindError, match="others may enter it"):
        refuse_breaches(installed.settings, OURS)


@pytest.mark.parametrize("owner", [0, ANOTHER])
def test_state_of_another_user_is_refused(installed: Installation, owner: int) -> None:
    os.chown(installed.state, owner, -1)
    assert f"owned by uid {owner}, not by ours ({OURS})" in installed.only().message


def test_a_link_is_no_state_folder(installed: Installation) -> None:
    real = installed.state.rename(installed.state.with_name("elsewhere"))
    installed.state.symlink_to(real)
    assert installed.only().message == "is no folder"


def test_state_that_is_not_there_is_made_later(installed: Installation) -> None:
    installed.state.rmdir()
    assert installed.breaches() == []


def test_a_folder_above_the_state_that_others_may_write_is_refused(
    installed: Installation,
) -> None:
    above = installed.state.parent / "shared"
    above.mkdir()
    above.chmod(0o777)
    state = installed.state.rename(above / "var")
    breach = installed.only(state=str(state))
    assert breach.path == str(above)
    assert "may put another in the place of" in breach.message


def test_a_sticky_folder_above_lets_nobody_replace_what_is_ours(installed: Installation) -> None:
    installed.state.parent.chmod(0o1777)
    assert installed.breaches() == []


def test_evidence_elsewhere_is_guarded_too(installed: Installation) -> None:
    logs = installed.state.parent / "log"
    logs.mkdir()
    os.chown(logs, ANOTHER, -1)
    audit = msgspec.structs.replace(installed.settings.audit, file=str(logs / "audit.jsonl"))
    breach = installed.only(audit=audit)
    assert breach.path == str(logs)
    assert breach.message == f"uid {ANOTHER} owns it: audit lines stand in it"


def test_a_control_folder_that_others_may_write_is_refused(installed: Installation) -> None:
    installed.runtime.chmod(0o777)
    breach = installed.only()
    assert breach.kind == "bind"
    assert breach.message == "every user may write it: the control socket stands in it"


def test_the_control_socket_is_never_in_tmp(installed: Installation) -> None:
    tmp = installed.runtime.parent / "tmp"
    tmp.mkdir()
    tmp.chmod(0o1777)
    listen = msgspec.structs.replace(installed.settings.listen, control=f"{tmp}/control.sock")
    breach = installed.only(listen=listen)
    assert breach.message == "everybody may make a socket of that name before us"


def test_no_control_socket_needs_no_folder(installed: Installation) -> None:
    installed.runtime.chmod(0o777)
    assert installed.breaches(listen=Listen(control="")) == []


def test_the_control_group_has_to_exist(installed: Installation) -> None:
    listen = msgspec.structs.replace(installed.settings.listen, control_group="no-such-group")
    breach = installed.only(listen=listen)
    assert breach.message == "there is no such group"
    assert breach.cure.startswith("groupadd --system no-such-group")
    known = msgspec.structs.replace(installed.settings.listen, control_group="root")
    assert installed.breaches(listen=known) == []


def test_every_breach_is_told_at_once(installed: Installation) -> None:
    installed.rules.chmod(0o777)
    installed.state.chmod(0o755)
    with pytest.raises(ConfigError) as raised:
        refuse_breaches(installed.settings, OURS)
    assert "others than root may write it" in str(raised.value)
    assert "others may enter it" in str(raised.value)
    assert str(raised.value).count("cure: ") == 2


def test_who_may_write_is_named(installed: Installation) -> None:
    folder = installed.runtime
    assert foreign_writers(folder, {OURS}) is None
    assert foreign_writers(folder, {0}) == f"uid {OURS} owns it"
    folder.chmod(0o775)
    assert foreign_writers(folder, {OURS}) == f"group {OURS} may write it"
    os.chown(folder, OURS, 0)
    assert foreign_writers(folder, {OURS}) is None, "members of group 0 are root's"
    assert foreign_writers(folder / "none", {0}) is None
