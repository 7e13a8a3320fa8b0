#!/bin/sh
# Follow a job with curl alone: an ETag, a long poll, and server-sent events.
#
#     TIDINGS_TOKEN=… ./poll.sh [URL]        URL: else TIDINGS_URL, else http://127.0.0.1:8000
set -eu
url=${1:-${TIDINGS_URL:-http://127.0.0.1:8000}}
: "${TIDINGS_TOKEN:?set it to a token, such as tidings dev prints}"

call() { curl --silent --show-error --fail-with-body --header "Authorization: Bearer $TIDINGS_TOKEN" "$@"; }
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }

answer=$(call --json '{"type":"demo.steps","input":{"steps":10,"delay_ms":300}}' "$url/api/jobs")
job=$(echo "$answer" | field id)
echo "job $job"

echo "-- long poll: each answer comes when there is something new, at the latest after 20 s"
position=0
page=""
until expr "$page" : '.*"done":true' >/dev/null; do
  page=$(call "$url/api/jobs/$job/events?after=$position&wait=20")
  position=$(echo "$page" | field position)
  echo "at $position"
done

echo "-- status, then again with its ETag: 304 as long as nothing has changed, which in an ended job nothing does"
headers=$(call --dump-header - --output /dev/null "$url/api/jobs/$job/status")
etag=$(echo "$headers" | tr -d '\r' | sed -n 's/^[Ee][Tt]ag: //p')
call --output /dev/null --write-out '%{http_code}\n' --header "If-None-Match: $etag" "$url/api/jobs/$job/status"

echo "-- server-sent events, from the first to the last; to resume, send Last-Event-ID"
call --no-buffer --header 'Accept: text/event-stream' "$url/api/jobs/$job/events?after=0"
