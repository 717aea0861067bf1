"""What stands on the far side of the test internet: addresses, zones, server configurations."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.authority import PrivateAuthority

AGENT_LINK, FAR_LINK = "up0", "down0"
AGENT_ADDRESSES = ("198.18.0.2/30", "2001:db8:18::2/64")
FAR_ADDRESSES = ("198.18.0.1/30", "2001:db8:18::1/64")

QUAD9 = ("9.9.9.9", "149.112.112.112")
COM, ORG, NET = "93.184.215.14", "23.215.0.136", "93.184.216.34"
COM6 = "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
ADDRESSES = (*(f"{address}/32" for address in (*QUAD9, COM, ORG, NET)), f"{COM6}/128")

NSD_PORT = 5353
LISTENERS = (
    ("127.0.0.1", NSD_PORT),
    *((address, port) for address in QUAD9 for port in (53, 853)),
    (COM, 80),
    (COM, 443),
)
WEB_NAMES = (
    *("example.com", "www.example.com", "git.example.com", "api.example.com"),
    *("example.org", "example.net", "denied.example.net"),
)
BIG_OCTETS = 1 << 20

ZONES = {
    ".": "ns A 198.18.0.1",
    "example.com": f"""
        @ A {COM}
        @ AAAA {COM6}
        @ TXT "v=spf1 -all"
        @ MX 10 mail
        @ HTTPS 1 . alpn=h2,h3
        www A {COM}
        git A {COM}
        api A {COM}
        mail A {COM}
        alias CNAME www
        alias-to-banned CNAME banned.example.org.
        private A 10.0.0.1
        mapped AAAA ::ffff:169.254.169.254
        metadata A 169.254.169.254
        loopback A 127.0.0.1
        large TXT {" ".join(f'"{n:03}{"x" * 200}"' for n in range(12))}
        """,
    "example.org": f"@ A {ORG}\nwww A {ORG}\nbanned A {ORG}",
    "example.net": f'@ A {NET}\n* A {NET}\n* TXT "any"',
}


def zone_text(origin: str, records: str) -> str:
    """Return a zone file: SOA and NS, then a record a line."""
    lines = [f"$ORIGIN {origin.rstrip('.')}.", "$TTL 300"]
    lines += ["@ SOA ns.example.com. hostmaster.example.com. 1 3600 600 86400 60"]
    lines += ["@ NS ns.example.com." if origin != "." else "@ NS ns.", *records.splitlines()]
    return "\n".join(line.strip() for line in lines if line.strip()) + "\n"


def write(folder: Path, authority: PrivateAuthority) -> None:
    """Write every configuration and file that the servers need."""
    folder.mkdir(parents=True)
    for origin, records in ZONES.items():
        (folder / f"zone.{origin.strip('.') or 'root'}").write_text(zone_text(origin, records))
    (folder / "nsd.conf").write_text(nsd(folder))
    (folder / "unbound.conf").write_text(
        unbound(folder, *authority.issue(["dns.quad9.net", *QUAD9]))
    )
    (folder / "nginx.conf").write_text(nginx(folder, *authority.issue(WEB_NAMES)))
    write_files(folder / "www")


def write_files(www: Path) -> None:
    """Lay out the web space: two pages, a folder, a large file, a git repository."""
    (www / "files" / "inner").mkdir(parents=True)
    (www / "index.html").write_text("<h1>An example</h1>\n")
    (www / "files" / "one.txt").write_text("one\n")
    (www / "files" / "inner" / "two.txt").write_text("two\n")
    (www / "big").write_bytes(os.urandom(BIG_OCTETS))
    bare = www / "repos" / "project.git"
    git = [shutil.which("git") or "git", "-c", "init.defaultBranch=main"]
    subprocess.run([*git, "init", "--quiet", "--bare", bare], check=True, capture_output=True)
    subprocess.run([*git, "-C", bare, "config", "http.receivepack", "true"], check=True)


def servers(folder: Path) -> list[list[str | Path]]:
    """Return the argument vectors of the servers, in the order in which they start."""
    return [
        ["nsd", "-d", "-c", folder / "nsd.conf"],
        ["unbound", "-d", "-p", "-c", folder / "unbound.conf"],
        ["fcgiwrap", "-c", "2", "-s", f"unix:{folder}/fcgi.sock"],
        ["nginx", "-e", folder / "nginx.error", "-c", folder / "nginx.conf"],
    ]


def nsd(folder: Path) -> str:
    """Return NSD's configuration: authoritative, on loopback only."""
    zones = "".join(
        f'zone:\n  name: "{origin}"\n  zonefile: "zone.{origin.strip(".") or "root"}"\n'
        for origin in ZONES
    )
    return f"""
server:
  ip-address: 127.0.0.1@{NSD_PORT}
  username: ""
  chroot: ""
  zonesdir: "{folder}"
  database: ""
  pidfile: "{folder}/nsd.pid"
  xfrdfile: "{folder}/xfrd.state"
  zonelistfile: "{folder}/zone.list"
  rrl-ratelimit: 0
remote-control:
  control-enable: no
{zones}"""


def unbound(folder: Path, chain: Path, key: Path) -> str:
    """Return Unbound's configuration: the default upstreams of the appliance, over NSD."""
    listen = "".join(f"  interface: {a}@53\n  interface: {a}@853\n" for a in QUAD9)
    return f"""
server:
{listen}
  tls-port: 853
  tls-service-key: "{key}"
  tls-service-pem: "{chain}"
  access-control: 0.0.0.0/0 allow
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: ""
  use-syslog: no
  log-queries: yes
  module-config: "iterator"
  do-not-query-localhost: no
  do-ip6: no
  num-threads: 1
stub-zone:
  name: "."
  stub-addr: 127.0.0.1@{NSD_PORT}
"""


def nginx(folder: Path, chain: Path, key: Path) -> str:
    """Return nginx's configuration: one site for every name, on every address."""
    return f"""
daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.error;
events {{ worker_connections 512; }}
http {{
  types {{ text/html html; text/plain txt; }}
  default_type application/octet-stream;
  log_format short '$scheme $host $request_method $request_uri $status';
  access_log {folder}/access.log short;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 16m;
  server {{
    listen 80;
    listen [::]:80;
    listen 443 ssl;
    listen [::]:443 ssl;
    ssl_certificate {chain};
    ssl_certificate_key {key};
    root {folder}/www;
    location /files/ {{ autoindex on; }}
    location = /echo {{ return 200 "$request_method $host $request_uri\\n"; }}
    location ~ ^/git/(.*)$ {{
      gzip off;
      fastcgi_param SCRIPT_FILENAME /usr/lib/git-core/git-http-backend;
      fastcgi_param GIT_PROJECT_ROOT {folder}/www/repos;
      fastcgi_param GIT_HTTP_EXPORT_ALL 1;
      fastcgi_param PATH_INFO /$1;
      fastcgi_param QUERY_STRING $query_string;
      fastcgi_param REQUEST_METHOD $request_method;
      fastcgi_param CONTENT_TYPE $content_type;
      fastcgi_param CONTENT_LENGTH $content_length;
      fastcgi_param HTTP_CONTENT_ENCODING $http_content_encoding;
      fastcgi_param GIT_PROTOCOL $http_git_protocol;
      fastcgi_param REMOTE_USER agent;
      fastcgi_param REMOTE_ADDR $remote_addr;
      fastcgi_pass unix:{folder}/fcgi.sock;
    }}
  }}
}}
"""
