"""Tables of the manual, each from the code that it describes."""

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, TypeAliasType, get_args

import msgspec
import yaml
from msgspec import Struct, structs

from proxy import config_keys
from proxy.advice import advise
from proxy.config import Locations, Settings, read_config
from proxy.egress.refusal import RETRY_AFTER_S
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.problem import STATUS
from proxy.resolver.refusal import REFUSAL, Wording
from rules import rtype
from rules.decision import Decision, Reason, Verdict
from rules.detector import SIZES
from rules.document import json_schema

ROOT = Path(__file__).resolve().parent.parent.parent
_UNITS = {"_s": "s", "_octets": "octets", "_characters": "characters"}
_PLACES = Locations("$CONFIG", "$STATE", "$RUNTIME")
_OUR_FAULT = 500  # HTTP statuses from here on: the asker did nothing wrong
_CUTS = frozenset({Reason.SNI_MISMATCH, Reason.SNI_MISSING, Reason.NOT_TLS, Reason.ECH})
_WORDINGS = frozenset(
    {
        "proxy/advice.py",
        "proxy/egress/refusal.py",
        "proxy/problem.py",
        "proxy/resolver/refusal.py",
        "rules/decision.py",
    }
)
_SCHEMA_PARTS = {
    "RuleFile": "The file",
    "App": "An app, under `apps:`",
    "Identity": "A line of `identity:`",
    "Process": "`process:` of such a line",
    "Allow": "An entry of `allow:`",
    "ClientCertificate": "`client_certificate:` of an allow",
    "Deny": "An entry of `deny:`",
    "Attested": "`attested:` in a `require:`",
    "ReferenceValues": "`reference_values:` of an app",
    "Launch": "An entry of `launched:`",
    "Capability": "An entry of `capabilities:`",
    "Detect": "`detect:`",
    "DenyList": "An entry of `lists:`",
}


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    lines = [[*head], ["---"] * len([*head]), *([str(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


# limits


def limits() -> str:
    """Return every limit with its default, precedent and the files that enforce it."""
    head = ("limit", "default", "unit", "precedent, what it bounds", "enforced in", "counted")
    found = []
    for name, comment in _limit_comments():
        default = getattr(Limits(), name)
        where, is_counted = _enforced(name)
        counted = "yes" if is_counted else ""
        found.append((f"`{name}`", _amount(default), _unit(name), comment, where, counted))
    return table(head, found)


def _limit_comments() -> Iterator[tuple[str, str]]:
    source = (ROOT / "proxy" / "limits.py").read_text(encoding="utf-8")
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            parts = [line.partition("  # ")[2] for line in lines[node.lineno - 1 : node.end_lineno]]
            yield node.target.id, " ".join(filter(None, parts)).replace(" (reference.md)", "")


def _amount(value: float) -> str:
    for unit, octets in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value >= max(octets, 10_000) and not value % octets:
            return f"{value // octets} {unit}"
    return str(value).removesuffix(".0")


def _unit(name: str) -> str:
    return next((unit for end, unit in _UNITS.items() if name.endswith(end)), "count")


def _enforced(name: str) -> tuple[str, bool]:
    by_name = re.compile(rf'limits\.{name}\b|"{name}"')
    sources = [each for each in _sources("proxy") if each[0] != "proxy/limits.py"]
    files = [path for path, text in sources if by_name.search(text)]
    counted = any(f'"{name}"' in text for _, text in sources)
    return ", ".join(f"`{path}`" for path in files), counted


@cache
def _sources(*rooms: str) -> tuple[tuple[str, str], ...]:
    """Return path and text of every module of `rooms`."""
    paths = sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))
    return tuple((str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")) for path in paths)


# what leaks


def leaks() -> str:
    """Return how much of an app's look-ups may go out, by window; octets."""
    sizes, ordinary = SIZES, "all suffixes that are neither popular nor of the second tier"
    kept = f"{sizes.given_back} octets a day below each that it then connects to by the proxy"
    wide = sizes.block.times(sizes.wide_factor)
    rows = (
        ("new names below one suffix", sizes.block),
        (f"new names, over {ordinary}; but for {kept}", sizes.app),
        ("the choice among known names, below one suffix", sizes.choice),
        ("the choice among known names, over all such suffixes", sizes.app_choice),
        ("new names below a suffix of the second tier (`rules/tiers`), or a popular one", wide),
    )
    return table(
        ("of one app, octets", "in 2 min", "in an hour", "in a day"),
        ((what, *(f"{each:,}" for each in structs.astuple(of))) for what, of in rows),
    )


# metrics


def metrics() -> str:
    """Return every metric with its labels and their closed sets."""
    rows = (
        (f"`{row.name}`", row.kind, "; ".join(_labels(row.labels)) or "none", row.help)
        for row in Metrics().table()
    )
    return table(("metric", "kind", "labels", "meaning"), rows)


def _labels(labels: Any) -> Iterator[str]:
    for label, values in labels.items():
        yield f"`{label}`: {_values(label, values)}"


def _values(label: str, values: tuple[str, ...]) -> str:
    reasons = [str(reason) for reason in Reason]
    if label == "version":
        return "the version that runs"
    if label == "limit":
        return "every name of [limits.md](limits.md)"
    if set(values) >= set(reasons):
        rest = [value for value in values if value not in reasons]
        return ", ".join(["every one of [reasons.md](reasons.md)", *rest])
    return ", ".join(values)


# reasons


def reasons() -> str:
    """Return every reason with how both planes word it, and what the asker is told."""
    head = ("reason", "DNS", "EDE", "HTTP", "what the asker is told to do (`how`)")
    rows = []
    for reason in Reason:
        name = f"`{reason}`" if _is_given(reason) else f"`{reason}` (not yet)"
        how = advise(Decision(Verdict.DENY, reason), "APP")
        rows.append((name, *_on_dns(reason), _on_http(reason), how))
    return table(head, rows)


def _on_dns(reason: Reason) -> tuple[str, str]:
    row = REFUSAL[reason]
    if row.wording is Wording.SERVFAIL and STATUS[reason] < _OUR_FAULT:
        return "-", "-"  # it never arises there
    is_configured = row.wording is Wording.AS_CONFIGURED
    return "`refuse`" if is_configured else row.wording.name, str(row.ede)


def _on_http(reason: Reason) -> str:
    if reason in _CUTS:
        return "cut"
    if reason is Reason.LOCAL:
        return "-"
    wait = RETRY_AFTER_S.get(reason)
    return f"{STATUS[reason]}, Retry-After {wait}" if wait else str(STATUS[reason])


def _is_given(reason: Reason) -> bool:
    """Return whether anything but the tables of wordings speaks of it."""
    word = re.compile(rf"Reason\.{reason.name}\b")
    texts = [text for path, text in _sources("proxy", "rules") if path not in _WORDINGS]
    return any(map(word.search, texts))


# sallyport.yaml


def configuration() -> str:
    """Return every key of sallyport.yaml, its type and default."""
    defaults, _ = read_config(None, _PLACES)
    rows = [
        (f"`{key}`", _type_name(annotation), _default(key, defaults))
        for key, annotation in _keys(config_keys.ConfigKeys, "")
    ]
    return table(("key", "value", "default"), rows)


def _keys(struct: type[Struct], prefix: str) -> Iterator[tuple[str, Any]]:
    for field in msgspec.structs.fields(struct):
        inner = [each for each in get_args(field.type) if _is_struct(each)]
        if inner:
            yield from _keys(inner[0], f"{prefix}{field.encode_name}.")
        else:
            yield prefix + field.encode_name, field.type


def _seconds(value: object, part: str) -> str | None:
    """Return the default of a key whose setting is in seconds."""
    seconds = getattr(value, f"{part}_s", None)
    return None if seconds is None else f"{seconds}s"


def _is_struct(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)


def _type_name(annotation: Any) -> str:
    kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    words = []
    for kind in kinds:
        plain = kind.__value__ if isinstance(kind, TypeAliasType) else kind
        if plain is not type(None):
            words.append(_WORDS[re.sub(r"^.*?(list|dict|str|int|float).*$", r"\1", str(plain))])
    return " or ".join(dict.fromkeys(words))


_WORDS = {"list": "list", "dict": "map", "str": "text", "int": "number", "float": "number"}


def _default(key: str, settings: Settings) -> str:
    value: object = settings
    for part in key.removeprefix("resolver.").split("."):
        value = getattr(value, part, None) or _seconds(value, part)
    if isinstance(value, Limits) or value in (None, "", ()):
        return "none"
    if isinstance(value, tuple):
        return ", ".join(f"`{each}`" for each in value)
    return f"`{_amount(value) if isinstance(value, int) else value}`"


# rule files


def rule_keys() -> str:
    """Return the keys of rule files, a table for each mapping."""
    parts = []
    definitions = json_schema()["$defs"]
    for name, title in _SCHEMA_PARTS.items():
        definition = definitions[name]
        rows = [
            (f"`{key}`", _schema_type(value, definitions), value.get("description", ""))
            for key, value in definition["properties"].items()
        ]
        parts.append(f"**{title}.** {definition['description']}\n")
        parts.append(table(("key", "value", "meaning"), rows) + "\n")
    return "\n".join(parts).rstrip()


def _schema_type(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in schema:
        return _schema_type(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        kinds = [_schema_type(each, definitions) for each in schema["anyOf"]]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        return f"list of: {_schema_type(schema['items'], definitions)}"
    words = {"object": "map", "string": "text", "integer": "number", "boolean": "true or false"}
    return words[schema["type"]]


def record_types() -> str:
    """Return the record types that have a mnemonic."""
    return ", ".join(sorted(rtype.BY_MNEMONIC)) + "; any other as `TYPE123` (RFC 3597)."


def packs() -> str:
    """Return the shipped packs and the hosts in each."""
    rows = []
    for path in sorted((ROOT / "rules" / "packs").glob("*.yaml")):
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))["allow"]
        hosts = [entry["host"] for entry in entries]
        flat = [host for each in hosts for host in (each if isinstance(each, list) else [each])]
        rows.append((f"`{path.stem}`", ", ".join(f"`{host}`" for host in flat)))
    return table(("pack", "hosts"), rows)
