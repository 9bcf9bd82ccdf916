-- One request for wrk, taken from the environment: method, headers (one per line) and a body in which
-- {n} becomes a number of its own per request. Ends with one line of JSON for load.py.
wrk.method = os.getenv("BENCH_METHOD")
for name, value in os.getenv("BENCH_HEADERS"):gmatch("([^:\n]+): ([^\n]*)") do
  wrk.headers[name] = value
end

local head, tail = os.getenv("BENCH_BODY"):match("^(.-){n}(.*)$")
if head then
  local n = 0
  request = function()
    n = n + 1
    return wrk.format(nil, nil, nil, head .. n .. tail)
  end
elseif os.getenv("BENCH_BODY") ~= "" then
  wrk.body = os.getenv("BENCH_BODY")
end

done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\nBENCH {"requests":%d,"seconds":%.6f,"bytes":%d,"bad_statuses":%d,"socket_errors":%d,"p50_ms":%.3f,"p99_ms":%.3f}\n',
    summary.requests, summary.duration / 1e6, summary.bytes, e.status,
    e.connect + e.read + e.write + e.timeout, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
