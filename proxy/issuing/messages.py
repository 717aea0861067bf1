"""The gRPC messages that the issuer speaks, as tables of fields.

Field numbers, names and type URLs are those of the SPIFFE Workload API, Envoy's SDS and ext_authz,
and google.rpc.Status; fields that we neither read nor write are left out, as a reader of
Protocol Buffers passes over them.  The pool is one of our own, so that whoever imports the
original descriptors in the same process meets no second definition.
"""

import re
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, message_factory, struct_pb2, wrappers_pb2
from google.protobuf.descriptor_pool import DescriptorPool

type Message = Any
"""A message of protobuf, whose fields are attributes; or the class of one."""
type _Messages = dict[str, tuple[str, ...]]

SDS_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
VALIDATOR_TYPE = (
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"
)
_LINE = re.compile(r"(repeated )?(?:map<string, ?)?([\w.]+)>? (\w+) = (\d+)")
_SCALARS = {
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    "int32": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
}
_WELL_KNOWN = (any_pb2, struct_pb2, wrappers_pb2)

# https://github.com/spiffe/go-spiffe, proto/spiffe/workload/workload.proto: no package
_WORKLOAD: _Messages = {
    "X509SVIDRequest": (),
    "X509SVIDResponse": (
        "repeated X509SVID svids = 1",
        "repeated bytes crl = 2",
        "map<string, bytes> federated_bundles = 3",
    ),
    "X509SVID": (
        "string spiffe_id = 1",
        "bytes x509_svid = 2",
        "bytes x509_svid_key = 3",
        "bytes bundle = 4",
        "string hint = 5",
    ),
    "X509BundlesRequest": (),
    "X509BundlesResponse": ("repeated bytes crl = 1", "map<string, bytes> bundles = 2"),
    "JWTSVIDRequest": ("repeated string audience = 1", "string spiffe_id = 2"),
    "JWTSVIDResponse": ("repeated JWTSVID svids = 1",),
    "JWTSVID": ("string spiffe_id = 1", "string svid = 2", "string hint = 3"),
    "JWTBundlesRequest": (),
    "JWTBundlesResponse": ("map<string, bytes> bundles = 1",),
    "ValidateJWTSVIDRequest": ("string audience = 1", "string svid = 2"),
    "ValidateJWTSVIDResponse": ("string spiffe_id = 1", "google.protobuf.Struct claims = 2"),
}
_RPC: _Messages = {"Status": ("int32 code = 1", "string message = 2")}
_CORE: _Messages = {
    "DataSource": ("bytes inline_bytes = 2",),
    "HeaderValue": ("string key = 1", "string value = 2"),
    "HeaderValueOption": ("HeaderValue header = 1",),
    "TypedExtensionConfig": ("string name = 1", "google.protobuf.Any typed_config = 2"),
}
_DISCOVERY: _Messages = {
    "DiscoveryRequest": (
        "string version_info = 1",
        "repeated string resource_names = 3",
        "string type_url = 4",
        "string response_nonce = 5",
        "google.rpc.Status error_detail = 6",
    ),
    "DiscoveryResponse": (
        "string version_info = 1",
        "repeated google.protobuf.Any resources = 2",
        "string type_url = 4",
        "string nonce = 5",
    ),
}
_TLS: _Messages = {
    "Secret": (
        "string name = 1",
        "TlsCertificate tls_certificate = 2",
        "CertificateValidationContext validation_context = 4",
    ),
    "TlsCertificate": (
        "envoy.config.core.v3.DataSource certificate_chain = 1",
        "envoy.config.core.v3.DataSource private_key = 2",
    ),
    "CertificateValidationContext": (
        "envoy.config.core.v3.DataSource trusted_ca = 1",
        "envoy.config.core.v3.TypedExtensionConfig custom_validator_config = 12",
    ),
    "SPIFFECertValidatorConfig": ("repeated TrustDomain trust_domains = 1",),
    "TrustDomain": ("string name = 1", "envoy.config.core.v3.DataSource trust_bundle = 2"),
}
_AUTH: _Messages = {
    "CheckRequest": ("AttributeContext attributes = 1",),
    "AttributeContext": ("Peer source = 1", "Request request = 4"),
    "Peer": ("string principal = 4",),
    "Request": ("HttpRequest http = 2",),
    "HttpRequest": (
        "string method = 2",
        "string path = 4",
        "string host = 5",
        "string scheme = 6",
    ),
    "CheckResponse": (
        "google.rpc.Status status = 1",
        "DeniedHttpResponse denied_response = 2",
        "OkHttpResponse ok_response = 3",
    ),
    "DeniedHttpResponse": (
        "HttpStatus status = 1",
        "repeated envoy.config.core.v3.HeaderValueOption headers = 2",
        "string body = 3",
    ),
    "OkHttpResponse": ("repeated envoy.config.core.v3.HeaderValueOption headers = 2",),
    "HttpStatus": ("int32 code = 1",),  # of package envoy.type.v3, an enum: the same on the wire
}
_PACKAGES: dict[str, _Messages] = {
    "": _WORKLOAD,
    "google.rpc": _RPC,
    "envoy.config.core.v3": _CORE,
    "envoy.service.discovery.v3": _DISCOVERY,
    "envoy.extensions.transport_sockets.tls.v3": _TLS,
    "envoy.service.auth.v3": _AUTH,
}


def _field(message: descriptor_pb2.DescriptorProto, line: str, package: str, within: str) -> None:
    """Add the field that `line` declares, as a .proto file would have it."""
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError(f"{line!r} is no field")
    repeated, kind, name, number = found.groups()
    field = message.field.add(name=name, number=int(number))
    many = repeated or "map<" in line
    field.label = field.LABEL_REPEATED if many else field.LABEL_OPTIONAL
    if "map<" in line:
        kind = _entry(message, name, kind, within)
    elif kind not in _SCALARS and "." not in kind:
        kind = ".".join(each for each in ("", package, kind) if each or not package)
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type, field.type_name = field.TYPE_MESSAGE, "." + kind.lstrip(".")


def _entry(message: descriptor_pb2.DescriptorProto, name: str, kind: str, within: str) -> str:
    """Add the message that a map is on the wire; return its name."""
    words = "".join(word.capitalize() for word in name.split("_"))
    entry = message.nested_type.add(name=f"{words}Entry")
    entry.options.map_entry = True
    _field(entry, "string key = 1", "", "")
    _field(entry, f"{kind} value = 2", "", "")
    return f"{within}.{message.name}.{entry.name}"


def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    for each in _WELL_KNOWN:
        pool.AddSerializedFile(each.DESCRIPTOR.serialized_pb)
    for package, messages in _PACKAGES.items():
        file = descriptor_pb2.FileDescriptorProto(
            name=f"{package or 'workload'}.proto", package=package, syntax="proto3"
        )
        file.dependency.extend(each.DESCRIPTOR.name for each in _WELL_KNOWN)
        before = list(_PACKAGES)[: list(_PACKAGES).index(package)]
        file.dependency.extend(f"{each or 'workload'}.proto" for each in before)
        for name, lines in messages.items():
            message = file.message_type.add(name=name)
            for line in lines:
                _field(message, line, package, package)
        pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _pool()


def _message(name: str) -> Message:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))


X509SVIDRequest = _message("X509SVIDRequest")
X509SVIDResponse = _message("X509SVIDResponse")
X509SVID = _message("X509SVID")
X509BundlesRequest = _message("X509BundlesRequest")
X509BundlesResponse = _message("X509BundlesResponse")
JWTSVIDRequest = _message("JWTSVIDRequest")
JWTSVIDResponse = _message("JWTSVIDResponse")
JWTSVID = _message("JWTSVID")
JWTBundlesRequest = _message("JWTBundlesRequest")
JWTBundlesResponse = _message("JWTBundlesResponse")
ValidateJWTSVIDRequest = _message("ValidateJWTSVIDRequest")
ValidateJWTSVIDResponse = _message("ValidateJWTSVIDResponse")
Status = _message("google.rpc.Status")
Any_ = _message("google.protobuf.Any")
DataSource = _message("envoy.config.core.v3.DataSource")
HeaderValue = _message("envoy.config.core.v3.HeaderValue")
TypedExtensionConfig = _message("envoy.config.core.v3.TypedExtensionConfig")
DiscoveryRequest = _message("envoy.service.discovery.v3.DiscoveryRequest")
DiscoveryResponse = _message("envoy.service.discovery.v3.DiscoveryResponse")
Secret = _message("envoy.extensions.transport_sockets.tls.v3.Secret")
TlsCertificate = _message("envoy.extensions.transport_sockets.tls.v3.TlsCertificate")
ValidationContext = _message(
    "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext"
)
ValidatorConfig = _message("envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig")
CheckRequest = _message("envoy.service.auth.v3.CheckRequest")
CheckResponse = _message("envoy.service.auth.v3.CheckResponse")
