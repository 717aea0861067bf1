# The appliance as an image: a user of its own, no build tools, a root file system that may be
# read-only.  State is a volume, rules are mounted.  docs/deployment.md says how it is run.
#
#   BASE is any image with Python 3.12 or later as `python3`, with its venv module, and useradd.
#   pip takes packages from wherever it is configured to; requirements.lock holds their hashes.

ARG BASE=python:3.13-slim

FROM ${BASE} AS build
WORKDIR /source
COPY requirements.lock ./
RUN python3 -m venv /usr/lib/sallyport \
 && /usr/lib/sallyport/bin/pip install --no-cache-dir --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY certs certs
COPY rules rules
COPY proxy proxy
# What built it goes again: the lock file holds hatchling and its own needs beside ours.
RUN /usr/lib/sallyport/bin/pip install --no-index --no-deps --no-build-isolation . \
 && /usr/lib/sallyport/bin/pip uninstall --yes --quiet \
      editables hatchling packaging pathspec pluggy trove-classifiers pip \
 && /usr/lib/sallyport/bin/sallyport --version

FROM ${BASE}
RUN useradd --system --uid 10053 --user-group --home-dir /var/lib/sallyport --no-create-home \
      --shell /usr/sbin/nologin sallyport \
 && install -d -m 0700 -o sallyport -g sallyport /var/lib/sallyport \
 && install -d -m 0755 /etc/sallyport/rules \
 && rm -rf /usr/local/lib/python3*/ensurepip /usr/local/lib/python3*/site-packages/pip \
      /usr/local/lib/python3*/site-packages/pip-*.dist-info /usr/local/bin/pip*
COPY --from=build /usr/lib/sallyport /usr/lib/sallyport
COPY docs/examples/container/sallyport.yaml /etc/sallyport/sallyport.yaml
ENV PATH=/usr/lib/sallyport/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1
USER 10053:10053
VOLUME /var/lib/sallyport
EXPOSE 3128 8443
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=3s --start-period=10s CMD ["python", "-I", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 9153, timeout=2); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["sallyport"]
CMD ["up", "--system", "--json"]
