"""Every bound of the appliance: a name, a default and the precedent for it.

Each may be set under `limits:` in sallyport.yaml.  Durations are seconds, sizes octets.
What happens at each bound is said where it is enforced, and counted in a metric.
"""

from msgspec import Struct


class Limits(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Defaults fit a desktop with a handful of agents; each says where its size comes from."""

    # Do53, serving
    dns_udp_in_flight: int = 4096  # per listener; Unbound num-queries-per-thread 1024 to 4096
    dns_udp_wait_s: float = 0.005  # in the kernel's queue, of an overload; RFC 8289, section 4.3
    dns_udp_burst_s: float = 0.5  # of waiting so long before it is one; CoDel's interval 0.1
    dns_udp_queue_octets: int = 1048576  # 1365 queries: 9 ms of hits; Unbound so-rcvbuf up to 4m
    dns_tcp_connections: int = (
        512  # per listener; BIND tcp-clients 150, dnsdist maxTCPClientThreads
    )
    dns_tcp_connections_per_app: int = 256  # half of them: no app holds the door shut for others
    dns_tcp_in_flight: int = 64  # per connection; RFC 7766, section 6.2.1.1; BIND tcp-pipelined
    dns_tcp_idle_s: float = 10.0  # RFC 7766, section 6.2.3: "of the order of a few seconds"
    dns_udp_octets: int = 1232  # DNS flag day 2020
    # TLS, serving
    tls_handshakes: int = 256  # under way per listener; Envoy and nginx set none, Linux SYN 128
    tls_handshake_s: float = 10.0  # Go net/http TLSHandshakeTimeout 10, nginx 60
    # DoH, serving; connections are counted as those of Do53 over TCP
    doh_streams: int = 128  # at once on a connection; nginx http2_max_concurrent_streams 128
    doh_head_octets: int = (
        8192  # of a header block, and of its fields; nginx 4 x 8 KiB, Node 16 KiB
    )
    doh_body_octets: int = 65535  # RFC 1035, section 4.2.2: the longest message
    doh_known_heads: int = 1024  # header blocks remembered of each app; as known_queries
    doh_control_frames: int = 1000  # at once, without a request; nghttp2 stream reset burst 1000
    doh_control_frames_a_second: int = 33  # nghttp2 stream reset rate 33 (CVE-2023-44487)
    doh_unsent_octets: int = 262144  # that the client's windows hold back; then streams are refused
    doh_idle_s: float = 30.0  # without a whole request; dnsdist idleTimeout 30
    # Do53, asking
    upstream_timeout_s: float = 5.0  # RFC 1123 resolvers, BIND resolver-query-timeout 10
    upstream_try_s: float = 1.5  # Unbound's first RTT estimate is 376 ms, its cap far higher
    upstream_hedge_s: float = 0.3  # a second upstream is asked after this; BIND's old RTT band
    upstream_in_flight: int = 1024  # BIND recursive-clients 1000
    upstream_mismatches: int = 64  # of one query or stream, then TCP; PowerDNS spoof-nearmiss-max 1
    upstream_tcp_idle_s: float = 20.0  # RFC 7858, section 3.4; Unbound tcp-reuse-timeout 60
    upstream_tcp_pipeline: int = 100  # Unbound max-reuse-tcp-queries 200
    upstream_failures: int = 5  # in a row, then it is passed over; Envoy consecutive_5xx 5
    upstream_open_s: float = 1.0  # until its first trial; gRPC connection back-off 1
    upstream_open_most_s: float = 60.0  # doubled up to this; gRPC 120, Unbound probes each 120
    # caches, per app
    cache_entries: int = 4096  # dnsmasq cache-size 150, systemd-resolved 4096
    known_queries: int = 1024  # queries remembered by their octets; nscd keeps 211 to 1000 hosts
    cache_ttl_s: int = 3600  # Unbound cache-max-ttl 86400; shorter, so that pins stay fresh
    negative_ttl_s: int = 900  # RFC 2308, section 5: one to three hours at most; dnsdist 3600
    pins: int = 4096  # one per cached address answer
    pin_s: int = 60  # the least life of a pin; Chrome's host cache keeps for 60
    chain_links: int = 11  # Unbound max-query-restarts 11
    answer_records: int = 256  # records of one answer that are walked; 64 KiB holds no more A's
    # the proxy
    proxy_connections: int = 4096  # per listener; Squid's fd bound, HAProxy maxconn 4096
    proxy_connections_per_app: int = 2048  # half a listener, so that no app shuts out the others
    head_octets: int = 65536  # Squid request_header_max_size 64 KB, nginx 4 x 8 KiB
    head_fields: int = 128  # Apache LimitRequestFields 100, Envoy max_headers_count 100
    head_s: float = 20.0  # Apache RequestReadTimeout header=20-40
    keep_alive_s: float = 60.0  # nginx keepalive_timeout 75
    requests_in_body_s: float = 300.0  # no octet of a body for that long; Squid read_timeout 15 min
    chunk_line_octets: int = 256  # h11 and httptools take far more; extensions are refused
    connect_s: float = 10.0  # Envoy connect_timeout 5, Squid connect_timeout 60
    connect_stagger_s: float = 0.25  # RFC 8305, section 5
    connect_addresses: int = 8  # addresses tried for one connection; curl tries all
    hello_octets: int = 65536  # RFC 8446, section 4.1.2 sets none; post-quantum hellos reach 2 KiB
    hello_s: float = 15.0  # nginx preread_timeout 30
    tunnel_idle_s: float = 3600.0  # Envoy idle_timeout 1 h
    tunnel_life_s: float = 86400.0  # Squid client_lifetime 1 day
    tunnel_half_closed_s: float = 300.0  # HAProxy timeout tunnel/client-fin
    tunnel_buffer_octets: int = 262144  # per direction before reading stops; Envoy 1 MiB
    origin_pool: int = 256  # idle upstream connections over all principals
    origin_pool_per_origin: int = 16  # nginx keepalive 16 to 32
    identity_contexts: int = 32  # of TLS to origins, by certificate; 0.8 MB each; nginx caches none
    origin_idle_s: float = 30.0  # below the 60 s and more of usual origins
    origin_life_s: float = 3600.0  # nginx keepalive_time 1 h
    response_head_s: float = 300.0  # Squid read_timeout 15 min, nginx proxy_read_timeout 60
    interim_responses: int = 16  # 1xx before the final response; Go allows 5
    linger_s: float = 2.0  # reading on after a last response; nginx lingering_timeout 5
    known_heads: int = 1024  # heads of CONNECT read before, of 1 KiB at most; nscd keeps 211 hosts
    known_routes: int = 4096  # origins in use, over all apps; as many as `pins` of one app
    resolution_s: float = 1.0  # addresses just decided on are dialled again; below any pin's life
    credential_tries: int = 8  # refused ones of a connection before it ends; Apache has no bound
    proxy_tick_s: float = 0.5  # how late the limits of the proxy that are seconds may act
    # identity
    process_fds: int = 4096  # descriptors read while looking for the owner of a socket
    process_exe_octets: int = 268435456  # largest executable that is hashed: 256 MiB
    process_s: float = 0.5  # of such a look-up; accepting waits for it
    tokens: int = 1024  # remembered, valid or not; as many as apps_remembered
    token_ttl_s: float = 7776000.0  # 90 days unless asked; GitHub's tokens 30, GitLab's 365
    token_most_ttl_s: float = 31622400.0  # 366 days, as GitHub; GitLab 365
    token_grace_s: float = (
        600.0  # the old secret lives on after a rotation; Vault's is 0, AWS's 1 d
    )
    token_busy_s: float = 5.0  # waited for another writer of such a file; sqlite3's own timeout
    revocations_by_evidence: int = 2048  # certificates whose attesters changed; half, as others
    revocations: int = 4096  # at once; a bound of ours: each is an admin's act, 200 octets
    leases: int = 128  # sandboxes at once; kubelet maxPods 110
    # the issuer and who asks it
    workload_connections: int = 512  # dbus-daemon max_completed_connections 2048
    workload_connections_per_uid: int = 256  # dbus-daemon max_connections_per_user 256
    workload_ids: int = 32  # SPIFFE IDs of one app that are served; SPIRE sets no bound
    workload_look_s: float = 1.0  # between looks whether callers are what they were
    ext_authz_connections: int = 64  # Envoy opens one for each of its threads
    issuer_start_s: float = 20.0  # for what takes 0.5 s; systemd TimeoutStartSec 90
    issuer_answer_s: float = 10.0  # of a signature, when it runs; grpclib and SPIRE 30
    issuer_signatures: int = 64  # that wait for it; admin_connections is 64
    issuer_questions: int = 1024  # about evidence, that wait; each takes 0.3 ms, ext_authz_calls
    issuer_questions_per_app: int = 256  # a quarter of them; 0.1 s of its time
    issuer_questions_at_once: int = 4  # at the issuer: 7 ms at most; what workloads ask comes next
    agents: int = 4096  # in the table of who attests or sends heartbeats; as attestations
    agents_per_app: int = 2048  # half of them; as attestations_per_app
    agent_heartbeat_s: float = 30.0  # between two; kubelet renews its lease every 10
    agent_kept_s: float = 86400.0  # after the last word of one; Nomad node_gc_threshold 24 h
    issuer_restart_s: float = 1.0  # after its first end; gRPC connection back-off 1
    issuer_restart_most_s: float = 60.0  # doubled up to this; gRPC 120, Kubernetes 300
    # enrolment and revocation status, which the issuer serves
    join_token_ttl_s: float = 600.0  # SPIRE's join tokens 600
    join_token_most_ttl_s: float = 86400.0  # a token for one device, which is being set up
    enroll_connections: int = 64  # per listener; as admin_connections
    enroll_connection_s: float = 60.0  # all of it; nginx keepalive_timeout 75
    enroll_octets: int = 16384  # of a request's content; a CSR in base64 has 500, Boulder's 64 KiB
    enroll_peers: int = 1024  # addresses whose refusals are remembered; as apps_remembered
    enroll_refusals: int = 10  # of a peer at once; Let's Encrypt 5 failed validations an hour
    enroll_refusals_s: float = 6.0  # until a peer has one more; 10 a minute
    enroll_flows: int = 32  # device flows under way; each is a person at a browser
    enroll_flows_per_peer: int = 8  # a quarter of them
    enroll_flow_s: float = 900.0  # the longest; RFC 8628, section 3.2, has 1800 in its example
    enroll_slow_downs: int = 5  # of a device that asks too fast, then its flow is ended
    pki_connections: int = 256  # per listener; who verifies certificates asks for each
    outgoing_octets: int = 1048576  # of a provider's or bundle endpoint's answer; SPIRE sets none
    outgoing_s: float = 10.0  # of such a request; Go net/http's TLS handshake alone 10
    # the issuer's gRPC
    workload_streams: int = 64  # calls at once on a connection; h2 ends one with more than 100
    workload_message_octets: int = 65536  # of a request; gRPC takes 4 MiB, ours have 100 octets
    workload_control_frames: int = 1000  # at once, without a call; as doh_control_frames
    workload_control_frames_a_second: int = 33  # as doh_control_frames_a_second
    workload_unsent_octets: int = 262144  # that a client does not read; as doh_unsent_octets
    workload_idle_s: float = 600.0  # without a call; grpc-go's clients idle after 30 min
    svids: int = 1000  # issued to an app at once; SPIRE's server signs 500 a second for an agent
    svids_every_s: float = 0.2  # until one more; 200 workloads at 5 min take 1.4 a second
    issued_queue: int = 4096  # certificates not yet on disk, then none is issued
    ext_authz_calls: int = 1024  # Envoy's questions under way; its max_requests is 1024
    ext_authz_s: float = 1.0  # for an answer; Envoy's own timeout is 0.2 unless set
    certificates: int = 1024  # chains of clients, read and remembered; as many as tokens
    # the API at sallyport.internal
    agent_api_octets: int = 65535  # of content; as doh_body_octets, an EK's chain has 8 KiB
    agent_api_calls: int = 256  # under way; admin_connections 64, and an agent asks once in minutes
    agent_api_calls_per_app: int = 128  # half of them: no app holds the door shut for others
    agent_api_form_parameters: int = 32  # of a form; RFC 8693 knows 10, PHP max_input_vars 1000
    agent_api_s: float = 30.0  # for an answer; issuer_answer_s is 10 of it
    # attestation
    attestations: int = 4096  # results that stand; 1,000 agents with one a level
    attestations_per_app: int = 2048  # half of them: no app's share is another's
    attestations_replaced: int = 8  # of a binding, app and level; as nonces of a binding
    attestation_nonces: int = 4096  # outstanding; a minute of what `attestation_burst` gives
    attestation_nonces_per_app: int = 2048  # half of them; as attestations_per_app
    attestation_nonces_per_binding: int = 8  # as many attempts of one client at once
    attestation_nonce_s: float = 60.0  # RFC 8555's nonces live an hour, Keylime's quotes 60 s
    attestation_burst: int = 1000  # of an app at once, nonces and evidence each; as `svids`
    attestation_shares: int = 8  # one client has an eighth of its app's; as attestations_replaced
    attestation_every_s: float = 0.05  # until one more; 1,000 agents every 4 min are 4.2 a second
    attesters: int = 1024  # AKs that are enrolled; as many as tokens
    attesters_per_app: int = 512  # half of them
    attesters_per_tpm: int = 4  # AKs of one EK for an app; one in use, and those before it
    attester_challenges: int = 64  # of an enrolment, outstanding; as issuer_signatures
    attester_challenge_s: float = 300.0  # to activate a credential; SPIRE's tpm plugins set none
    attested_queue: int = 4096  # rows not yet on disk, then nothing is attested; as issued_queue
    # capability tokens
    capabilities: int = 4096  # not expired; four of each of 1,000 agents, 2 KiB each
    capabilities_per_app: int = 1024  # a quarter of them: no app's share is another's
    capabilities_per_binding: int = 128  # an eighth of an app's: one agent is not all of them
    capability_parties: int = 5  # of a chain: who is acted for, and four actors
    # the sinkhole
    sinkhole_connections: int = 64  # over its sockets; admin_connections 64
    sinkhole_connections_per_app: int = 32  # half of them: no app holds the door shut for others
    sinkhole_octets: int = 16384  # of a head or ClientHello; nginx large_client_header_buffers 8k
    sinkhole_s: float = 5.0  # for these to come; head_s 20, and who knocks here waits for nothing
    sinkhole_names: int = 256  # of an app, told our address lately; a quarter of refusals_per_app
    sinkhole_told_s: float = 60.0  # how lately; Chrome's host cache keeps for 60
    # registered secrets and canaries
    secrets: int = 256  # at once; GitHub Actions has 100 a repository
    secret_octets: int = 4096  # of one; an RSA key of 4096 bits as PEM has 3272, AWS takes 64 KiB
    # the tunnel detector; the sizes of its tables are its own (rules.detector)
    held_suffixes: int = 4096  # that are blocked, of all apps; as many as revocations
    # evidence
    audit_queue_octets: int = 16777216  # lines not yet on disk
    audit_quota_octets: int = 4194304  # per app and minute (reference.md)
    audit_reserve_octets: int = 65536  # freed when the disk is full, for the line that says so
    audit_folds: int = 8192  # open folds over all apps
    audit_target_characters: int = 2048  # of a target in a line; nginx NGX_MAX_ERROR_STR 2048
    refusals_per_app: int = 1024  # remembered for /why and _why
    refusals_a_second: int = 200  # beyond it an app's refusals fold by reason and rule
    refusal_samples: int = 5  # targets kept as samples in such a fold
    apps_remembered: int = 1024  # apps in each table per app; an installation has a handful
    # rules
    reload_look_s: float = 0.5  # between looks at the rule files; CoreDNS reload 30, kubelet 60
    reload_quiet_s: float = 0.2  # without a change before they are read; entr and watchexec 0.05
    reload_settle_s: float = 2.0  # of changes without a pause, then they are read all the same
    reload_s: float = 60.0  # of reading them; 100,000 rules take 4; systemd TimeoutStartSec 90
    admin_connections: int = 64  # scrapers and people; node_exporter web.max-requests 40
    admin_head_octets: int = 8192  # nginx large_client_header_buffers 8 KiB each
    control_connections: int = 16  # one admin's terminals and scripts; admin_connections is 64
    control_octets: int = 65536  # of a request's content there; a token's is below 200
    shutdown_s: float = 3.0  # of the 5 s that SIGTERM has: the rest is for a busy machine
