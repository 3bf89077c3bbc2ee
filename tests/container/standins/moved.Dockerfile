# The product's image with a wall clock that a test moves: libfaketime, loaded by LD_PRELOAD, reads the offset from a
# file at each call. The image that is shipped has nothing of it.
FROM python:3.13-slim AS faketime
RUN apt-get update \
    && apt-get install -y --no-install-recommends libfaketime \
    && cp "$(dpkg -L libfaketime | grep 'libfaketime\.so\.1$')" /usr/local/lib/faketime.so

FROM localhost/netraven-keys:ci
COPY --from=faketime /usr/local/lib/faketime.so /usr/local/lib/faketime.so
ENV LD_PRELOAD=/usr/local/lib/faketime.so \
    FAKETIME_TIMESTAMP_FILE=/clock/offset \
    FAKETIME_NO_CACHE=1 \
    FAKETIME_DONT_RESET=1 \
    DONT_FAKE_MONOTONIC=1 \
    NO_FAKE_STAT=1
