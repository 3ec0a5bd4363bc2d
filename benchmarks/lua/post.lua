-- SPDX-License-Identifier: Apache-2.0
-- Sends one body again and again; what it must not show on a command line comes in the environment.
wrk.method = os.getenv("BENCH_METHOD")
local file = os.getenv("BENCH_BODY")
if file and file ~= "" then
  local handle = assert(io.open(file, "rb"))
  wrk.body = handle:read("*a")
  handle:close()
  wrk.headers["Content-Type"] = os.getenv("BENCH_TYPE")
end
local name = os.getenv("BENCH_HEADER")
if name and name ~= "" then
  wrk.headers[name] = os.getenv("BENCH_SECRET")
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\nBENCH {"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, "refused": %d, "broken": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
