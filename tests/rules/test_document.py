"""The keys of a rule file are those of the reference, and their schema says so to editors."""

from typing import Any

from msgspec import UNSET

from rules import document
from rules.decision import Refuse
from rules.text import SourceText, decode

DIGEST = "9f2c" * 16
REFERENCE = f"""
apps:
  coder:
    identity:
      - {{lease: coder}}
      - {{spiffe: "spiffe://desk.example/agent/coder"}}
      - {{token: coder}}
      - {{listener: "172.18.0.1:5300"}}
      - {{process: {{uid: 1000, cgroup: /user.slice/coder.scope, exe_sha256: "{DIGEST}"}}}}
    require: [mtls, {{attested: {{level: launched, max_age: 300s}}}}]
    refuse: nxdomain
    allow:
      - name: model-api
        host: [api.anthropic.com, "*.example.net"]
        ports: [443]
        types: [A, AAAA, HTTPS]
        tls: true
        ech: cut
        addresses: [10.1.2.0/24]
        multi_tenant: accepted
        methods: [GET, HEAD]
        paths: ["/repos/acme/**"]
        require: [attested]
      - addresses: [192.0.2.7/32]
        ports: [22]
        tls: false
      - {{pack: llm, name: models}}
    deny:
      - {{host: "**.ngrok.io", reason: tunnels are out of bounds}}
    detect: {{mode: block}}
lists:
  - {{file: lists/exfil.txt, format: auto, refuse: sinkhole, except: [ok.example.com]}}
"""


def test_the_example_of_the_reference_is_read_whole() -> None:
    content, problems = decode(SourceText("rules.yaml", REFERENCE), document.RuleFile)
    assert problems == []
    assert content is not None
    assert content.apps is not UNSET
    assert content.lists is not UNSET
    coder = content.apps["coder"]
    assert coder.identity is not UNSET
    assert coder.allow is not UNSET
    assert [line.process is not UNSET for line in coder.identity] == [False] * 4 + [True]
    terms = document.Attested(level="launched", max_age="300s")
    assert coder.require == ["mtls", document.AttestedRequirement(attested=terms)]
    assert coder.refuse is Refuse.NXDOMAIN
    assert coder.allow[0].name == "model-api"
    assert coder.allow[0].paths == ["/repos/acme/**"]
    assert coder.allow[1].tls is False
    assert coder.allow[2] == document.Allow(pack="llm", name="models")
    assert coder.detect == document.Detect(mode="block")
    assert content.lists[0].except_ == ["ok.example.com"]


def resolve(schema: dict[str, Any], name: str) -> Any:
    return schema["$defs"][name]


def test_the_schema_names_every_key_with_a_description() -> None:
    schema = document.json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$ref"] == "#/$defs/RuleFile"
    allow = resolve(schema, "Allow")
    assert sorted(allow["properties"]) == [
        "addresses", "client_certificate", "detect", "ech", "host", "https_upgrade", "methods",
        "multi_tenant", "name", "pack", "paths", "ports", "require", "tls", "types",
    ]  # fmt: skip
    assert "PackFile" not in schema["$defs"]
    for definition in schema["$defs"].values():
        for key, keyword in definition.get("properties", {}).items():
            assert keyword.get("description") or "$ref" in keyword, key
        if definition.get("type") == "object":
            assert definition["additionalProperties"] is False


def test_the_schema_bounds_what_the_loader_bounds() -> None:
    schema = document.json_schema()
    ports = resolve(schema, "Allow")["properties"]["ports"]
    assert ports["items"] == {"type": "integer", "minimum": 1, "maximum": 65535}
    assert ports["minItems"] == 1
    app = resolve(schema, "App")["properties"]
    assert "minItems" not in app["allow"]
    assert "minItems" not in app["deny"]
    assert resolve(schema, "DenyList")["required"] == ["file"]
    apps = resolve(schema, "RuleFile")["properties"]["apps"]
    assert apps["propertyNames"] == {"pattern": "^[a-z0-9-]+$"}
