#!/bin/sh
# Attest, send a gated request, and exchange, with curl and openssl alone.
#
#   attest.sh PLACE [PROXY URL [AUDIENCE SCOPE]]
#
# PLACE is the DNS-over-HTTPS listener, such as 127.0.0.1:8443; PROXY is listen.proxy_tls, such as
# 127.0.0.1:3129.  In the folder are svid.pem and svid.key, which `sallyport enroll` wrote, and
# ca.pem, which `sallyport ca export` printed.
set -eu
umask 077
place=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

ask() { # ask PATH CURL-OPTION... : the answer; ends with the reason where we are refused
  path=$1
  shift
  curl --silent --show-error --fail-with-body --noproxy '*' --max-time 20 \
    --cacert ca.pem --cert svid.pem --key svid.key "$@" "https://$place$path"
}
member() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p"; }
b64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }

# 1. A nonce: good once, for a minute.
ask /attest/nonce --json '{}' > "$work/asked" || { cat "$work/asked" >&2; exit 1; }
nonce=$(member nonce < "$work/asked")

# 2. What is signed: a name, the nonce, a one, the digest of our TLS key, and 32 zeros.
#    It is made here, so that nobody has us sign for a key that is not ours.
[ -f attester.key ] ||
  openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out attester.key
{
  printf 'sallyport-attestation-1\000'
  printf '%s=' "$nonce" | tr '_-' '/+' | openssl base64 -d -A
  printf '\001'
  openssl x509 -in svid.pem -noout -pubkey | openssl pkey -pubin -outform DER |
    openssl dgst -sha256 -binary
  head -c 32 /dev/zero
} > "$work/message"
signature=$(openssl dgst -sha256 -sign attester.key "$work/message" | b64url)
key=$(openssl pkey -in attester.key -pubout -outform DER | b64url)

# 3. The evidence, and the result.
evidence="{\"nonce\":\"$nonce\",\"evidence\":\"software\",\"key\":\"$key\""
ask /attest --json "$evidence,\"signature\":\"$signature\"}" > "$work/result" ||
  { cat "$work/result" >&2; exit 1; }
member token < "$work/result" | tr -d '\n' > "$work/token"
echo "attested: $(member level < "$work/result")" >&2

# 4. A request that asks for an attestation: the certificate is enough.
if [ $# -ge 3 ]; then
  curl --silent --show-error --fail-with-body --max-time 20 --proxy "https://$2" \
    --proxy-cacert ca.pem --proxy-cert svid.pem --proxy-key svid.key "$3"
fi

# 5. A capability token, for one audience.  The token comes from a file: others can read
#    command lines.
if [ $# -ge 5 ]; then
  ask /token --data-urlencode "audience=$4" --data-urlencode "scope=$5" \
    --data grant_type=urn:ietf:params:oauth:grant-type:token-exchange \
    --data subject_token_type=urn:ietf:params:oauth:token-type:jwt \
    --data-urlencode "subject_token@$work/token" > "$work/capability" ||
    { cat "$work/capability" >&2; exit 1; }
  member access_token < "$work/capability"
fi
